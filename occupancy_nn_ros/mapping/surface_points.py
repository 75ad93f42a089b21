# SPDX-License-Identifier: Apache-2.0
"""What a keyframe sees of surfaces, as points of the map frame: where rays of depth images and sweeps end, and what is predicted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from occupancy_nn_ros.mapping.ray_integration import pixel_tangents
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth, Prediction

Look = PosedDepth | PosedCloud | Prediction

MOST_POINTS = 20_000
"""Of one image or sweep; of more, evenly spread ones are taken."""

LEAST_LOG_ODDS, LEAST_VISIBLE = -0.7, 0.5
"""Predicted voxels that count: a third of a chance to be occupied, in somebody's sight. The network is not sure of people who walk, since
what it matches stands still: at evens a quarter of them was found, at this two thirds."""


def surface_points(looks: Iterable[Look], range_m: float) -> FloatArray:
    """Points (N, 3) float64 in the map frame; measured ones lie within a distance of their sensors.

    A prediction on a GPU is waited for.
    """
    parts = [_predicted(look) if isinstance(look, Prediction) else _measured(look, range_m) for look in looks]
    return np.concatenate([np.zeros((0, 3)), *parts])


def _predicted(prediction: Prediction) -> FloatArray:
    seen = (prediction.logit > LEAST_LOG_ODDS) & (prediction.weight > 0)
    if prediction.visible is not None:
        seen &= prediction.visible > LEAST_VISIBLE
    window = prediction.window
    cells = seen.nonzero().cpu().numpy()
    return np.asarray((cells + np.asarray(window.origin) + 0.5) * window.voxel_size_m, dtype=np.float64)


def _measured(look: PosedDepth | PosedCloud, range_m: float) -> FloatArray:
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
