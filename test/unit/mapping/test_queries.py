# SPDX-License-Identifier: Apache-2.0
"""Reading the map: nearest, trilinear, unknown as a choice, rays cast in the map, boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.queries import cast_rays, crop, occupied_box
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import LatticeWindow, Prediction, VoxelState

SHAPE = (10, 8, 6)


def random_map(seed, known=0.7):
    rng = np.random.default_rng(seed)
    grid = RollingMap(0.5, SHAPE, MapConfig(log_odds_min=-4.0), num_classes=0)
    grid.move_origin((3, -11, 4))
    logit = torch.from_numpy(rng.normal(0, 2, SHAPE).astype(np.float32))
    weight = torch.from_numpy((rng.random(SHAPE) < known).astype(np.float32))
    grid.integrate(Prediction(grid.window, logit, weight), 0)
    return grid, logit.numpy(), weight.numpy() > 0


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_nearest_equals_a_loop_over_points(seed):
    grid, logit, known = random_map(seed)
    rng = np.random.default_rng(seed + 1)
    points = grid.window.origin_m + rng.uniform(-1, 6, (60, 3))
    probability, state = grid.query(points)
    for point, p, s in zip(points, probability, state, strict=True):
        local = tuple(np.floor(point / 0.5).astype(int) - grid.window.origin)
        inside = all(0 <= i < n for i, n in zip(local, SHAPE, strict=True))
        if inside and known[local]:
            assert p == pytest.approx(1 / (1 + np.exp(-np.clip(logit[local], -4, 4))), abs=1e-5)
            assert s == (1 if p >= 0.55 else 0 if p <= 0.45 else -1)
        else:
            assert np.isnan(p) and s == -1


def test_trilinear_is_exact_at_centers_and_linear_between_them():
    grid, logit, _ = random_map(1, known=2.0)
    values = 1 / (1 + np.exp(-np.clip(logit, -4, 4)))
    centers = grid.window.centers_m()
    probability, _ = grid.query(centers.reshape(-1, 3), mode="trilinear")
    np.testing.assert_allclose(probability, values.reshape(-1), atol=1e-5)
    between, _ = grid.query([0.75 * centers[2, 3, 1] + 0.25 * centers[3, 3, 1]], mode="trilinear")
    assert between[0] == pytest.approx(0.75 * values[2, 3, 1] + 0.25 * values[3, 3, 1], abs=1e-5)


def test_unknown_is_what_the_caller_says():
    grid = RollingMap(0.5, SHAPE, MapConfig())
    for unknown, state, probability in (("keep", -1, np.nan), ("free", 0, 0.0), ("occupied", 1, 1.0)):
        got = grid.query([[0.0, 0.0, 0.1], [500.0, 0.0, 0.0]], unknown=unknown)
        np.testing.assert_array_equal(got[0], np.float32([probability] * 2))
        assert got[1].tolist() == [state] * 2


def test_points_that_are_not_finite_or_very_far_are_unknown():
    grid, _, _ = random_map(2)
    points = [[np.nan, 0, 0], [np.inf, 0, 0], [0, -np.inf, 0], [1e300, 0, 0], [-1e17, 1e17, 0]]
    for mode in ("nearest", "trilinear"):
        probability, state = grid.query(points, mode=mode)
        assert np.isnan(probability).all()
        assert (state == VoxelState.UNKNOWN).all()


def test_no_points_give_no_answers():
    probability, state = random_map(3)[0].query(np.zeros((0, 3)))
    assert (probability.shape, state.shape) == ((0,), (0,))


def one_obstacle():
    grid = RollingMap(0.5, (20, 4, 4), MapConfig(), num_classes=0)
    grid.move_origin((0, -2, -2))
    logit = torch.full((20, 4, 4), -2.0)
    logit[12] = 2.0
    weight = torch.ones((20, 4, 4))
    weight[6, 3, 3] = 0.0
    grid.integrate(Prediction(grid.window, logit, weight), 0)
    return grid


def test_cast_rays_stop_where_the_obstacle_begins():
    hits = cast_rays(one_obstacle(), [0.25, 0.25, 0.25], [[1.0, 0, 0], [3.0, 0, 0.1], [-1.0, 0, 0], [1, 0, 0]], 30.0)
    assert hits.hit.tolist() == [True, True, False, True]
    np.testing.assert_allclose(hits.distance_m[[0, 2]], [5.75, 30.0], atol=1e-5)
    np.testing.assert_allclose(hits.distance_m[1], 5.75 * np.hypot(1, 0.1 / 3), rtol=1e-5)
    assert hits.voxel[0].tolist() == [12, 0, 0]


def test_cast_rays_end_at_their_length_and_treat_unknown_as_told():
    grid, start, way = one_obstacle(), [0.25, 0.75, 0.75], [[1.0, 0.0, 0.0]]
    assert cast_rays(grid, start, way, 2.0).distance_m[0] == pytest.approx(2.0)
    assert cast_rays(grid, start, way, 30.0).distance_m[0] == pytest.approx(5.75)
    stopped = cast_rays(grid, start, way, 30.0, unknown="occupied")
    assert stopped.hit[0] and stopped.distance_m[0] == pytest.approx(2.75)
    kept = cast_rays(grid, start, way, 30.0, unknown="keep")
    assert not kept.hit[0] and kept.distance_m[0] == pytest.approx(2.75)
    with pytest.raises(ValueError, match="finite"):
        cast_rays(grid, start, [[0.0, 0.0, 0.0]], 5.0)


def test_a_crop_holds_the_same_voxels():
    grid, _, _ = random_map(5)
    view = grid.view(7, "map", np.eye(4))
    low = grid.window.origin_m + np.array([1.1, 0.5, -3.0])
    part = crop(view, low, low + np.array([1.9, 1.0, 5.0]))
    assert part.window == LatticeWindow(0.5, (5, -10, 4), (4, 2, 4))
    np.testing.assert_array_equal(part.state, view.state[2:6, 1:3, :4])
    with pytest.raises(ValueError, match="outside"):
        crop(view, [500.0, 0, 0], [501.0, 1, 1])
    with pytest.raises(ValueError, match="lower first"):
        crop(view, [1.0, 0, 0], [0.0, 1, np.nan])


def test_the_box_around_the_occupied_voxels():
    low, high = occupied_box(one_obstacle().view(0, "map", np.eye(4)))
    np.testing.assert_allclose([low, high], [[6.0, -1.0, -1.0], [6.5, 1.0, 1.0]])
    assert occupied_box(RollingMap(0.5, SHAPE, MapConfig()).view(0, "map", np.eye(4))) is None
