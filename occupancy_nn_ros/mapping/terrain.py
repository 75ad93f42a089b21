# SPDX-License-Identifier: Apache-2.0
"""The ground under a map: its height, and where it steps up or down by more than a robot can take.

Heights are the tops of voxels, so a step is known to within one voxel on each side. An edge is called a step only where it is higher
than the limit whatever the rounding: kerbs and drops need voxels well below the limit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    distance_transform_edt,
    grey_dilation,
    grey_erosion,
    median_filter,
)

from occupancy_nn_ros.values import FloatArray, MapView, VoxelState

GROUND_MARGIN_M = 0.6
"""Ground is looked for this far above and below the base's own height..."""

GROUND_SLOPE = 0.35
"""...and this much further for each metre away from the robot."""

MEDIAN_CELLS = 5
NEIGHBOURS, WIDER = (3, 3), (7, 7)

BoolArray = npt.NDArray[np.bool_]


def ground_height(view: MapView) -> FloatArray:
    """Height of the ground in the map frame for each column, (X, Y), from a map that shows surfaces.

    A median over 5 x 5 columns of :func:`seen_ground` removes single errors. A column without one takes the nearest
    column's, and the base's height if none has any.
    """
    heights = seen_ground(view)
    missing = np.isnan(heights)
    if missing.all():
        return np.full(heights.shape, float(view.T_map_base[2, 3]))
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled = heights[tuple(nearest)]
    return np.asarray(median_filter(filled, size=MEDIAN_CELLS, mode="nearest"), dtype=np.float64)


def seen_ground(view: MapView) -> FloatArray:
    """Height of the ground as far as it was seen, (X, Y); NaN elsewhere.

    It is the top of the lowest occupied voxel that a slope of ``GROUND_SLOPE`` from the robot can reach. A network fills what lies below
    floors: where that is more than a voxel, it is the lowest surface with free space upon it in the column and beside it.
    """
    surface = _lowest(view, under_free=True)
    beside = grey_erosion(np.where(np.isnan(surface), np.inf, surface), size=NEIGHBOURS, mode="nearest")
    return _of_filled(_lowest(view), np.where(np.isinf(beside), np.nan, beside), view)


def _of_filled(lowest_m: FloatArray, surface_m: FloatArray, view: MapView) -> FloatArray:
    """The lowest voxels' tops (X, Y), or the surface where it lies more than a voxel above them."""
    is_filled = surface_m - lowest_m > 1.5 * view.window.voxel_size_m  # false where either is not known
    return np.asarray(np.where(is_filled, surface_m, lowest_m), dtype=np.float64)


def _lowest(view: MapView, *, under_free: bool = False) -> FloatArray:
    """Top of the lowest occupied voxel within reach, (X, Y), perhaps only of those below a free one; NaN for none."""
    possible = (view.state == VoxelState.OCCUPIED) & (
        np.abs(_tops(view) - view.T_map_base[2, 3]) <= _reach(view)[..., None]
    )
    if under_free:
        possible[..., :-1] &= view.state[..., 1:] == VoxelState.FREE
        possible[..., -1] = False
    return np.where(possible.any(axis=2), _tops(view)[possible.argmax(axis=2)], np.nan)


def drop_offs(view: MapView, max_step_down_m: float) -> BoolArray:
    """Columns (X, Y) in which the ground beside them ends: stairs down, edges, holes.

    A column drops off where a neighbour has ground, its own voxel at that height is free, and no surface is known within
    ``max_step_down_m`` (and a voxel, for rounding) below. What is not known below is no ground: where the floor is seen to
    end and nothing is seen below, there is an edge, if a block of three by three columns is seen to be open there. At the border of what
    was seen one or two columns often are: rays pass the upper part of their floor's voxels and end in the next.

    Args:
        view: the map.
        max_step_down_m: what the robot can drive down.
    """
    ground = _of_filled(_lowest(view), _lowest(view, under_free=True), view)
    ground = np.where(np.isnan(ground), -np.inf, ground)
    beside, around = (grey_dilation(ground, size=size, mode="nearest") for size in (NEIGHBOURS, WIDER))
    ends, is_deep = _open_columns(view, beside, max_step_down_m)
    further, _ = _open_columns(view, around, max_step_down_m)
    is_wide = binary_dilation(binary_erosion(further, np.ones(NEIGHBOURS, np.bool_)), np.ones(WIDER, np.bool_))
    return np.asarray(ends & (is_deep | is_wide), dtype=np.bool_)


def _open_columns(view: MapView, level_m: FloatArray, max_step_down_m: float) -> tuple[BoolArray, BoolArray]:
    """Columns (X, Y) that are free at a level and have no surface near below it, and those with a surface deeper down.

    A level that lies higher above the robot's base than what is below it lies beneath is the top of something, from which the robot
    cannot fall.

    Args:
        view: the map.
        level_m: (X, Y) tops of ground beside each column, -inf where there is none.
        max_step_down_m: how far below a surface counts as near.
    """
    edge, known, tops = view.window.voxel_size_m, np.isfinite(level_m), _tops(view)
    level = np.where(known, level_m, 0.0)
    depth = level[..., None] - tops  # of each voxel's top below the level
    occupied, limit = view.state == VoxelState.OCCUPIED, max_step_down_m + 0.5 * edge + 1e-6
    has_surface = (occupied & (depth > -1.5 * edge) & (depth < limit)).any(axis=2)
    at_level = ((view.state == VoxelState.FREE) & (np.abs(depth) < 0.5 * edge)).any(axis=2)
    deep = occupied & (depth >= limit)
    is_deep = deep.any(axis=2)
    highest = np.where(deep, tops, -np.inf).max(axis=2)
    below = np.where(is_deep, highest, level - limit)
    is_under_robot = level + below < 2 * view.T_map_base[2, 3] + edge
    return known & at_level & ~has_surface & is_under_robot, is_deep


def steps_up(view: MapView, max_step_up_m: float) -> BoolArray:
    """Columns (X, Y) whose ground lies more than ``max_step_up_m`` above that of a neighbour: kerbs, steps.

    One voxel of difference can be rounding, and a ramp has it every few columns. So a step counts from
    ``max_step_up_m`` plus one voxel on, and what is certain is seen: with voxels of 0.05 m a limit of 0.1 m finds steps of
    0.15 m and more.
    """
    ground = seen_ground(view)
    lowest = grey_erosion(np.where(np.isnan(ground), np.inf, ground), size=NEIGHBOURS, mode="nearest")
    rise = np.where(np.isnan(ground) | ~np.isfinite(lowest), 0.0, ground - np.where(np.isfinite(lowest), lowest, 0.0))
    return np.asarray(rise >= max_step_up_m + view.window.voxel_size_m - 1e-6, dtype=np.bool_)


def _tops(view: MapView) -> FloatArray:
    """Height of the top of each layer of voxels, (Z,)."""
    window = view.window
    return np.asarray(window.origin_m[2] + (np.arange(window.shape[2]) + 1) * window.voxel_size_m, dtype=np.float64)


def _reach(view: MapView) -> FloatArray:
    """How far from the base's height the ground of each column may lie, (X, Y)."""
    window, base = view.window, view.T_map_base
    x, y = ((np.arange(window.shape[a]) + 0.5) * window.voxel_size_m + window.origin_m[a] - base[a, 3] for a in (0, 1))
    return np.asarray(GROUND_MARGIN_M + GROUND_SLOPE * np.hypot(x[:, None], y[None, :]), dtype=np.float64)
