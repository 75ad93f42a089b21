# SPDX-License-Identifier: Apache-2.0
"""From the simulator to a map: what is recorded is what the world holds."""

import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.evaluation.metrics import score_map, with_border
from occupancy_nn_ros.geometry.depth_lookup import look_up_depth, measured_points
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.decode import decode_camera_info
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.images import decode_depth
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.simulation.recording import true_map
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import PosedDepth, VoxelState

DRIVE = ["--world", "indoor", "--rig", "stereo", "--seed", "3", "--duration", "3", "--rate", "3"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory, renderer_works):
    folder = tmp_path_factory.mktemp("sim") / "drive"
    assert main(["sim", *DRIVE, "--out", str(folder)]) == 0
    return folder


def test_a_recording_holds_all_streams_and_the_truth(recording):
    with BagReader(recording / "drive.mcap") as reader:
        topics = {topic: (info.msgtype, info.count) for topic, info in reader.topics.items()}
    assert topics["/left/image_raw/compressed"] == (names.COMPRESSED_IMAGE, 9)
    assert topics["/right/depth/image_raw"] == (names.IMAGE, 9)
    assert topics["/left/camera_info"] == (names.CAMERA_INFO, 9)
    assert topics["/lidar/points"] == (names.POINT_CLOUD, 9)
    assert topics["/odom"][0] == names.ODOMETRY
    assert topics["/tf_static"] == (names.TF_MESSAGE, 1)
    truth = np.load(recording / "truth.npz")
    world = World.load(recording / "world.json")
    assert truth["labels"].ndim == 3 and 0 < (truth["labels"] > 0).mean() < 1
    assert float(truth["voxel_size_m"]) == 0.1
    assert world.name == "indoor" and len(world.solids) > 4


@pytest.mark.parametrize("source", ["depth", "lidar"])
def test_a_map_from_its_range_sensors_agrees_with_the_truth(recording, source):
    config = load_config([], [f"source={source}", "voxel_size_m=0.1", "map.size_xy_m=10"])
    with BagReader(recording / "drive.mcap") as reader:
        result = play_bag(reader, plan_play(reader, config))
    truth = true_map(World.load(recording / "world.json"), result.view)
    claimed, true = result.view.state == VoxelState.OCCUPIED, truth.state == VoxelState.OCCUPIED
    assert result.summary["keyframes"] >= 4
    assert score_map(result.view, truth, result.view.state >= 0).recall > 0.75
    # A surface on the border of two voxels may be measured in either.
    assert with_border(true)[claimed].mean() > 0.99
    assert claimed.sum() > 1000


def test_depth_that_the_network_is_sure_of_agrees_with_the_depth_camera(recording, tmp_path):
    """As a depth camera's driver would send it: a user's node needs no more than image, intrinsics and TF."""
    with BagReader(recording / "drive.mcap") as reader:
        play_bag(reader, plan_play(reader, load_config()), tmp_path)
        true = {peek_header(m.cdr).stamp_ns: m.cdr for m in reader.messages(["/left/depth/image_raw"])}
        model = next(decode_camera_info(m.cdr)[1] for m in reader.messages(["/left/camera_info"]))
    with BagReader(tmp_path / "map.mcap") as reader:
        images = [m.cdr for m in reader.messages(["/occupancy_nn/depth/left/image"])]
        infos = [m.cdr for m in reader.messages(["/occupancy_nn/depth/left/camera_info"])]
    errors, sure = [], []
    for image, info in zip(images, infos, strict=True):
        header, depth_m = decode_depth(names.IMAGE, image)
        assert (header.frame_id, header) == ("left_optical_frame", peek_header(info))
        points = measured_points(PosedDepth("left", 0, depth_m, decode_camera_info(info)[1], np.eye(4)))
        measured = PosedDepth("left", 0, decode_depth(names.IMAGE, true[header.stamp_ns])[1], model, np.eye(4))
        found = look_up_depth(measured, points, nearest_m=0.1)
        errors.append(np.abs(found.measured_m / found.local_m[:, 2] - 1))
        sure.append(len(points) / depth_m.size)
    assert len(images) >= 4
    assert np.mean(sure) > 0.2  # this room has plain paint on some of its walls
    assert np.median(np.concatenate(errors)) < 0.04
    assert (np.concatenate(errors) < 0.15).mean() > 0.9


def test_a_recording_is_never_overwritten(recording, capsys):
    assert main(["sim", *DRIVE, "--out", str(recording)]) == 1
    assert "exists already" in capsys.readouterr().err
