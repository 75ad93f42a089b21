# SPDX-License-Identifier: Apache-2.0
"""Pieces of the image itself to match by, beside learned features: correlation that needs no training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

STRIDE = 2
"""Pixels of the image from one patch, and from one of its own pixels, to the next."""

SIDE = 5
"""Pixels of a patch along each side: it covers 10 of the image."""

CHANNELS = SIDE * SIDE

LEAST_CONTRAST = 0.035
"""Standard deviation of a patch, 2 grey levels of :func:`~occupancy_nn_ros.network.views.normalize_images`, at which
half of its squared length is left: less is noise."""


def grey_levels(images: Tensor) -> Tensor:
    """Normalised images (V, 3, H, W), H and W even, in grey and at half resolution, (V, 1, H / 2, W / 2)."""
    return functional.avg_pool2d(images.mean(dim=1, keepdim=True), STRIDE)


def image_patches(images: Tensor) -> Tensor:
    """The patch around every second pixel, without its mean and of unit length if it has contrast.

    The product of two is their zero-mean normalised cross-correlation, smaller where there is little contrast.

    Args:
        images: (V, 3, H, W) normalised, H and W even.

    Returns:
        (V, CHANNELS, H / 2, W / 2).
    """
    grey = grey_levels(images)
    height, width = grey.shape[-2:]
    padded = functional.pad(grey, (SIDE // 2,) * 4, mode="replicate")
    shifted = [padded[..., v : v + height, u : u + width] for v in range(SIDE) for u in range(SIDE)]
    patches = torch.cat(shifted, dim=1)
    patches = patches - patches.mean(dim=1, keepdim=True)
    floor = CHANNELS * LEAST_CONTRAST**2
    return patches * torch.rsqrt(patches.square().sum(dim=1, keepdim=True) + floor)


def patches_at(patches: Tensor, height: int, width: int) -> Tensor:
    """The patches (CHANNELS, height, width) of one image at the centres of coarser cells."""
    return functional.interpolate(patches[None], size=(height, width), mode="bilinear", align_corners=False)[0]
