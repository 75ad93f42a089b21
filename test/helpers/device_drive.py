# SPDX-License-Identifier: Apache-2.0
"""Keyframes of two cameras, and a LiDAR, as messages, and sessions that map them on a device."""

import numpy as np

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.names import IMAGE, POINT_CLOUD
from occupancy_nn_ros.messages.sensors import encode_image, encode_point_cloud
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import CameraModel

SECOND = 1_000_000_000
MODEL = CameraModel(160, 120, np.array([[110.0, 0, 80], [0, 110, 60], [0, 0, 1]]), "none", np.zeros(0))
LOOKS = (make_transform((0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5)), make_transform((0, 0.1, 0.5), (-0.35, 0.61, -0.61, 0.35)))
SENSORS = [SensorStream(name, f"/{name}", IMAGE) for name in ("left", "right")]
LIDAR = SensorStream("top", "/points", POINT_CLOUD, kind="cloud")
MAPS = {topic.name for topic in OUTPUTS if topic.is_available} - {"moving"}  # which waits for what the network says
DEPTHS = {f"depth/{sensor.name}/{part}" for sensor in SENSORS for part in ("image", "camera_info")}
SETTINGS = (
    "source=network",
    "voxel_size_m=0.2",
    "map.size_xy_m=8",
    "network.sure_depth=0.1",
    "outputs.voxels_max_mb_s=0",
)


def keyframe(n, lidar=False):
    rng = np.random.default_rng(n)
    base, stamp = make_transform((0.3 * n, 0.1 * n, 0), (0, 0, 0, 1)), n * SECOND
    frames = []
    for sensor, look in zip(SENSORS, LOOKS, strict=True):
        pixels = np.repeat(np.repeat(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8), 8, axis=0), 8, axis=1)
        frames.append(
            RawFrame(sensor, stamp, sensor.name, encode_image(stamp, sensor.name, pixels), MODEL, base @ look)
        )
    if lidar:
        points = rng.normal(0, 2, (300, 3)).astype(np.float32)
        frames.append(RawFrame(LIDAR, stamp, "top", encode_point_cloud(stamp, "top", points), None, base))
    return RawKeyframe(stamp, base, tuple(frames))


def session_on(device, model, settings=()):
    config = load_config([], [f"network.device={device}", f"model={model}", *SETTINGS, *settings])
    return MappingSession(config, OccupancyPipeline(config))
