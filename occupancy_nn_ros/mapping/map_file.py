# SPDX-License-Identifier: Apache-2.0
"""A map on disk: safetensors with a versioned header and a checksum, replaced only when complete."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from occupancy_nn_ros.errors import MapFileError
from occupancy_nn_ros.mapping.atomic_file import replace_file
from occupancy_nn_ros.mapping.map_memory import MAX_VOXELS, NEVER
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage

FORMAT, VERSION = "occupancy_nn_ros map", 2
FIELDS = {"log_odds": torch.float32, "known": torch.bool, "class_evidence": torch.int16}
"""Tensors of a map file and their types: (X, Y, Z), (X, Y, Z) and (X, Y, Z, C), in window order."""

Header = tuple[float, tuple[int, int, int], tuple[int, int, int]]


def save_map(grid: VoxelStorage, path: Path, frame_id: str) -> None:
    """Write the map.

    Raises:
        MapFileError: the file cannot be written; an older one stays.
    """
    log_odds, seen_ms, evidence = grid.window_tensors()
    tensors = {"log_odds": log_odds.cpu(), "known": (seen_ms != NEVER).cpu(), "class_evidence": evidence.cpu()}
    window = grid.window
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "frame_id": frame_id,
        "window": json.dumps([window.voxel_size_m, window.origin, window.shape]),
    }
    header["checksum"] = _checksum(header, tensors)
    replace_file(path, (save(tensors, metadata=header),))


def load_map(grid: RollingMap, path: Path) -> str:
    """Replace the map's content and place by a saved one; returns the frame it is in.

    What is loaded counts as seen at the time of the map's newest data, however old the file is.

    Raises:
        MapFileError: missing, truncated, foreign, damaged, or of another voxel size or shape; the map stays as it was.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            _, origin, shape = _check_header(path, header, grid)
            if set(file.keys()) != set(FIELDS):
                raise MapFileError(f"map {path} holds {sorted(file.keys())}, expected {sorted(FIELDS)}")
            tensors = {name: file.get_tensor(name) for name in FIELDS}
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        raise MapFileError(f"cannot read map {path}: {error}") from None
    for name, tensor in tensors.items():
        expected = (*shape, grid.class_evidence.shape[-1]) if name == "class_evidence" else shape
        if tuple(tensor.shape) != expected or tensor.dtype != FIELDS[name]:
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise MapFileError(f"map {path}: {name} is {found}, expected {FIELDS[name]} {expected}")
    if _checksum(header, tensors) != header["checksum"]:
        raise MapFileError(f"map {path} is damaged: its checksum does not fit")
    if not bool(torch.isfinite(tensors["log_odds"]).all()):
        raise MapFileError(f"map {path} is damaged: log-odds that are not finite")
    grid.replace_content(origin, tensors["log_odds"], tensors["known"], tensors["class_evidence"])
    return header["frame_id"]


def _check_header(path: Path, header: dict[str, str], grid: VoxelStorage) -> Header:
    if header.get("format") != FORMAT or header.get("version") != str(VERSION):
        found = f"'{header.get('format')}' {header.get('version')}"
        raise MapFileError(f"{path} says {found}, expected '{FORMAT}' {VERSION}")
    try:
        edge, origin, shape = json.loads(header["window"])
        edge, (i, j, k), (x, y, z) = float(edge), (int(v) for v in origin), (int(v) for v in shape)
        complete = "checksum" in header and "frame_id" in header and max(abs(i), abs(j), abs(k)) < 2**52
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise MapFileError(f"{path} has a damaged header: {error}") from None
    if not complete or min(x, y, z) < 1 or x * y * z > MAX_VOXELS:
        raise MapFileError(f"{path} has a damaged header: window {shape} at {origin}")
    if not abs(edge - grid.window.voxel_size_m) <= 1e-9 or (x, y, z) != grid.window.shape:
        expected = f"{grid.window.shape} of {grid.window.voxel_size_m} m"
        raise MapFileError(f"{path} holds {(x, y, z)} voxels of {edge} m, this map has {expected}")
    return edge, (i, j, k), (x, y, z)


def _checksum(header: dict[str, str], tensors: dict[str, torch.Tensor]) -> str:
    """Over the header and the tensors: a flipped bit in either is found."""
    digest = hashlib.sha256()
    for name in ("format", "version", "frame_id", "window"):
        digest.update(f"{name}={header[name]}\n".encode())
    for name in FIELDS:
        digest.update(np.ascontiguousarray(tensors[name].numpy()).data)
    return digest.hexdigest()


def read_map_frame(path: Path) -> str:
    """Name of the frame that a saved map is in, without reading the map.

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
    return str(header["frame_id"])
