# SPDX-License-Identifier: Apache-2.0
"""The frame in which a cloud's float32 coordinates are exact: the map's, or the robot's where the map's origin is far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.values import Float32Array, FloatArray, MapPlace

MOST_ERROR_M = 0.001
"""Beyond 16 km from the origin float32 is coarser: half a metre at UTM coordinates."""


@dataclass(frozen=True)
class CloudFrame:
    """Where a cloud's points are given.

    Attributes:
        frame_id: the header's frame.
        T_frame_map: (4, 4) from the map into it, None where it is the map's.
    """

    frame_id: str
    T_frame_map: FloatArray | None = None

    def place(self, points_map: npt.ArrayLike) -> Float32Array:
        """Points (N, 3) float64 of the map in this frame."""
        points = np.asarray(points_map, dtype=np.float64)
        if self.T_frame_map is not None:
            points = points @ self.T_frame_map[:3, :3].T + self.T_frame_map[:3, 3]
        return points.astype(np.float32)


def cloud_frame(place: MapPlace, base_frame: str) -> CloudFrame:
    """The map's frame, or the robot's at the map's stamp where the window lies too far out for float32."""
    window = place.window
    corners = np.stack([window.origin_m, window.origin_m + np.array(window.shape) * window.voxel_size_m])
    if float(np.spacing(np.float32(np.abs(corners).max()))) <= MOST_ERROR_M:
        return CloudFrame(place.frame_id)
    return CloudFrame(base_frame, invert(place.T_map_base))
