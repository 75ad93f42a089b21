# SPDX-License-Identifier: Apache-2.0
"""The robot's own arm in front of a camera leaves no mark; what stands behind it does."""

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import Config, RobotConfig, load_config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.runtime.own_body import OwnBody
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedCloud, PosedDepth, Prediction, VoxelState

ARM = "0.4 -0.1 0.2 0.8 0.1 0.6"
R_BASE_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
TURNED = make_transform((3.0, -2.0, 0.0), (0, 0, np.sin(0.4), np.cos(0.4)))


def depth_camera(T_map_base, arm_m=0.65, wall_m=2.55):
    """A camera at 0.4 m that sees the arm in the middle of its picture and a wall around it."""
    model = CameraModel(40, 30, np.array([[40.0, 0, 19.5], [0, 40, 14.5], [0, 0, 1]]), "none", np.zeros(0))
    depth = np.full((30, 40), wall_m, np.float32)
    depth[10:20, 15:25] = arm_m
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R_BASE_OPTICAL, (0, 0, 0.4)
    return PosedDepth("front", 1, depth, model, T_map_base @ pose)


def test_depth_of_the_arm_is_left_out_and_of_the_wall_is_kept():
    cleaned = OwnBody(ARM).leave_out(Keyframe(1, TURNED, depths=(depth_camera(TURNED),))).depths[0].depth_m
    assert (cleaned[12:18, 17:23] == 0).all()
    assert (cleaned[:10] == np.float32(2.55)).all()
    assert int((cleaned == 0).sum()) == 100


def test_points_of_the_arm_are_left_out():
    points = np.array([[0.6, 0, 0.4], [0.9, 0, 0.4], [0.6, 0, 0.7], [0.5, 0.05, 0.3]], np.float32)
    cloud = PosedCloud("top", 1, points, TURNED)
    kept = OwnBody(ARM).leave_out(Keyframe(1, TURNED, clouds=(cloud,))).clouds[0].points_m
    np.testing.assert_array_equal(kept, points[1:3])


def test_predicted_voxels_of_the_body_carry_no_weight():
    """Each voxel against the definition, with a robot that is turned."""
    window = LatticeWindow(0.1, (20, -35, -3), (30, 30, 12))
    prediction = Prediction(window, torch.ones(window.shape), torch.ones(window.shape))
    weight = OwnBody(ARM).discount(prediction, TURNED).weight.numpy()
    local = (window.centers_m().reshape(-1, 3) - TURNED[:3, 3]) @ TURNED[:3, :3]
    inside = ((local >= (0.4, -0.1, 0.2)) & (local <= (0.8, 0.1, 0.6))).all(axis=1).reshape(window.shape)
    assert inside.sum() > 20
    np.testing.assert_array_equal(weight, np.where(inside, 0.0, 1.0))
    assert (prediction.weight == 1).all()


def test_boxes_outside_of_the_window_and_boxes_that_cover_it():
    window = LatticeWindow(0.1, (0, 0, 0), (5, 5, 5))
    prediction = Prediction(window, torch.ones(window.shape), torch.ones(window.shape))
    assert (OwnBody("50 50 50 51 51 51").discount(prediction, np.eye(4)).weight == 1).all()
    assert (OwnBody("-9 -9 -9 9 9 9").discount(prediction, np.eye(4)).weight == 0).all()
    assert OwnBody("").discount(prediction, np.eye(4)) is prediction


def test_the_map_shows_the_wall_and_not_the_arm():
    marked = {}
    for body in ("", ARM):
        config = load_config(overrides=["source=depth", "voxel_size_m=0.1", "map.size_xy_m=8", f"robot.body={body}"])
        pipeline = OccupancyPipeline(config)
        for stamp in (1, 2):
            pipeline.step(Keyframe(stamp, np.eye(4), depths=(depth_camera(np.eye(4)),)))
        _, state = pipeline.map.query([(0.65, 0.02, 0.42), (2.55, 0.82, 0.42)])
        marked[body] = (state == VoxelState.OCCUPIED).tolist()
    assert marked == {"": [True, True], ARM: [False, True]}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (ARM, None), ("-1 -1 0 1 1 1; 1 -1 0 2 1 1", None), ("-9 -9 -1 9 9 9", "robot.body holds 53% of the map"),
        ("-12 -12 -1.2 12 12 2.8", "robot.body holds 100% of the map"), ("-300 -250 50 300 250 600", "lies outside of the map"),
    ],
)  # fmt: skip
def test_boxes_that_are_none_of_a_robot_are_told_of_and_the_map_goes_on(body, told):
    config = load_config(overrides=["source=depth", f"robot.body={body}"])
    problems = MappingSession(config, OccupancyPipeline(config)).problems
    if told is None:
        assert not problems
    else:
        assert told in problems["robot.body"] and "\n" not in problems["robot.body"]


@pytest.mark.parametrize("text", ["1 2 3", "0 0 0 1 1 x", "0 0 0 -1 1 1", "0 0 0 1 1 nan", "0 0 0 0 1 1"])
def test_what_is_no_box_is_refused(text):
    with pytest.raises(ConfigError, match=r"robot\.body"):
        RobotConfig(text)
    assert Config().robot.body == ""
