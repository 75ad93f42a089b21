# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.simulation.rendering import RenderedView
from occupancy_nn_ros.simulation.rigs import Rig, RigCamera, camera_model, camera_pose
from occupancy_nn_ros.training.point_sampling import sample_points, thin_pixels

CAMERA = RigCamera("front", camera_model(80, 60, 80), camera_pose(0, 0, 1.0, 0, 0.0))
RIG = Rig("test", (CAMERA,))


def pole_before_a_wall():
    depth = np.full((60, 80), 3.9, np.float32)
    depth[:, 40:42] = 1.5
    return depth


def test_edges_and_low_things_are_thin():
    depth, height = pole_before_a_wall(), np.full((60, 80), 1.0)
    height[50:, :10] = 0.1
    thin = thin_pixels(depth, height)
    assert thin[:, 40:42].all() and thin[50:, :10].all()
    assert not thin[:50, :30].any() and not thin[:, 60:].any()
    assert not thin_pixels(depth * 4, height + 1).any()  # too far to matter


def test_a_share_of_the_points_lies_at_the_pole():
    view = RenderedView(np.zeros((60, 80, 3), np.uint8), pole_before_a_wall(), np.zeros((60, 80), np.uint8))
    points = sample_points(RIG, [view], CAMERA.T_base_cam[None], np.eye(4), np.random.default_rng(0), 4000)
    assert points.shape == (4000, 3) and points.dtype == np.float32
    at_pole = (np.abs(points[:, 0] - 1.5) < 0.3) & (np.abs(points[:, 1]) < 0.15)
    assert 0.025 < at_pole.mean() < 0.1  # any pixels alike would put 0.012 there
    inside = (np.abs(points[:, :2]) < 8.2).all(axis=1)
    assert inside.all() and points[:, 2].min() > -1.7 and points[:, 2].max() < 2.9


def test_without_thin_pixels_all_others_are_used():
    view = RenderedView(
        np.zeros((60, 80, 3), np.uint8), np.full((60, 80), 6.0, np.float32), np.zeros((60, 80), np.uint8)
    )
    points = sample_points(RIG, [view], CAMERA.T_base_cam[None], np.eye(4), np.random.default_rng(0), 400)
    assert points[:, 0].max() == pytest.approx(8.0, abs=0.5)
