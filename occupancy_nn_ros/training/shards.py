# SPDX-License-Identifier: Apache-2.0
"""Training shards: keyframes of one drive each, as safetensors.

``simulated_shards`` makes them of worlds whose occupancy is known everywhere, ``label_bags`` of recordings.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.values import SEMANTIC_CLASSES, Float32Array, UInt8Array

FRAMES = 24
POINTS = 8192
DEPTH_STRIDE = 4
"""Pixels from one depth of the labels to the next, as of the finest depth that the network gives."""

FORMAT = "occupancy_nn_ros shard"
PARTIAL = ".partial"
IGNORED = 255
"""Label of points that teach nothing: deep inside solids, which no sensor can ever see, or fillers."""

OCCUPIED = 254
"""Label of points that are occupied by nobody knows what, as a range sensor tells."""

MOST_VIEWS = 8
"""Cameras that ``visible`` has bits for."""

FIELDS = ("images", "K", "T_map_cam", "T_map_base", "depth_m", "points_m", "edge_m", "labels")
POSES = ("K", "T_map_cam", "T_map_base", "edge_m")
MAY_BE_NAN = ("depth_m",)


@dataclass(frozen=True)
class Shard:
    """One drive.

    Attributes:
        images: (F, V, H, W, 3) uint8 RGB pinhole images.
        K: (V, 3, 3) float32.
        T_map_cam: (F, V, 4, 4) float32.
        T_map_base: (F, 4, 4) float32.
        depth_m: (F, V, H / 4, W / 4) float16 depth at the centres of cells of ``DEPTH_STRIDE`` pixels, 0 where far, NaN
            where not known.
        points_m: (F, P, 3) float32 in the map frame.
        edge_m: (F,) float32 edge of the cubes that the labels are about.
        labels: (F, P) uint8: 0 free, class id, ``OCCUPIED`` or ``IGNORED``.
        visible: (F, P) uint8, bit v set where camera v sees the point; None in shards that do not tell. For scoring:
            training weighs points by what the network itself makes of their visibility.
    """

    images: UInt8Array
    K: Float32Array
    T_map_cam: Float32Array
    T_map_base: Float32Array
    depth_m: np.ndarray
    points_m: Float32Array
    edge_m: Float32Array
    labels: UInt8Array
    visible: UInt8Array | None = None


def write_shard(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a shard of these arrays, named as in :class:`Shard`; under its name it is only ever complete.

    What killed processes left of it is removed. Of two that write the same shard one may fail, never the file.

    Raises:
        TrainingError: it cannot be written, as on a full disk.
    """
    partial = path.with_name(f"{path.stem}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path)
        save_file(arrays, str(partial), metadata={"format": FORMAT, **metadata})
        _settle(partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(f"cannot write shard {path}: {error}") from None


def _settle(path: Path) -> None:
    """Put the metadata, which the library writes in random order, in order: the same shard is the same bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))
        file.flush()
        os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file


def remove_partial(path: Path) -> None:
    """Remove what processes that were killed left of a file."""
    for old in path.parent.iterdir():
        if old.name.startswith(f"{path.stem}.") and old.suffix == PARTIAL and old.is_file():
            old.unlink(missing_ok=True)


def read_shard(path: Path) -> Shard:
    """Read a shard whole and check all of it.

    Raises:
        TrainingError: truncated, foreign, or with arrays that do not fit together.
    """
    arrays = _load(path, "np")
    _check_shapes(path, arrays)
    _check_values(path, arrays)
    return Shard(**arrays)


def open_shard(path: Path) -> Shard:
    """Open a shard whose arrays stay in the file until they are used, which takes a millisecond.

    Shapes, poses and intrinsics are checked; :func:`check_frame` checks the labels of a frame.

    Raises:
        TrainingError: truncated, foreign, or with arrays that do not fit together.
    """
    arrays = {name: tensor.numpy() for name, tensor in _load(path, "pt").items()}
    _check_shapes(path, arrays)
    _check_values(path, {name: arrays[name] for name in POSES})
    return Shard(**arrays)


def check_frame(path: Path, shard: Shard, frame: int) -> None:
    """Check what an opened shard holds for one frame.

    Raises:
        TrainingError: numbers that are not finite, or unknown labels.
    """
    _check_values(path, {name: getattr(shard, name)[frame] for name in ("depth_m", "points_m", "labels")})


def _load(path: Path, framework: str) -> dict[str, Any]:
    """The arrays of a shard's file; torch maps them (``pt``), numpy reads them (``np``)."""
    try:
        with safe_open(str(path), framework=framework) as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise TrainingError(f"{path} is not a training shard")
            optional = {"visible"} & set(file.keys())
            return {name: file.get_tensor(name) for name in (*FIELDS, *optional)}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read shard {path}: {error}") from None


def _check_shapes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    images, points = arrays["images"].shape, arrays["points_m"].shape
    if len(images) != 5 or images[0] < 2 or 0 in images or len(points) != 3:
        raise TrainingError(f"{path} has images {images} and points {points}, expected at least two frames of each")
    frames, views, height, width, _ = images
    expected = {
        "images": (frames, views, height, width, 3), "K": (views, 3, 3), "T_map_cam": (frames, views, 4, 4),
        "T_map_base": (frames, 4, 4), "depth_m": (frames, views, height // DEPTH_STRIDE, width // DEPTH_STRIDE),
        "points_m": (frames, points[1], 3), "edge_m": (frames,), "labels": (frames, points[1]),
        "visible": (frames, points[1]),
    }  # fmt: skip
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise TrainingError(f"{path}: {name} is {array.shape}, expected {expected[name]}")


def _check_values(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        broken = np.isinf(array) if name in MAY_BE_NAN else ~np.isfinite(array)
        if broken.any():
            raise TrainingError(f"{path}: {name} holds numbers that are not finite")
    labels = arrays.get("labels", np.zeros(0, np.uint8))
    if ((labels > len(SEMANTIC_CLASSES)) & (labels != OCCUPIED) & (labels != IGNORED)).any():
        raise TrainingError(f"{path}: labels name classes beyond {len(SEMANTIC_CLASSES)}")
