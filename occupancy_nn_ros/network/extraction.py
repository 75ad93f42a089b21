# SPDX-License-Identifier: Apache-2.0
"""Dense answers from few questions: large cubes first, and smaller ones only where the large are not clearly free.

The idea is that of multi-resolution surface extraction from occupancy fields (Mescheder et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.values import FloatArray, LatticeWindow

Query = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""Points (P, 3) and the edge of the cubes at them, to logits (P, 1 + classes) and visibility (P,)."""

CLEARLY_FREE = -3.5
"""A cube below this log-odds (3 %) is taken to be free everywhere."""

UNSEEN_BELOW = 0.01
"""A cube that a camera sees with less than this probability is not looked into."""


def refinements(voxel_size_m: float, coarse_m: float) -> int:
    """How often cubes of at most ``coarse_m`` must be halved to become voxels; 0 where voxels are not smaller."""
    return max(0, math.floor(math.log2(coarse_m / voxel_size_m) + 1e-6)) if coarse_m > 0 else 0


def extract(
    query: Query, window: LatticeWindow, origin_m: FloatArray, levels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ask for every voxel of a window.

    Args:
        query: answers for points relative to ``origin_m``.
        window: the voxels to answer for.
        origin_m: (3,) position of the query's coordinate origin in the window's frame.
        levels: halvings of the cubes on the way to voxels; 0 asks for every voxel.
        device: where the points go.

    Returns:
        (X, Y, Z, 1 + classes) logits and (X, Y, Z) visibility. Voxels of clearly free or unseen cubes get the cube's own.
    """
    if levels == 0:
        points = centers(window, origin_m, device)
        logits, visible = query(points.reshape(-1, 3), window.voxel_size_m)
        return logits.reshape(*window.shape, logits.shape[1]), visible.reshape(window.shape)
    coarse = _coarser(window)
    logits, visible = extract(query, coarse, origin_m, levels - 1, device)
    open_cubes = (logits[..., 0] > CLEARLY_FREE) & (visible > UNSEEN_BELOW)
    part = _part_of_coarser(window, coarse)
    logits, visible = _repeat(logits)[part].contiguous(), _repeat(visible)[part].contiguous()
    where = _repeat(open_cubes)[part]
    points = centers(window, origin_m, device)[where]
    if len(points):
        logits[where], visible[where] = query(points, window.voxel_size_m)
    return logits, visible


def centers(window: LatticeWindow, origin_m: FloatArray, device: torch.device) -> Tensor:
    """Voxel centres (X, Y, Z, 3) relative to the origin; the difference is taken before float32 loses digits."""
    axes = [
        torch.from_numpy((np.arange(count) + low + 0.5) * window.voxel_size_m - start).float().to(device)
        for count, low, start in zip(window.shape, window.origin, origin_m, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _coarser(window: LatticeWindow) -> LatticeWindow:
    """The window of cubes of twice the edge that covers a window."""
    low = np.floor_divide(window.origin, 2)
    high = -np.floor_divide(-(np.add(window.origin, window.shape)), 2)
    i, j, k = (int(v) for v in low)
    x, y, z = (int(v) for v in high - low)
    return LatticeWindow(window.voxel_size_m * 2, (i, j, k), (x, y, z))


def _part_of_coarser(window: LatticeWindow, coarse: LatticeWindow) -> tuple[slice, ...]:
    """Which of the halved cubes are the window's voxels."""
    starts = (o - 2 * c for o, c in zip(window.origin, coarse.origin, strict=True))
    return tuple(slice(start, start + count) for start, count in zip(starts, window.shape, strict=True))


def _repeat(values: Tensor) -> Tensor:
    """Every entry of the first three axes twice along each."""
    for axis in range(3):
        values = values.repeat_interleave(2, dim=axis)
    return values
