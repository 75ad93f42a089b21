# SPDX-License-Identifier: Apache-2.0
"""2D grids cut from the map by a height band relative to the robot, or to the ground where that slopes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, median_filter

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.queries import Unknown, resolve_unknown
from occupancy_nn_ros.values import FloatArray, GridSlice, MapView, VoxelState

UNKNOWN, FREE, LETHAL = -1, 0, 100

GROUND_MARGIN_M = 0.6
"""Ground is looked for this far above and below the base's own height..."""

GROUND_SLOPE = 0.35
"""...and this much further for each metre away from the robot."""


def band(view: MapView, grid: GridConfig) -> slice:
    """Window indices of the voxels whose centres lie in the height band; one layer at least within the window."""
    low, high = _layers(view, grid, float(view.T_map_base[2, 3]))
    return slice(max(0, low), max(0, low, min(high, view.window.shape[2])))


def _layers(view: MapView, grid: GridConfig, ground_m: float) -> tuple[int, int]:
    """First layer of the band above a height, and the one after its last."""
    edge = view.window.voxel_size_m
    base = (ground_m - view.window.origin_m[2]) / edge
    low = int(np.ceil(base + grid.min_height_m / edge - 0.5 - 1e-6))
    high = int(np.ceil(base + grid.max_height_m / edge - 0.5 - 1e-6))
    if high <= low:  # thinner than a voxel: the one that holds its middle
        low = int(np.floor(base + (grid.min_height_m + grid.max_height_m) / 2 / edge))
    return low, max(high, low + 1)


def ground_height(view: MapView) -> FloatArray:
    """Height of the ground in the map frame for each column, (X, Y), from a map that shows surfaces.

    The ground of a column is its lowest occupied voxel that a slope of ``GROUND_SLOPE`` from the robot can reach; a
    median over 5 x 5 columns removes single errors. A column without one takes the nearest column's, and the base's
    height if none has any.
    """
    window, base = view.window, view.T_map_base
    x, y = ((np.arange(window.shape[a]) + 0.5) * window.voxel_size_m + window.origin_m[a] - base[a, 3] for a in (0, 1))
    reach = GROUND_MARGIN_M + GROUND_SLOPE * np.hypot(x[:, None], y[None, :])
    level = float(base[2, 3])
    tops = window.origin_m[2] + (np.arange(window.shape[2]) + 1) * window.voxel_size_m
    possible = (view.state == VoxelState.OCCUPIED) & (np.abs(tops - level) <= reach[..., None])
    found = possible.any(axis=2)
    if not found.any():
        return np.full(found.shape, level)
    nearest = distance_transform_edt(~found, return_distances=False, return_indices=True)
    heights = tops[possible.argmax(axis=2)][tuple(nearest)]
    return np.asarray(median_filter(heights, size=5, mode="nearest"), dtype=np.float64)


def _band_mask(view: MapView, grid: GridConfig, ground_m: FloatArray | None) -> npt.NDArray[np.bool_]:
    """Which voxels lie in the band, (1, 1, Z) above the base or (X, Y, Z) above the ground."""
    layers = np.arange(view.window.shape[2])
    if ground_m is None:
        part = band(view, grid)
        return np.asarray((layers >= part.start) & (layers < part.stop), dtype=np.bool_)[None, None]
    edge = view.window.voxel_size_m
    height = (layers + 0.5) * edge + view.window.origin_m[2] - ground_m[..., None]
    top = max(grid.max_height_m, grid.min_height_m + edge)
    return np.asarray((height >= grid.min_height_m - 1e-6) & (height < top - 1e-6), dtype=np.bool_)


def occupancy_slice(
    view: MapView, grid: GridConfig, *, ground_m: FloatArray | None = None, unknown: Unknown = "keep"
) -> GridSlice:
    """Occupied (100) where any voxel of the band is, free (0) where enough are, else unknown (-1).

    Args:
        view: the map.
        grid: the height band, and how many free voxels make a column free (all of the band, where that has fewer).
        ground_m: (X, Y) from :func:`ground_height`: the band lies above it; None: above the base.
        unknown: what unknown columns become.
    """
    mask = _band_mask(view, grid, ground_m)
    state = view.state
    needed = np.minimum(grid.min_known_voxels, mask.sum(axis=2))
    free = ((state == VoxelState.FREE) & mask).sum(axis=2)
    columns = np.where((free >= needed) & (needed > 0), VoxelState.FREE, VoxelState.UNKNOWN).astype(np.int8)
    columns[((state == VoxelState.OCCUPIED) & mask).any(axis=2)] = VoxelState.OCCUPIED
    columns = resolve_unknown(columns, unknown)
    values = np.select([columns == VoxelState.OCCUPIED, columns == VoxelState.FREE], [LETHAL, FREE], UNKNOWN)
    return _slice(view, values.astype(np.int8))


def probability_slice(view: MapView, grid: GridConfig) -> GridSlice:
    """Highest occupied-probability of the known voxels of the band in percent (0 to 100), -1 where none is known."""
    layers = band(view, grid)
    known = view.state[:, :, layers] != VoxelState.UNKNOWN
    percent = np.where(known, np.round(view.probability[:, :, layers] * 100), UNKNOWN)
    highest = percent.max(axis=2, initial=UNKNOWN)
    return _slice(view, highest.astype(np.int8))


def _slice(view: MapView, values: npt.NDArray[np.int8]) -> GridSlice:
    x, y, _ = (float(v) for v in view.window.origin_m)
    return GridSlice(view.stamp_ns, view.frame_id, view.window.voxel_size_m, (x, y, 0.0), values)
