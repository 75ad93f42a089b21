# SPDX-License-Identifier: Apache-2.0
"""``occupancy-nn adapt`` with the shipped model on a recording of pictures and transforms alone, whose depth is exact."""

import json

import numpy as np
import pytest
import textured_walls as walls

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.training.shards import DEPTH_STRIDE, OCCUPIED, read_shard
from occupancy_nn_ros.values import StampedTransform

START_NS = 10**12
PICTURES_S = np.arange(0.2, 5.0, 0.4)
UP = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""The map's x axis points into the picture, and its z axis up."""


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("walls") / "walls.mcap"
    with BagWriter(path) as writer:
        for time_s in np.arange(0, 5.4, 0.05):
            stamp = START_NS + round(time_s * 1e9)
            edges = [StampedTransform(stamp, "odom", "base_link", UP @ walls.pose(time_s) @ UP.T)]
            edges.append(StampedTransform(stamp, "base_link", "front_optical_frame", UP))
            writer.write("/tf", TF_MESSAGE, stamp, encode_tf(edges))
        for time_s in PICTURES_S:
            stamp = START_NS + round(time_s * 1e9)
            info = encode_camera_info(stamp, "front_optical_frame", walls.MODEL)
            picture = encode_image(stamp, "front_optical_frame", walls.picture(walls.pose(time_s)))
            writer.write("/front/camera_info", CAMERA_INFO, stamp, info)
            writer.write("/front/image_raw", IMAGE, stamp, picture)
    return path


def test_from_a_recording_to_a_judged_model(bag, tmp_path, capsys):
    out = tmp_path / "site"
    arguments = ["--out", str(out), "--steps", "2", "--processes", "1", "--json"]
    quick = [
        "--set",
        "network.canvas_pixels=24576",
        "--set",
        "keyframes.distance_m=0.02",
        "--set",
        "network.precision=float32",
        "--set",
        "map.size_xy_m=12",
    ]
    status = main(["adapt", str(bag), *arguments, *quick])
    told = json.loads(capsys.readouterr().out)
    assert status == (0 if told["model"] else 3)
    assert (out / "site.safetensors").exists() == (status == 0)
    assert told["bags"][0]["labels"]["keyframes"] == len(PICTURES_S)
    verdict = told["verdict"]
    assert verdict["keyframes"] == 3 and verdict["improved"] == (status == 0)
    assert 0 < verdict["pictures"]["before"] < 1 and verdict["pictures"]["parts"] > 24
    assert 0 < verdict["space"]["before"] < 1 and verdict["space"]["parts"] > 24
    (shard,) = (read_shard(path) for path in (out / "labels").glob("*.safetensors"))
    errors, known = [], []
    for frame, pose in enumerate(shard.T_map_cam[:, 0].astype(np.float64)):
        seen = shard.depth_m[frame, 0].astype(np.float64)
        there = np.isfinite(seen)
        errors.append(np.abs(seen / true_depth(shard, pose, seen.shape) - 1)[there])
        known.append(there.mean())
    errors = np.concatenate(errors)
    assert np.mean(known) > 0.3 and np.median(errors) < 0.03 and (errors < 0.1).mean() > 0.9
    occupied, free = shard.labels == OCCUPIED, shard.labels == 0
    ahead = shard.points_m[..., 0] + origin_of(bag)
    assert occupied.sum() > 100 * len(PICTURES_S) and (ahead[occupied] > walls.DEPTHS_M[1] - 0.3).mean() > 0.98
    assert (ahead[free] < walls.DEPTHS_M[0] + 0.1).mean() > 0.98


def origin_of(bag):
    """Shards begin at the first base, rounded to metres."""
    return (UP @ walls.pose(PICTURES_S[0]) @ UP.T)[:3, 3].round()[0]


def true_depth(shard, pose, shape):
    """Exact depth (rows, columns) of a shard's picture."""
    K, back = shard.K[0].astype(np.float64), np.linalg.inv(UP) @ pose
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]] * DEPTH_STRIDE + (DEPTH_STRIDE - 1) / 2
    ways = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1) @ back[:3, :3].T
    far, near = ((z - back[2, 3]) / ways[..., 2] for z in walls.DEPTHS_M)
    return np.where(back[0, 3] + near * ways[..., 0] > walls.LEFT_M[1], near, far)
