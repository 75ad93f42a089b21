# SPDX-License-Identifier: Apache-2.0
"""Compiled updates of whole blocks of the map: adding a prediction, forgetting.

Each has a torch version beside its caller, which runs on other devices and which the tests compare with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.compute.compiled import kernel
from occupancy_nn_ros.mapping.ray_update import CREDIT_MS, IN_VIEW_MS
from occupancy_nn_ros.values import Float32Array

EVIDENCE_STEP = 1 / 256
"""Class evidence is stored in whole steps of this size, as 16 bit integers."""

EVIDENCE_LIMIT = round(60.0 / EVIDENCE_STEP)


class DenseRule(NamedTuple):
    """How a prediction enters the map.

    Attributes:
        gain: scales log-odds.
        low, high: clamps.
        clear_ms: time constant with which an occupied voxel in view decays while it is predicted free.
        now_ms: time of the prediction.
    """

    gain: float
    low: float
    high: float
    clear_ms: float
    now_ms: int


class Rows(NamedTuple):
    """Stretches of memory that belong together.

    Attributes:
        stored: (N,) int64 where each stretch begins in the map's storage.
        given: (N,) int64 where it begins in the prediction.
        length: voxels of each.
    """

    stored: npt.NDArray[np.int64]
    given: npt.NDArray[np.int64]
    length: int


@kernel
def add_dense(
    start: int, stop: int, rows: Rows, stored: tuple[Float32Array, npt.NDArray[np.int32]],
    given: tuple[Float32Array, Float32Array], rule: DenseRule,
) -> int:  # fmt: skip
    """Add weighted log-odds to rows ``start`` to ``stop``.

    Args:
        start: first of ``rows`` to process.
        stop: the one after the last.
        rows: which voxels belong together.
        stored: the map's log-odds and time last seen, flat, changed in place.
        given: log-odds and weights, flat; voxels without weight or finite log-odds are left alone.
        rule: gain, clamps and times.

    Returns:
        Voxels left out because their log-odds or weight was not finite.
    """
    broken = 0
    for n in range(start, stop):
        a, b = rows.stored[n], rows.given[n]
        values, times = stored[0][a : a + rows.length], stored[1][a : a + rows.length]
        logits, weights = given[0][b : b + rows.length], given[1][b : b + rows.length]
        broken += int(_count_not_finite(logits, weights))
        _add_row(values, times, logits, weights, rule)
        _see_row(times, logits, weights, rule.now_ms)
    return broken


# The compiler makes vector instructions of the following loops as long as they hold no branch, no call, and 32 bits
# only.


@kernel
def _count_not_finite(logits: Float32Array, weights: Float32Array) -> np.int32:
    zero, one, count = np.int32(0), np.int32(1), np.int32(0)
    for z in range(len(logits)):
        change = logits[z] * weights[z]
        count += zero if change - change == np.float32(0.0) else one
    return count


@kernel
def _add_row(
    values: Float32Array, times: npt.NDArray[np.int32], logits: Float32Array, weights: Float32Array, rule: DenseRule
) -> None:
    gain, low, high = np.float32(rule.gain), np.float32(rule.low), np.float32(rule.high)
    zero, one, half, sixth = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(1 / 6)
    now, window, credit = np.int32(rule.now_ms), np.float32(IN_VIEW_MS), np.float32(CREDIT_MS)
    pace = np.float32(1.0 / rule.clear_ms)
    for z in range(len(values)):
        change = logits[z] * weights[z] * gain
        known = (change - change == zero) & (weights[z] > zero)
        age = np.float32(np.int32(now - times[z]))
        fading = (values[z] > zero) & (change < zero) & (times[z] >= 0) & (age > zero) & (age <= window)
        t = min(age, credit) * weights[z] * pace
        left = values[z] / (one + t * (one + t * (half + t * sixth)))
        total = min(max(values[z] + change, low), high)
        total = min(total, left) if fading else total
        values[z] = total if known else values[z]


@kernel
def _see_row(times: npt.NDArray[np.int32], logits: Float32Array, weights: Float32Array, now_ms: int) -> None:
    zero, now = np.float32(0.0), np.int32(now_ms)
    for z in range(len(times)):
        change = logits[z] * weights[z]
        known = (change - change == zero) & (weights[z] > zero)
        newest = times[z] if times[z] > now else now
        times[z] = newest if known else times[z]


@kernel
def add_classes(
    start: int, stop: int, rows: Rows, evidence: npt.NDArray[np.int16],
    given: tuple[Float32Array, Float32Array, Float32Array], gain: float,
) -> None:  # fmt: skip
    """Add class evidence where a prediction says occupied.

    Args:
        start: first of ``rows`` to process.
        stop: the one after the last.
        rows: which voxels belong together.
        evidence: (voxels, C) in steps of ``EVIDENCE_STEP``, changed in place.
        given: log-odds (voxels,), weights (voxels,) and class logits (C, voxels).
        gain: scales log-odds.
    """
    logits, weights, classes = given
    count = len(classes)
    shares = np.empty(count, np.float32)
    scale, zero, one, unit = np.float32(gain), np.float32(0.0), np.float32(1.0), np.float32(1 / EVIDENCE_STEP)
    for n in range(start, stop):
        first, offset = rows.given[n], rows.stored[n] - rows.given[n]
        for at in range(first, first + rows.length):
            change = logits[at] * weights[at] * scale
            if not change > zero:
                continue
            top, total = classes[0, at], zero
            for c in range(1, count):
                top = max(top, classes[c, at])
            for c in range(count):
                shares[c] = np.exp(classes[c, at] - top)
                total += shares[c]
            steps = weights[at] * unit / ((one + np.exp(-change)) * total)
            if steps - steps != zero or change - change != zero:  # not finite
                continue
            for c in range(count):
                more = evidence[at + offset, c] + np.int32(shares[c] * steps + np.float32(0.5))
                evidence[at + offset, c] = min(more, EVIDENCE_LIMIT)


@kernel
def forget_old(
    start: int, stop: int, log_odds: Float32Array, seen_ms: npt.NDArray[np.int32], evidence: npt.NDArray[np.int16],
    times: tuple[int, int], rule: tuple[int, float, float],
) -> int:  # fmt: skip
    """Let voxels that were not seen since the last call decay.

    Args:
        start: first of the first axis to process.
        stop: the one after the last.
        log_odds: (X, Y, Z) storage, changed in place.
        seen_ms: (X, Y, Z) likewise.
        evidence: (X, Y, Z, C) likewise.
        times: now, and the last call, in milliseconds of the map.
        rule: model (1 linear, 2 exponential), amount (linear: how far log-odds move towards zero; exponential: factor),
            and the log-odds below which a voxel is forgotten.

    Returns:
        Voxels forgotten.
    """
    (now, last), (model, amount, least) = times, rule
    step, gone = np.float32(amount), 0
    for x in range(start, stop):
        for y in range(log_odds.shape[1]):
            for z in range(log_odds.shape[2]):
                seen = seen_ms[x, y, z]
                if seen < 0 or seen > last or seen >= now:
                    continue
                value = log_odds[x, y, z]
                size = abs(value) - step if model == 1 else abs(value) * step
                if size <= least:
                    log_odds[x, y, z] = 0.0
                    seen_ms[x, y, z] = -1
                    evidence[x, y, z, :] = 0
                    gone += 1
                else:
                    log_odds[x, y, z] = size if value > 0 else -size
    return gone
