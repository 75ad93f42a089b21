# SPDX-License-Identifier: Apache-2.0
"""Exact Euclidean distances to the nearest obstacle, truncated.

Squared distances are found one axis after the other: along the last by two sweeps, along the others as the lower
envelope of parabolas (Felzenszwalb and Huttenlocher 2012). Without numba, scipy's transform takes over. Tensors on
other devices have a version of their own, of few operations for each axis, whose work grows with the truncation distance.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from occupancy_nn_ros.compute.compiled import HAVE_KERNELS, kernel, run_split
from occupancy_nn_ros.values import Float32Array

FAR = 1 << 28
"""Squared distance in cells where nothing is occupied; sums of it still fit into 32 bits."""

CELLS_AT_ONCE = 1 << 26
"""Of sums on a device that are held together."""

IntArray = npt.NDArray[np.int32]


def distance_field(occupied: npt.NDArray[np.bool_], edge_m: float, max_distance_m: float) -> Float32Array:
    """Distance in metres from each cell's centre to the nearest occupied cell's centre, in 2D or 3D.

    Args:
        occupied: (X, Y) or (X, Y, Z).
        edge_m: edge of a cell.
        max_distance_m: larger distances, and all where nothing is occupied, become this.

    Raises:
        ValueError: not 2D or 3D, or so large that squared distances do not fit into 32 bits.
    """
    if occupied.ndim not in (2, 3) or sum(n * n for n in occupied.shape) >= FAR:
        raise ValueError(f"occupied is {occupied.shape}, expected (X, Y) or (X, Y, Z), its diagonal below 16000 cells")
    if not occupied.any():
        return np.full(occupied.shape, max_distance_m, np.float32)
    if not HAVE_KERNELS:
        return np.minimum(distance_transform_edt(~occupied) * edge_m, max_distance_m).astype(np.float32)
    squared = squared_distances(np.ascontiguousarray(occupied))
    distance = np.sqrt(squared, dtype=np.float32)
    distance *= np.float32(edge_m)
    return np.minimum(distance, np.float32(max_distance_m), out=distance)


def distance_field_on_device(occupied: torch.Tensor, edge_m: float, max_distance_m: float) -> torch.Tensor:
    """The same as :func:`distance_field`, to the bit, where the tensor lies.

    Args:
        occupied: (X, Y) or (X, Y, Z) bool.
        edge_m: edge of a cell.
        max_distance_m: larger distances become this.
    """
    squared = squared_distances_on_device(occupied, math.ceil(max_distance_m / edge_m))
    # Rounded once, as the host's root is: some of torch's roots of single precision are off by a bit.
    return (squared.double().sqrt().float() * edge_m).clamp(max=max_distance_m)


def squared_distances_on_device(occupied: torch.Tensor, reach: int) -> torch.Tensor:
    """Squared distance in cells from each cell to the nearest occupied one, int32; those over ``reach`` may be larger.

    Along each axis in turn, the minimum over all cells within reach of squared distances plus squared steps.
    """
    squared = torch.where(occupied, 0, FAR).to(torch.int32)
    for axis, count in enumerate(occupied.shape):
        most = min(reach, count - 1)
        steps = torch.arange(-most, most + 1, dtype=torch.int32, device=occupied.device)
        moved = squared.movedim(axis, -1)
        near = functional.pad(moved, (most, most), value=FAR).unfold(-1, len(steps), 1)
        rows = max(1, CELLS_AT_ONCE // max(1, near[0].numel()))
        parts = [(part + steps * steps).amin(dim=-1) for part in torch.split(near, rows)]
        squared = torch.cat(parts).movedim(-1, axis)
    return squared


def squared_distances(occupied: npt.NDArray[np.bool_]) -> IntArray:
    """Squared distance in cells from each cell to the nearest occupied one, (X, Y) or (X, Y, Z) int32."""
    lines = occupied.reshape(-1, occupied.shape[-1])
    squared: IntArray = np.empty(occupied.shape, np.int32)
    run_split(_sweep, len(lines), lines, squared.reshape(lines.shape), least=1024)
    if occupied.ndim == 3:
        run_split(_envelopes, len(squared), squared, least=16)
    across = squared.reshape(len(squared), -1)[None]
    run_split(_columns, across.shape[2], across[0], least=256)
    return squared


@kernel
def _sweep(start: int, stop: int, occupied: npt.NDArray[np.bool_], squared: IntArray) -> None:
    """Squared distances along the last axis, for lines ``start`` to ``stop``."""
    count = occupied.shape[1]
    for n in range(start, stop):
        row = squared[n]
        nearest = -(1 << 14)
        for z in range(count):
            if occupied[n, z]:
                nearest = z
            row[z] = (z - nearest) * (z - nearest)
        nearest = 1 << 15
        for z in range(count - 1, -1, -1):
            if occupied[n, z]:
                nearest = z
            row[z] = min(row[z], (nearest - z) * (nearest - z))


@kernel
def _envelopes(start: int, stop: int, squared: IntArray) -> None:
    """Minimum over the middle axis of squared distances plus squared steps, for slabs ``start`` to ``stop``."""
    for x in range(start, stop):
        _columns(0, squared.shape[2], squared[x])


@kernel
def _columns(start: int, stop: int, squared: IntArray) -> None:
    """Minimum over the first axis of squared distances plus squared steps, for columns ``start`` to ``stop``."""
    count = squared.shape[0]
    width = 16  # columns copied together: one cache line of the strided axis
    lines = np.empty((width, count), np.int32)
    where, bounds = np.empty(count, np.int32), np.empty(count + 1, np.float32)
    for first in range(start, stop, width):
        last = min(first + width, stop)
        for n in range(count):
            for c in range(first, last):
                lines[c - first, n] = squared[n, c]
        for c in range(last - first):
            _lower_envelope(lines[c], where, bounds)
        for n in range(count):
            for c in range(first, last):
                squared[n, c] = lines[c - first, n]


@kernel
def _lower_envelope(line: IntArray, where: IntArray, bounds: Float32Array) -> None:
    """Replace a line's values f(q) by the minimum over q of f(q) + (p - q)^2.

    Args:
        line: (N,) changed in place.
        where: (N,) scratch for the parabolas of the envelope.
        bounds: (N + 1,) scratch for where each begins to be the lowest.
    """
    count, top = len(line), -1
    for q in range(count):
        value = line[q]
        if value >= FAR:
            continue
        meet = np.float32(-1.0)
        while top >= 0:
            other = where[top]
            # Both are integers below 2^29: exact enough to decide between neighbours, ties give equal values.
            meet = np.float32((value + q * q - line[other] - other * other) / (2.0 * (q - other)))
            if meet > bounds[top]:
                break
            top -= 1
        top += 1
        where[top] = q
        bounds[top] = meet if top > 0 else np.float32(-1.0)
    if top < 0:
        return
    bounds[top + 1] = np.inf
    sources = np.empty(top + 1, np.int32)
    for n in range(top + 1):
        sources[n] = line[where[n]]
    n = 0
    for p in range(count):
        while bounds[n + 1] < p:
            n += 1
        step = p - where[n]
        line[p] = sources[n] + step * step
