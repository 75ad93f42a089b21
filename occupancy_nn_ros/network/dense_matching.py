# SPDX-License-Identifier: Apache-2.0
"""Matching of all views with all their sources at once: no shape depends on the data.

On a CPU, matching one pair after the other is faster: what it touches fits into the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.network.depth import (
    Appearance,
    PlaneSweep,
    merge_sources,
    pixel_rays,
    relative_poses,
)
from occupancy_nn_ros.network.precision import in_float32
from occupancy_nn_ros.network.sweep_kernels import NEAREST_M
from occupancy_nn_ros.network.views import Views


def match_all(
    sweep: PlaneSweep, looks: Sequence[Appearance], views: Views, sources: Tensor, depths_m: Tensor
) -> Tensor:
    """What the sources of R views say.

    Args:
        sweep: how they are compared.
        looks: of all views.
        views: the R views first.
        sources: (R, S) view indices, S at least 1, -1 where there is none.
        depths_m: (D,) for all pixels, or (R, D, h, w).

    Returns:
        (R, 2 * correlations + 1, D, h, w) of :func:`~occupancy_nn_ros.network.depth.merge_sources`; zeros for a view
        without any source.
    """
    count, most = sources.shape
    index, reference = sources.clamp(min=0).flatten(), _repeated(count, most, sources.device)
    features = torch.stack([look.features for look in looks])
    patches = torch.stack([look.patches for look in looks])
    size = h, w = features.shape[-2], features.shape[-1]
    depths = depths_m.view(1, -1, 1) if depths_m.ndim == 1 else depths_m.flatten(2)[reference]
    place, seen = project_pairs(views, (reference, index), depths, size, sweep.stride)
    placed = functional.interpolate(patches[:count], size=(h, w), mode="bilinear", align_corners=False)
    by_features = correlate_pairs(features[:count][reference], features[index], place, sweep.groups)
    by_patches = correlate_pairs(placed[reference], patches[index], place, 1)
    correlation = torch.cat([by_features, by_patches.to(by_features.dtype)], dim=1)
    visible = (seen & (sources >= 0).view(-1, 1, 1)).to(correlation.dtype)[:, None]
    pairs = [item.view(count, most, *item.shape[1:3], h, w) for item in (correlation * visible, visible)]
    return merge_sources(*pairs)


def _repeated(count: int, times: int, device: torch.device) -> Tensor:
    """0 to ``count`` - 1, each so many times; without asking the device how long the result is."""
    return torch.arange(count, device=device)[:, None].expand(count, times).reshape(-1)


@in_float32
def project_pairs(
    views: Views, pairs: tuple[Tensor, Tensor], depths_m: Tensor, size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor]:
    """Where sources see the cells of their references.

    Args:
        views: all of them.
        pairs: (P,) index of the reference, and of the source.
        depths_m: (P or 1, D, h * w or 1).
        size: h and w.
        stride: pixels of a cell.

    Returns:
        x and y from -1 to 1 (P, D, h * w, 2), and whether the source sees the point, (P, D, h * w) bool.
    """
    h, w = size
    reference, source = pairs
    x_scale, y_scale = 2 / (w * stride), 2 / (h * stride)
    x, y, z = views.K[source].unbind(1)
    # Pixel centres lie at integers.
    unit = torch.stack([x * x_scale + z * (x_scale / 2 - 1), y * y_scale + z * (y_scale / 2 - 1), z], dim=1)
    projection = unit @ relative_poses(views, reference, source)[:, :3]
    rays = projection[:, :, :3] @ pixel_rays(views.K, h, w, stride)[reference]
    points = rays[:, :, None] * depths_m[:, None].float() + projection[:, :, 3, None, None]
    x, y, z = points.unbind(1)
    place = torch.stack([x, y], dim=-1) / z.clamp(min=NEAREST_M)[..., None]
    return place, (z > NEAREST_M) & (place.abs() < 1).all(dim=-1)


def correlate_pairs(reference: Tensor, source: Tensor, position: Tensor, groups: int) -> Tensor:
    """Products by group of channels, as of :func:`~occupancy_nn_ros.network.correlation.correlate`, of P pairs.

    Args:
        reference: (P, C, h, w).
        source: (P, C, H, W).
        position: (P, D, h * w, 2).
        groups: that C is divided into.

    Returns:
        (P, groups, D, h * w).
    """
    sampled = functional.grid_sample(source.float(), position, padding_mode="border", align_corners=False)
    pairs, _, places, cells = sampled.shape
    products = sampled.view(pairs, groups, -1, places, cells) * reference.reshape(pairs, groups, -1, 1, cells)
    return products.sum(dim=2)
