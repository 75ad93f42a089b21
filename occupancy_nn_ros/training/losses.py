# SPDX-License-Identifier: Apache-2.0
"""What the network is trained for: depth of every feature pixel, occupancy and class at points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.network.depth import DepthBins
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED

HIDDEN_WEIGHT = 0.3
UNSEEN_WEIGHT = 0.05
CLASS_WEIGHT = 0.2


@dataclass(frozen=True)
class Losses:
    """Parts of the training loss, scalars."""

    depth: Tensor
    occupancy: Tensor
    semantic: Tensor

    @property
    def total(self) -> Tensor:
        """The sum that is minimised."""
        return self.depth + 2.0 * self.occupancy + CLASS_WEIGHT * self.semantic


def depth_loss(logits: Tensor, depth_m: Tensor, bins: DepthBins) -> Tensor:
    """Cross entropy against the depth spread over its two nearest intervals, mean over the pixels where it is known.

    Args:
        logits: (V, D, h, w).
        depth_m: (V, h, w), 0 where nothing is within range (counts as far), NaN where not known (not counted).
        bins: the depth intervals.
    """
    known = ~torch.isnan(depth_m)
    position = bins.position(torch.where(depth_m > 0, depth_m, bins.high_m * 2.0)) - 0.5
    position = position.clamp(0, bins.count - 1)
    low = position.floor().long().clamp(max=bins.count - 2)
    fraction = (position - low)[:, None]
    log_probability = functional.log_softmax(logits.float(), dim=1)
    at_low = log_probability.gather(1, low[:, None])
    at_high = log_probability.gather(1, low[:, None] + 1)
    entropy = -((1 - fraction) * at_low + fraction * at_high)[:, 0]
    return (entropy * known).sum() / known.sum().clamp(min=1)


SMOOTH = 0.05
"""Depth is interpolated where its inverse bends by less than this share of itself from one cell to the next."""


def finer_depth(depth_m: Tensor) -> Tensor:
    """Depth of cells half the size, (V, h, w) -> (V, 2h, 2w): interpolated on surfaces, NaN at their edges.

    The inverse of depth is interpolated, which is linear in the image on any plane. 0 (far) counts as infinite.
    """
    inverse = torch.where(depth_m > 0, 1 / depth_m.clamp(min=1e-3), depth_m)  # 0 where far, NaN where not known
    around = functional.pad(inverse[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    bend_v = around[:, :-2, 1:-1] + around[:, 2:, 1:-1] - 2 * inverse
    bend_u = around[:, 1:-1, :-2] + around[:, 1:-1, 2:] - 2 * inverse
    bend_v[:, [0, -1]], bend_u[:, :, [0, -1]] = bend_v[:, [1, -2]], bend_u[:, :, [1, -2]]  # nothing beyond the border
    smooth = torch.maximum(bend_v.abs(), bend_u.abs()) <= SMOOTH * inverse
    finer = functional.interpolate(inverse[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
    finer = torch.where(finer > 0, 1 / finer.clamp(min=1e-6), finer)
    return torch.where(smooth.repeat_interleave(2, 1).repeat_interleave(2, 2), finer, torch.nan)


def depth_losses(logits: Sequence[Tensor], depth_m: Tensor, bins: Iterable[DepthBins]) -> Tensor:
    """Mean of :func:`depth_loss` over logits from coarse to fine, each of cells half as large as those before.

    Args:
        logits: (V, D, h, w), then (V, 2 D, 2 h, 2 w) and so on.
        depth_m: (V, h, w) as in :func:`depth_loss`.
        bins: the intervals of each.
    """
    total = depth_m.new_zeros(())
    for index, (level, level_bins) in enumerate(zip(logits, bins, strict=True)):
        depth_m = finer_depth(depth_m) if index else depth_m
        total = total + depth_loss(level, depth_m, level_bins)
    return total / len(logits)


def point_losses(logits: Tensor, visible: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Occupancy and class losses.

    Args:
        logits: (N, 1 + classes).
        visible: (N,) in [0, 1].
        labels: (N,) 0 free, class id, ``OCCUPIED`` (which teaches no class) or ``IGNORED``.
    """
    weight = torch.where(visible >= 0.5, 1.0, HIDDEN_WEIGHT)
    weight = torch.where(visible > 0, weight, UNSEEN_WEIGHT) * (labels != IGNORED)
    target = (labels > 0).float()
    occupancy = functional.binary_cross_entropy_with_logits(logits[:, 0].float(), target, weight, reduction="sum")
    named = (labels > 0) & (labels != OCCUPIED) & (labels != IGNORED) & (visible > 0)
    semantic = logits.new_zeros(())
    if named.any():
        semantic = functional.cross_entropy(logits[named, 1:].float(), labels[named] - 1)
    return occupancy / weight.sum().clamp(min=1.0), semantic
