# SPDX-License-Identifier: Apache-2.0
"""A camera that steps sideways along a wall, with a depth camera or a LiDAR where it is, as a bag."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import (
    encode_camera_info,
    encode_depth_image,
    encode_image,
    encode_point_cloud,
    encode_tf,
)
from occupancy_nn_ros.values import CameraModel, StampedTransform

T0 = 1_700_000_000_000_000_000
MODEL = CameraModel(64, 48, np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]), "plumb_bob", np.zeros(5))
WALL_M = 2.05
MOUNT = make_transform((0, 0, 1.0), (-0.5, 0.5, -0.5, 0.5))
ALL = ("tf", "camera", "info", "depth")
OFFSET = (5000.0, -3000.0, 0.0)
"""Where the robot starts: far out, as in maps of a whole country."""


def write_bag(path, has=ALL, frames=8, focal=lambda n: 40.0, encoding=lambda n: "rgb8"):
    """A base that steps sideways along a wall, ten pictures a second; its LiDAR sits where the camera does."""
    with BagWriter(path) as writer:
        static = [StampedTransform(T0, "base_link", name, MOUNT) for name in ("eye", "lidar")]
        writer.write("/tf_static", names.TF_MESSAGE, T0, encode_tf(static))
        for n in range(frames):
            stamp = T0 + n * 100_000_000
            pose = make_transform((OFFSET[0], OFFSET[1] + 0.02 * n, 0), (0, 0, 0, 1))
            if "tf" in has:
                moved = [StampedTransform(stamp, "odom", "base_link", pose)]
                writer.write("/tf", names.TF_MESSAGE, stamp, encode_tf(moved))
            if "info" in has:
                K = MODEL.K.copy()
                K[0, 0] = focal(n)
                model = CameraModel(64, 48, K, "plumb_bob", MODEL.D)
                for topic in ("/eye/camera_info", "/eye/depth/camera_info"):
                    writer.write(topic, names.CAMERA_INFO, stamp, encode_camera_info(stamp, "eye", model))
            if "camera" in has:
                picture = encode_image(stamp, "eye", np.full((48, 64, 3), n, np.uint8), encoding(n))
                writer.write("/eye/image_raw", names.IMAGE, stamp, picture)
            if "depth" in has:
                depth = encode_depth_image(stamp, "eye", np.full((48, 64), WALL_M, np.float32))
                writer.write("/eye/depth/image_raw", names.IMAGE, stamp, depth)
            if "lidar" in has:
                side = np.arange(-1.5, 1.5, 0.03)
                across, down = (v.ravel() for v in np.meshgrid(side, side))
                points = np.stack([across, down, np.full(across.shape, WALL_M)], axis=1).astype(np.float32)
                writer.write("/lidar/points", names.POINT_CLOUD, stamp, encode_point_cloud(stamp, "lidar", points))
    return path
