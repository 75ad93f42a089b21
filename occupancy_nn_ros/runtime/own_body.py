# SPDX-License-Identifier: Apache-2.0
"""The robot's own body never marks: what is seen or predicted inside its boxes is no evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from occupancy_nn_ros.config import body_boxes
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.mapping.ray_integration import pixel_tangents
from occupancy_nn_ros.values import FloatArray, Keyframe, LatticeWindow, PosedCloud, PosedDepth, Prediction


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
        part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        cells = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in part), indexing="ij"), axis=-1)
        centers = (cells + window.origin + 0.5) * window.voxel_size_m
        local = (centers.reshape(-1, 3) - pose[:3, 3]) @ pose[:3, :3]
        inside = ((local >= box[0]) & (local <= box[1])).all(axis=1).reshape(centers.shape[:3])
        weight[part] = torch.where(torch.from_numpy(inside).to(weight.device), 0.0, weight[part])

    def _clean_depth(self, depth: PosedDepth, T_map_base: FloatArray) -> PosedDepth:
        z = depth.depth_m.reshape(-1).astype(np.float64)
        points = np.concatenate([pixel_tangents(depth.model) * z[:, None], z[:, None]], axis=1)
        body = self.contains(_to_base(points, depth.T_map_cam, T_map_base)).reshape(depth.depth_m.shape)
        return replace(depth, depth_m=np.where(body, 0, depth.depth_m).astype(np.float32)) if body.any() else depth

    def _clean_cloud(self, cloud: PosedCloud, T_map_base: FloatArray) -> PosedCloud:
        body = self.contains(_to_base(cloud.points_m.astype(np.float64), cloud.T_map_sensor, T_map_base))
        return replace(cloud, points_m=cloud.points_m[~body]) if body.any() else cloud


def _to_base(points: FloatArray, T_map_sensor: FloatArray, T_map_base: FloatArray) -> FloatArray:
    pose = invert(T_map_base) @ T_map_sensor
    with np.errstate(invalid="ignore"):  # a depth of NaN is no point, and lies in no box
        return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])
