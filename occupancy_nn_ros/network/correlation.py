# SPDX-License-Identifier: Apache-2.0
"""Correlation of a reference map with a source map sampled wherever a point of the reference may be seen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def correlate(reference: Tensor, source: Tensor, position: Tensor, groups: int) -> Tensor:
    """Products by group of channels of a map with another one, looked up bilinearly at D places for each of its cells.

    Args:
        reference: (C, h, w).
        source: (C, H, W), H and W at least 2; fastest on a CPU where channels lie together in memory.
        position: (D, h * w, 2), x and y in the source from -1, its left and upper edge, to 1; what lies outside is
            looked up at its border.
        groups: that C is divided into.

    Returns:
        (groups, D, h * w).
    """
    if source.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _correlate_rows(reference, source, position, groups)
    sampled = functional.grid_sample(source[None], position[None], padding_mode="border", align_corners=False)[0]
    places, cells = position.shape[:2]
    products = sampled.reshape(groups, -1, places, cells) * reference.reshape(groups, -1, 1, cells)
    return products.sum(dim=1)


def _correlate_rows(reference: Tensor, source: Tensor, position: Tensor, groups: int) -> Tensor:
    """The same on a CPU in half the time, with all channels of a pixel read at once; without gradients."""
    channels, height, width = source.shape
    table = source.permute(1, 2, 0).reshape(-1, channels)
    corners, weights = _corners(position, height, width)
    rows = functional.embedding_bag(corners, table, per_sample_weights=weights, mode="sum")
    rows.view(len(position), -1, channels).mul_(reference.reshape(channels, -1).T.contiguous())
    members = torch.eye(groups).repeat_interleave(channels // groups, dim=1)
    return (members @ rows.T).view(groups, *position.shape[:2])


def _corners(position: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each of P positions as indices (P, 4) int32 into the flat map, and their weights (P, 4)."""
    x, y = position.reshape(-1, 2).unbind(-1)
    x = ((x + 1) * (width / 2) - 0.5).clamp_(0, width - 1)
    y = ((y + 1) * (height / 2) - 0.5).clamp_(0, height - 1)
    left, top = x.to(torch.int32).clamp_(max=width - 2), y.to(torch.int32).clamp_(max=height - 2)
    right_share, bottom_share = x - left, y - top
    both = right_share * bottom_share
    first = top * width + left
    corners = torch.stack([first, first + 1, first + width, first + (width + 1)], dim=-1)
    weights = torch.stack(
        [1 - right_share - bottom_share + both, right_share - both, bottom_share - both, both], dim=-1
    )
    return corners, weights
