# SPDX-License-Identifier: Apache-2.0
"""The geometry of a set of pinhole views as tensors, and which views are worth matching against which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from occupancy_nn_ros.network.precision import in_float32


@dataclass(frozen=True)
class Views:
    """Pinhole views of one canvas size.

    Attributes:
        images: (V, 3, H, W) float32 RGB, normalised.
        K: (V, 3, 3) float32 intrinsics at this size, pixel centres at integers.
        T_world_cam: (V, 4, 4) float32; the world's origin must lie near the cameras, float32 has few digits.
    """

    images: Tensor
    K: Tensor
    T_world_cam: Tensor

    def __len__(self) -> int:
        """Number of views."""
        return int(self.images.shape[0])


def normalize_images(images: Tensor) -> Tensor:
    """uint8 RGB (V, H, W, 3) to the float32 (V, 3, H, W) that the encoder expects, roughly in [-2, 2]."""
    return (images.permute(0, 3, 1, 2).float() - 114.0) / 58.0


def invert_rigid(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms, (..., 4, 4)."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ transform[..., :3, 3:])
    top = torch.cat([rotation, translation], dim=-1)
    return torch.cat([top, transform[..., 3:, :]], dim=-2)


@in_float32
def to_camera(points: Tensor, T_world_cam: Tensor) -> Tensor:
    """World points (P, 3) in one camera's optical frame, (P, 3)."""
    return (points - T_world_cam[:3, 3]) @ T_world_cam[:3, :3]


@in_float32
def choose_sources(reference: Tensor, candidates: Tensor, count: int, self_index: Tensor) -> Tensor:
    """Pick the views to match each reference view against, by baseline and viewing direction.

    A good source looks the same way from a different place. Scores a baseline of 0.1 to 1 m highest; views that turn
    away by more than 50 degrees or stand within 2 cm are not used.

    Args:
        reference: (R, 4, 4) T_world_cam of the views to match.
        candidates: (C, 4, 4) T_world_cam of the views on offer.
        count: sources per reference view.
        self_index: (R,) index of each reference view among the candidates, or -1.

    Returns:
        (R, count) int64 indices into candidates, best first, -1 where there is none.
    """
    baseline = torch.cdist(reference[:, :3, 3], candidates[:, :3, 3])
    cosine = reference[:, :3, 2] @ candidates[:, :3, 2].T
    score = torch.minimum(baseline / 0.1, torch.ones_like(baseline)) * torch.exp(-((baseline - 0.4).clamp(min=0)) / 0.8)
    score = score * ((cosine - 0.64) / 0.36).clamp(0, 1)
    score = torch.where(baseline < 0.02, 0.0, score)
    itself = torch.arange(len(candidates), device=score.device) == self_index[:, None]
    score = torch.where(itself, 0.0, score)
    best = score.topk(min(count, score.shape[1]), dim=1)
    chosen = torch.where(best.values > 1e-3, best.indices, -1)
    missing = count - chosen.shape[1]
    return torch.nn.functional.pad(chosen, (0, missing), value=-1)
