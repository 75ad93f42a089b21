# SPDX-License-Identifier: Apache-2.0
"""Forgets what is in a box: its voxels are unknown afterwards, in the map and among the places that left its window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.geometry.poses import check_rigid
from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import FloatArray, LatticeWindow


@dataclass(frozen=True)
class Box:
    """A box anywhere in the map frame.

    Attributes:
        T_map_box: (4, 4) pose of its middle.
        size_m: (3,) its edges along its own axes.
    """

    T_map_box: FloatArray
    size_m: FloatArray

    def __post_init__(self) -> None:
        """Check that it is one.

        Raises:
            TransformError: a pose that is none, or an edge that is not a positive length.
        """
        check_rigid(self.T_map_box, "pose of the box")
        size = np.asarray(self.size_m, dtype=np.float64)
        if size.shape != (3,) or not np.isfinite(size).all() or size.min() <= 0 or size.max() > 1e9:
            raise TransformError(f"size of the box is {size.tolist()} m, expected three positive lengths")
        object.__setattr__(self, "size_m", size)

    def bounds(self, voxel_size_m: float) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Lattice indices of the lowest voxel that it can reach, and of the one after the highest."""
        reach = np.abs(self.T_map_box[:3, :3]) @ self.size_m / 2
        low = np.floor((self.T_map_box[:3, 3] - reach) / voxel_size_m).astype(np.int64)
        high = np.floor((self.T_map_box[:3, 3] + reach) / voxel_size_m).astype(np.int64) + 1
        (i, j, k), (x, y, z) = low.tolist(), high.tolist()
        return (i, j, k), (x, y, z)

    def holds(self, window: LatticeWindow, device: torch.device) -> Tensor:
        """Which voxels of a window have their centres in it, (X, Y, Z) bool; also the one that holds its middle."""
        edge, low = window.voxel_size_m, window.origin
        middle = self.T_map_box[:3, 3]
        x, y, z = (
            torch.from_numpy((np.arange(n) + o + 0.5) * edge - m).to(device)
            for n, o, m in zip(window.shape, low, middle, strict=True)
        )
        inside = torch.ones(window.shape, dtype=torch.bool, device=device)
        for axis, half in zip(self.T_map_box[:3, :3].T.tolist(), (self.size_m / 2).tolist(), strict=True):
            along = axis[0] * x[:, None, None] + axis[1] * y[None, :, None] + axis[2] * z[None, None, :]
            inside &= along.abs() <= half
        i, j, k = (int(v) for v in window.index_of(middle))
        if all(0 <= v < n for v, n in zip((i, j, k), window.shape, strict=True)):
            inside[i, j, k] = True
        return inside


def clear_box(grid: RollingMap, box: Box) -> int:
    """Make the voxels of a box unknown; returns how many were known."""
    edge = grid.window.voxel_size_m
    low, high = box.bounds(edge)
    cleared = 0 if grid.store is None else grid.store.clear_where(low, high, lambda cube: _on_host(box, cube, edge))
    part = _common(grid.window, low, high)
    if part is None:
        return cleared
    inside = box.holds(part, grid.device)
    for stored, given in grid.overlap(part):
        chosen = inside[given]
        cleared += int((chosen & (grid.seen_ms[stored] != NEVER)).sum())
        grid.log_odds[stored] = grid.log_odds[stored].masked_fill(chosen, 0.0)
        grid.seen_ms[stored] = grid.seen_ms[stored].masked_fill(chosen, NEVER)
        grid.class_evidence[stored] = grid.class_evidence[stored].masked_fill(chosen[..., None], 0)
    return cleared


def _on_host(box: Box, cube: LatticeWindow, edge: float) -> np.ndarray:
    return np.asarray(box.holds(LatticeWindow(edge, cube.origin, cube.shape), torch.device("cpu")).numpy())


def _common(window: LatticeWindow, low: tuple[int, int, int], high: tuple[int, int, int]) -> LatticeWindow | None:
    """The part of a window between two lattice indices, None if there is none."""
    first = [max(o, lo) for o, lo in zip(window.origin, low, strict=True)]
    shape = [min(o + n, hi) - f for o, n, hi, f in zip(window.origin, window.shape, high, first, strict=True)]
    if min(shape) <= 0:
        return None
    return LatticeWindow(window.voxel_size_m, (first[0], first[1], first[2]), (shape[0], shape[1], shape[2]))
