# SPDX-License-Identifier: Apache-2.0
"""A map on disk: safetensors with a versioned header and a checksum, replaced only when complete."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.errors import ConfigError, MapFileError
from occupancy_nn_ros.mapping.atomic_file import replace_file
from occupancy_nn_ros.mapping.map_memory import MAX_VOXELS, NEVER
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.voxel_storage import COLOR_STEPS, VoxelStorage

FORMAT, VERSION = "occupancy_nn_ros map", 2
FIELDS = {"log_odds": torch.float32, "known": torch.bool, "class_evidence": torch.int16}
"""Tensors of a map file and their types: (X, Y, Z), (X, Y, Z) and (X, Y, Z, C), in window order."""

COLORS = "colors"
"""A fourth one, int16 (X, Y, Z, 4), of a map that keeps colours."""

Header = tuple[float, tuple[int, int, int], tuple[int, int, int]]


def save_map(grid: RollingMap, path: Path, frame_id: str) -> None:
    """Write the map, without what cannot have been seen.

    Raises:
        MapFileError: the file cannot be written; an older one stays.
    """
    log_odds, seen_ms, evidence = grid.window_tensors()
    known = (seen_ms != NEVER).cpu() & ~torch.from_numpy(grid.unseen())
    tensors = {"log_odds": log_odds.cpu(), "known": known, "class_evidence": evidence.cpu()}
    if grid.colors is not None:
        tensors[COLORS] = grid.in_window_order(grid.colors).cpu()
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
            fields = FIELDS if COLORS not in file.keys() else {**FIELDS, COLORS: torch.int16}  # noqa: SIM118
            if set(file.keys()) != set(fields):
                raise MapFileError(f"map {path} holds {sorted(file.keys())}, expected {sorted(FIELDS)}")
            tensors = {name: file.get_tensor(name) for name in fields}
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        raise MapFileError(f"cannot read map {path}: {error}") from None
    for name, tensor in tensors.items():
        expected = (*shape, *{"class_evidence": (grid.class_evidence.shape[-1],), COLORS: (4,)}.get(name, ()))
        if tuple(tensor.shape) != expected or tensor.dtype != fields[name]:
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise MapFileError(f"map {path}: {name} is {found}, expected {fields[name]} {expected}")
    if _checksum(header, tensors) != header["checksum"]:
        raise MapFileError(f"map {path} is damaged: its checksum does not fit")
    if not bool(torch.isfinite(tensors["log_odds"]).all()):
        raise MapFileError(f"map {path} is damaged: log-odds that are not finite")
    colors = tensors.get(COLORS)
    if colors is not None and bool((colors < 0).any() | (colors[..., :3] > 255 * COLOR_STEPS).any()):
        raise MapFileError(f"map {path} is damaged: colours that are none")
    grid.replace_content(origin, tensors["log_odds"], tensors["known"], tensors["class_evidence"], colors)
    return header["frame_id"]


def read_map(path: Path) -> RollingMap:
    """A saved map by itself, with the settings' defaults for what a file does not tell.

    Raises:
        MapFileError: missing, truncated, foreign or damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise MapFileError(f"cannot read map {path}: {error}") from None
    edge, _, shape = _parse_header(path, header)
    classes = shapes.get("class_evidence", ())[3:]
    if len(classes) != 1 or any(
        found[:3] != shape for found in shapes.values()
    ):  # no memory for what is not in the file
        raise MapFileError(f"map {path} says {shape} voxels and holds {shapes}")
    try:
        grid = RollingMap(edge, shape, MapConfig(), num_classes=classes[0])
        if COLORS in shapes:
            grid.keep_colors()
    except ConfigError as error:
        raise MapFileError(f"{path}: {error}") from None
    load_map(grid, path)
    return grid


def is_map(path: Path) -> bool:
    """Whether a file is a saved map, damaged or not."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return bool((file.metadata() or {}).get("format") == FORMAT)
    except (OSError, SafetensorError):
        return False


def _check_header(path: Path, header: dict[str, str], grid: VoxelStorage) -> Header:
    edge, origin, shape = _parse_header(path, header)
    if not abs(edge - grid.window.voxel_size_m) <= 1e-9 or shape != grid.window.shape:
        expected = f"{grid.window.shape} of {grid.window.voxel_size_m} m"
        raise MapFileError(f"{path} holds {shape} voxels of {edge} m, this map has {expected}")
    return edge, origin, shape


def _parse_header(path: Path, header: dict[str, str]) -> Header:
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
    if not 0 < edge < math.inf:
        raise MapFileError(f"{path} has a damaged header: voxels of {edge} m")
    return edge, (i, j, k), (x, y, z)


def _checksum(header: dict[str, str], tensors: dict[str, torch.Tensor]) -> str:
    """Over the header and the tensors: a flipped bit in either is found."""
    digest = hashlib.sha256()
    for name in ("format", "version", "frame_id", "window"):
        digest.update(f"{name}={header[name]}\n".encode())
    for name in tensors:
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
