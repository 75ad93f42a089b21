# SPDX-License-Identifier: Apache-2.0
"""Compiled updates of whole blocks of the map: adding a prediction, forgetting.

Each has a torch version beside its caller, which runs on other devices and which the tests compare with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.mapping.compiled import kernel
from occupancy_nn_ros.mapping.ray_kernels import IN_VIEW_MS
from occupancy_nn_ros.types import Float32Array

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


@kernel
def add_dense(
    start: int, stop: int, stored: tuple[Float32Array, npt.NDArray[np.int32]], given: tuple[Float32Array, Float32Array],
    rule: DenseRule,
) -> int:  # fmt: skip
    """Add weighted log-odds to rows ``start`` to ``stop``.

    Args:
        start, stop: part of the first axis.
        stored: log-odds and time last seen, (X, Y, N), changed in place.
        given: log-odds and weights, (X, Y, N); voxels without weight or finite log-odds are left alone.
        rule: gain, clamps and times.

    Returns:
        Voxels left out because their log-odds or weight was not finite.
    """
    log_odds, seen_ms = stored
    broken = 0
    gain, low, high = np.float32(rule.gain), np.float32(rule.low), np.float32(rule.high)
    zero, now = np.float32(0.0), np.int32(rule.now_ms)
    for x in range(start, stop):
        for y in range(log_odds.shape[1]):
            values, times, logits, weights = log_odds[x, y], seen_ms[x, y], given[0][x, y], given[1][x, y]
            special = 0
            for z in range(len(values)):
                change = logits[z] * weights[z]
                # One compare finds NaN and infinity: only for them the difference is not zero.
                special |= (change - change != zero) | ((values[z] > zero) & (change < zero))
            if special:
                broken += _add_row(values, times, logits, weights, rule)
                continue
            for z in range(len(values)):
                change = logits[z] * weights[z] * gain
                known = weights[z] > zero
                total = min(max(values[z] + change, low), high)
                values[z] = total if known else values[z]
                times[z] = max(times[z], now) if known else times[z]
    return broken


@kernel
def _add_row(
    values: Float32Array, times: npt.NDArray[np.int32], logits: Float32Array, weights: Float32Array, rule: DenseRule
) -> int:
    """One row with values that are not finite or with occupied voxels that are predicted free."""
    broken = 0
    gain, low, high = np.float32(rule.gain), np.float32(rule.low), np.float32(rule.high)
    for z in range(len(values)):
        change = logits[z] * weights[z] * gain
        if not np.isfinite(change):
            broken += 1
        elif weights[z] > 0.0:
            value = values[z]
            total = min(max(value + change, low), high)
            age = rule.now_ms - times[z]
            if value > 0.0 and change < 0.0 and times[z] >= 0 and 0 < age <= IN_VIEW_MS:
                total = min(total, value * np.float32(np.exp(-age * weights[z] / rule.clear_ms)))
            values[z] = total
            times[z] = max(times[z], np.int32(rule.now_ms))
    return broken


@kernel
def add_classes(
    start: int, stop: int, evidence: npt.NDArray[np.int16], given: tuple[Float32Array, Float32Array, Float32Array], gain: float
) -> None:
    """Add class evidence where a prediction says occupied.

    Args:
        start, stop: part of the first axis.
        evidence: (X, Y, Z, C) in steps of ``EVIDENCE_STEP``, changed in place.
        given: log-odds (X, Y, Z), weights (X, Y, Z) and class logits (C, X, Y, Z).
        gain: scales log-odds.
    """
    logits, weights, classes = given
    count = len(classes)
    shares = np.empty(count, np.float32)
    for x in range(start, stop):
        for y in range(evidence.shape[1]):
            for z in range(evidence.shape[2]):
                change = logits[x, y, z] * weights[x, y, z] * gain
                if not 0.0 < change < np.inf:
                    continue
                top = np.float32(-np.inf)
                for c in range(count):
                    top = max(top, classes[c, x, y, z])
                total = np.float32(0.0)
                for c in range(count):
                    shares[c] = np.exp(classes[c, x, y, z] - top)
                    total += shares[c]
                scale = weights[x, y, z] / ((1.0 + np.exp(-change)) * total * EVIDENCE_STEP)
                if not np.isfinite(scale):
                    continue
                for c in range(count):
                    sum_ = evidence[x, y, z, c] + np.int32(shares[c] * scale + 0.5)
                    evidence[x, y, z, c] = min(sum_, EVIDENCE_LIMIT)


@kernel
def forget_old(
    start: int, stop: int, log_odds: Float32Array, seen_ms: npt.NDArray[np.int32], evidence: npt.NDArray[np.int16],
    times: tuple[int, int], rule: tuple[int, float, float],
) -> int:  # fmt: skip
    """Let voxels that were not seen since the last call decay.

    Args:
        start, stop: part of the first axis.
        log_odds, seen_ms, evidence: storage (X, Y, Z) and (X, Y, Z, C), changed in place.
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
