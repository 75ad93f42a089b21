# SPDX-License-Identifier: Apache-2.0
"""Shards once more in a layout that NumPy alone reads: ``dataset.json`` and one ``.npz`` file for each shard.

``dataset.json`` describes itself: arrays with their types, shapes, units and frames, labels, and every drive with its size.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError, safe_open

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.jobs.run import Report, WorkerPool, run_jobs
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED, PARTIAL, Shard, read_shard, remove_partial
from occupancy_nn_ros.values import SEMANTIC_CLASSES

VERSION = 1
"""Raised when a reader of the old layout would misread the new one."""

INDEX = "dataset.json"
FOLDER = "numpy"


@dataclass(frozen=True)
class ArraySpec:
    """What an array of a drive holds."""

    dtype: str
    shape: tuple[str, ...]
    unit: str
    meaning: str


F, V = "frames", "cameras"
ARRAYS = {
    "images": ArraySpec("uint8", (F, V, "height", "width", "3"), "sRGB", "pinhole pictures, red first"),
    "K": ArraySpec("float32", (V, "3", "3"), "pixels", "intrinsics; pixel centres lie at integers"),
    "T_map_cam": ArraySpec("float32", (F, V, "4", "4"), "m", "takes points of a camera (x right, y down, z ahead) to map"),
    "T_map_base": ArraySpec("float32", (F, "4", "4"), "m", "takes points of the base (x ahead, y left, z up) to map"),
    "depth_m": ArraySpec(
        "float16", (F, V, "height/4", "width/4"), "m", "z at pixel (4 u + 2, 4 v + 2); 0: far, NaN: not known"
    ),
    "points_m": ArraySpec("float32", (F, "points", "3"), "m", "centres of labelled cubes in map, less the drive's origin_m"),
    "edge_m": ArraySpec("float32", (F,), "m", "edge of the cubes, which are aligned with map"),
    "labels": ArraySpec("uint8", (F, "points"), "", "what a cube holds, see labels"),
    "visible": ArraySpec("uint8", (F, "points"), "bits", "bit v: camera v sees the cube; only of recordings"),
}  # fmt: skip

FRAMES = {
    "map": "gravity aligned, z up, metres; moved by origin_m of the drive, so that float32 is exact",
    "base": "the robot, REP 105: x ahead, y left, z up",
    "camera": "optical, REP 103: x right, y down, z ahead",
}
LABELS = {
    "0": "free",
    **{str(number): name for number, name in enumerate(SEMANTIC_CLASSES, 1)},
    str(OCCUPIED): "occupied by something of no known class",
    str(IGNORED): "to be left out",
}


@dataclass(frozen=True)
class _Job:
    """A shard, and where its arrays go."""

    shard: Path
    target: Path


def write_numpy_dataset(folder: Path, pool: WorkerPool, report: Report | None = None) -> dict[str, str]:
    """Bring ``dataset.json`` and ``numpy/`` beside the shards of a folder up to date.

    Files that are newer than their shard are kept, those whose shard is gone are removed.

    Args:
        folder: of the shards.
        pool: who converts them.
        report: told the finished share.

    Returns:
        The shards that could not be converted, with the reason; they are not in ``dataset.json``.

    Raises:
        TrainingError: ``dataset.json`` cannot be written.
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    shards = sorted(folder.absolute().glob("*.safetensors"))
    jobs = [_Job(shard, shard.parent / FOLDER / f"{shard.stem}.npz") for shard in shards]
    for path in set((folder.absolute() / FOLDER).glob("*.npz")) - {job.target for job in jobs}:
        path.unlink()
    old = [job for job in jobs if not _is_current(job)]
    failed = {
        old[outcome.index].shard.stem: outcome.failure
        for outcome in run_jobs(pool, _convert, old, report)
        if outcome.failure
    }
    _write_index(folder, [_describe(job) for job in jobs if job.shard.stem not in failed])
    return failed


def _is_current(job: _Job) -> bool:
    try:
        return job.target.stat().st_mtime_ns >= job.shard.stat().st_mtime_ns
    except OSError:
        return False


def _convert(job: _Job, report: Report) -> None:
    shard = read_shard(job.shard)
    arrays = {name: getattr(shard, name) for name in Shard.__dataclass_fields__ if getattr(shard, name) is not None}
    partial = job.target.with_name(f"{job.target.stem}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(job.target)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(job.target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {job.target}: {error}") from None


def _describe(job: _Job) -> dict[str, Any]:
    """A drive's entry: its file, sizes, where it comes from, and where its map frame was moved to."""
    try:
        with safe_open(str(job.shard), framework="np") as file:
            frames, cameras, height, width, _ = file.get_slice("images").get_shape()
            points = file.get_slice("points_m").get_shape()[1]
            source = {key: value for key, value in sorted(file.metadata().items()) if key not in ("format", "origin_m")}
            origin = file.metadata().get("origin_m", "[0 0 0]").strip("[]").split()
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read shard {job.shard}: {error}") from None
    return {
        "file": f"{FOLDER}/{job.target.name}",
        "frames": frames, "cameras": cameras, "height": height, "width": width, "points": points,
        "origin_m": [float(value) for value in origin],
        "source": source,
    }  # fmt: skip


def _write_index(folder: Path, drives: list[dict[str, Any]]) -> None:
    counts = {
        "drives": len(drives),
        "frames": sum(drive["frames"] for drive in drives),
        "pictures": sum(drive["frames"] * drive["cameras"] for drive in drives),
        "points": sum(drive["frames"] * drive["points"] for drive in drives),
    }
    index = {
        "format": "occupancy_nn_ros dataset", "version": VERSION, "counts": counts, "frames": FRAMES, "labels": LABELS,
        "arrays": {name: asdict(spec) for name, spec in ARRAYS.items()}, "drives": drives,
    }  # fmt: skip
    partial = folder / f"{INDEX}{PARTIAL}"
    try:
        partial.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / INDEX)
    except OSError as error:
        raise TrainingError(f"cannot write {folder / INDEX}: {error}") from None
