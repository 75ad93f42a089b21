# SPDX-License-Identifier: Apache-2.0
"""``occupancy-nn doctor`` on bags: a good one, and one for each thing that can be wrong with it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_tf
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.messages.names import IMAGE, ODOMETRY, POINT_CLOUD
from occupancy_nn_ros.messages.sensors import (
    encode_camera_info,
    encode_image,
    encode_odometry,
    encode_point_cloud,
    encode_tf,
)
from occupancy_nn_ros.values import StampedTransform

SECOND = 1_000_000_000


@pytest.fixture
def doctor(tiny_model, capsys):
    """Runs the doctor; returns the exit status and what it found, as (level, subject, text, advice)."""

    def run(bag, *arguments):
        code = main(["doctor", str(bag), "--json", "--model", str(tiny_model), *arguments])
        report = json.loads(capsys.readouterr().out)
        checks = [tuple(check.values()) for check in report["checks"]]
        assert report["problems"] == sum(check[0] == "problem" for check in checks)
        assert code == (report["problems"] > 0)
        return code, checks

    return run


@pytest.fixture
def changed(small_bag, tmp_path):
    """A copy of the small bag with each message passed through ``change``, which may return None, bytes or a tuple."""

    def make(change, name="changed.mcap"):
        with BagReader(small_bag) as reader, BagWriter(tmp_path / name) as writer:
            for message in reader.messages():
                cdr = change(message)
                if cdr is not None:
                    writer.write(message.topic, message.msgtype, message.stamp_ns, cdr)
        return tmp_path / name

    return make


def only(checks, level):
    return [check for check in checks if check[0] == level]


def test_a_good_bag_has_no_findings_and_tells_what_it_holds(small_bag, doctor):
    code, checks = doctor(small_bag)
    assert code == 0
    assert {check[0] for check in checks} == {"ok"}
    texts = [f"{subject}: {text}" for _, subject, text, _ in checks]
    assert "front: /front/image_raw: image rgb8 160x120, 12 messages at 10.0 Hz" in texts
    assert "back: camera_info 160x120, 72 degrees wide, plumb_bob" in texts
    assert "front: odom -> base_link -> front_optical: known at all 2 stamps" in texts  # but for 0.5 s at each end
    assert "map: 6 map updates would be made" in texts  # as many as the player makes of this bag
    assert any(text.startswith("sync: 100% of the frames of 'back'") and text.endswith("0 ms away") for text in texts)


def test_it_prints_one_line_for_each_check_and_one_for_each_advice(small_bag, tiny_model, capsys):
    assert main(["doctor", str(small_bag), "--model", str(tiny_model), "--set", "map_frame=earth"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines].count("problem") == 3
    advice = lines[next(n for n, line in enumerate(lines) if "'earth'" in line) + 1]
    assert advice.split("-> ")[1] == "set map_frame and base_frame to frames that exist, or start the odometry"
    assert lines[-1] == "3 problems, 0 warnings"


def without_info(message):
    return None if message.topic == "/front/camera_info" else message.cdr


def half_the_size(message):
    if message.topic != "/front/image_raw":
        return message.cdr
    pixels = decode_image(IMAGE, message.cdr)[1][::2, ::2]
    return encode_image(message.stamp_ns, "front_optical", pixels)


def other_lens(focal):
    def change(message):
        if message.topic != "/front/camera_info":
            return message.cdr
        model = decode_camera_info(message.cdr)[1]
        K = model.K.copy()
        K[0, 0] = K[1, 1] = focal
        return encode_camera_info(message.stamp_ns, "front_optical", replace(model, K=K))

    return change


def unknown_encoding(message):
    if message.topic != "/front/image_raw":
        return message.cdr
    return encode_image(message.stamp_ns, "front_optical", np.zeros((120, 160, 3), np.uint8), "nv24")


def without_mount(message):
    if message.topic != "/tf_static":
        return message.cdr
    return encode_tf([t for t in decode_tf(message.cdr) if t.source_frame != "front_optical"])


def mount_that_is_no_optical_frame(message):
    if message.topic != "/tf_static":
        return message.cdr
    level = make_transform((0, 0, 1), (0, 0, 0, 1))
    return encode_tf(
        [replace(t, T_target_source=level) if t.source_frame == "front_optical" else t for t in decode_tf(message.cdr)]
    )


def without_tf(message):
    return None if message.topic == "/tf" else message.cdr


def shifted(shift_ns):
    """All stamps of the front camera's images moved."""

    def change(message):
        if message.topic != "/front/image_raw":
            return message.cdr
        stamp_ns = peek_header(message.cdr).stamp_ns + shift_ns
        return encode_image(stamp_ns, "front_optical", decode_image(IMAGE, message.cdr)[1])

    return change


def with_a_gap(message):
    n = round((message.stamp_ns - 1_700_000_000 * SECOND) / 1e8)
    return None if message.topic == "/front/image_raw" and 3 <= n <= 8 else message.cdr


def stampless(message):
    if message.topic != "/front/image_raw":
        return message.cdr
    return encode_image(0, "front_optical", decode_image(IMAGE, message.cdr)[1])


LONELY = "/front/image_raw is left out: no camera_info beside it, as other cameras have"
LOOSE = "no transform from 'front_optical' to 'odom'; frames that exist: back_optical, base_link, odom"


@pytest.mark.parametrize(
    ("change", "level", "text", "advice"),
    [
        (without_info, "warning", LONELY, "camera_info_topic"),
        (half_the_size, "problem", "image is 80x60, camera_info says 160x120", "calibration of this resolution"),
        (other_lens(0.0), "problem", "focal lengths are 0.0, 0.0", "calibration"),
        (other_lens(5000.0), "warning", "camera_info 160x120, 2 degrees wide", "calibration of this lens"),
        (unknown_encoding, "problem", "encoding is 'nv24', expected one of rgb8", "encoding"),
        (without_mount, "problem", LOOSE, "publish the mount of 'front_optical' in /tf_static"),
        (mount_that_is_no_optical_frame, "warning", "'front_optical' the camera looks straight up", "optical frame"),
        (without_tf, "problem", "no transform from 'base_link' to 'odom'", "start the odometry"),
        (shifted(100 * SECOND), "problem", "0% of the frames of 'back' have partners", "time_offset_s"),
        (shifted(-100 * SECOND), "problem", "odom -> base_link -> front_optical: known at 0% of", "clocks"),
        (with_a_gap, "warning", "6 messages at 10.0 Hz, with gaps of up to 0.70 s", "get lost"),
        (stampless, "problem", "12 messages without stamps", "header.stamp"),
    ],
)
def test_each_fault_is_found_and_comes_with_advice(changed, doctor, change, level, text, advice):
    code, checks = doctor(changed(change))
    matching = [check for check in only(checks, level) if text in check[2]]
    assert matching, checks
    assert advice in matching[0][3]
    assert code == (level == "problem")


def test_cameras_that_are_out_of_step_are_told_by_how_much(changed, doctor):
    bag = changed(shifted(30_000_000))
    assert doctor(bag)[0] == 0  # within the default tolerance
    code, checks = doctor(bag, "--set", "sync.tolerance_s=0.01")
    (sync,) = [check for check in checks if check[1] == "sync"]
    assert (code, sync[0]) == (1, "problem")
    assert sync[2].startswith("0% of the frames") and sync[2].endswith("lie 30 ms away")
    assert "raise sync.tolerance_s to 0.031" in sync[3]


@pytest.mark.parametrize(
    ("arguments", "subject", "text"),
    [
        (["--set", "cameras.front.image_topic=/frnt/image_raw", "--set", "cameras.back.image_topic=/back/image_raw"],
         "front", "front.image_topic is /frnt/image_raw, which does not exist; close to it: /front/image_raw"),
        (["--set", "cameras.x.image_topic=/front/camera_info"], "x", "expected Image, CompressedImage or PointCloud2"),
        (["--source", "lidar"], "sensors", "no topic looks like a sensor for source 'lidar'; topics of its types: none"),
        (["--model", "no_such_model"], "model", "no model named 'no_such_model'"),
        (["--set", "network.device=cuda:77"], "model", "device is 'cuda:77'"),
        (["--set", "cameras.x.image_topic=/front/image_raw", "--set", "cameras.x.camera_info_topic=/frnt/camera_info"],
         "x", "no camera_info on /frnt/camera_info (x): it is not in the bag; topics of its type: /front/camera_info, /back"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_bag(small_bag, doctor, arguments, subject, text):
    code, checks = doctor(small_bag, *arguments)
    assert code == 1
    assert [check for check in only(checks, "problem") if check[1] == subject and text in check[2]], checks


def test_one_missing_camera_does_not_hide_the_other(small_bag, doctor):
    cameras = ["cameras.front.image_topic=/frnt/image_raw", "cameras.back.image_topic=/back/image_raw"]
    _, checks = doctor(small_bag, *(part for camera in cameras for part in ("--set", camera)))
    assert [check[1] for check in only(checks, "problem")] == ["front"]
    assert ("ok", "map", "6 map updates would be made", "") in checks


def test_a_bag_that_is_none_is_a_finding_too(tmp_path, doctor):
    (tmp_path / "junk.mcap").write_bytes(b"this is no bag")
    code, checks = doctor(tmp_path / "junk.mcap")
    assert code == 1
    assert only(checks, "problem")[0][1] == "bag"


def test_only_the_first_seconds_are_looked_at(small_bag, doctor):
    _, checks = doctor(small_bag, "--wait", "0.5")
    (front,) = [check for check in checks if check[1] == "front" and "messages" in check[2]]
    assert "5 messages at 10.0 Hz" in front[2]


def test_odometry_is_taken_where_tf_does_not_move_the_robot(small_bag, tmp_path, doctor):
    with BagReader(small_bag) as reader, BagWriter(tmp_path / "odometry.mcap") as writer:
        for message in reader.messages():
            if message.topic != "/tf":
                writer.write(message.topic, message.msgtype, message.stamp_ns, message.cdr)
                continue
            (moved,) = decode_tf(message.cdr)
            writer.write("/odometry", ODOMETRY, message.stamp_ns, encode_odometry(moved))
            other = StampedTransform(moved.stamp_ns, "odom", "other", np.eye(4))
            writer.write("/tf", message.msgtype, message.stamp_ns, encode_tf([other]))
    code, checks = doctor(tmp_path / "odometry.mcap")
    text = "map frame 'odom', robot frame 'base_link': /odometry places the robot (pose of 'base_link')"
    assert (code, ("ok", "frames", text, "") in checks) == (0, True)
    _, checks = doctor(tmp_path / "odometry.mcap", "--set", "map_frame=map")  # a frame that is named is never replaced
    assert "or set pose_topic=/odometry" in only(checks, "problem")[0][3]
    code, checks = doctor(tmp_path / "odometry.mcap", "--set", "pose_topic=/odometry")
    assert code == 0
    assert ("ok", "pose", "/odometry places the robot", "") in checks


def test_a_pose_topic_that_is_missing_is_a_warning_where_tf_does_without(small_bag, doctor):
    code, checks = doctor(small_bag, "--set", "pose_topic=/odometry")
    assert code == 0
    text = "no message on /odometry: it is not in the bag; topics of its type: none"
    assert [check[1:3] for check in only(checks, "warning")] == [("pose", text)]


def test_a_lidar_beside_the_cameras_is_checked_as_one(small_bag, tmp_path, doctor):
    rng = np.random.default_rng(1)
    with BagReader(small_bag) as reader, BagWriter(tmp_path / "lidar.mcap") as writer:
        for message in reader.messages():
            writer.write(message.topic, message.msgtype, message.stamp_ns, message.cdr)
            if message.topic == "/front/image_raw":
                points = rng.normal(size=(50, 3)).astype(np.float32)
                cloud = encode_point_cloud(message.stamp_ns, "base_link", points)
                writer.write("/top/points", POINT_CLOUD, message.stamp_ns, cloud)
    names = {"front": "/front/image_raw", "top": "/top/points"}
    settings = [part for n, t in names.items() for part in ("--set", f"cameras.{n}.image_topic={t}")]
    code, checks = doctor(tmp_path / "lidar.mcap", *settings)
    assert code == 0
    assert ("ok", "top", "/top/points: cloud of 50 points, 12 messages at 10.0 Hz", "") in checks
    assert not [check for check in checks if check[1] == "top" and "camera_info" in check[2]]


def test_the_demonstration_drive_is_well(doctor):
    from occupancy_nn_ros.resources import resource_path

    code, checks = doctor(resource_path("demo/drive.mcap"), "--wait", "5")
    assert code == 0
    assert {check[0] for check in checks} == {"ok"}
    assert sum("image jpeg 480x360, 16 messages at 3.0 Hz" in check[2] for check in checks) == 4
