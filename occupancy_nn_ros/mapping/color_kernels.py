# SPDX-License-Identifier: Apache-2.0
"""Whether a camera sees a face of a voxel: a walk through the map from the face to the camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.compute.compiled import inlined, kernel
from occupancy_nn_ros.values import FloatArray

BoolArray = npt.NDArray[np.bool_]


@kernel
def find_open_faces(
    start: int, stop: int, occupied: BoolArray, faces: FloatArray, axes: npt.NDArray[np.int64], camera: FloatArray,
    is_open: BoolArray,
) -> None:  # fmt: skip
    """Tell of faces ``start`` to ``stop`` whether nothing is occupied between their centre and the camera.

    Args:
        start: first of the faces to process.
        stop: the one after the last.
        occupied: (X, Y, Z) in window order.
        faces: (N, 3) their centres, in voxels from the window's lowest corner.
        axes: (N,) the axis that each is perpendicular to.
        camera: (3,) likewise in voxels.
        is_open: (N,) written.
    """
    for n in range(start, stop):
        is_open[n] = _is_open(occupied, faces[n], axes[n], camera)


@inlined
def _is_open(occupied: BoolArray, face: FloatArray, axis: int, camera: FloatArray) -> bool:
    """Whether the voxels between a face's centre and the camera are not occupied (Amanatides and Woo 1987)."""
    cell, step = np.empty(3, np.int64), np.empty(3, np.int64)
    ahead, pace = np.empty(3), np.empty(3)
    for a in range(3):
        way = camera[a] - face[a]
        step[a] = 1 if way > 0 else -1
        cell[a] = int(np.floor(face[a]))
        if a == axis and way < 0:
            cell[a] -= 1
        pace[a] = np.inf if way == 0 else 1 / abs(way)
        border = cell[a] + 1 if way > 0 else cell[a]
        ahead[a] = np.inf if way == 0 else (border - face[a]) / way
    while True:
        for a in range(3):
            if cell[a] < 0 or cell[a] >= occupied.shape[a]:
                return True  # the camera is outside the window, and nothing is known there
        if occupied[cell[0], cell[1], cell[2]]:
            return False
        nearest = 0
        for a in (1, 2):
            if ahead[a] < ahead[nearest]:
                nearest = a
        if ahead[nearest] > 1:
            return True
        cell[nearest] += step[nearest]
        ahead[nearest] += pace[nearest]
