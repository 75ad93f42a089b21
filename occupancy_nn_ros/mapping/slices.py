# SPDX-License-Identifier: Apache-2.0
"""2D grids cut from the map by a height band relative to the robot."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.types import GridSlice, MapView, VoxelState

UNKNOWN, FREE, LETHAL = -1, 0, 100


def band(view: MapView, grid: GridConfig) -> slice:
    """Window indices of the voxels whose centres lie in the height band; at least one layer if the window reaches there."""
    edge = view.window.voxel_size_m
    base = view.T_map_base[2, 3] - view.window.origin_m[2]
    low = int(np.ceil((base + grid.min_height_m) / edge - 0.5 - 1e-6))
    high = int(np.ceil((base + grid.max_height_m) / edge - 0.5 - 1e-6))
    return slice(max(0, low), max(0, low, min(high, view.window.shape[2])))


def occupancy_slice(view: MapView, grid: GridConfig) -> GridSlice:
    """Occupied (100) where any voxel of the band is, free (0) where enough are, else unknown (-1)."""
    state = view.state[:, :, band(view, grid)]
    free = (state == VoxelState.FREE).sum(axis=2) >= grid.min_known_voxels
    values = np.where(free, FREE, UNKNOWN).astype(np.int8)
    values[(state == VoxelState.OCCUPIED).any(axis=2)] = LETHAL
    return _slice(view, values)


def probability_slice(view: MapView, grid: GridConfig) -> GridSlice:
    """Highest occupied-probability of the known voxels of the band in percent (0 to 100), -1 where none is known."""
    layers = band(view, grid)
    known = view.state[:, :, layers] != VoxelState.UNKNOWN
    percent = np.where(known, np.round(view.probability[:, :, layers] * 100), UNKNOWN)
    highest = percent.max(axis=2, initial=UNKNOWN)
    return _slice(view, highest.astype(np.int8))


def _slice(view: MapView, values: np.ndarray) -> GridSlice:
    x, y, _ = (float(v) for v in view.window.origin_m)
    return GridSlice(view.stamp_ns, view.frame_id, view.window.voxel_size_m, (x, y, 0.0), values)
