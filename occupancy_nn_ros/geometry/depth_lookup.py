# SPDX-License-Identifier: Apache-2.0
"""What a depth image measured in the direction of given points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.geometry.cameras import project
from occupancy_nn_ros.types import Float32Array, FloatArray, PosedDepth


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
