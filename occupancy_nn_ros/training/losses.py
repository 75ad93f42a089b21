# SPDX-License-Identifier: Apache-2.0
"""What the network is trained for: depth of every feature pixel, occupancy and class at points."""

from __future__ import annotations

from collections.abc import Sequence
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
        depth_m: (V, s h, s w) for a whole s: a cell of logits answers for all depths in it. 0 where nothing is within
            range (counts as far), NaN where not known (not counted).
        bins: the depth intervals.
    """
    known = ~torch.isnan(depth_m)
    position = bins.position(torch.where(depth_m > 0, depth_m, bins.high_m * 2.0)) - 0.5
    position = position.clamp(0, bins.count - 1)
    low = position.floor().long().clamp(max=bins.count - 2)
    fraction = (position - low)[:, None]
    finer = depth_m.shape[1] // logits.shape[2]
    log_probability = functional.log_softmax(logits.float(), dim=1)
    if finer > 1:
        log_probability = functional.interpolate(log_probability, scale_factor=finer, mode="nearest")
    at_low = log_probability.gather(1, low[:, None])
    at_high = log_probability.gather(1, low[:, None] + 1)
    entropy = -((1 - fraction) * at_low + fraction * at_high)[:, 0]
    return (entropy * known).sum() / known.sum().clamp(min=1)


def depth_losses(logits: Sequence[Tensor], depth_m: Tensor, bins: Sequence[DepthBins]) -> Tensor:
    """Mean of :func:`depth_loss` over logits of several resolutions.

    Args:
        logits: each (V, D, h, w).
        depth_m: as in :func:`depth_loss`, as fine as the finest logits or finer.
        bins: the intervals of each.
    """
    levels = [depth_loss(level, depth_m, level_bins) for level, level_bins in zip(logits, bins, strict=True)]
    return torch.stack(levels).mean()


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
    classes = torch.where(named, labels - 1, IGNORED)
    total = functional.cross_entropy(logits[:, 1:].float(), classes, ignore_index=IGNORED, reduction="sum")
    semantic = total / named.sum().clamp(min=1)
    return occupancy / weight.sum().clamp(min=1.0), semantic
