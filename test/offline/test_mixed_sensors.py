# SPDX-License-Identifier: Apache-2.0
"""A LiDAR or a depth camera beside the cameras: its rays join the network's map, and change nothing else in it."""

import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import (
    encode_camera_info,
    encode_depth_image,
    encode_point_cloud,
    encode_tf,
)
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.values import CameraModel, StampedTransform

WALL_M = 2.1
MAST = make_transform((0, 0, 0.5), (0.5, 0.5, -0.5, -0.5))  # stands at the start and looks back
MODEL = CameraModel(64, 48, np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), "plumb_bob", np.zeros(5))
TOPICS = {"lidar": "/mast/points", "depth": "/mast/depth/image_rect_raw"}


@pytest.fixture(scope="module")
def mixed_bag(small_bag, tmp_path_factory):
    """The small bag with a mast beside the start, whose LiDAR and depth camera see a wall 2.1 m behind."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.mcap"
    across, up = np.meshgrid(np.linspace(-0.9, 0.9, 40), np.linspace(-0.6, 0.4, 30))
    points = np.stack([across, up, np.full_like(up, WALL_M)], axis=-1).reshape(-1, 3).astype(np.float32)
    depth = np.full((48, 64), WALL_M, np.float32)
    with BagReader(small_bag) as reader, BagWriter(path) as writer:
        writer.write("/tf_static", names.TF_MESSAGE, 0, encode_tf([StampedTransform(0, "odom", "mast", MAST)]))
        for m in reader.messages():
            writer.write(m.topic, m.msgtype, m.stamp_ns, m.cdr)
            if m.topic == "/front/image_raw":
                writer.write(
                    TOPICS["lidar"], names.POINT_CLOUD, m.stamp_ns, encode_point_cloud(m.stamp_ns, "mast", points)
                )
                info = encode_camera_info(m.stamp_ns, "mast", MODEL)
                writer.write("/mast/depth/camera_info", names.CAMERA_INFO, m.stamp_ns, info)
                writer.write(TOPICS["depth"], names.IMAGE, m.stamp_ns, encode_depth_image(m.stamp_ns, "mast", depth))
    return path


def play(bag, model, *topics):
    cameras = {"front": "/front/image_raw", "back": "/back/image_raw", **dict(topics)}
    settings = [f"cameras.{name}.image_topic={topic}" for name, topic in cameras.items()]
    config = load_config([], [*settings, f"model={model}", "map.size_xy_m=8", "network.gain=0.1"])
    with BagReader(bag) as reader:
        return play_bag(reader, plan_play(reader, config))


@pytest.mark.parametrize("kind", TOPICS)
def test_its_rays_join_the_map_of_the_cameras(mixed_bag, tiny_model, kind):
    alone, mixed = play(mixed_bag, tiny_model), play(mixed_bag, tiny_model, ("mast", TOPICS[kind]))
    assert alone.summary["keyframes"] == mixed.summary["keyframes"] == 6
    assert mixed.summary["received"] == {"front": 12, "back": 12, "mast": 12}
    assert mixed.summary["dropped"] == {}
    assert {"predict", "integrate"} <= mixed.summary["latency_ms"].keys()

    window = mixed.view.window
    x, y, z = np.moveaxis(window.centers_m().reshape(*window.shape, 3), -1, 0)
    wall = (np.abs(x + WALL_M) < 0.1) & (np.abs(y) < 0.7) & (z > 0.25) & (z < 0.85)
    before_it = (x < -0.3) & (x > -WALL_M + 0.3) & (np.abs(y) < 0.15) & (np.abs(z - 0.5) < 0.05)
    assert wall.sum() == 18 and before_it.sum() >= 7
    assert (mixed.view.state[wall] == 1).all() and (mixed.view.state[before_it] == 0).all()
    assert (alone.view.state[wall] == 1).mean() < 0.6  # by chance: the network's weights are random

    untouched = (x > 0.2) | (np.abs(y) > 2.0)  # nearer ones its rays graze: they change when these were last seen
    assert np.array_equal(mixed.view.probability[untouched], alone.view.probability[untouched])
    assert (alone.view.state[untouched] >= 0).sum() > 500
