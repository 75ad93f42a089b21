# SPDX-License-Identifier: Apache-2.0
"""From images to space: what every view's depth distribution and features say about any 3D point.

A point is seen as surface, as free space in front of the surface, or as hidden behind it; the three add to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.compute.compiled import run_split, use_kernels
from occupancy_nn_ros.network.depth import DepthBins
from occupancy_nn_ros.network.depth_kernels import add_up, by_pixel, rows_of
from occupancy_nn_ros.network.lifting_kernels import Looks, ask_views
from occupancy_nn_ros.network.views import Views, to_camera

STATISTICS = 8
"""Number of channels of :attr:`Evidence.statistics`."""

HALF_DEPTH = 0.6
"""Half extent along a ray of a unit cube, averaged over ray directions."""

LEAST_PORTION = 1024
"""Points that are worth a thread of their own."""


@dataclass(frozen=True)
class Evidence:
    """What all views together say about P points.

    Attributes:
        statistics: (P, STATISTICS) means over views of surface, free and hidden, number of views / 4, half the log-odds
            of surface against free summed over views, maxima of surface and free, inverse depth in the nearest view.
        features: (P, C) image features merged by how likely each view sees a surface there, or None.
        visible: (P,) in [0, 1], the best view's probability that the point is not hidden; 0 where no camera looks.
    """

    statistics: Tensor
    features: Tensor | None
    visible: Tensor


def cumulative(depth_logits: Tensor) -> Tensor:
    """Probability that the surface lies nearer than each interval edge, (V, D, h, w) -> (V, D + 1, h, w).

    The last interval also holds everything beyond the range, so its mass is never counted as nearer.
    """
    if by_pixel(depth_logits):
        return add_up(depth_logits)
    probability = torch.softmax(depth_logits, dim=1)
    nearer = torch.cumsum(probability, dim=1)
    start = torch.zeros_like(nearer[:, :1])
    return torch.cat([start, nearer[:, :-1], nearer[:, -2:-1]], dim=1)


def sample_evidence(
    points: Tensor, edge_m: Tensor, views: Views, nearer: Tensor, bins: DepthBins, features: Tensor | None
) -> Evidence:
    """Ask every view about points.

    Args:
        points: (P, 3) in the views' world frame.
        edge_m: (P,) edge of the cube that each point stands for.
        views: V views.
        nearer: (V, D + 1, h, w) from :func:`cumulative`.
        bins: the depth intervals.
        features: (V, C, h, w) to merge, or None.

    Returns:
        Evidence for the P points.
    """
    if not torch.is_grad_enabled() and use_kernels(points.device) and points.dtype == torch.float32:
        return _compiled_evidence(points, edge_m, views, nearer, bins, features)
    total = torch.zeros(
        len(points), 5, device=points.device, dtype=points.dtype
    )  # surface, free, hidden, count, log-odds
    best = torch.zeros(
        len(points), 4, device=points.device, dtype=points.dtype
    )  # surface, free, not hidden, 1 / distance
    merged = weights = None
    if features is not None:
        merged = torch.zeros(len(points), features.shape[1], device=points.device, dtype=points.dtype)
        weights = torch.full((len(points), 1), 1e-3, device=points.device, dtype=points.dtype)
    for view in range(len(views)):
        where, position, depth = _in_view(points, views, view)
        if len(where) == 0:
            continue
        half = edge_m[where] * HALF_DEPTH
        start = _sample_nearer(nearer[view], position, bins.position(depth - half))
        end = _sample_nearer(nearer[view], position, bins.position(depth + half))
        summed, compared, weight = said_by_a_view(start, end, depth)
        total = total.index_add(0, where, summed.T)
        best = best.index_copy(0, where, torch.maximum(best[where], compared.T))
        if features is not None and merged is not None and weights is not None:
            weight = weight[:, None]
            sampled = functional.grid_sample(features[view : view + 1], position[None, None], align_corners=False)
            merged = merged.index_add(0, where, sampled[0, :, 0].T * weight)
            weights = weights.index_add(0, where, weight)
    lifted = merged / weights if merged is not None and weights is not None else None
    return Evidence(said_by_all(total.T, best.T), lifted, best[:, 2])


def said_by_a_view(start: Tensor, end: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a view says about cubes in it.

    Args:
        start: (...) probability that the surface lies before the cube's near side.
        end: (...) likewise its far side.
        depth_m: (...) of its centre.

    Returns:
        What is summed over views (5, ...): surface, free, hidden, count, log-odds; what the best view decides (4, ...): surface,
        free, not hidden, inverse depth; and how much the view's features weigh (...).
    """
    surface, free, hidden = (end - start).clamp(min=0), 1 - end, start
    odds = torch.log((surface + 0.01) / (free + 0.01)) * (1 - hidden)
    summed = torch.stack([surface, free, hidden, torch.ones_like(free), odds])
    return summed, torch.stack([surface, free, 1 - hidden, 1 / depth_m.clamp(min=0.3)]), surface + 0.05


def said_by_all(summed: Tensor, best: Tensor) -> Tensor:
    """:attr:`Evidence.statistics` (P, STATISTICS) from the sums (5, P) and maxima (4, P) over views of what each says."""
    count = summed[3].clamp(min=1)
    return torch.stack([*(summed[:3] / count), summed[3] / 4, summed[4] * 0.5, best[0], best[1], best[3]], dim=1)


def _compiled_evidence(
    points: Tensor, edge_m: Tensor, views: Views, nearer: Tensor, bins: DepthBins, features: Tensor | None
) -> Evidence:
    """The same by a kernel."""
    height, width = views.images.shape[-2:]
    merged = nearer.new_empty(len(nearer), 0, 1, 1) if features is None else features
    by_cell = merged.float().permute(0, 2, 3, 1).contiguous()
    looks = Looks(
        views.K.contiguous().numpy(), views.T_world_cam.contiguous().numpy(), rows_of(nearer).numpy(),
        (np.float32(width), np.float32(height)), np.float32(bins.low_m), np.float32(bins.log_ratio), by_cell.numpy(),
    )  # fmt: skip
    out, visible = points.new_empty(len(points), STATISTICS + by_cell.shape[-1]), torch.empty_like(points[:, 0])
    asked = points.contiguous().numpy(), (edge_m * HALF_DEPTH).numpy()
    run_split(ask_views, len(points), *asked, looks, out.numpy(), visible.numpy(), least=LEAST_PORTION)
    return Evidence(out[:, :STATISTICS], None if features is None else out[:, STATISTICS:], visible)


def _in_view(points: Tensor, views: Views, view: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the points inside one view, their normalised image positions (n, 2) in [-1, 1], and depths (n,)."""
    height, width = views.images.shape[-2:]
    local = to_camera(points, views.T_world_cam[view])
    K = views.K[view]
    z = local[:, 2].clamp(min=1e-3)
    x = (K[0, 0] * local[:, 0] / z + K[0, 2] + 0.5) / width * 2 - 1
    y = (K[1, 1] * local[:, 1] / z + K[1, 2] + 0.5) / height * 2 - 1
    inside = (local[:, 2] > 0.05) & (x.abs() < 1) & (y.abs() < 1)
    where = torch.nonzero(inside)[:, 0]
    return where, torch.stack([x[where], y[where]], dim=1), local[where, 2]


def _sample_nearer(nearer: Tensor, position: Tensor, edge_index: Tensor) -> Tensor:
    """Trilinear lookup of (D + 1, h, w) at image positions (n, 2) in [-1, 1] and edge indices (n,)."""
    layers = nearer.shape[0]
    z = (2 * edge_index.clamp(0, layers - 1) + 1) / layers - 1
    grid = torch.cat([position, z[:, None]], dim=1)[None, None, None]
    sampled = functional.grid_sample(nearer[None, None], grid, padding_mode="border", align_corners=False)
    return sampled[0, 0, 0, 0]
