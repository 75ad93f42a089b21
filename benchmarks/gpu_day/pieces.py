# SPDX-License-Identifier: Apache-2.0
"""A training run in files small enough to be brought home, and back into a run that goes on.

If the whole state fits, the run goes on to the bit. If not, the network and its average travel as float16, and the optimizer
begins anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from occupancy_nn_ros.errors import TrainingError

PIECE_BYTES = 15 << 20
MOST_BYTES = 56 << 20
"""Of all pieces together."""

MANIFEST = "pieces.json"


def pack(run: Path, out: Path, name: str, limit: int = MOST_BYTES, piece: int = PIECE_BYTES) -> dict[str, Any]:
    """Split a run's state into pieces; returns what is written to ``pieces.json``.

    Args:
        run: folder of the run, with its ``state.pt``.
        out: folder for the pieces.
        name: of the model.
        limit: bytes of all pieces together.
        piece: bytes of each.
    """
    source, whole = run / "state.pt", True
    if source.stat().st_size > limit:
        source, whole = run / "state.half.pt", False
        state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
        small = {part: {k: v.half() for k, v in state[part].items()} for part in ("network", "average")}
        torch.save({"step": state["step"], "shards": state["shards"], **small}, source)
    for old in out.glob(f"{name}.state.*"):
        old.unlink()
    content = source.read_bytes()
    names = []
    for start in range(0, len(content), piece):
        names.append(f"{name}.state.{len(names):02d}")
        (out / names[-1]).write_bytes(content[start : start + piece])
    manifest = {
        "model": name, "whole": whole, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        "pieces": names,
    }  # fmt: skip
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
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
        for part in ("network", "average"):
            state[part] = {k: v.float() for k, v in state[part].items()}
        state["optimizer"] = None
        torch.save(state, path)
    return manifest
