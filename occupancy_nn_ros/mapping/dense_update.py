# SPDX-License-Identifier: Apache-2.0
"""Whole blocks of the map at once: adding a prediction and forgetting, compiled on the CPU, in torch elsewhere."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.compute.compiled import run_split, use_kernels
from occupancy_nn_ros.mapping.dense_kernels import (
    EVIDENCE_LIMIT,
    EVIDENCE_STEP,
    DenseRule,
    Rows,
    add_classes,
    add_dense,
    forget_old,
)
from occupancy_nn_ros.mapping.map_memory import Block
from occupancy_nn_ros.mapping.ray_update import CREDIT_MS, IN_VIEW_MS

LINEAR, EXPONENTIAL = 1, 2
ROWS_FOR_A_THREAD = 64


def add_prediction(
    stored: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor], where: Block, rule: DenseRule
) -> int | Tensor:
    """Add weighted log-odds to a block of the map where the weight is positive.

    Args:
        stored: the map's log-odds (X, Y, Z) float32 and time last seen (X, Y, Z) int32, changed in place.
        given: log-odds and weights of a prediction, float32, contiguous, on the same device.
        where: the block, in ``stored`` and in ``given``.
        rule: gain, clamps and times.

    Returns:
        Voxels left out because their log-odds or weight was not finite; of a GPU a tensor, so that nobody waits.
    """
    if not use_kernels(stored[0].device):
        blocks = [tensor[where[0]] for tensor in stored] + [tensor[where[1]] for tensor in given]
        return add_prediction_reference((blocks[0], blocks[1]), (blocks[2], blocks[3]), rule)
    flat = [tensor.numpy().reshape(-1) for tensor in (*stored, *given)]
    rows = _rows(stored[0].shape, given[0].shape, where)
    parts = run_split(add_dense, len(rows.stored), rows, (flat[0], flat[1]), (flat[2], flat[3]), rule, least=256)
    return int(sum(parts))


def _rows(stored: torch.Size, given: torch.Size, where: Block) -> Rows:
    """A block as stretches of adjacent voxels: whole slabs where it has all voxels of the columns, else columns."""
    y, z = (part.stop - part.start for part in where[0][1:])
    slabs = z == stored[2] == given[2]
    starts = []
    for shape, part in zip((stored, given), where, strict=True):
        first = np.arange(part[0].start, part[0].stop)[:, None] * shape[1]
        first = first + (part[1].start if slabs else np.arange(part[1].start, part[1].stop)[None])
        starts.append((first * shape[2] + part[2].start).reshape(-1))
    return Rows(starts[0], starts[1], y * z if slabs else z)


def add_prediction_reference(stored: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor], rule: DenseRule) -> Tensor:
    """:func:`add_prediction` in torch."""
    log_odds, seen_ms = stored
    logit, weight = given
    change = logit * weight * rule.gain
    finite = torch.isfinite(change)
    known = finite & (weight > 0)
    total = (log_odds + torch.where(known, change, 0.0)).clamp(rule.low, rule.high)
    age = rule.now_ms - seen_ms
    fading = known & (log_odds > 0) & (change < 0) & (seen_ms >= 0) & (age > 0) & (age <= IN_VIEW_MS)
    t = age.clamp(max=CREDIT_MS).float() * weight * (1.0 / rule.clear_ms)
    left = log_odds / (1.0 + t * (1.0 + t * (0.5 + t * (1 / 6))))
    total = torch.where(fading, torch.minimum(total, left), total)
    log_odds.copy_(torch.where(known, total, log_odds))
    seen_ms.copy_(torch.where(known, seen_ms.clamp(min=rule.now_ms), seen_ms))
    return (~finite).sum()


def add_class_evidence(evidence: Tensor, given: tuple[Tensor, Tensor, Tensor], where: Block, gain: float) -> None:
    """Add class evidence to a block of the map where a prediction says occupied.

    Args:
        evidence: the map's (X, Y, Z, C) int16 in steps of ``EVIDENCE_STEP``, changed in place.
        given: log-odds, weights and class logits (C, X, Y, Z) of a prediction, float32, contiguous, on the same device.
        where: the block, in ``evidence`` and in ``given``.
        gain: scales log-odds.
    """
    logit, weight, classes = given
    if not use_kernels(evidence.device):
        part = where[1]
        blocks = (logit[part], weight[part], classes[(slice(None), *part)])
        return add_class_evidence_reference(evidence[where[0]], blocks, gain)
    count = len(classes)
    arrays = (logit.numpy().reshape(-1), weight.numpy().reshape(-1), classes.numpy().reshape(count, -1))
    rows = _rows(evidence.shape[:3], logit.shape, where)
    flat = evidence.numpy().reshape(-1, count)
    run_split(add_classes, len(rows.stored), rows, flat, arrays, gain, least=64)
    return None


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
) -> int | Tensor:
    """Let voxels decay that were not seen since the last call; those close to nothing become unknown.

    Args:
        tensors: log-odds, time last seen, class evidence: the map's storage, changed in place.
        times: now and the last call, in milliseconds of the map.
        model: ``LINEAR``: log-odds move towards zero at a rate that takes ``most`` there in ``after_ms``;
            ``EXPONENTIAL``: they shrink with that time constant.
        after_ms: see there.
        most: largest log-odds.

    Returns:
        Voxels forgotten; of a GPU a tensor, so that nobody waits.
    """
    elapsed = max(0, times[0] - times[1])
    amount, least = (most * elapsed / after_ms, 0.0) if model == LINEAR else (math.exp(-elapsed / after_ms), 0.05)
    if use_kernels(tensors[0].device):
        arrays = tuple(tensor.numpy() for tensor in tensors)
        rule = (model, amount, least)
        return int(sum(run_split(forget_old, len(arrays[0]), *arrays, times, rule, least=ROWS_FOR_A_THREAD)))
    return forget_unseen_reference(tensors, times, (model, amount, least))


def forget_unseen_reference(
    tensors: tuple[Tensor, Tensor, Tensor], times: tuple[int, int], rule: tuple[int, float, float]
) -> Tensor:
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
    return gone.sum()
