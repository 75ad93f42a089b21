# SPDX-License-Identifier: Apache-2.0
"""Exact Euclidean distances to the nearest obstacle, truncated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from occupancy_nn_ros.types import Float32Array


def distance_field(occupied: npt.NDArray[np.bool_], edge_m: float, max_distance_m: float) -> Float32Array:
    """Distance in metres from each cell's centre to the nearest occupied cell's centre, in 2D or 3D.

    Args:
        occupied: (X, Y) or (X, Y, Z).
        edge_m: edge of a cell.
        max_distance_m: larger distances, and all where nothing is occupied, become this.
    """
    if not occupied.any():
        return np.full(occupied.shape, max_distance_m, np.float32)
    distance = distance_transform_edt(~occupied) * edge_m
    return np.minimum(distance, max_distance_m).astype(np.float32)
