# SPDX-License-Identifier: Apache-2.0
"""A map on disk: safetensors with a versioned header and a checksum, replaced only when complete."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from occupancy_nn_ros.errors import MapFileError
from occupancy_nn_ros.mapping.rolling_map import MAX_VOXELS, RollingMap

FORMAT, VERSION = "occupancy_nn_ros map", 1
FIELDS = ("log_odds", "seen_ms", "class_evidence")


def save_map(grid: RollingMap, path: Path, frame_id: str) -> None:
    """Write the map.

    Raises:
        MapFileError: the file cannot be written; an older one stays.
    """
    tensors = {name: getattr(grid, name).detach().cpu().contiguous() for name in FIELDS}
    window = grid.window
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "frame_id": frame_id,
        "window": json.dumps([window.voxel_size_m, window.origin, window.shape]),
        "checksum": _checksum(tensors),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(partial), metadata=header)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise MapFileError(f"cannot write map {path}: {error}") from None


def load_map(grid: RollingMap, path: Path) -> str:
    """Replace the map's content and place by a saved one; returns the frame it is in.

    Raises:
        MapFileError: missing, truncated, foreign, damaged, or of another voxel size or shape; the map stays as it was.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            edge, origin, shape = _check_header(path, header, grid)
            tensors = {name: file.get_tensor(name) for name in FIELDS}
    except (OSError, SafetensorError) as error:
        raise MapFileError(f"cannot read map {path}: {error}") from None
    if _checksum(tensors) != header["checksum"]:
        raise MapFileError(f"map {path} is damaged: its checksum does not fit")
    for name in FIELDS:
        if tensors[name].shape != getattr(grid, name).shape:
            raise MapFileError(f"map {path}: {name} is {tuple(tensors[name].shape)}, expected {tuple(getattr(grid, name).shape)}")
    grid.clear()
    grid.move_origin(origin)
    for name in FIELDS:
        getattr(grid, name).copy_(tensors[name])
    # Times in the file count from another start: what is loaded counts as seen now.
    grid.seen_ms.clamp_(max=0)
    return header["frame_id"]


def _check_header(path: Path, header: dict[str, str], grid: RollingMap) -> tuple[float, tuple[int, int, int], tuple[int, int, int]]:
    if header.get("format") != FORMAT or header.get("version") != str(VERSION):
        raise MapFileError(f"{path} says '{header.get('format')}' {header.get('version')}, expected '{FORMAT}' {VERSION}")
    try:
        edge, origin, shape = json.loads(header["window"])
        i, j, k = (int(v) for v in origin)
        x, y, z = (int(v) for v in shape)
    except (KeyError, ValueError, TypeError) as error:
        raise MapFileError(f"{path} has a damaged header: {error}") from None
    if "checksum" not in header or x * y * z > MAX_VOXELS:
        raise MapFileError(f"{path} has a damaged header: window {shape}")
    if abs(edge - grid.window.voxel_size_m) > 1e-9 or (x, y, z) != grid.window.shape:
        expected = f"{grid.window.shape} of {grid.window.voxel_size_m} m"
        raise MapFileError(f"{path} holds {(x, y, z)} voxels of {edge} m, this map has {expected}")
    return float(edge), (i, j, k), (x, y, z)


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in FIELDS:
        digest.update(np.ascontiguousarray(tensors[name].numpy()).data)
    return digest.hexdigest()


def read_map_frame(path: Path) -> str:
    """Name of the frame that a saved map is in.

    Raises:
        MapFileError: missing, truncated or foreign.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise MapFileError(f"cannot read map {path}: {error}") from None
    if header.get("format") != FORMAT or "frame_id" not in header:
        raise MapFileError(f"{path} says format '{header.get('format')}', expected '{FORMAT}'")
    return header["frame_id"]
