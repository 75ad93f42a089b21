# SPDX-License-Identifier: Apache-2.0
"""2D grids by height band, relative to the robot and to sloped ground."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.slices import band, occupancy_slice, probability_slice
from occupancy_nn_ros.mapping.terrain import ground_height
from occupancy_nn_ros.values import LatticeWindow, MapView

SHAPE = (30, 30, 20)


def make_view(state, base_z=0.0, edge=0.2, origin=(-15, -15, -8)):
    T = np.eye(4)
    T[2, 3] = base_z
    window = LatticeWindow(edge, origin, state.shape)
    probability = np.where(state == 1, 0.9, 0.1).astype(np.float32)
    return MapView(5, "map", window, T, state.astype(np.int8), probability, np.zeros(state.shape, np.uint8))


@pytest.mark.parametrize(("base", "low", "high", "expected"), [
    (0.0, 0.2, 1.6, (9, 16)), (0.4, 0.2, 1.6, (11, 18)), (0.0, 0.0, 0.2, (8, 9)), (0.0, 0.31, 0.39, (9, 10)),
    (0.0, 0.42, 0.45, (10, 11)), (0.0, -9.0, 9.0, (0, 20)),
])  # fmt: skip
def test_the_band_follows_the_base_and_is_never_empty_inside_the_window(base, low, high, expected):
    layers = band(make_view(np.zeros(SHAPE), base), GridConfig(min_height_m=low, max_height_m=high))
    assert (layers.start, layers.stop) == expected


@pytest.mark.parametrize("heights", [(20.0, 30.0), (-30.0, -20.0)])
def test_a_band_outside_the_window_is_empty_and_unknown(heights):
    view, grid = make_view(np.zeros(SHAPE)), GridConfig(min_height_m=heights[0], max_height_m=heights[1])
    assert len(range(20)[band(view, grid)]) == 0
    assert (occupancy_slice(view, grid).values == -1).all()
    assert (probability_slice(view, grid).values == -1).all()


def test_occupied_wins_then_free_then_unknown():
    state = np.full(SHAPE, -1)
    state[1, 1, 10] = 1
    state[1, 1, 11:15] = 0
    state[2, 2, 10:12] = 0
    state[3, 3, 10] = 0
    state[4, 4, 2] = 1
    values = occupancy_slice(make_view(state), GridConfig(min_known_voxels=2)).values
    assert [int(values[n, n]) for n in range(1, 5)] == [100, 0, -1, -1]
    for unknown, meaning in (("free", 0), ("occupied", 100)):
        assert occupancy_slice(make_view(state), GridConfig(), unknown=unknown).values[4, 4] == meaning


def test_a_column_with_every_voxel_free_is_free_however_many_are_asked_for():
    values = occupancy_slice(make_view(np.zeros(SHAPE)), GridConfig(min_known_voxels=50)).values
    assert (values == 0).all()


def test_probability_is_the_highest_known_one():
    state = np.full(SHAPE, -1)
    state[1, 1, 10], state[1, 1, 11], state[2, 2, 10] = 0, 1, 0
    grid = probability_slice(make_view(state), GridConfig())
    assert [int(grid.values[n, n]) for n in (1, 2, 3)] == [90, 10, -1]
    np.testing.assert_allclose(grid.origin_m, (-3.0, -3.0, 0.0))


def test_a_slope_is_no_obstacle_when_the_band_lies_above_the_ground():
    state = np.zeros(SHAPE)
    surface = 7 + np.maximum(0, (np.arange(30) - 15) // 3)
    for x in range(30):
        state[x, :, surface[x] - 1 : surface[x] + 1] = 1
        state[x, :, : surface[x] - 1] = -1
    state[10, 12, 8:12] = 1
    view, grid = make_view(state), GridConfig(min_height_m=0.3, max_height_m=1.2)
    assert (occupancy_slice(view, grid).values[26:] == 100).all()
    heights = ground_height(view)
    np.testing.assert_allclose(heights[:, 5], 0.2 * surface - 1.6, atol=0.21)
    relative = occupancy_slice(view, replace(grid, reference="ground")).values
    assert relative[10, 12] == 100
    assert int((relative == 100).sum()) == 1


def test_ground_that_is_not_known_is_at_the_base():
    np.testing.assert_array_equal(ground_height(make_view(np.full(SHAPE, -1), 0.3)), np.full((30, 30), 0.3))
