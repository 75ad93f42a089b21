# SPDX-License-Identifier: Apache-2.0
"""The robot's own body never marks: what is seen or predicted inside its boxes is no evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.ray_integration import pixel_tangents, tangents_on
from occupancy_nn_ros.setting_texts import body_boxes
from occupancy_nn_ros.values import FloatArray, Keyframe, LatticeWindow, PosedCloud, PosedDepth, Prediction

MOST_SHARE = 0.25
"""Boxes that hold more of the map than this are none of a robot's: in millimetres, or of another frame."""


class OwnBody:
    """Boxes fixed to the robot's base.

    Attributes:
        boxes: (N, 2, 3) lowest and highest corner of each in the base frame, metres.
    """

    def __init__(self, text: str) -> None:
        """Take the boxes of the setting ``robot.body``.

        Raises:
            ConfigError: it does not hold six numbers for each box.
        """
        self.boxes = np.array(body_boxes(text), dtype=np.float64).reshape(-1, 2, 3)

    def doubt(self, map_: MapConfig) -> str:
        """What speaks against the boxes, worded for people; empty if nothing does."""
        half = map_.size_xy_m / 2
        low, high = np.array([-half, -half, -map_.below_m]), np.array([half, half, map_.above_m])
        inside = np.clip(self.boxes, low, high)
        volumes_m3 = (inside[:, 1] - inside[:, 0]).prod(axis=1)
        share = float(volumes_m3.sum() / (high - low).prod())
        if (volumes_m3 <= 0).any():
            box = self.boxes[volumes_m3 <= 0][0].reshape(-1).tolist()
            return f"a box of robot.body, {box}, lies outside of the map; expected metres in the base frame"
        if share <= MOST_SHARE:
            return ""
        return f"robot.body holds {min(share, 1.0):.0%} of the map, where nothing is ever marked; expected metres in the base frame"

    def leave_out(self, keyframe: Keyframe) -> Keyframe:
        """The keyframe without depth pixels and LiDAR points that lie in the body."""
        if not len(self.boxes):
            return keyframe
        depths = tuple(self._clean_depth(depth, keyframe.T_map_base) for depth in keyframe.depths)
        clouds = tuple(self._clean_cloud(cloud, keyframe.T_map_base) for cloud in keyframe.clouds)
        return replace(keyframe, depths=depths, clouds=clouds)

    def discount(self, prediction: Prediction, T_map_base: FloatArray) -> Prediction:
        """The prediction with no weight for voxels in the body, nor depth of it."""
        if not len(self.boxes):
            return prediction
        weight = prediction.weight.clone()
        for box in self.boxes:
            self._discount_box(weight, prediction.window, box, T_map_base)
        depths = tuple(self._clean_depth(depth, T_map_base) for depth in prediction.depths)
        return replace(prediction, weight=weight, depths=depths)

    def contains(self, points_base_m: FloatArray) -> np.ndarray:
        """Which points (N, 3) of the base frame lie in a box, (N,) bool."""
        inside = (points_base_m[:, None] >= self.boxes[:, 0]) & (points_base_m[:, None] <= self.boxes[:, 1])
        return np.asarray(np.any(np.all(inside, axis=2), axis=1))

    def _discount_box(self, weight: torch.Tensor, window: LatticeWindow, box: FloatArray, pose: FloatArray) -> None:
        """Set the weight of voxels whose centres lie in a box to zero, in place."""
        corners = np.stack(np.meshgrid(*box.T, indexing="ij"), axis=-1).reshape(8, 3) @ pose[:3, :3].T + pose[:3, 3]
        low = np.clip(window.index_of(corners.min(axis=0)), 0, window.shape)
        high = np.clip(window.index_of(corners.max(axis=0)) + 1, 0, window.shape)
        if bool(np.any(high <= low)):
            return
        axes = [
            (torch.arange(int(a), int(b), dtype=torch.float64, device=weight.device) + first + 0.5)
            * window.voxel_size_m
            for a, b, first in zip(low, high, window.origin, strict=True)
        ]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        part = weight[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        part.masked_fill_(_inside((x, y, z), box, pose), 0.0)

    def _clean_depth(self, depth: PosedDepth, T_map_base: FloatArray) -> PosedDepth:
        if isinstance(depth, DeviceDepth):
            return self._clean_on_device(depth, T_map_base)
        z = depth.depth_m.reshape(-1).astype(np.float64)
        points = np.concatenate([pixel_tangents(depth.model) * z[:, None], z[:, None]], axis=1)
        body = self.contains(_to_base(points, depth.T_map_cam, T_map_base)).reshape(depth.depth_m.shape)
        return replace(depth, depth_m=np.where(body, 0, depth.depth_m).astype(np.float32)) if body.any() else depth

    def _clean_on_device(self, depth: DeviceDepth, T_map_base: FloatArray) -> DeviceDepth:
        z, tangents = (
            depth.pixels.double(),
            tangents_on(depth.pixels.device, depth.model).view(*depth.shape, 2).double(),
        )
        points, pixels = (tangents[..., 0] * z, tangents[..., 1] * z, z), depth.pixels
        for box in self.boxes:
            T_cam_base = invert(depth.T_map_cam) @ T_map_base
            pixels = pixels.masked_fill(_inside(points, box, T_cam_base), 0.0)
        return depth.with_pixels(pixels)

    def _clean_cloud(self, cloud: PosedCloud, T_map_base: FloatArray) -> PosedCloud:
        body = self.contains(_to_base(cloud.points_m.astype(np.float64), cloud.T_map_sensor, T_map_base))
        return replace(cloud, points_m=cloud.points_m[~body]) if body.any() else cloud


def _inside(points: tuple[Tensor, Tensor, Tensor], box: FloatArray, pose: FloatArray) -> Tensor:
    """Which points, by coordinate in any frame, lie in a box of the base, whose ``pose`` in that frame is given."""
    shifted = [part - float(pose[axis, 3]) for axis, part in enumerate(points)]
    inside = torch.ones_like(points[0], dtype=torch.bool)
    for axis in range(3):
        local = sum(part * float(pose[row, axis]) for row, part in enumerate(shifted))
        inside &= (local >= float(box[0, axis])) & (local <= float(box[1, axis]))
    return inside


def _to_base(points: FloatArray, T_map_sensor: FloatArray, T_map_base: FloatArray) -> FloatArray:
    pose = invert(T_map_base) @ T_map_sensor
    with np.errstate(invalid="ignore"):  # a depth of NaN is no point, and lies in no box
        return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])
