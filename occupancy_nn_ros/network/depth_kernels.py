# SPDX-License-Identifier: Apache-2.0
"""Depth distributions pixel by pixel, compiled: all intervals of a pixel lie together in memory.

Say what the torch code of :class:`~occupancy_nn_ros.network.depth.DepthRefiner` and
:func:`~occupancy_nn_ros.network.lifting.cumulative` says, without gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.compute.compiled import Scalar, inlined, reordering_kernel, use_kernels
from occupancy_nn_ros.values import Float32Array

U = np.uint64
ZERO, ONE, TWO = U(0), U(1), U(2)
QUARTER, MOST = np.float32(0.25), np.float32(0.75)


def by_pixel(distributions: Tensor) -> bool:
    """Whether distributions (V, D, h, w) are gone through by these kernels."""
    plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return plain and distributions.dtype == torch.float32 and use_kernels(distributions.device)


def rows_of(distributions: Tensor) -> Tensor:
    """(V, D, h, w) as (V, h, w, D), contiguous; not copied where it lies so already."""
    return distributions.permute(0, 2, 3, 1).contiguous()


def split_twice(logits: Tensor) -> Tensor:
    """Logits (V, D, h, w) between the old ones, (V, 2 D, 2 h, 2 w), as torch's trilinear interpolation has them."""
    rows = rows_of(logits)
    views, h, w, count = rows.shape
    finer = rows.new_empty(views, 2 * h, 2 * w, 2 * count)
    for view in range(views):
        split_cells(_flat(rows[view]), (U(h), U(w), U(count)), _flat(finer[view]))
    return finer.permute(0, 3, 1, 2)


def likeliest_stretch(logits: Tensor, window: tuple[float, ...]) -> Tensor:
    """First intervals (V, 1, h, w), int64, of the stretches of logits (V, D, h, w) that hold most probability under a window."""
    probability = torch.softmax(rows_of(logits), dim=-1)
    views, h, w, count = probability.shape
    start = torch.empty(views, 1, h, w, dtype=torch.int64)
    weights = np.array(window, np.float32)
    find_stretches(_flat(probability), U(count), weights, _flat(start))
    return start


def add_up(logits: Tensor) -> Tensor:
    """Probability (V, D + 1, h, w) that the surface lies nearer than each edge of the intervals of logits (V, D, h, w)."""
    probability = torch.softmax(rows_of(logits), dim=-1)
    views, h, w, count = probability.shape
    nearer = probability.new_empty(views, h, w, count + 1)
    sum_intervals(_flat(probability), U(count), _flat(nearer))
    return nearer.permute(0, 3, 1, 2)


def depths_of_peaks(logits: Tensor, nearer: Tensor, log_centers: Tensor, reach: int, least: float) -> Tensor:
    """Depth (V, h, w) of narrow peaks, as :func:`~occupancy_nn_ros.network.depth.sure_depth` has it.

    Args:
        logits: (V, D, h, w).
        nearer: (V, D + 1, h, w) their cumulative probabilities.
        log_centers: (D,) of the depths of the intervals.
        reach: intervals on each side of the likeliest that belong to a peak.
        least: probability that it must have more than.
    """
    rows, edges = rows_of(logits), rows_of(nearer)
    depth_m = rows.new_empty(rows.shape[:3])
    measure_peaks(_flat(rows), _flat(edges), _flat(log_centers), U(reach), np.float32(least), _flat(depth_m))
    return depth_m


def _flat(table: Tensor) -> npt.NDArray[Any]:
    """A contiguous tensor as one row."""
    return np.asarray(table.numpy().reshape(-1))


@inlined
def between(index: Scalar, count: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """The two of ``count`` cells around the centre of a cell half their size, and the share of the second."""
    half = index // TWO
    if index % TWO == ONE:
        return half, min(half + ONE, count - ONE), QUARTER
    return (half - ONE if half > ZERO else half), half, MOST


@reordering_kernel
def split_cells(rows: Float32Array, shape: tuple[Scalar, Scalar, Scalar], out: Float32Array) -> None:
    """Interpolate cells (h * w * D,) of a shape between their neighbours and along D, into ``out`` (2 h * 2 w * 2 D,)."""
    h, w, count = shape
    mixed = np.empty(count, np.float32)
    for row in range(TWO * h):
        top, bottom, v = between(row, h)
        for column in range(TWO * w):
            left, right, u = between(column, w)
            a, b = (top * w + left) * count, (top * w + right) * count
            c, d = (bottom * w + left) * count, (bottom * w + right) * count
            for k in range(count):
                upper = rows[a + k] + u * (rows[b + k] - rows[a + k])
                lower = rows[c + k] + u * (rows[d + k] - rows[c + k])
                mixed[k] = upper + v * (lower - upper)
            start = (row * TWO * w + column) * TWO * count
            out[start], out[start + TWO * count - ONE] = mixed[ZERO], mixed[count - ONE]
            for k in range(count - ONE):
                out[start + TWO * k + ONE] = MOST * mixed[k] + QUARTER * mixed[k + ONE]
                out[start + TWO * k + TWO] = QUARTER * mixed[k] + MOST * mixed[k + ONE]


@reordering_kernel
def find_stretches(probability: Float32Array, count: Scalar, window: Float32Array, out: npt.NDArray[np.int64]) -> None:
    """Where a window over each ``count`` successive probabilities holds most, (P,), into ``out``; the first of equals."""
    length = U(len(window))
    starts = count - length + ONE
    held = np.empty(starts, np.float32)
    for n in range(U(len(out))):
        first = n * count
        held[:] = np.float32(0)
        for step in range(length):
            weight = window[step]
            for start in range(starts):
                held[start] += weight * probability[first + step + start]
        most = np.float32(0)
        for start in range(starts):
            most = max(most, held[start])
        best = ZERO
        while held[best] < most:
            best += ONE
        out[n] = best


@reordering_kernel
def measure_peaks(
    logits: Float32Array,
    nearer: Float32Array,
    log_centers: Float32Array,
    reach: Scalar,
    least: Scalar,
    out: Float32Array,
) -> None:
    """Depth of each pixel's peak, 0 where it holds too little, (P,), into ``out``. The last interval is everything beyond."""
    count = U(len(log_centers))
    known = count - ONE
    for n in range(U(len(out))):
        start, top, peak = n * count, logits[n * count], ZERO
        for k in range(known):
            top = max(top, logits[start + k])
        while peak < known - ONE and logits[start + peak] < top:
            peak += ONE
        first, end = peak - min(peak, reach), min(peak + reach + ONE, known)
        edge, total, summed = n * (count + ONE), np.float32(0), np.float32(0)
        out[n] = np.float32(0)
        if not nearer[edge + end] - nearer[edge + first] > least:
            continue
        for k in range(first, end):
            share = np.exp(logits[start + k] - top)
            total += share
            summed += share * log_centers[k]
        out[n] = np.exp(summed / total)


@reordering_kernel
def sum_intervals(probability: Float32Array, count: Scalar, out: Float32Array) -> None:
    """Sums (P * (count + 1),) of the probabilities before each edge, into ``out``; what the last one holds is never counted."""
    for n in range(U(len(probability)) // count):
        total, start = np.float32(0), n * (count + ONE)
        out[start] = total
        for k in range(count - ONE):
            total += probability[n * count + k]
            out[start + k + ONE] = total
        out[start + count] = total
