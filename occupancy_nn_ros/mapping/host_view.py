# SPDX-License-Identifier: Apache-2.0
"""What a map knows, as a copy in host memory and window order; the twin on a GPU is :mod:`~occupancy_nn_ros.mapping.device_view`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.mapping.queries import cells_of, states
from occupancy_nn_ros.mapping.sight import drop_unseen
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import Float32Array, FloatArray, MapPlace, MapView, UInt8Array, VoxelState

States = npt.NDArray[np.int8]


def host_view(grid: VoxelStorage, place: MapPlace) -> MapView:
    """A copy of a map, without what it is to leave out because nobody can have seen it.

    Args:
        grid: the map, on any device.
        place: its time, frame, window and the robot's pose.
    """
    probability, evidence = _evidence(grid)
    state = _seen(grid, evidence)
    occupied = np.argwhere(state == VoxelState.OCCUPIED)
    classes, colors = _classes(grid, occupied), _colors(grid, occupied)
    return MapView(
        place.stamp_ns, place.frame_id, place.window, place.T_map_base, state, probability, classes, colors
    )  # fmt: skip


def unseen_voxels(grid: VoxelStorage) -> npt.NDArray[np.bool_]:
    """Voxels (X, Y, Z) that are free or occupied by the evidence and cannot have been seen."""
    _, state = _evidence(grid)
    return np.asarray(state != _seen(grid, state))


def unseen_points(grid: VoxelStorage, points_m: FloatArray) -> npt.NDArray[np.bool_]:
    """Which map-frame points (N, 3) lie in such voxels, (N,)."""
    points = np.asarray(points_m, dtype=np.float64).reshape(-1, 3)
    found = np.zeros(len(points), np.bool_)
    if not grid.config.drop_unseen:
        return found
    finite = np.asarray(np.isfinite(points).all(axis=1))
    cells = cells_of(np.where(finite[:, None], points, 0.0) / grid.window.voxel_size_m) - grid.window.origin
    inside = finite & ((cells >= 0) & (cells < grid.window.shape)).all(axis=1)
    found[inside] = unseen_voxels(grid)[tuple(cells[inside].T)]
    return found


def _evidence(grid: VoxelStorage) -> tuple[Float32Array, States]:
    """Probability and state (X, Y, Z) of all voxels by their evidence."""
    log_odds, seen_ms = (grid.in_window_order(part).cpu().numpy() for part in (grid.log_odds, grid.seen_ms))
    probability = (np.float32(1) / (np.float32(1) + np.exp(-log_odds))).astype(np.float32)
    return probability, states(probability, seen_ms != NEVER, grid.config)


def _seen(grid: VoxelStorage, state: States) -> States:
    """The states without what cannot have been seen, if the map is to leave it out."""
    if not grid.config.drop_unseen:
        return state
    return drop_unseen(state, grid.in_window_order(grid.visited).cpu().numpy(), grid.window.voxel_size_m)


def _classes(grid: VoxelStorage, occupied: npt.NDArray[np.int64]) -> UInt8Array:
    """Classes (X, Y, Z) of the voxels at window indices (N, 3), where evidence for one was seen; 0 elsewhere."""
    classes = np.zeros(grid.window.shape, np.uint8)
    cells = torch.from_numpy(occupied + np.asarray(grid.window.origin)).to(grid.device)
    classes[tuple(occupied.T)] = grid.best_classes(cells).numpy()
    return classes


def _colors(grid: VoxelStorage, occupied: npt.NDArray[np.int64]) -> UInt8Array | None:
    """Colours (X, Y, Z, 3) of the voxels at window indices (N, 3), black elsewhere; None where none are kept."""
    if grid.colors is None:
        return None
    colors = np.zeros((*grid.window.shape, 3), np.uint8)
    cells = torch.from_numpy(occupied + np.asarray(grid.window.origin)).to(grid.device)
    colors[tuple(occupied.T)] = grid.best_colors(cells).cpu().numpy()
    return colors
