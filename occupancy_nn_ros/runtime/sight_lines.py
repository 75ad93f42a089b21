# SPDX-License-Identifier: Apache-2.0
"""How far a depth image or a LiDAR sweep says that surfaces are, in directions in which another sensor saw some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from occupancy_nn_ros.geometry.cameras import project, unproject
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth

ROWS, COLUMNS = 36, 48
"""Pixels of a depth image that are looked at."""

MOST_POINTS, MOST_DIRECTIONS = 3000, 20_000
"""Points of a sweep that are looked up elsewhere, and among which others' points are."""

LEAST_RANGE_M = 0.3
"""What a LiDAR sees nearer than this is the robot."""

BESIDE_RAD = 0.01
"""A point is looked up in a sweep by the ray that passes it at this angle at most."""

LEVEL = 1e-3
"""A sweep whose points rise by no more than this part of its reach is of a scanner that turns in one plane."""


Flip = Literal["as it is", "mirrored left to right", "flipped upside down", "turned by 180 degrees"]
FLIPS: tuple[Flip, ...] = get_args(Flip)
"""Ways in which an image may lie while its camera_info stays."""


@dataclass(frozen=True)
class SightLines:
    """What one sensor measures where M points of another lie.

    Attributes:
        rays: (M, 3) the points from the sensor, along the map's axes.
        expected: (M,) what it would measure if the points were the surfaces that it sees: depth along the optical axis, range
            of a LiDAR.
        measured: (M,) what it does measure there.
    """

    rays: FloatArray
    expected: FloatArray
    measured: FloatArray


class DepthSight:
    """A depth image, to be compared."""

    def __init__(self, depth: PosedDepth) -> None:
        """Take an image whose model is checked."""
        self.depth, self.stamp_ns = depth, depth.stamp_ns

    @property
    def place(self) -> FloatArray:
        """(3,) where the camera is in the map frame."""
        return np.asarray(self.depth.T_map_cam[:3, 3])

    @property
    def scan_normal(self) -> None:
        """Depth images are of no plane through the sensor."""
        return None

    @cached_property
    def points(self) -> FloatArray:
        """(N, 3) map-frame points that pixels all over the image measured."""
        model, T = self.depth.model, self.depth.T_map_cam
        rows = np.linspace(0, model.height - 1, min(ROWS, model.height)).astype(int)
        columns = np.linspace(0, model.width - 1, min(COLUMNS, model.width)).astype(int)
        v, u = (part.ravel() for part in np.meshgrid(rows, columns, indexing="ij"))
        z = self.depth.depth_m[v, u].astype(np.float64)
        u, v, z = (part[np.isfinite(z) & (z > 0)] for part in (u, v, z))
        local = np.column_stack([unproject(model, np.column_stack([u, v])), np.ones(len(z))]) * z[:, None]
        return np.asarray(local[np.isfinite(local).all(axis=1)] @ T[:3, :3].T + T[:3, 3])

    def towards(self, points: FloatArray) -> SightLines:
        """What the image holds towards map-frame points (N, 3)."""
        T, model = self.depth.T_map_cam, self.depth.model
        local = (points - T[:3, 3]) @ T[:3, :3]
        pixels, inside = project(model, local)
        local, pixels = local[inside], np.round(pixels[inside]).astype(int)
        image = self.depth.depth_m
        measured = image[pixels[:, 1].clip(0, model.height - 1), pixels[:, 0].clip(0, model.width - 1)]
        known = np.isfinite(measured) & (measured > 0)
        rays = (points - T[:3, 3])[inside]
        return SightLines(rays[known], local[known, 2], measured[known].astype(np.float64))

    def with_focal(self, factor: float) -> DepthSight:
        """The same pixels behind a lens of so many times the focal length."""
        K = self.depth.model.K.copy()
        K[:2, :2] *= factor
        return DepthSight(replace(self.depth, model=replace(self.depth.model, K=K)))

    def flipped(self, flip: Flip) -> DepthSight:
        """The same image, flipped, behind the same lens."""
        rows = slice(None, None, -1 if flip in FLIPS[2:] else 1)
        columns = slice(None, None, -1 if flip in (FLIPS[1], FLIPS[3]) else 1)
        return DepthSight(replace(self.depth, depth_m=self.depth.depth_m[rows, columns]))


class CloudSight:
    """A LiDAR sweep, to be compared."""

    def __init__(self, cloud: PosedCloud) -> None:
        """Take a sweep in its sensor's frame."""
        self.stamp_ns, self._T = cloud.stamp_ns, cloud.T_map_sensor
        points = cloud.points_m[:: max(1, len(cloud.points_m) // MOST_DIRECTIONS)].astype(np.float64)
        ranges = np.linalg.norm(points, axis=1)
        outside = np.isfinite(ranges) & (ranges > LEAST_RANGE_M)
        self._local, self._ranges = points[outside], ranges[outside]

    @property
    def place(self) -> FloatArray:
        """(3,) where the sensor is in the map frame."""
        return np.asarray(self._T[:3, 3])

    @property
    def scan_normal(self) -> FloatArray | None:
        """(3,) across the plane in which a laser scanner turns, in the map frame; None for more than one ring."""
        is_flat = bool(np.abs(self._local[:, 2]).max(initial=0.0) < LEVEL * self._ranges.max(initial=1.0))
        return np.asarray(self._T[:3, 2]) if is_flat else None

    @cached_property
    def points(self) -> FloatArray:
        """(N, 3) map-frame points from all over the sweep."""
        local = self._local[:: max(1, len(self._local) // MOST_POINTS)]
        return np.asarray(local @ self._T[:3, :3].T + self._T[:3, 3])

    def towards(self, points: FloatArray) -> SightLines:
        """What the sweep holds towards map-frame points (N, 3)."""
        local = (points - self._T[:3, 3]) @ self._T[:3, :3]
        ranges = np.linalg.norm(local, axis=1)
        far = np.flatnonzero(ranges > LEAST_RANGE_M)
        if not len(far) or not len(self._local):
            return SightLines(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        nearest = self._tree.query(local[far] / ranges[far, None], distance_upper_bound=BESIDE_RAD)[1]
        index: npt.NDArray[np.intp] = np.asarray(nearest)
        is_beside = index < len(self._ranges)  # that of none is their number
        far, index = far[is_beside], index[is_beside]
        return SightLines((points - self._T[:3, 3])[far], ranges[far], self._ranges[index])

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._local / self._ranges[:, None])


Sight = DepthSight | CloudSight
