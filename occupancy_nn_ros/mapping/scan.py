# SPDX-License-Identifier: Apache-2.0
"""What a planar laser scanner at the robot's base would measure in the 2D grid."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.mapping.slices import LETHAL, UNKNOWN
from occupancy_nn_ros.values import Float32Array, FloatArray, GridSlice

BEAMS = 720
"""Half a degree apart, from -180 degrees on; the first one looks backwards."""

STEPS_PER_CELL = 4
"""A range is right to within a quarter of a cell."""


def scan_ranges(grid: GridSlice, T_map_base: FloatArray, max_range_m: float) -> Float32Array:
    """Ranges (BEAMS,) in metres, counter-clockwise from -180 degrees in the base frame.

    By REP 117: the distance to the first lethal cell; ``inf`` where all cells up to ``max_range_m`` are free; NaN where an unknown
    cell, or the end of the grid, comes first, since nothing is known of what lies behind. The robot's own cell, and unknown cells that
    touch it, are looked through: no camera sees the robot's feet.

    Args:
        grid: an occupancy grid.
        T_map_base: (4, 4) pose of the robot in the grid's frame; its heading counts.
        max_range_m: length of the beams.
    """
    yaw = float(np.arctan2(T_map_base[1, 0], T_map_base[0, 0]))
    angles = yaw - np.pi + np.arange(BEAMS, dtype=np.float64) * (2 * np.pi / BEAMS)
    step_m = grid.resolution_m / STEPS_PER_CELL
    distances = np.arange(1, int(max_range_m / step_m) + 1, dtype=np.float64) * step_m
    values = _values_along(grid, T_map_base[:2, 3], angles, distances)
    start = np.argmax(np.concatenate([values != UNKNOWN, np.ones((BEAMS, 1), bool)], axis=1), axis=1)
    hidden = np.arange(len(distances)) < start[:, None]  # at the robot's feet
    stops = ((values == LETHAL) | (values == UNKNOWN)) & ~hidden
    first = np.argmax(stops, axis=1)
    hit = values[np.arange(BEAMS), first] == LETHAL
    ranges = np.where(stops.any(axis=1), np.where(hit, distances[first], np.nan), np.inf)
    return np.where(start >= len(distances), np.nan, ranges).astype(np.float32)


def _values_along(grid: GridSlice, start_m: FloatArray, angles: FloatArray, distances: FloatArray) -> np.ndarray:
    """Grid values (beams, steps); unknown outside of the grid."""
    x = start_m[0] + np.cos(angles)[:, None] * distances - grid.origin_m[0]
    y = start_m[1] + np.sin(angles)[:, None] * distances - grid.origin_m[1]
    cells = [np.floor(v / grid.resolution_m).astype(np.int64) for v in (x, y)]
    inside = np.ones(cells[0].shape, dtype=bool)
    for axis, cell in enumerate(cells):
        inside &= (cell >= 0) & (cell < grid.values.shape[axis])
    found = grid.values[np.where(inside, cells[0], 0), np.where(inside, cells[1], 0)]
    return np.where(inside, found, UNKNOWN)
