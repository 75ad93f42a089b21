# SPDX-License-Identifier: Apache-2.0
"""2D grids cut from the map by a height band relative to the robot, or to the ground where that slopes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.queries import Unknown, resolve_unknown
from occupancy_nn_ros.mapping.terrain import drop_offs, ground_height, steps_up
from occupancy_nn_ros.values import GridSlice, MapPlace, MapView, VoxelState

UNKNOWN, FREE, LETHAL = -1, 0, 100


def band(view: MapPlace, grid: GridConfig) -> slice:
    """Window indices of the voxels whose centres lie in the height band; one layer at least within the window."""
    low, high = _layers(view, grid, float(view.T_map_base[2, 3]))
    return slice(max(0, low), max(0, low, min(high, view.window.shape[2])))


def _layers(view: MapPlace, grid: GridConfig, ground_m: float) -> tuple[int, int]:
    """First layer of the band above a height, and the one after its last."""
    edge = view.window.voxel_size_m
    base = (ground_m - view.window.origin_m[2]) / edge
    low = int(np.ceil(base + grid.min_height_m / edge - 0.5 - 1e-6))
    high = int(np.ceil(base + grid.max_height_m / edge - 0.5 - 1e-6))
    if high <= low:  # thinner than a voxel: the one that holds its middle
        low = int(np.floor(base + (grid.min_height_m + grid.max_height_m) / 2 / edge))
    return low, max(high, low + 1)


def band_mask(view: MapView, grid: GridConfig) -> npt.NDArray[np.bool_]:
    """Which voxels lie in the band, (1, 1, Z) above the base or (X, Y, Z) above the ground."""
    layers = np.arange(view.window.shape[2])
    if grid.reference == "base":
        part = band(view, grid)
        return np.asarray((layers >= part.start) & (layers < part.stop), dtype=np.bool_)[None, None]
    edge = view.window.voxel_size_m
    height = (layers + 0.5) * edge + view.window.origin_m[2] - ground_height(view)[..., None]
    top = max(grid.max_height_m, grid.min_height_m + edge)
    return np.asarray((height >= grid.min_height_m - 1e-6) & (height < top - 1e-6), dtype=np.bool_)


def occupancy_slice(view: MapView, grid: GridConfig, *, unknown: Unknown = "keep") -> GridSlice:
    """Occupied (100) where any voxel of the band is or the ground steps too far, free (0) where enough are, else unknown (-1).

    Args:
        view: the map.
        grid: the height band, what it lies above, how many free voxels make a column free (all of the band, where that
            has fewer), and how far the ground may step.
        unknown: what unknown columns become.
    """
    mask = band_mask(view, grid)
    state = view.state
    needed = np.minimum(grid.min_known_voxels, mask.sum(axis=2))
    free = ((state == VoxelState.FREE) & mask).sum(axis=2)
    columns = np.where((free >= needed) & (needed > 0), VoxelState.FREE, VoxelState.UNKNOWN).astype(np.int8)
    columns[((state == VoxelState.OCCUPIED) & mask).any(axis=2) | _impassable(view, grid)] = VoxelState.OCCUPIED
    columns = resolve_unknown(columns, unknown)
    values = np.select([columns == VoxelState.OCCUPIED, columns == VoxelState.FREE], [LETHAL, FREE], UNKNOWN)
    return grid_slice(view, values.astype(np.int8))


def _impassable(view: MapView, grid: GridConfig) -> npt.NDArray[np.bool_]:
    """Columns (X, Y) in which the ground steps up or down by more than the robot can take."""
    steps = np.zeros(view.state.shape[:2], dtype=np.bool_)
    if grid.max_step_down_m > 0:
        steps |= drop_offs(view, grid.max_step_down_m)
    if grid.max_step_up_m > 0:
        steps |= steps_up(view, grid.max_step_up_m)
    return steps


def probability_slice(view: MapView, grid: GridConfig) -> GridSlice:
    """Highest occupied-probability of the known voxels of the band in percent (0 to 100), -1 where none is known."""
    layers = band(view, grid)
    known = view.state[:, :, layers] != VoxelState.UNKNOWN
    percent = np.where(known, np.round(view.probability[:, :, layers] * 100), UNKNOWN)
    highest = percent.max(axis=2, initial=UNKNOWN)
    return grid_slice(view, highest.astype(np.int8))


def grid_slice(view: MapPlace, values: npt.NDArray[np.int8]) -> GridSlice:
    """Values (X, Y) of a map's columns as a grid."""
    x, y, _ = (float(v) for v in view.window.origin_m)
    return GridSlice(view.stamp_ns, view.frame_id, view.window.voxel_size_m, (x, y, 0.0), values)
