# SPDX-License-Identifier: Apache-2.0
"""A training run in files small enough to travel, and back into a run that goes on.

If the whole state fits, the run goes on to the bit. If not, the average travels as float16, and the run goes on from there with a new
optimizer.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.mapping.atomic_file import replace_file

PIECE_BYTES = 15 << 20
MOST_BYTES = 56 << 20
"""Of all pieces together."""

MANIFEST = "pieces.json"


def pack(run: Path, out: Path, name: str, limit: int = MOST_BYTES, piece: int = PIECE_BYTES) -> dict[str, Any]:
    """Split a run's state into pieces; returns what is written to ``pieces.json``.

    Pieces that were there before stay until the new ones are complete, so that there is a state to join at any moment.

    Args:
        run: folder of the run, with its ``state.pt``.
        out: folder for the pieces.
        name: of the model.
        limit: bytes of all pieces together, if the whole state is to travel; 0 for the average alone.
        piece: bytes of each.
    """
    out.mkdir(parents=True, exist_ok=True)
    source, whole = run / "state.pt", True
    if source.stat().st_size > limit:
        source, whole = run / "state.half.pt", False
        state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
        average = {key: value.half() for key, value in state["average"].items()}
        torch.save({"step": state["step"], "shards": state["shards"], "average": average}, source)
    content, old = source.read_bytes(), sorted(out.glob(f"{name}.state.*"))
    turn = "b" if old and old[0].name.startswith(f"{name}.state.a") else "a"
    names = []
    for start in range(0, len(content), piece):
        names.append(f"{name}.state.{turn}{len(names):02d}")
        (out / names[-1]).write_bytes(content[start : start + piece])
    manifest = {
        "model": name, "whole": whole, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        "pieces": names,
    }  # fmt: skip
    replace_file(out / MANIFEST, ((json.dumps(manifest, indent=1) + "\n").encode(),))
    for path in old:
        path.unlink()
    return manifest


def join(home: Path, run: Path) -> dict[str, Any]:
    """Put the pieces in a folder together as the state of a run; returns their manifest.

    Raises:
        TrainingError: a piece is missing, or they are not what was sent.
    """
    try:
        manifest: dict[str, Any] = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
        content = b"".join((home / Path(name).name).read_bytes() for name in manifest["pieces"])
        digest = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"cannot join the pieces in {home}: {error}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise TrainingError(f"the pieces in {home} have {len(content)} bytes of another content than was sent")
    run.mkdir(parents=True, exist_ok=True)
    path = run / "state.pt"
    path.write_bytes(content)
    if not manifest["whole"]:
        state = torch.load(path, map_location="cpu", weights_only=True)
        average = {key: value.float() for key, value in state["average"].items()}
        state |= {"network": average, "average": average, "optimizer": None}
        torch.save(state, path)
    return manifest
