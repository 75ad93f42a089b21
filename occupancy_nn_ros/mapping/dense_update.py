# SPDX-License-Identifier: Apache-2.0
"""Whole blocks of the map at once: adding a prediction and forgetting, compiled on the CPU, in torch elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from occupancy_nn_ros.mapping.compiled import run_split, use_kernels
from occupancy_nn_ros.mapping.dense_kernels import (
    EVIDENCE_LIMIT,
    EVIDENCE_STEP,
    DenseRule,
    add_classes,
    add_dense,
    forget_old,
)
from occupancy_nn_ros.mapping.ray_kernels import IN_VIEW_MS

LINEAR, EXPONENTIAL = 1, 2
ROWS_FOR_A_THREAD = 64


def add_prediction(stored: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor], rule: DenseRule) -> int:
    """Add weighted log-odds to a block of the map where the weight is positive.

    Args:
        stored: log-odds (X, Y, Z) float32 and time last seen (X, Y, Z) int32, views of the map, changed in place.
        given: log-odds and weights (X, Y, Z) float32 on the same device.
        rule: gain, clamps and times.

    Returns:
        Voxels left out because their log-odds or weight was not finite.
    """
    if use_kernels(stored[0].device):
        # Rows of one voxel column are short; where the blocks allow it, a row is a whole plane.
        flat = [_planes(tensor) for tensor in (*stored, *given)]
        if any(part is None for part in flat):
            flat = [*stored, *given]
        arrays = [part.numpy() for part in flat if part is not None]
        return sum(run_split(add_dense, len(arrays[0]), arrays[:2], arrays[2:], rule, least=ROWS_FOR_A_THREAD))
    return add_prediction_reference(stored, given, rule)


def _planes(tensor: Tensor) -> Tensor | None:
    """The block as (X, pieces, cells) with long contiguous pieces, or None if its columns are not adjacent in memory."""
    x, y, z = tensor.shape
    if tensor.stride(2) != 1 or (y > 1 and tensor.stride(1) != z):
        return None
    pieces = next(n for n in (8, 5, 4, 2, 1) if y % n == 0)
    return tensor.as_strided((x, pieces, y // pieces * z), (tensor.stride(0), y // pieces * z, 1))


def add_prediction_reference(stored: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor], rule: DenseRule) -> int:
    """:func:`add_prediction` in torch."""
    log_odds, seen_ms = stored
    logit, weight = given
    change = logit * weight * rule.gain
    finite = torch.isfinite(change)
    known = finite & (weight > 0)
    total = (log_odds + torch.where(known, change, 0.0)).clamp(rule.low, rule.high)
    age = rule.now_ms - seen_ms
    fading = known & (log_odds > 0) & (change < 0) & (seen_ms >= 0) & (age > 0) & (age <= IN_VIEW_MS)
    left = log_odds * torch.exp(-age * weight / rule.clear_ms)
    total = torch.where(fading, torch.minimum(total, left), total)
    log_odds.copy_(torch.where(known, total, log_odds))
    seen_ms.copy_(torch.where(known, seen_ms.clamp(min=rule.now_ms), seen_ms))
    return int((~finite).sum())


def add_class_evidence(evidence: Tensor, given: tuple[Tensor, Tensor, Tensor], gain: float) -> None:
    """Add class evidence to a block of the map where a prediction says occupied.

    Args:
        evidence: (X, Y, Z, C) int16 in steps of ``EVIDENCE_STEP``, a view of the map, changed in place.
        given: log-odds (X, Y, Z), weights (X, Y, Z) and class logits (C, X, Y, Z) float32 on the same device.
        gain: scales log-odds.
    """
    if use_kernels(evidence.device):
        arrays = tuple(tensor.numpy() for tensor in given)
        run_split(add_classes, len(evidence), evidence.numpy(), arrays, gain, least=ROWS_FOR_A_THREAD)
    else:
        add_class_evidence_reference(evidence, given, gain)


def add_class_evidence_reference(evidence: Tensor, given: tuple[Tensor, Tensor, Tensor], gain: float) -> None:
    """:func:`add_class_evidence` in torch."""
    logit, weight, classes = given
    change = logit * weight * gain
    shares = torch.softmax(classes, dim=0) * (weight * torch.sigmoid(change) / EVIDENCE_STEP)
    use = (change > 0) & torch.isfinite(change) & torch.isfinite(shares).all(dim=0)
    steps = torch.where(use, shares + 0.5, 0.0).to(torch.int32).permute(1, 2, 3, 0)
    evidence.copy_((evidence + steps).clamp(max=EVIDENCE_LIMIT).to(torch.int16))


def forget_unseen(
    tensors: tuple[Tensor, Tensor, Tensor], times: tuple[int, int], model: int, after_ms: float, most: float
) -> int:
    """Let voxels decay that were not seen since the last call; those close to nothing become unknown.

    Args:
        tensors: log-odds, time last seen, class evidence: the map's storage, changed in place.
        times: now and the last call, in milliseconds of the map.
        model: ``LINEAR``: log-odds move towards zero at a rate that takes ``most`` there in ``after_ms``; ``EXPONENTIAL``:
            they shrink with that time constant.
        after_ms: see there.
        most: largest log-odds.

    Returns:
        Voxels forgotten.
    """
    elapsed = max(0, times[0] - times[1])
    amount, least = (most * elapsed / after_ms, 0.0) if model == LINEAR else (math.exp(-elapsed / after_ms), 0.05)
    if use_kernels(tensors[0].device):
        arrays = tuple(tensor.numpy() for tensor in tensors)
        return sum(run_split(forget_old, len(arrays[0]), *arrays, times, (model, amount, least), least=ROWS_FOR_A_THREAD))
    return forget_unseen_reference(tensors, times, (model, amount, least))


def forget_unseen_reference(
    tensors: tuple[Tensor, Tensor, Tensor], times: tuple[int, int], rule: tuple[int, float, float]
) -> int:
    """:func:`forget_unseen` in torch; ``rule`` is the model, its amount, and the size below which nothing is left."""
    log_odds, seen_ms, evidence = tensors
    model, amount, least = rule
    old = (seen_ms >= 0) & (seen_ms <= times[1]) & (seen_ms < times[0])
    size = log_odds.abs() - amount if model == LINEAR else log_odds.abs() * amount
    gone = old & (size <= least)
    log_odds.copy_(torch.where(old, torch.copysign(size.clamp(min=0.0), log_odds), log_odds))
    log_odds.masked_fill_(gone, 0.0)
    seen_ms.masked_fill_(gone, -1)
    evidence.masked_fill_(gone[..., None], 0)
    return int(gone.sum())
