# SPDX-License-Identifier: Apache-2.0
"""The command line on real bags: what comes out, and one clear line where nothing can."""

import json
import socket

import cv2
import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_image, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import CameraModel, StampedTransform

T0 = 1_700_000_000_000_000_000
MODEL = CameraModel(64, 48, np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]), "plumb_bob", np.zeros(5))


@pytest.fixture(scope="module")
def depth_bag(tmp_path_factory):
    """A depth camera that stands 2 m in front of a wall, in a world whose frames have unusual names."""
    from occupancy_nn_ros.geometry.poses import make_transform

    path = tmp_path_factory.mktemp("depth") / "bag"
    mount = make_transform((0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
    with BagWriter(path) as writer:
        writer.write("/tf_static", names.TF_MESSAGE, T0, encode_tf([StampedTransform(T0, "body", "eye", mount)]))
        for n in range(6):
            stamp = T0 + n * 500_000_000
            writer.write(
                "/tf", names.TF_MESSAGE, stamp, encode_tf([StampedTransform(stamp, "world", "body", np.eye(4))])
            )
            writer.write("/eye/depth/camera_info", names.CAMERA_INFO, stamp, encode_camera_info(stamp, "eye", MODEL))
            depth = encode_depth_image(stamp, "eye", np.full((48, 64), 2.0, np.float32))
            writer.write("/eye/depth/image_raw", names.IMAGE, stamp, depth)
    return path


def test_network_map_of_a_bag(small_bag, tiny_model, tmp_path, capsys):
    assert main(["play", str(small_bag), "--out", str(tmp_path), "--model", str(tiny_model), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["received"] == {"front": 12, "back": 12}
    assert summary["keyframes"] == 6
    assert summary["dropped"] == {}
    assert summary["frames"] == {"map": "odom", "base": "base_link", "reason": "as configured", "pose_topic": ""}
    assert list(summary["latency_ms"]) == ["decode", "integrate", "predict", "encode", "total", "look_again"]
    grid = summary["map"]
    assert grid["unknown"] + grid["free"] + grid["occupied"] == np.prod(grid["shape"])
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert cv2.imread(str(tmp_path / "top_down.png")) is not None
    assert cv2.imread(str(tmp_path / "depth.png")) is not None
    assert cv2.imread(str(tmp_path / "view_3d.png")) is not None
    with BagReader(tmp_path / "map.mcap") as reader:
        counts = {topic: info.count for topic, info in reader.topics.items()}
    assert counts["/occupancy_nn/occupancy_grid"] == 7
    assert counts["/occupancy_nn/status"] == 1
    assert {"voxel_grid", "occupied_voxels", "markers", "distance_field"} <= {topic.split("/")[-1] for topic in counts}


def test_same_bag_twice_is_the_same_map_to_the_bit(small_bag, tiny_model, tmp_path):
    grids = []
    for run in ("a", "b"):
        assert main(["play", str(small_bag), "--out", str(tmp_path / run), "--model", str(tiny_model), "--json"]) == 0
        with BagReader(tmp_path / run / "map.mcap") as reader:
            grids.append([m.cdr for m in reader.messages(["/occupancy_nn/voxel_grid"])])
    assert grids[0] == grids[1]


def test_depth_map_has_the_wall_where_it_stands(depth_bag, tmp_path, capsys):
    arguments = ["play", str(depth_bag), "--out", str(tmp_path), "--source", "depth", "--set", "voxel_size_m=0.1"]
    assert main([*arguments, "--set", "map.size_xy_m=8"]) == 0
    text = capsys.readouterr().out
    assert "map frame 'world', robot frame 'body'" in text
    assert "/eye/depth/image_raw" in text
    with BagReader(tmp_path / "map.mcap") as reader:
        message = deserialize(names.VOXEL_GRID, [m.cdr for m in reader.messages(["/occupancy_nn/voxel_grid"])][-1])
    state = np.asarray(message.state).reshape(message.size_x, message.size_y, message.size_z)
    centers = message.origin_x + (np.argwhere(state == 1)[:, 0] + 0.5) * message.voxel_size
    assert centers == pytest.approx(2.05, abs=0.06)
    assert (state == 0).sum() > 300


def test_a_viewer_that_never_reads_costs_neither_the_map_nor_its_file(depth_bag, tmp_path, capsys):
    pytest.importorskip("rerun", reason="the Rerun SDK is not installed (extra view)")
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = str(mute.getsockname()[1])
        arguments = ["--source", "depth", "--view", "web", "--view-port", port, "--rrd", "--out", str(tmp_path)]
        assert main(["play", str(depth_bag), *arguments]) == 0
    said = capsys.readouterr()
    assert "6 frames, 3 keyframes" in said.out
    assert f"something listens at port {port} already" in said.err
    assert f"what listens at 127.0.0.1:{port} does not answer as a viewer does" in said.err
    assert "the viewer was shown 0 keyframes" in said.err
    assert f"{tmp_path / 'map.rrd'}: 3 keyframes" in said.err
    assert (tmp_path / "map.rrd").stat().st_size > 10_000


def test_what_is_wrong_with_a_map_is_printed_with_it(depth_bag, tmp_path, capsys):
    box = "robot.body=-50 -50 -50 50 50 50"
    assert main(["play", str(depth_bag), "--source", "depth", "--set", box, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "map: 0 occupied, 0 free" in text
    assert "  warning: robot.body holds 100% of the map, where nothing is ever marked" in text


def test_messages_of_the_map_bag_carry_the_map_frame(depth_bag, tmp_path):
    assert main(["play", str(depth_bag), "--out", str(tmp_path), "--source", "depth", "--json"]) == 0
    with BagReader(tmp_path / "map.mcap") as reader:
        grid = deserialize(names.OCCUPANCY_GRID, next(reader.messages(["/occupancy_nn/occupancy_grid"])).cdr)
    assert grid.header.frame_id == "world"
    assert set(np.unique(grid.data)) <= {-1, 0, 100}
    assert grid.info.origin.position.x / grid.info.resolution == pytest.approx(
        round(grid.info.origin.position.x / grid.info.resolution), abs=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "voxel_siz_m=1"], "unknown setting 'voxel_siz_m', did you mean 'voxel_size_m'?"),
        (["--set", "voxel_size_m=-1"], "voxel_size_m is -1.0, expected 0.01 to 2.0"),
        (["--model", "no_such_model"], "no model named 'no_such_model'"),
        (["--set", "cameras.front.image_topic=/nothing"], "/nothing, which does not exist"),
        (["--set", "map_frame=earth"], "no keyframe could be made"),
        (["--source", "lidar"], "has no point clouds"),
    ],
)
def test_mistakes_get_one_line_and_a_failure_code(small_bag, tiny_model, tmp_path, capsys, arguments, line):
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_model)]
    assert main(["play", str(small_bag), "--out", str(tmp_path), *arguments, "--json"]) == 1
    error = capsys.readouterr().err.strip()
    assert line in error
    assert "\n" not in error and "Traceback" not in error


def test_verbose_adds_the_traceback(small_bag, tmp_path, capsys):
    assert main(["play", str(small_bag), "--out", str(tmp_path), "--model", "no_such_model", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def write_bag(path, *messages):
    with BagWriter(path) as writer:
        for topic, msgtype, cdr in messages:
            writer.write(topic, msgtype, T0, cdr)


def test_bags_that_cannot_be_mapped(tmp_path, tiny_model, capsys):
    write_bag(
        tmp_path / "only_tf.mcap",
        ("/tf", names.TF_MESSAGE, encode_tf([StampedTransform(T0, "odom", "base_link", np.eye(4))])),
    )
    picture = ("/cam/image_raw", names.IMAGE, encode_image(T0, "cam", np.zeros((48, 64, 3), np.uint8)))
    info = ("/cam/camera_info", names.CAMERA_INFO, encode_camera_info(T0, "cam", MODEL))
    write_bag(tmp_path / "no_tf.mcap", picture, info)
    frames = [StampedTransform(T0, "odom", "base_link", np.eye(4)), StampedTransform(T0, "base_link", "cam", np.eye(4))]
    write_bag(tmp_path / "no_info.mcap", picture, ("/tf", names.TF_MESSAGE, encode_tf(frames)))
    (tmp_path / "junk.mcap").write_bytes(b"this is no bag")
    whole = (tmp_path / "no_tf.mcap").read_bytes()
    (tmp_path / "short.mcap").write_bytes(whole[:100])
    (tmp_path / "empty").mkdir()
    expected = {
        "only_tf.mcap": "has no camera images",
        "no_tf.mcap": "no transform from 'base_link' to 'odom'; frames that exist: none",
        "no_info.mcap": "no camera_info",
        "junk.mcap": "is no MCAP file; look at what wrote it",
        "short.mcap": "before its first message; repair it with `mcap recover`",
        "empty": "no metadata.yaml",
        "missing": "no bag at",
    }
    for name, line in expected.items():
        code = main(
            ["play", str(tmp_path / name), "--out", str(tmp_path / "out"), "--model", str(tiny_model), "--json"]
        )
        error = capsys.readouterr().err.strip().splitlines()
        assert (code, line in error[-1]) == (1, True), (name, error)


def test_output_folder_that_cannot_be_made(small_bag, tiny_model, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["play", str(small_bag), "--out", str(tmp_path / "file" / "x"), "--model", str(tiny_model)]) == 1
    assert "cannot make output folder" in capsys.readouterr().err


def test_info_shows_models_and_bags(small_bag, tiny_model, capsys):
    assert main(["info", str(tiny_model)]) == 0
    assert "occupancy_nn_ros model" in capsys.readouterr().out
    assert main(["info", str(small_bag)]) == 0
    text = capsys.readouterr().out
    assert "/front/image_raw  sensor_msgs/msg/Image  12  rgb8 front_optical" in text
    assert "base_link" in text


def test_help_of_every_command(capsys):
    from occupancy_nn_ros.cli.main import COMMANDS

    assert main([]) == 2
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    assert "--set KEY=VALUE" in capsys.readouterr().out


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["info", "nano", "--no-such-option"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err
