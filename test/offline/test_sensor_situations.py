# SPDX-License-Identifier: Apache-2.0
"""Sensors as they are in the field: what the map holds, and what the doctor says of it before there is one."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.scan import scan_bag
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.messages.names import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    COMPRESSED_VIDEO,
    IMAGE,
    MAP_STATUS,
    POINT_CLOUD,
)
from occupancy_nn_ros.messages.sensors import (
    encode_camera_info,
    encode_compressed_image,
    encode_image,
    encode_point_cloud,
    encode_tf,
)
from occupancy_nn_ros.messages.status import NodeStatus, encode_map_status
from occupancy_nn_ros.messages.typestore import deserialize, make, serialize, typestore
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.values import CameraModel

FRONT, BACK = "/front/image_raw", "/back/image_raw"
MODEL = CameraModel(160, 120, np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]]), "none", np.zeros(0))


@pytest.fixture
def changed(small_bag, tmp_path):
    """A copy of the small bag; ``change`` gives the messages (topic, type, bytes) that come in each one's place."""

    def make(change):
        with BagReader(small_bag) as reader, BagWriter(tmp_path / "changed.mcap") as writer:
            for message in reader.messages():
                for topic, msgtype, cdr in change(message):
                    writer.write(topic, msgtype, message.stamp_ns, cdr)
        return tmp_path / "changed.mcap"

    return make


def same(message):
    return [(message.topic, message.msgtype, message.cdr)]


def only(topic, change):
    """Change the messages of one topic to other bytes."""

    def apply(message):
        return [(message.topic, message.msgtype, change(message))] if message.topic == topic else same(message)

    return apply


def play(bag, model, *settings):
    with BagReader(bag) as reader:
        config = load_config([], [f"model={model}", "map.size_xy_m=8", *settings])
        return play_bag(reader, plan_play(reader, config))


def equal_maps(one, other):
    return (
        one.window == other.window and (one.state == other.state).all() and (one.probability == other.probability).all()
    )


@pytest.fixture
def doctor(tiny_model, capsys):
    def run(bag, *arguments):
        code = main(["doctor", str(bag), "--json", "--model", str(tiny_model), *arguments])
        return code, [tuple(check.values()) for check in json.loads(capsys.readouterr().out)["checks"]]

    return run


def told(checks, level, text):
    return [check for check in checks if check[0] == level and text in check[2]]


def pixels(message):
    return decode_image(message.msgtype, message.cdr)[1]


def image(message, picture, encoding="rgb8"):
    return encode_image(peek_header(message.cdr).stamp_ns, peek_header(message.cdr).frame_id, picture, encoding)


@pytest.mark.parametrize("color", [(0, 0, 0), (0, 135, 0)], ids=["black", "green"])
def test_a_blind_camera_claims_nothing(small_bag, changed, tiny_model, doctor, color):
    """The map is that of the other camera, voxel for voxel."""
    blind = changed(only(FRONT, lambda m: image(m, np.full((120, 160, 3), color, np.uint8))))
    alone = play(small_bag, tiny_model, f"cameras.back.image_topic={BACK}")
    result = play(blind, tiny_model)
    assert result.summary["keyframes"] == 6
    assert result.summary["dropped"] == {"front: picture shows nothing": 6}
    assert equal_maps(result.view, alone.view)
    code, checks = doctor(blind)
    assert code == 0
    (check,) = told(checks, "warning", "6 of 6 frames are not usable: picture shows nothing")
    assert check[1] == "front" and "lens covered" in check[3]


def test_two_blind_cameras_make_no_map_and_play_ends_with_the_cause(changed, tiny_model, doctor, tmp_path, capsys):
    blind = changed(
        lambda m: [(m.topic, m.msgtype, image(m, np.zeros((120, 160, 3), np.uint8)))] if m.msgtype == IMAGE else same(m)
    )
    assert main(["play", str(blind), "--model", str(tiny_model), "--out", str(tmp_path / "out")]) == 1
    assert "picture shows nothing: all of it is within 0 of 255 grey levels" in capsys.readouterr().err
    code, checks = doctor(blind)
    assert code == 1
    assert told(checks, "problem", "no map update would be made: no frame is usable, ")


def test_a_frozen_camera_claims_nothing(small_bag, changed, tiny_model, doctor):
    first = []

    def freeze(message):
        first.append(pixels(message))
        return image(message, first[0])

    frozen = changed(only(FRONT, freeze))
    result = play(frozen, tiny_model)
    assert result.summary["dropped"] == {"front: picture is frozen": 5}  # the first picture is a good one
    assert told(
        doctor(frozen)[1], "warning", "5 of 6 frames are not usable: picture stays the same while the camera moves"
    )


@pytest.mark.parametrize("pitch", [0, 30, 60])
def test_a_body_frame_is_found_in_play_and_by_the_doctor(changed, tiny_model, doctor, pitch):
    half = np.deg2rad(pitch) / 2
    body = make_transform((0.2, 0, 0.5), (0, np.sin(half), 0, np.cos(half)))

    def mount(message):
        moved = [
            replace(t, T_target_source=body) if t.source_frame == "front_optical" else t for t in decode_tf(message.cdr)
        ]
        return encode_tf(moved)

    bag = changed(only("/tf_static", mount))
    words = "by its frame 'front_optical' the camera looks"
    assert words in play(bag, tiny_model).summary["problems"]["front: mounting"]
    (check,) = told(doctor(bag)[1], "warning", words)
    assert "optical frame" in check[3]


def test_own_outputs_in_a_bag_change_nothing(small_bag, changed, tiny_model, doctor):
    """Recorded with everything, played again: clouds, depth and status of the node are there beside the cameras."""

    def record(message):
        if message.topic != FRONT:
            return same(message)
        stamp_ns = peek_header(message.cdr).stamp_ns
        return [
            *same(message),
            ("/mapper/status", MAP_STATUS, encode_map_status(NodeStatus(stamp_ns))),
            ("/mapper/front/image", IMAGE, message.cdr),
            ("/mapper/front/camera_info", CAMERA_INFO, encode_camera_info(stamp_ns, "front_optical", MODEL)),
            ("/mapper/occupied", POINT_CLOUD, encode_point_cloud(stamp_ns, "odom", np.ones((5, 3), np.float32))),
        ]

    bag = changed(record)
    result, before = play(bag, tiny_model), play(small_bag, tiny_model)
    assert [s["topic"] for s in result.summary["sensors"]] == [BACK, FRONT]
    assert equal_maps(result.view, before.view)
    assert told(doctor(bag, "--source", "lidar")[1], "problem", "no topic looks like a sensor for source 'lidar'")


def test_a_registered_cloud_is_left_out_and_named(changed, doctor, tmp_path, tiny_model, capsys):
    def add(message):
        if message.topic != FRONT:
            return same(message)
        stamp_ns = peek_header(message.cdr).stamp_ns
        points = np.random.default_rng(1).uniform(-2, 2, (200, 3)).astype(np.float32)
        return [*same(message), ("/points", POINT_CLOUD, encode_point_cloud(stamp_ns, "odom", points))]

    bag = changed(add)
    code, checks = doctor(bag, "--source", "lidar")
    assert code == 1
    assert told(checks, "problem", "the cloud is in 'odom', which does not move with the robot")
    assert main(["play", str(bag), "--source", "lidar", "--out", str(tmp_path / "out")]) == 1
    assert "the cloud is in 'odom'" in capsys.readouterr().err


def test_a_registered_cloud_whose_sensor_is_named_maps_as_the_sensors_own_does(changed, small_bag, tiny_model):
    with BagReader(small_bag) as reader:
        poses = scan_bag(reader).poses

    def both(message):
        """One sweep in the sensor's frame, and the same one registered in odom."""
        if message.topic != FRONT:
            return same(message)
        stamp_ns = peek_header(message.cdr).stamp_ns
        points = np.random.default_rng(stamp_ns % 1000).uniform((-2, -0.4, 1), (2, 0.4, 3), (200, 3)).astype(np.float32)
        T_odom_sensor = poses.lookup("odom", "front_optical", stamp_ns)
        registered = (points @ T_odom_sensor[:3, :3].T + T_odom_sensor[:3, 3]).astype(np.float32)
        return [
            *same(message),
            ("/own/points", POINT_CLOUD, encode_point_cloud(stamp_ns, "front_optical", points)),
            ("/moved/points", POINT_CLOUD, encode_point_cloud(stamp_ns, "odom", registered)),
        ]

    bag = changed(both)
    own = play(bag, tiny_model, "source=lidar", "cameras.top.image_topic=/own/points")
    named = ("cameras.top.image_topic=/moved/points", "cameras.top.sensor_frame=front_optical")
    moved = play(bag, tiny_model, "source=lidar", *named)
    assert own.view.window == moved.view.window
    assert (own.view.state == 1).sum() > 100 and (own.view.state == 0).sum() > 100
    assert (own.view.state == moved.view.state).mean() > 0.9999


def camera_info(change):
    """Messages of the front camera's info with changed fields."""

    def apply(message):
        info = deserialize(CAMERA_INFO, message.cdr)
        for name, value in change.items():
            setattr(info, name, value)
        return serialize(info)

    return only("/front/camera_info", apply)


@pytest.mark.parametrize(
    "change",
    [
        {"distortion_model": "radtan"},
        {"distortion_model": "Plumb_Bob"},
        {"distortion_model": ""},
        {"d": np.array([-0.1, 0.01, 0, 0, 0, 0, 0, 0])},
        {"binning_x": 2, "binning_y": 2},
    ],
    ids=["radtan", "case", "unnamed", "padded", "binned already"],
)
def test_what_drivers_write_into_camera_info_gives_the_same_map(small_bag, changed, tiny_model, doctor, change):
    bag = changed(camera_info(change))
    assert equal_maps(play(bag, tiny_model).view, play(small_bag, tiny_model).view)
    code, checks = doctor(bag)
    assert code == 0 and {check[0] for check in checks} == {"ok"}


def test_nv12_gives_nearly_the_picture_and_all_keyframes(changed, tiny_model):
    import cv2

    def convert(message):
        yuv = cv2.cvtColor(pixels(message), cv2.COLOR_RGB2YUV_I420)
        chroma = yuv[120:].reshape(2, -1).T.reshape(60, 160)
        cdr = image(message, np.concatenate([yuv[:120], chroma]), "nv12")
        raw = deserialize(IMAGE, cdr)
        raw.height = 120
        return serialize(raw)

    assert play(changed(only(FRONT, convert)), tiny_model).summary["keyframes"] == 6


def test_a_full_compressed_topic_wins_over_an_empty_raw_one(changed, tiny_model):
    """Both are advertised, as bags list what nobody sent too."""

    def compress(message):
        if message.topic != FRONT:
            return same(message)
        header = peek_header(message.cdr)
        return [
            (
                f"{FRONT}/compressed",
                COMPRESSED_IMAGE,
                encode_compressed_image(header.stamp_ns, header.frame_id, pixels(message)),
            )
        ]

    result = play(changed(compress), tiny_model)
    assert [s["topic"] for s in result.summary["sensors"]] == [BACK, f"{FRONT}/compressed"]
    assert result.summary["keyframes"] == 6


def test_video_is_mapped_and_described(changed, tiny_model, doctor):
    """H.264 of the front camera's pictures: as many keyframes as with pictures, and no word of trouble."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 160, 120, "yuv420p", Fraction(1, 10)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}

    def encode(message):
        if message.topic != FRONT:
            return same(message)
        (packet,) = encoder.encode(av.VideoFrame.from_ndarray(pixels(message), format="rgb24"))
        header = peek_header(message.cdr)
        stamp = make("builtin_interfaces/Time", sec=header.stamp_ns // 10**9, nanosec=header.stamp_ns % 10**9)
        data = np.frombuffer(bytes(packet), np.uint8)
        video = typestore().types[COMPRESSED_VIDEO](timestamp=stamp, frame_id=header.frame_id, data=data, format="h264")
        return [("/front/video", COMPRESSED_VIDEO, serialize(video))]

    bag = changed(encode)
    result = play(bag, tiny_model)
    assert [s["topic"] for s in result.summary["sensors"]] == [BACK, "/front/video"]
    assert (result.summary["keyframes"], result.summary["dropped"]) == (6, {})
    code, checks = doctor(bag)
    assert code == 0 and {check[0] for check in checks} == {"ok"}
    assert told(checks, "ok", "/front/video: video h264, 12 messages at 10.0 Hz")


def test_an_empty_frame_id_is_that_of_the_camera_info(small_bag, changed, tiny_model, doctor):
    def nameless(message):
        return encode_image(peek_header(message.cdr).stamp_ns, "", pixels(message))

    bag = changed(only(FRONT, nameless))
    assert equal_maps(play(bag, tiny_model).view, play(small_bag, tiny_model).view)
    code, _ = doctor(bag)
    assert code == 0


def test_a_camera_in_a_frame_that_stands_still_claims_nothing(small_bag, changed, tiny_model, doctor):
    """As of drivers whose frame_id was set to that of the map."""

    def rename(message):
        return encode_image(peek_header(message.cdr).stamp_ns, "odom", pixels(message))

    lost = changed(only(FRONT, rename))
    result = play(lost, tiny_model)
    assert result.summary["dropped"] == {"front: camera is not in its own frame": 6}
    assert equal_maps(result.view, play(small_bag, tiny_model, f"cameras.back.image_topic={BACK}").view)
    assert told(doctor(lost)[1], "warning", "its frame is 'odom', which does not move with the robot")
