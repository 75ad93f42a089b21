# SPDX-License-Identifier: Apache-2.0
"""Simulate many short drives through random worlds with random rigs, as training data.

Goes on where an interrupted run stopped. Needs MuJoCo: pip install 'occupancy-nn-ros[sim]'.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from occupancy_nn_ros.cli.settings import add_scale, progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards, about 12 MB each at scale 1")
    parser.add_argument("--count", type=int, default=400, help="number of drives (default: 400)")
    parser.add_argument(
        "--photos", action="store_true", help="photographic textures too; needs: pip install --no-deps robosuite"
    )
    parser.add_argument(
        "--furnished", action="store_true",
        help="every second drive in rooms of real furniture; needs: occupancy-nn assets",
    )  # fmt: skip
    add_scale(parser)
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="drives simulated at once (default: all cores)"
    )


def run(args: argparse.Namespace) -> int:
    """Make the shards."""
    from occupancy_nn_ros.training.shards import make_shards

    with progress_bar(quiet=False) as progress:
        task = progress.add_task("simulating drives", total=args.count)
        shards = make_shards(
            args.out, args.count, args.processes, photos=args.photos, furnished=args.furnished, scale=args.scale
        )
        for done in shards:
            progress.update(task, completed=done)
    print(f"{len(list(args.out.glob('*.safetensors')))} shards in {args.out}")
    return 0
