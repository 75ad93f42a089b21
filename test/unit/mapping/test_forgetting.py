# SPDX-License-Identifier: Apache-2.0
"""What the map forgets, and when: by age, by distance, in view, and when stamps jump."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.clock import LAST_MS
from occupancy_nn_ros.mapping.ray_integration import integrate_depth, integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import CameraModel, PosedDepth, Prediction, VoxelState

SECOND = 1_000_000_000
SHAPE = (40, 40, 10)
SENSOR = [0.1, 0.1, 1.0]


def wall(x, across=3.0, low=0.25, high=1.8):
    y, z = np.meshgrid(np.arange(-across, across, 0.1), np.arange(low, high, 0.1))
    return np.stack([np.full(y.size, x), y.ravel(), z.ravel()], axis=1)


def make_map(**settings):
    grid = RollingMap(0.2, SHAPE, MapConfig(max_range_m=20.0, **settings), num_classes=0)
    grid.move_origin((-20, -20, 0))
    return grid


@pytest.mark.parametrize("rate_hz", [1, 2, 5, 10, 30])
def test_a_person_who_leaves_is_gone_within_a_second_of_being_seen_free(rate_hz):
    grid = make_map()
    person, behind = wall(2.1, 0.3, 0.7, 1.3), wall(3.5)
    step = SECOND // rate_hz
    for n in range(3 * rate_hz):
        integrate_rays(grid, SENSOR, np.concatenate([person, behind]), n * step)
    assert (grid.query(person)[1] == VoxelState.OCCUPIED).all()
    left = 3 * rate_hz * step
    for n in range(rate_hz + 1):
        integrate_rays(grid, SENSOR, behind, left + n * step)
    assert not (grid.query(person)[1] == VoxelState.OCCUPIED).any()
    assert (grid.query(behind)[1] == VoxelState.OCCUPIED).all()


def test_a_person_who_leaves_is_gone_within_a_second_of_being_predicted_free():
    grid = RollingMap(0.2, (5, 5, 5), MapConfig())
    ones = torch.ones((5, 5, 5))
    for n in range(20):
        grid.integrate(Prediction(grid.window, 2 * ones, ones), n * SECOND // 10)
    for n in range(20, 31):
        grid.integrate(Prediction(grid.window, -0.2 * ones, 0.9 * ones), n * SECOND // 10)
    assert not (grid.view(0, "map", np.eye(4)).state == VoxelState.OCCUPIED).any()


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.01])
def test_depth_that_counts_less_clears_as_much_more_slowly(weight):
    """One look past what stood there 0.5 s ago: it decays by the series of exp(0.5 s * weight / clear_in_view_s)."""
    grid = make_map(clear_in_view_s=0.25, pass_log_odds=-0.01)
    camera = CameraModel(3, 3, np.array([[4.0, 0, 1], [0, 4, 1], [0, 0, 1]]), "none", np.zeros(0))
    pose = make_transform((0.1, 0.1, 1.1), (-0.5, 0.5, -0.5, 0.5))
    grid.time_ms(0)
    cell = grid.storage_index(torch.tensor([[5, 0, 5]]))
    grid.log_odds.view(-1)[cell] = 3.0
    grid.seen_ms.view(-1)[cell] = 0
    integrate_depth(grid, PosedDepth("c", SECOND // 2, np.full((3, 3), 3.0, np.float32), camera, pose), weight)
    t = 0.5 * weight / 0.25
    expected = min(3.0 - 0.01 * weight, 3.0 / (1 + t + t**2 / 2 + t**3 / 6))
    assert float(grid.log_odds.view(-1)[cell]) == pytest.approx(expected, abs=1e-5)


def test_depth_without_weight_is_refused():
    camera = CameraModel(4, 4, np.array([[4.0, 0, 1.5], [0, 4, 1.5], [0, 0, 1]]), "none", np.zeros(0))
    depth = PosedDepth("c", 0, np.ones((4, 4), np.float32), camera, np.eye(4))
    for weight in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"weight is {weight}, expected more than 0"):
            integrate_depth(make_map(), depth, weight)


def test_a_wall_behind_the_robot_stays_while_the_front_is_updated():
    grid = make_map(forget_model="linear", forget_after_s=30.0)
    behind, front = wall(-3.1), wall(3.1)
    for n in range(10):
        integrate_rays(grid, SENSOR, behind, n * SECOND // 10)
    for n in range(10, 200):
        integrate_rays(grid, SENSOR, front, n * SECOND // 10)
        grid.forget(n * SECOND // 10)
    assert (grid.query(behind)[1] == VoxelState.OCCUPIED).all()
    for n in range(200, 330):
        integrate_rays(grid, SENSOR, front, n * SECOND // 10)
        grid.forget(n * SECOND // 10)
    assert (grid.query(behind)[1] == VoxelState.UNKNOWN).all()
    assert (grid.query(front)[1] == VoxelState.OCCUPIED).all()


def test_a_glance_after_a_long_absence_does_not_clear_at_once():
    grid = make_map()
    for n in range(10):
        integrate_rays(grid, SENSOR, wall(2.1), n * SECOND // 10)
    integrate_rays(grid, SENSOR, wall(3.7), 100 * SECOND)
    near = wall(2.1, 1.0, 0.7, 1.3)
    assert (grid.query(near)[1] == VoxelState.OCCUPIED).all()
    assert float(grid.query(near)[0].min()) > 0.97


@pytest.mark.parametrize(("model", "left"), [("off", 4.0), ("linear", 2.0), ("exponential", 4.0 * np.exp(-0.5))])
def test_age_takes_evidence_at_the_configured_rate(model, left):
    grid = RollingMap(0.2, (3, 3, 3), MapConfig(forget_model=model, forget_after_s=10.0))
    grid.integrate(Prediction(grid.window, torch.full((3, 3, 3), 9.0), torch.ones((3, 3, 3))), 0)
    grid.forget(2 * SECOND)
    grid.forget(5 * SECOND)
    assert float(grid.log_odds[1, 1, 1]) == pytest.approx(left, abs=1e-4)
    grid.forget(500 * SECOND)
    assert int((grid.seen_ms >= 0).sum()) == (27 if model == "off" else 0)


def test_distance_forgets_what_lies_too_far():
    grid = RollingMap(1.0, (20, 20, 4), MapConfig(forget_beyond_m=4.0))
    pose = np.eye(4)
    grid.move_to(pose)
    grid.integrate(Prediction(grid.window, torch.ones((20, 20, 4)), torch.ones((20, 20, 4))), 0)
    pose[0, 3] = 2.5
    grid.move_to(pose)
    known = np.argwhere(grid.view(0, "map", pose).state != VoxelState.UNKNOWN) + np.array(grid.window.origin)
    assert (known[:, 0].min(), known[:, 0].max()) == (-2, 6)
    assert (known[:, 1].min(), known[:, 1].max()) == (-4, 4)


def test_stamps_that_jump_back_do_not_keep_voxels_for_ever():
    grid = RollingMap(0.2, (3, 3, 3), MapConfig(forget_model="linear", forget_after_s=10.0))
    ones = torch.ones((3, 3, 3))
    grid.integrate(Prediction(grid.window, ones, ones), 1000 * SECOND)
    grid.integrate(Prediction(grid.window, ones, ones), 1500 * SECOND)
    grid.forget(1500 * SECOND)
    for stamp in range(0, 12, 2):
        grid.forget(stamp * SECOND)
    assert int((grid.seen_ms >= 0).sum()) == 0


def test_late_frames_do_not_make_voxels_older():
    grid = RollingMap(0.2, (3, 3, 3), MapConfig())
    ones = torch.ones((3, 3, 3))
    grid.integrate(Prediction(grid.window, ones, ones), 5 * SECOND)
    grid.integrate(Prediction(grid.window, ones, ones), 8 * SECOND)
    grid.integrate(Prediction(grid.window, ones, ones), 7 * SECOND)
    assert int(grid.seen_ms.min()) == 3000


@pytest.mark.parametrize("jump_s", [LAST_MS // 1000 + 5, 1_700_000_000])
def test_the_clock_goes_on_for_ever(jump_s):
    grid = RollingMap(0.2, (3, 3, 3), MapConfig(forget_model="exponential", forget_after_s=10.0))
    ones = torch.ones((3, 3, 3))
    grid.integrate(Prediction(grid.window, ones, ones), 0)
    grid.integrate(Prediction(grid.window, ones, ones), jump_s * SECOND)
    seen = int(grid.seen_ms.min())
    grid.integrate(Prediction(grid.window, ones, ones), (jump_s + 3) * SECOND)
    assert int(grid.seen_ms.min()) == seen + 3000
