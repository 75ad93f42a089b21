# SPDX-License-Identifier: Apache-2.0
"""Metres for what a single-image network says of depth: fitted, image by image, to depth that is known."""

from __future__ import annotations

from typing import Literal

import numpy as np

from occupancy_nn_ros.values import FloatArray

Kind = Literal["depth", "disparity"]
"""``depth`` grows with distance and lacks a factor; ``disparity`` falls with it, and lacks a factor and an offset."""

LEAST_ANCHORS = 60
"""Fewer known depths than this fix nothing."""

LEAST_AGREE, TOLERANCE = 0.6, 0.15
"""This share of the anchors must be met to within this part of their depth, or the fit is refused."""

ROUNDS = 12
NEAR_M, FAR_M = 0.05, 100.0


def fit_metres(raw: FloatArray, known_m: FloatArray, kind: Kind) -> tuple[float, float] | None:
    """Factor and offset that bring a network's output to known depths; None where they do not agree on any.

    ``depth``: z = factor * raw. ``disparity``: 1 / z = factor * raw + offset. Fitted by iteratively reweighted least squares on relative
    errors (Cauchy weights), so that a third of wrong anchors does not move it.

    Args:
        raw: (N,) output of the network.
        known_m: (N,) depth at the same pixels, positive.
        kind: what the output is.
    """
    usable = np.isfinite(raw) & np.isfinite(known_m) & (known_m > NEAR_M) & (raw > 0 if kind == "depth" else True)
    raw, known_m = raw[usable], known_m[usable]
    if len(raw) < LEAST_ANCHORS:
        return None
    fit = _fit_factor(raw, known_m) if kind == "depth" else _fit_line(raw, known_m)
    if fit is None:
        return None
    error = np.abs(to_metres(raw, fit, kind) / known_m - 1)
    return fit if float((error < TOLERANCE).mean()) >= LEAST_AGREE else None


def to_metres(raw: FloatArray, fit: tuple[float, float], kind: Kind) -> FloatArray:
    """Depth in metres of a network's output, NaN where that is no depth."""
    factor, offset = fit
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = factor * raw if kind == "depth" else 1 / (factor * raw + offset)
    return np.where((depth > NEAR_M) & (depth < FAR_M), depth, np.nan)


def _fit_factor(raw: FloatArray, known_m: FloatArray) -> tuple[float, float]:
    return float(np.exp(np.median(np.log(known_m / raw)))), 0.0


def _fit_line(raw: FloatArray, known_m: FloatArray) -> tuple[float, float] | None:
    """The line through (raw, 1 / known), started from its robust slope between quantiles."""
    inverse = 1 / known_m
    spread = np.quantile(raw, (0.1, 0.9))
    if spread[1] - spread[0] < 1e-6 * max(1.0, float(np.abs(raw).max())):
        return None
    weight: FloatArray = np.ones(len(raw))
    design = np.stack([raw, np.ones(len(raw))], axis=1)
    solution: FloatArray = np.zeros(2)
    for _ in range(ROUNDS):
        # Errors count relative to the inverse depth, so that far anchors count as much as near ones.
        scaled = np.sqrt(weight) / inverse
        solution = np.asarray(
            np.linalg.lstsq(design * scaled[:, None], inverse * scaled, rcond=None)[0], dtype=np.float64
        )
        residual = np.abs(design @ solution / inverse - 1)
        scale = max(1.5 * float(np.median(residual)), 0.01)
        weight = np.asarray(1 / (1 + (residual / scale) ** 2), dtype=np.float64)
    factor, offset = (float(v) for v in solution)
    return (factor, offset) if factor > 0 else None
