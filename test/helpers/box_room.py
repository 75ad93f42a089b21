# SPDX-License-Identifier: Apache-2.0
"""An empty room with boxes in it, as depth cameras and LiDARs of any pose measure it, exactly."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.values import CameraModel, PosedCloud, PosedDepth

ROOM = np.array([[-3.0, -3.0, 0.0], [7.0, 3.0, 2.6]])
BOXES = np.array([
    [[2.5, 0.6, 0.0], [3.2, 1.6, 0.9]],
    [[4.0, -2.0, 0.0], [4.6, -0.9, 1.4]],
    [[1.5, -2.6, 0.0], [2.2, -1.9, 0.5]],
    [[5.0, 0.2, 0.0], [5.4, 0.8, 2.0]],
])  # fmt: skip
MODEL = CameraModel(160, 120, np.array([[110.0, 0, 79.5], [0, 110, 59.5], [0, 0, 1]]), "none", np.zeros(0))
FORWARD = make_transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
RINGS = np.deg2rad(np.arange(-15, 16, 2.0))


def at(x=0.0, y=0.0, z=0.0, yaw=0.0, pitch=0.0):
    """A pose, angles in degrees; pitch is downwards."""
    yaw, pitch = np.deg2rad([yaw, pitch]) / 2
    turn = make_transform((x, y, z), (0, 0, np.sin(yaw), np.cos(yaw)))
    return turn @ make_transform((0, 0, 0), (0, np.sin(pitch), 0, np.cos(pitch)))


def camera_at(*where, **more):
    """The pose of a camera that looks along x of such a pose."""
    return at(*where, **more) @ FORWARD


def cast(origin, rays, boxes=BOXES):
    """How many times its length each ray (N, 3) goes before it meets something."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = (ROOM[:, None] - origin) / rays
        reach = np.nanmin(np.where(ends > 0, ends, np.inf), axis=(0, 2))
        for box in boxes:
            sides = np.sort((box[:, None] - origin) / rays, axis=0)
            enters, leaves = np.nanmax(sides[0], axis=1), np.nanmin(sides[1], axis=1)
            reach = np.where((enters < leaves) & (enters > 0), np.minimum(reach, enters), reach)
    return reach


def depth_image(T_map_cam, model=MODEL, name="depth", stamp_ns=0, boxes=BOXES):
    """What a depth camera measures, 0 where its lens has no ray."""
    v, u = np.mgrid[0 : model.height, 0 : model.width].reshape(2, -1)
    rays = np.column_stack([unproject(model, np.column_stack([u, v])), np.ones(u.size)])
    depth = np.nan_to_num(cast(T_map_cam[:3, 3], np.nan_to_num(rays) @ T_map_cam[:3, :3].T, boxes))
    depth = np.where(np.isfinite(rays).all(axis=1), depth, 0).reshape(model.height, model.width)
    return PosedDepth(name, stamp_ns, depth.astype(np.float32), model, T_map_cam)


def sweep(T_map_sensor, name="lidar", stamp_ns=0, rings=RINGS, steps=720, boxes=BOXES):
    """What a LiDAR of some rings measures all around."""
    ring, turn = np.meshgrid(rings, np.linspace(-np.pi, np.pi, steps, endpoint=False))
    rays = np.stack([np.cos(ring) * np.cos(turn), np.cos(ring) * np.sin(turn), np.sin(ring)], axis=-1).reshape(-1, 3)
    ranges = cast(T_map_sensor[:3, 3], rays @ T_map_sensor[:3, :3].T, boxes)
    return PosedCloud(name, stamp_ns, (rays * ranges[:, None]).astype(np.float32), T_map_sensor)
