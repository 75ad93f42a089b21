# SPDX-License-Identifier: Apache-2.0
"""Cameras that send their images in one frame: where they stand, and which are left out."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.poses import invert, make_transform
from occupancy_nn_ros.messages.decode import decode_stereo_place
from occupancy_nn_ros.messages.names import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.map_source import DepthSource
from occupancy_nn_ros.runtime.outputs import depth_topics
from occupancy_nn_ros.values import CameraModel, PosedDepth, StampedTransform

T0 = 1_000_000_000_000
MODEL = CameraModel(8, 6, np.array([[5.0, 0, 4], [0, 5, 3], [0, 0, 1]]), "plumb_bob", np.zeros(5))
OPTICAL = make_transform((0.1, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
FOCAL = 5.2


def info(frame, baseline=0.0, R=None, below=0.0):
    message = deserialize(CAMERA_INFO, encode_camera_info(T0, frame, MODEL))
    message.p = np.array([FOCAL, 0, 4, -FOCAL * baseline, 0, FOCAL, 3, -FOCAL * below, 0, 0, 1, 0])
    message.r = (np.eye(3) if R is None else R).reshape(-1)
    return serialize(message)


def stream(name, msgtype=IMAGE, **more):
    return SensorStream(name, f"/{name}/image_raw", msgtype, f"/{name}/camera_info", **more)


def run(infos, sensors=None, frames=None):
    """The intake after one set of images, and its only keyframe."""
    frames = frames or dict.fromkeys(infos, "left_optical")
    intake = Intake(load_config([], []), sensors or [stream(name) for name in infos])
    mounts = [StampedTransform(0, "base_link", frame, OPTICAL) for frame in set(frames.values())]
    intake.receive("/tf_static", encode_tf(mounts))
    intake.receive("/tf", encode_tf([StampedTransform(T0, "odom", "base_link", np.eye(4))]))
    for name, cdr in infos.items():
        intake.receive(f"/{name}/camera_info", cdr)
    ready = []
    for name, frame in frames.items():
        ready += intake.receive(f"/{name}/image_raw", encode_image(T0, frame, np.zeros((6, 8, 3), np.uint8)))
    (raw,) = ready + intake.flush()
    return intake, {frame.sensor.name: frame for frame in raw.frames}


def test_the_right_camera_stands_beside_the_left_one_whose_frame_it_has():
    """REP 103: x of an optical frame points right, which is -y of the robot."""
    intake, frames = run({"left": info("left_optical"), "right": info("left_optical", 0.12)})
    assert frames["left"].T_map_sensor == pytest.approx(OPTICAL)
    assert frames["right"].T_map_sensor[:3, 3] == pytest.approx([0.1, -0.12, 0.5])
    assert frames["right"].T_map_sensor[:3, :3] == pytest.approx(OPTICAL[:3, :3])
    assert not intake.shared.left_out


def test_a_frame_of_its_own_is_not_moved_once_more():
    frames = {"left": "left_optical", "right": "right_optical"}
    _, placed = run({"left": info("left_optical"), "right": info("right_optical", 0.12)}, frames=frames)
    assert placed["right"].T_map_sensor == pytest.approx(OPTICAL)
    assert placed["right"].T_frame_sensor is None


def test_two_cameras_with_one_baseline_stand_at_one_place():
    """As a depth image that is registered to the right camera, whose frame both have."""
    sensors = [stream("right"), stream("depth", kind="depth")]
    _, placed = run({"right": info("left_optical", 0.12), "depth": info("left_optical", 0.12)}, sensors)
    assert [frame.T_frame_sensor for frame in placed.values()] == [None, None]


def test_a_camera_below_the_first():
    _, frames = run({"upper": info("left_optical"), "lower": info("left_optical", below=0.2)})
    assert frames["lower"].T_map_sensor[:3, 3] == pytest.approx([0.1, 0, 0.3])


@pytest.mark.parametrize("is_rectified", [False, True])
def test_cameras_that_are_not_parallel_are_turned_by_their_rectification(is_rectified):
    turns = [Rotation.from_euler("y", angle).as_matrix() for angle in (0.02, -0.03)]
    sensors = [stream(name, is_rectified=is_rectified) for name in ("left", "right")]
    _, frames = run({"left": info("f", 0, turns[0]), "right": info("f", 0.12, turns[1])}, sensors)
    relative = invert(frames["left"].T_map_sensor) @ frames["right"].T_map_sensor
    if is_rectified:
        assert relative[:3, :3] == pytest.approx(np.eye(3)) and relative[:3, 3] == pytest.approx([0.12, 0, 0])
    else:
        assert relative[:3, :3] == pytest.approx(turns[0].T @ turns[1])
        assert relative[:3, 3] == pytest.approx(turns[0].T @ [0.12, 0, 0])
    assert np.linalg.norm(relative[:3, 3]) == pytest.approx(0.12)


def test_a_rectification_that_is_none_turns_nothing():
    message = deserialize(CAMERA_INFO, info("f", 0.1))
    message.r = np.zeros(9)
    place = decode_stereo_place(serialize(message))
    assert place[:3, :3] == pytest.approx(np.eye(3)) and place[:3, 3] == pytest.approx([0.1, 0, 0])


def test_of_two_cameras_in_one_place_one_is_left_out_and_sets_do_not_wait_for_it():
    sensors = [stream("a_relayed", COMPRESSED_IMAGE), stream("front")]
    intake, frames = run({"a_relayed": info("left_optical"), "front": info("left_optical")}, sensors)
    assert list(frames) == ["front"]  # raw before compressed
    text = "/a_relayed/image_raw is left out: it has the frame of 'front', 'left_optical', and P of its camera_info"
    assert intake.problems["a_relayed: has the frame of another camera"].startswith(text)
    (raw,) = intake.receive(
        "/front/image_raw", encode_image(T0 + 10**10, "left_optical", np.zeros((6, 8, 3), np.uint8))
    ) or [None]
    assert raw is None and intake.silent_topics() == {}  # it waits for its transform, and for nothing else


def test_a_frame_that_is_configured_is_believed():
    sensors = [stream("front", frame_id="left_optical"), stream("rear", frame_id="left_optical")]
    _, frames = run({"front": info("x"), "rear": info("x")}, sensors)
    assert list(frames) == ["front", "rear"]


def test_a_baseline_in_millimetres_is_refused():
    intake, frames = run({"left": info("left_optical"), "right": info("left_optical", 120.0)})
    assert list(frames) == ["left"]
    assert "stands 120 m beside 'left'" in intake.shared.left_out["right"]


def test_predicted_depth_of_the_right_camera_says_where_it_stands():
    _, frames = run({"left": info("left_optical"), "right": info("left_optical", 0.12)})
    depth = PosedDepth("right", T0, np.ones((6, 8), np.float32), MODEL, OPTICAL)
    topic = next(topic for topic in depth_topics("right") if topic.name.endswith("camera_info"))
    cdr = topic.encode(DepthSource(depth, "left_optical", frames["right"].T_frame_sensor))
    assert decode_stereo_place(cdr)[:3, 3] == pytest.approx([0.12, 0, 0])
