# SPDX-License-Identifier: Apache-2.0
"""What cannot be what it is taken for: blind cameras, depth that is none or in another unit, frames that are not optical."""

import cv2
import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.poses import invert, make_transform
from occupancy_nn_ros.messages.names import IMAGE, POINT_CLOUD
from occupancy_nn_ros.messages.sensors import encode_image, encode_point_cloud
from occupancy_nn_ros.runtime.depth_checks import DepthChecks
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.picture_checks import PictureChecks
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.plausibility import Plausibility, odd_mounting
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import CameraModel, PosedDepth, PosedImage

SECOND = 1_000_000_000
MODEL = CameraModel(80, 60, np.array([[50.0, 0, 39.5], [0, 50, 29.5], [0, 0, 1]]), "none", np.zeros(0))
FORWARD = make_transform((0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
ROOM = np.array([[-3.0, -2.5, 0.0], [6.0, 2.5, 2.4]])


def turned(axis, degrees):
    half = np.deg2rad(degrees) / 2
    return make_transform((0, 0, 0), (*(np.sin(half) * np.eye(3)["xyz".index(axis)]), np.cos(half)))


def at(x, y=0.0, yaw=0.0):
    half = np.deg2rad(yaw) / 2
    return make_transform((x, y, 0), (0, 0, np.sin(half), np.cos(half)))


def room_depth(T_map_cam):
    """(H, W) metres along the axis to the walls of an empty room, by where each ray leaves its box."""
    v, u = np.mgrid[0 : MODEL.height, 0 : MODEL.width]
    rays = np.stack([(u - 39.5) / 50, (v - 29.5) / 50, np.ones(u.shape)], axis=-1) @ T_map_cam[:3, :3].T
    with np.errstate(divide="ignore"):
        return np.where(rays > 0, ROOM[1] - T_map_cam[:3, 3], ROOM[0] - T_map_cam[:3, 3]) / rays


def measured(T_map_base, rng=None, scale=1.0):
    depth = room_depth(T_map_base @ FORWARD).min(axis=-1)
    if rng is not None:
        depth = depth * (1 + 0.01 * rng.normal(size=depth.shape))
    return PosedDepth("d", 0, (depth * scale).astype(np.float32), MODEL, T_map_base @ FORWARD)


def verdicts(images):
    """The reason for which each of the images is refused, empty where it is taken."""
    checks, reasons = DepthChecks(), []
    for depth, pose in images:
        try:
            checks.check(depth, pose)
        except ImplausibleError as error:
            reasons.append((error.reason, error.spoils_map, str(error)))
        else:
            reasons.append(("", False, ""))
    return reasons


PATHS = {
    "forward": [at(0.2 * n) for n in range(14)],
    "sideways": [at(0.0, -1.0 + 0.2 * n) for n in range(8)],
    "curve": [at(0.2 * n, 0.02 * n * n, 3 * n) for n in range(8)],
    "turning on the spot": [at(0, 0, 8 * n) for n in range(8)],
    "standing": [at(0)] * 8,
}


@pytest.mark.parametrize("path", PATHS)
def test_depth_in_metres_is_taken_however_the_robot_moves(path, rng):
    assert {reason for reason, _, _ in verdicts([(measured(p, rng), p) for p in PATHS[path]])} == {""}


@pytest.mark.parametrize("path", ["forward", "curve"])
@pytest.mark.parametrize(
    ("scale", "advice"), [(10.0, "0.1 times"), (4.0, "0.25 times"), (0.25, "4 times"), (0.1, "10 times")]
)
def test_another_unit_is_found_by_motion_and_named(path, scale, advice, rng):
    """The first verdict takes three pairs of images, and spoils what was mapped before it."""
    found = verdicts([(measured(p, rng, scale), p) for p in PATHS[path]])
    reason, _, text = found[-1]
    assert reason == "depth is not in metres" and f"set depth_unit_m to {advice}" in text
    assert [spoils for _, spoils, _ in found].count(True) == 1
    assert {r for r, _, _ in found[:3]} <= {"", "depth lies below the floor"}


def test_depth_ten_times_too_far_is_held_back_at_once_by_the_floor(rng):
    (reason, spoils, text), *_ = verdicts([(measured(at(0), rng, 10.0), at(0))])
    assert (reason, spoils) == ("depth lies below the floor", False)
    assert "set depth_unit_m" in text


@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_a_unit_that_is_a_thousand_times_off_is_found_at_once(scale):
    (reason, _, text), *_ = verdicts([(measured(at(0), None, scale), at(0))])
    assert reason == "depth is not in metres"
    assert "are below 0.05 or above 200 m" in text


def confidence(rng, low, high):
    return PosedDepth("d", 0, rng.uniform(low, high, (60, 80)).astype(np.float32), MODEL, np.eye(4))


@pytest.mark.parametrize(("low", "high"), [(0.8, 1.0), (0.3, 1.0), (7.0, 7.4), (2.9, 3.0)])
def test_what_does_not_change_with_motion_is_no_depth(low, high, rng):
    """A confidence map, and thermal pictures: values that would pass for metres."""
    path = [at(0.35 * n) for n in range(12)]
    picture = rng.uniform(low, high, (60, 80)).astype(np.float32)
    noise = [picture + rng.normal(0, 0.01, picture.shape).astype(np.float32) for _ in path]
    found = verdicts([(PosedDepth("d", 0, n, MODEL, p @ FORWARD), p) for n, p in zip(noise, path, strict=True)])
    assert found[-1][0] == "depth is not in metres"
    assert "do not change as distances do" in found[-1][2]


def test_a_pit_is_believed_once_motion_has_shown_it(rng):
    """A robot above a shaft: held back as too deep at first, taken as soon as it is seen to be there."""
    ROOM[0, 2] = -8.0
    try:
        path = [make_transform((0.3 * n, 0, 0), (0, 0, 0, 1)) for n in range(8)]
        found = verdicts([(measured(p, rng), p) for p in path])
    finally:
        ROOM[0, 2] = 0.0
    assert found[-1][0] == ""


def texture(rng, height=120, width=160):
    small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def blind_reason(*pictures, step=0.2):
    checks = PictureChecks()
    for n, picture in enumerate(pictures):
        try:
            checks.check(PosedImage("c", n, picture, MODEL, at(step * n)))
        except ImplausibleError as error:
            reason = error.reason
        else:
            reason = ""
    return reason


def test_pictures_of_something_are_taken(rng):
    assert blind_reason(*(texture(rng) for _ in range(4))) == ""
    dim = (texture(rng) // 12).astype(np.uint8)
    assert blind_reason(dim) == ""
    wall = np.repeat(np.linspace(120, 150, 160).astype(np.uint8)[None, :, None], 120, axis=0).repeat(3, axis=2)
    assert blind_reason(wall) == ""


@pytest.mark.parametrize("color", [(0, 0, 0), (0, 135, 0), (128, 128, 128), (255, 255, 255), (120, 60, 200)])
def test_black_green_and_grey_pictures_show_nothing(color, rng):
    picture = np.full((120, 160, 3), color, np.uint8)
    assert blind_reason(picture) == "picture shows nothing"
    noisy = np.clip(picture.astype(int) + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    assert blind_reason(noisy) == "picture shows nothing"  # the noise of a sensor is no texture


@pytest.mark.parametrize(("color", "share", "reason"), [
    ((0, 135, 0), 0.5, "picture is in part lost"), ((128, 128, 128), 0.4, "picture is in part lost"),
    ((0, 0, 0), 0.4, ""), ((0, 0, 0), 0.7, "picture is in part lost"), ((90, 80, 70), 0.2, ""),
])  # fmt: skip
def test_what_a_broken_stream_left_out_is_no_floor(color, share, reason, rng):
    picture = texture(rng)
    picture[round(120 * (1 - share)) :] = color
    assert blind_reason(picture) == reason


def test_a_picture_that_stays_the_same_while_the_camera_moves_is_frozen(rng):
    picture = texture(rng)
    assert blind_reason(picture, picture, step=0.05) == ""
    assert blind_reason(picture, picture) == "picture is frozen"
    assert blind_reason(picture, picture, step=0.0) == ""
    assert blind_reason(picture, picture, texture(rng)) == ""


@pytest.mark.parametrize("yaw", [0, 90, 200])
@pytest.mark.parametrize("pitch", [0, 30, 60])
@pytest.mark.parametrize("slope", [0, 15])
def test_a_body_frame_is_told_from_an_optical_one_at_any_pitch(pitch, yaw, slope):
    T_map_base = at(1.0) @ turned("y", slope)
    body = T_map_base @ turned("z", yaw) @ turned("y", pitch)
    optical = body @ invert(turned("z", 0)) @ make_transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
    assert f"by its frame 'cam' the camera looks {'straight up' if pitch == 0 else 'up and lies'}" in odd_mounting(
        "cam", body, T_map_base
    )
    assert odd_mounting("cam", optical, T_map_base) == ""


def test_ordinary_mountings_are_not_odd():
    optical = make_transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
    for roll in (0, 90, 180, 270):  # portrait, upside down
        for pitch in (-20, 0, 45, 80):
            assert odd_mounting("cam", turned("y", pitch) @ optical @ turned("z", roll), np.eye(4)) == ""


def test_an_optical_frame_that_is_the_base_is_not_odd():
    """Visual odometry places the camera itself, in a map that is upright or that is its own first frame."""
    pose = at(2.0) @ make_transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
    assert odd_mounting("camera", pose, pose) == ""
    assert odd_mounting("camera", np.eye(4), np.eye(4)) == ""
    assert odd_mounting("cam_optical_frame", turned("z", 20), turned("z", 20)) == ""


DEPTH = SensorStream("d", "/d/image", IMAGE, "/d/camera_info", kind="depth")


def keyframe(n, pose, cdr, sensor=DEPTH, frame_id="cam"):
    return RawKeyframe(n * SECOND, pose, (RawFrame(sensor, n * SECOND, frame_id, cdr, MODEL, pose @ FORWARD),))


@pytest.fixture
def session():
    config = load_config([], ["source=depth", "map.size_xy_m=8"])
    return MappingSession(config, OccupancyPipeline(config))


def test_a_map_of_the_wrong_unit_is_begun_anew_and_the_camera_left_out(session, rng):
    """0.1 mm in 16UC1: nothing of it stays in the map, however long it goes on."""
    for n in range(10):
        pose = at(0.2 * n)
        tenths = np.clip(measured(pose, rng).depth_m * 10_000, 0, 65535).astype(np.uint16)
        session.process(keyframe(n, pose, encode_image(n * SECOND, "cam", tenths, "16UC1")), "odom", ())
    view = session.view()
    assert view is None or not (view.state >= 0).any()
    assert session.dropped["d: depth lies below the floor"] + session.dropped["d: depth is not in metres"] == 10
    assert "set depth_unit_m to 0.1 times" in session.problems["d: depth is not in metres"]


def test_a_unit_that_is_set_is_used_and_believed(session, rng):
    sensor = SensorStream("d", "/d/image", IMAGE, "/d/camera_info", kind="depth", depth_unit_m=0.0001)
    for n in range(3):
        pose = at(0.2 * n)
        tenths = np.clip(measured(pose).depth_m * 10_000, 0, 65535).astype(np.uint16)
        session.process(keyframe(n, pose, encode_image(n * SECOND, "cam", tenths, "16UC1"), sensor), "odom", ())
    assert session.keyframes == 3 and not session.dropped
    _, state = session.pipeline.map.query(np.array([[3.7, 2.5, 1.0], [2.0, 0.0, 1.0]]))
    assert state.tolist() == [1, 0]


@pytest.mark.parametrize("frame_id", ["odom", "map", "camera_init"])
def test_a_cloud_that_is_registered_already_is_left_out(session, frame_id, rng):
    lidar = SensorStream("top", "/cloud", POINT_CLOUD, kind="cloud")
    cdr = encode_point_cloud(0, frame_id, rng.uniform(-3, 3, (500, 3)).astype(np.float32))
    session.process(keyframe(0, at(1.0), cdr, lidar, frame_id), "odom", ())
    assert session.view() is None
    assert session.dropped["top: cloud is not in its sensor's frame"] == 1
    assert f"the cloud is in '{frame_id}'" in session.problems["top: cloud is not in its sensor's frame"]
    session.process(keyframe(1, at(1.0), cdr, lidar, "lidar"), "odom", ())
    assert session.keyframes == 1


def test_a_cloud_in_millimetres_is_left_out_by_itself(session, rng):
    """All of its rays would end outside of the map, and all within would be free."""
    lidar = SensorStream("top", "/cloud", POINT_CLOUD, kind="cloud")
    points = rng.uniform(-3, 3, (500, 3)).astype(np.float32)
    points[::3] = 0  # nothing was returned
    session.process(keyframe(0, at(1.0), encode_point_cloud(0, "lidar", points * 1000), lidar, "lidar"), "odom", ())
    assert session.view() is None
    assert session.dropped["top: cloud is not in metres"] == 1
    session.process(keyframe(1, at(1.0), encode_point_cloud(1, "lidar", points * 40), lidar, "lidar"), "odom", ())
    assert session.keyframes == 1


def test_after_frames_that_did_not_decode_a_picture_is_compared_with_none(rng):
    picture, judge = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), PictureChecks()
    here, there = np.eye(4), make_transform((1.0, 0, 0), (0, 0, 0, 1))
    judge.check(PosedImage("front", 1, picture, MODEL, here))
    with pytest.raises(ImplausibleError, match="stays the same"):
        judge.check(PosedImage("front", 2, picture, MODEL, there))
    plausibility = Plausibility()
    plausibility._pictures["front"] = judge
    plausibility.forget("front")
    plausibility.forget("never seen")
    assert "front" not in plausibility._pictures


def test_a_unit_that_is_set_and_absurd_is_not_believed(session, rng):
    sensor = SensorStream("d", "/d/image", IMAGE, "/d/camera_info", kind="depth", depth_unit_m=1.0)
    millimetres = (measured(at(0.0), rng).depth_m * 1000).astype(np.uint16)
    session.process(keyframe(0, at(0.0), encode_image(0, "cam", millimetres, "16UC1"), sensor), "odom", ())
    assert session.dropped["d: depth is not in metres"] == 1
