# SPDX-License-Identifier: Apache-2.0
"""Where the rays of depth images and LiDAR sweeps end, as points of the map frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from occupancy_nn_ros.mapping.ray_integration import pixel_tangents
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth

MOST_POINTS = 20_000
"""Of one image or sweep; of more, evenly spread ones are taken."""


def surface_points(looks: Iterable[PosedDepth | PosedCloud], range_m: float) -> FloatArray:
    """Points (N, 3) float64 in the map frame within a distance of their sensors."""
    parts = [np.zeros((0, 3)), *(_points(look, range_m) for look in looks)]
    return np.concatenate(parts)


def _points(look: PosedDepth | PosedCloud, range_m: float) -> FloatArray:
    if isinstance(look, PosedCloud):
        step = max(1, -(-len(look.points_m) // MOST_POINTS))
        points, pose = look.points_m[::step].astype(np.float64), look.T_map_sensor
    else:
        step = max(1, -(-look.depth_m.size // MOST_POINTS))
        z = look.depth_m.reshape(-1)[::step].astype(np.float64)
        points = np.concatenate([pixel_tangents(look.model)[::step] * z[:, None], z[:, None]], axis=1)
        points, pose = points[z > 0], look.T_map_cam
    with np.errstate(invalid="ignore"):  # pixels without a ray
        points = points[np.linalg.norm(points, axis=1) <= range_m]
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])
