# SPDX-License-Identifier: Apache-2.0
"""Import furniture and photographs that are installed on this machine, to train in rooms of real things.

Debian's packages bring them (CC0, CC BY 3.0; the program's own textures GPL or CC BY 3.0):

  apt install sweethome3d-furniture      # some 800 models: furniture, kitchens, offices, people, vehicles, plants
  apt install sweethome3d                # photographs of floors and walls
  occupancy-nn assets                    # imports both, some minutes; goes on where it was interrupted
  occupancy-nn shards --out data --photos --furnished

They stay in your cache folder and are no part of this project. One of five pieces, chosen by name, is kept for held-out
worlds. Whoever publishes pictures of them, or a model trained on them, credits their authors: --credits prints whom.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.cli.settings import progress_bar

if TYPE_CHECKING:
    from occupancy_nn_ros.simulation.assets import AssetRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "libraries", type=Path, nargs="*", metavar="LIBRARY",
        help=".sh3f, .sh3t or .jar files (default: those of the installed packages)",
    )  # fmt: skip
    parser.add_argument("--credits", action="store_true", help="import nothing; print authors and licences as Markdown")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def run(args: argparse.Namespace) -> int:
    """Import, and say what is there."""
    from occupancy_nn_ros.simulation.assets import assets_folder, read_index

    folder = assets_folder()
    refused = {} if args.credits else _import(args, folder)
    records = read_index(folder)
    if args.json:
        print(json.dumps({"folder": str(folder), "counts": _counts(records), "refused": refused}))
    elif args.credits:
        print(credits_text(records))
    else:
        for reason, count in Counter(reason.split(",")[0] for reason in refused.values()).most_common(5):
            print(f"left out {count}, such as: {reason}")
        print(f"{folder}:")
        for what, count in _counts(records).items():
            print(f"  {what:24} {count}")
        print(credits_text(records))
    return 0 if records else 1


def _import(args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Import libraries; returns the names of what was left out, with the reasons."""
    from occupancy_nn_ros.errors import SimulationError
    from occupancy_nn_ros.simulation.assets_import import find_libraries, import_libraries

    libraries = args.libraries or find_libraries()
    if not libraries:
        raise SimulationError("no libraries are installed: apt install sweethome3d-furniture, or name .sh3f files")
    refused = {}
    with progress_bar(quiet=args.json) as progress:
        task = progress.add_task("importing", total=None)
        for imported in import_libraries(libraries, folder):
            progress.update(task, description=imported.name)
            if imported.record is None:
                refused[imported.name] = imported.reason
    return refused


def _counts(records: tuple[AssetRecord, ...]) -> dict[str, int]:
    """Pieces by what they serve for, photographs, and how many of both are held out."""
    from occupancy_nn_ros.simulation.furniture import role_of

    roles = Counter(role_of(record) or "of no use" for record in records if record.kind == "model")
    photographs = sum(record.kind == "texture" for record in records)
    return {**dict(roles.most_common()), "photographs": photographs, "held out": sum(r.is_heldout for r in records)}


def credits_text(records: tuple[AssetRecord, ...]) -> str:
    """Authors by library and licence, with the number of their works, as a Markdown list."""
    works: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        works[record.library, record.license][record.creator] += 1
    return "\n".join(
        f"- {library} ({license_text}): "
        + ", ".join(f"{creator} ({count})" for creator, count in sorted(creators.items(), key=lambda item: -item[1]))
        for (library, license_text), creators in sorted(works.items())
    )
