# SPDX-License-Identifier: Apache-2.0
"""Solid matter of triangle meshes that need not be watertight, as a grid of signed distances.

A cell is solid if the surface passes through it, if rays along most of six directions cross the surface an odd number
of times before they reach it, or if it is shut in by solid cells: nobody can tell a closed cupboard from a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from occupancy_nn_ros.compute.compiled import kernel
from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.values import Float32Array, FloatArray

VOTES = 4
"""Of six directions, how many must say that a cell is inside."""

BORDER_M = 0.15
MOST_CELLS = 8_000_000


@dataclass(frozen=True)
class DistanceGrid:
    """Distances around one mesh.

    Attributes:
        distance_m: (X, Y, Z) float16 from the centre of each cell to the nearest on the surface, negative inside.
        origin_m: (3,) low corner.
        cell_m: edge of a cell.
    """

    distance_m: np.ndarray
    origin_m: FloatArray
    cell_m: float

    def distance(self, points_m: Float32Array) -> Float32Array:
        """Distance at points (N, 3), (N,); beyond the grid at most what it is to its border and from there on."""
        position = (points_m - self.origin_m.astype(np.float32)) / np.float32(self.cell_m)
        top = np.asarray(self.distance_m.shape, dtype=np.float32) - 1
        cell = np.clip(np.floor(position), 0, top)
        beyond = np.linalg.norm(np.maximum(np.abs(position - cell - 0.5) - 0.5, 0), axis=1) * np.float32(self.cell_m)
        i, j, k = cell.astype(np.int64).T
        return np.asarray(self.distance_m[i, j, k].astype(np.float32) + beyond, dtype=np.float32)


def make_grid(triangles_m: FloatArray, cell_m: float) -> DistanceGrid:
    """The grid of triangles (T, 3, 3).

    Raises:
        SimulationError: no triangles, or more than ``MOST_CELLS`` cells.
    """
    if not len(triangles_m):
        raise SimulationError("mesh has no triangles")
    low, high = triangles_m.min(axis=(0, 1)) - BORDER_M, triangles_m.max(axis=(0, 1)) + BORDER_M
    shape = np.ceil((high - low) / cell_m).astype(int)
    if np.prod(shape.astype(np.float64)) > MOST_CELLS:
        raise SimulationError(f"mesh needs {shape} cells of {cell_m} m, expected at most {MOST_CELLS}")
    local = (triangles_m - low) / cell_m
    surface = _surface(local, shape)
    votes = np.zeros(shape, np.int8)
    for axis in range(3):
        order = np.roll(np.arange(3), -1 - axis)  # the ray's axis last
        crossed = _crossings(np.ascontiguousarray(local[..., order]), np.zeros(shape[order], np.uint8))
        before, after = np.cumsum(crossed, axis=2) % 2, np.cumsum(crossed[..., ::-1], axis=2)[..., ::-1] % 2
        after = np.concatenate([after[..., 1:], np.zeros_like(after[..., :1])], axis=2)
        votes += np.transpose(before + after, np.argsort(order)).astype(np.int8)
    solid = binary_fill_holes(surface | (votes >= VOTES))
    outside, inside = distance_transform_edt(~solid), distance_transform_edt(solid)
    distance = np.where(solid, 1 - inside, outside) * cell_m  # 0 where the surface is
    return DistanceGrid(distance.astype(np.float16), low, cell_m)


def _surface(local: FloatArray, shape: np.ndarray) -> np.ndarray:
    """Cells that a triangle passes through, found by points on it half a cell apart."""
    surface = np.zeros(shape, bool)
    longest = np.linalg.norm(local - np.roll(local, 1, axis=1), axis=2).max(axis=1)
    steps = np.maximum(1, np.ceil(longest / 0.5)).astype(int)
    for count in np.unique(steps):
        chosen = local[steps == count]
        a, b = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        a, b = a[a + b <= count] / count, b[a + b <= count] / count
        weights = np.stack([1 - a - b, a, b], axis=1)
        for part in np.array_split(chosen, max(1, len(chosen) * len(weights) // 2_000_000)):
            cells = np.floor(np.einsum("wc,tcx->twx", weights, part)).astype(int).reshape(-1, 3)
            i, j, k = np.clip(cells, 0, shape - 1).T
            surface[i, j, k] = True
    return surface


@kernel
def _crossings(local: FloatArray, crossed: np.ndarray) -> np.ndarray:
    """Parity of the crossings of each column along the last axis, noted at the cell after whose centre they lie.

    Columns run a little beside the cells' centres, so that hardly one meets an edge of a regular mesh.
    """
    shift_x, shift_y = 0.5 + 0.0137, 0.5 + 0.0091
    for n in range(local.shape[0]):
        ax, ay, az = local[n, 0]
        bx, by, bz = local[n, 1]
        cx, cy, cz = local[n, 2]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if abs(area) < 1e-12:
            continue
        i0 = max(0, int(np.floor(min(ax, bx, cx) - shift_x)))
        i1 = min(crossed.shape[0] - 1, int(np.ceil(max(ax, bx, cx) - shift_x)))
        j0 = max(0, int(np.floor(min(ay, by, cy) - shift_y)))
        j1 = min(crossed.shape[1] - 1, int(np.ceil(max(ay, by, cy) - shift_y)))
        for i in range(i0, i1 + 1):
            for j in range(j0, j1 + 1):
                x, y = i + shift_x, j + shift_y
                u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                w = 1.0 - u - v
                if u >= 0 and v >= 0 and w >= 0:
                    k = int(np.ceil(u * az + v * bz + w * cz - 0.5))
                    if 0 <= k < crossed.shape[2]:
                        crossed[i, j, k] ^= 1
    return crossed
