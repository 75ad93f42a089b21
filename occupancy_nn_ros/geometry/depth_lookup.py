# SPDX-License-Identifier: Apache-2.0
"""The points that a depth image measured, and what it measured in the direction of given ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.geometry.cameras import project, unproject
from occupancy_nn_ros.values import Float32Array, FloatArray, PosedDepth


@dataclass(frozen=True)
class DepthLookup:
    """The points that fall into the image.

    Attributes:
        index: (N,) which of the points asked about.
        local_m: (N, 3) those points in the camera's optical frame.
        measured_m: (N,) depth of the nearest pixel, 0 where nothing was measured.
    """

    index: npt.NDArray[np.intp]
    local_m: FloatArray
    measured_m: Float32Array


def look_up_depth(depth: PosedDepth, points_m: FloatArray, nearest_m: float) -> DepthLookup:
    """Depth measured towards map-frame points (P, 3) that lie further than ``nearest_m`` along the optical axis."""
    local = (points_m - depth.T_map_cam[:3, 3]) @ depth.T_map_cam[:3, :3]
    front = np.flatnonzero(local[:, 2] > nearest_m)
    pixels, inside = project(depth.model, local[front])
    index, pixels = front[inside], np.round(pixels[inside]).astype(int)
    height, width = depth.depth_m.shape
    measured = depth.depth_m[pixels[:, 1].clip(0, height - 1), pixels[:, 0].clip(0, width - 1)]
    return DepthLookup(index, local[index], measured)


def measured_points(depth: PosedDepth, every: int = 1) -> FloatArray:
    """Points (N, 3) that every so many rows and columns measured, map frame."""
    v, u = (index * every for index in np.nonzero(depth.depth_m[::every, ::every] > 0))
    z = depth.depth_m[v, u].astype(np.float64)[:, None]
    local = np.concatenate([unproject(depth.model, np.stack([u, v], axis=1)) * z, z], axis=1)
    local = local[np.isfinite(local).all(axis=1)]
    return np.asarray(local @ depth.T_map_cam[:3, :3].T + depth.T_map_cam[:3, 3])
