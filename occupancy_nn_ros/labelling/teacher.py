# SPDX-License-Identifier: Apache-2.0
"""A depth network of the user's choice as the sensor that labels come from.

It tells the shape of what a single picture shows, but no metres. Those come from what views agree on in the same picture, and where
that is too little from the ground, whose height other keyframes saw. Where neither fits, the picture is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from occupancy_nn_ros.geometry.depth_lookup import measured_points
from occupancy_nn_ros.mapping.ray_integration import pixel_tangents
from occupancy_nn_ros.runtime.depth_model import DepthModel
from occupancy_nn_ros.values import FloatArray, PosedDepth, PosedImage

NEAR_M = 5.0
"""The ground is flat for so far."""

BELOW_M = 0.2
"""It lies at least this far below the camera."""

LAYER_M = 0.05
LEAST_POINTS = 200
LEAST_SHARE = 0.5
"""The ground is the lowest layer with this share of the points of the strongest one."""

NEAREST_M, FURTHEST_M = 0.3, 5.0
"""Depths at which the ground anchors: further away a little height is a lot of depth."""

EVERY = 4
"""Of agreed depth, every so many rows and columns tell where the ground is."""


class Teacher:
    """Measures depth images with a model whose scale is fitted, picture by picture."""

    def __init__(self, model: DepthModel) -> None:
        """Take the model; the ground is not known yet."""
        self.model = model
        self._ground = Ground([])

    @classmethod
    def load(cls, path: Path) -> Teacher:
        """Read the model.

        Raises:
            MissingDependencyError: ONNX Runtime is not installed.
            CheckpointError: the file is missing, damaged, or no depth model.
            ConfigError: the notes beside it are not as expected.
        """
        return cls(DepthModel.load(path))

    def learn_ground(self, depths: Sequence[PosedDepth]) -> None:
        """Find the ground in what views of the recording agree on."""
        self._ground = Ground(depths)

    def measure(self, image: PosedImage, agreed: PosedDepth) -> PosedDepth | None:
        """Depth of a picture in metres, on the grid of what is agreed on in it; None where nothing anchors the scale."""
        found = self.model.measure(image, agreed)
        if found is None:
            floor = self._ground.seen_by(agreed)
            found = None if floor is None else self.model.measure(image, floor)
        return found


class Ground:
    """The height of the ground around any place, by points that views agree on."""

    def __init__(self, depths: Sequence[PosedDepth]) -> None:
        """Take what is agreed on, each image with its camera's pose."""
        points = [np.empty((0, 3))]
        for depth in depths:
            seen = measured_points(depth, EVERY)
            points.append(seen[seen[:, 2] < depth.T_map_cam[2, 3] - BELOW_M])
        self._points = np.concatenate(points)
        self._tree = cKDTree(self._points[:, :2]) if len(self._points) else None

    def height(self, place_m: FloatArray) -> float | None:
        """Height of the ground near a camera's place (3,), None where it was not seen."""
        if self._tree is None:
            return None
        near = self._points[self._tree.query_ball_point(place_m[:2], NEAR_M), 2]
        near = near[near < place_m[2] - BELOW_M]
        if len(near) < LEAST_POINTS:
            return None
        layer = np.floor((near - near.min()) / LAYER_M).astype(np.int64)
        count = np.bincount(layer)
        strong = np.convolve(count, np.ones(3), mode="same")
        lowest = int(np.flatnonzero(strong >= LEAST_SHARE * strong.max())[0])
        best = lowest + int(np.argmax(strong[lowest : lowest + 3]))
        if strong[best] < LEAST_POINTS / 2:
            return None
        return float(np.median(near[np.abs(layer - best) <= 1]))

    def seen_by(self, view: PosedDepth) -> PosedDepth | None:
        """The ground as a camera would see it with nothing standing on it; None where its height is not known."""
        pose = view.T_map_cam
        height = self.height(pose[:3, 3])
        if height is None:
            return None
        tangents = pixel_tangents(view.model).astype(np.float64)
        ways = np.column_stack([tangents, np.ones(len(tangents))]) @ pose[2, :3]
        with np.errstate(divide="ignore"):
            depth_m = np.where(ways < 0, (height - pose[2, 3]) / np.where(ways < 0, ways, -1.0), 0.0)
        depth_m = np.where((depth_m > NEAREST_M) & (depth_m < FURTHEST_M), depth_m, 0.0)
        return replace(view, depth_m=depth_m.reshape(view.depth_m.shape).astype(np.float32))
