# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.evaluation.depth_scores import DepthErrors
from occupancy_nn_ros.geometry.depth_lookup import measured_points
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.values import CameraModel, PosedDepth

COARSE = CameraModel(8, 6, np.array([[8.0, 0, 3.5], [0, 8, 2.5], [0, 0, 1]]), "none", np.zeros(0))
FINE = CameraModel(64, 48, np.array([[64.0, 0, 31.5], [0, 64, 23.5], [0, 0, 1]]), "none", np.zeros(0))
LOOKING = make_transform((1.0, -2.0, 0.5), (-0.5, 0.5, -0.5, 0.5))


def wall(model, depth_m, T_map_cam=LOOKING):
    return PosedDepth("c", 0, np.full((model.height, model.width), depth_m, np.float32), model, T_map_cam)


def test_errors_of_a_wall_by_hand():
    """Of 48 pixels 8 have no depth, 16 are 1 % off, 16 are 5 % off, and 8 are 50 % off."""
    predicted = wall(COARSE, 2.02)
    predicted.depth_m[:, 2:4], predicted.depth_m[:, 4:6] = 2.1, 1.9
    predicted.depth_m[:, 6] = 3.0
    predicted.depth_m[:, 7] = 0
    got = DepthErrors.of(predicted, [wall(FINE, 2.0)]).figures()
    assert got["depth_sure_share"] == pytest.approx(7 / 8)
    assert got["depth_median_error"] == pytest.approx(0.05, abs=0.001)
    assert got["depth_within_10_percent"] == pytest.approx(36 / 42)


def test_what_hits_nothing_is_wrong_and_what_is_not_measured_is_not_judged():
    measured = wall(FINE, 2.0)
    measured.depth_m[:, :32], measured.depth_m[:, 32:48] = np.inf, 0
    errors = DepthErrors.of(wall(COARSE, 2.0), [measured])
    assert errors.errors.sum() == 36
    assert errors.figures()["depth_within_10_percent"] == pytest.approx(12 / 36)
    nothing = DepthErrors.of(wall(COARSE, 0.0), [measured])
    assert nothing.pixels == 48 and np.isnan(list(nothing.figures().values())).all()
    both = errors + nothing
    assert both.figures()["depth_sure_share"] == 0.5 and both.errors.sum() == 36


def test_depth_is_compared_where_the_measuring_camera_stands():
    """It stands half a metre nearer to the wall, and measures 1.5 m where the other should say 2 m."""
    nearer = LOOKING.copy()
    nearer[0, 3] += 0.5
    errors = DepthErrors.of(wall(COARSE, 2.0), [wall(FINE, 1.5, nearer)])
    assert 20 < errors.errors.sum() < 48  # its picture holds less of the wall
    assert errors.figures()["depth_median_error"] == pytest.approx(0.0005)


def test_measured_points_lie_on_the_wall():
    points = measured_points(
        replace(wall(FINE, 2.0), depth_m=np.where(np.arange(64) < 32, 2.0, 0.0) * np.ones((48, 1)))
    )
    assert points.shape == (48 * 32, 3)
    assert points[:, 0] == pytest.approx(3.0)
    assert (points[:, 1] > -2.0).all()  # the left half
    assert len(measured_points(wall(FINE, 2.0), every=8)) == 48
