# SPDX-License-Identifier: Apache-2.0
"""Moving voxels as a point cloud with velocities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.messages.maps import FLOAT32, encode_cloud
from occupancy_nn_ros.values import Float32Array

INT8, UINT32 = 1, 6
"""Datatypes of sensor_msgs/PointField."""


@dataclass(frozen=True)
class MovingPoints:
    """Voxels that changed, N of them.

    Attributes:
        points_m, velocities_m_s: (N, 3) in the frame of the header; a velocity that is not known is NaN.
        stds_m_s: (N,) standard deviation of each component of the velocity, NaN where it is not known.
        tracks: (N,) number of the thing that a voxel belongs to, the same from message to message; 0 for none.
        has_appeared: (N,) False for voxels that are free again.
    """

    points_m: Float32Array
    velocities_m_s: Float32Array
    stds_m_s: Float32Array
    tracks: npt.NDArray[np.uint32]
    has_appeared: npt.NDArray[np.bool_]


def encode_moving_cloud(stamp_ns: int, frame_id: str, moving: MovingPoints) -> bytes:
    """A PointCloud2 with fields x y z vx vy vz std track change; change is 1 for appeared, -1 for vanished."""
    names = ("x", "y", "z", "vx", "vy", "vz", "std")
    layout = [(name, 4 * n, FLOAT32) for n, name in enumerate(names)] + [("track", 28, UINT32), ("change", 32, INT8)]
    points = np.zeros(len(moving.points_m), dtype={
        "names": ["place", "velocity", "std", "track", "change"], "formats": ["3<f4", "3<f4", "<f4", "<u4", "i1"],
        "offsets": [0, 12, 24, 28, 32], "itemsize": 36,
    })  # fmt: skip
    points["place"], points["velocity"], points["std"] = moving.points_m, moving.velocities_m_s, moving.stds_m_s
    points["track"], points["change"] = moving.tracks, np.where(moving.has_appeared, 1, -1)
    return encode_cloud(stamp_ns, frame_id, points.view(np.uint8), len(points), layout)
