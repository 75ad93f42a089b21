# SPDX-License-Identifier: Apache-2.0
"""The twin of ``lifting`` that asks all views about all points at once: no shape depends on the data.

So it can be exported and recorded as a graph, and a GPU gets few and large pieces of work. On a CPU ``lifting`` is faster.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.network.depth import DepthBins
from occupancy_nn_ros.network.encoder import DetailEncoder
from occupancy_nn_ros.network.lifting import HALF_DEPTH, said_by_a_view, said_by_all
from occupancy_nn_ros.network.precision import in_float32


def dense_evidence(
    points: Tensor, edge_m: Tensor, K: Tensor, T_base_cam: Tensor, nearer: Tensor, bins: DepthBins,
    features: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """What :func:`~occupancy_nn_ros.network.lifting.sample_evidence` says.

    Args:
        points: (P, 3) relative to the base.
        edge_m: (P,) edge of the cube at each point.
        K: (V, 3, 3).
        T_base_cam: (V, 4, 4).
        nearer: (V, D + 1, h, w) cumulative depth, at stride 4.
        bins: the depth intervals.
        features: (V, C, h, w) to merge, or None.

    Returns:
        Statistics (P, S), visibility (P,) and merged features (P, C), None if there are none to merge.
    """
    height, width = (n * DetailEncoder.stride for n in nearer.shape[-2:])
    position, depth, inside = _place(points, K, T_base_cam, (height, width))
    z = depth.clamp(min=1e-3)
    half = edge_m * HALF_DEPTH
    start, end = (_sample_nearer(nearer, position, bins.position(depth)) for depth in (z - half, z + half))
    summed, compared, weight = said_by_a_view(start, end, z)
    total, best = (summed * inside).sum(dim=1), (compared * inside).amax(dim=1)
    statistics = said_by_all(total, best)
    if features is None:
        return statistics, best[2], None
    weight = weight * inside
    sampled = functional.grid_sample(features, position[:, None], align_corners=False)[:, :, 0]
    merged = (sampled * weight[:, None]).sum(dim=0) / (weight.sum(dim=0) + 1e-3)
    return statistics, best[2], merged.T


@in_float32
def _place(points: Tensor, K: Tensor, T_base_cam: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Image positions (V, P, 2) within [-1, 1], depths (V, P), and whether each point is inside each view, (V, P) 0 or 1."""
    height, width = size
    local = (points[None] - T_base_cam[:, None, :3, 3]) @ T_base_cam[:, :3, :3]
    z = local[..., 2].clamp(min=1e-3)
    x = (K[:, 0, 0, None] * local[..., 0] / z + K[:, 0, 2, None] + 0.5) / width * 2 - 1
    y = (K[:, 1, 1, None] * local[..., 1] / z + K[:, 1, 2, None] + 0.5) / height * 2 - 1
    inside = ((local[..., 2] > 0.05) & (x.abs() < 1) & (y.abs() < 1)).to(points.dtype)
    return torch.stack([x, y], dim=-1).clamp(-1, 1), local[..., 2], inside


def _sample_nearer(nearer: Tensor, position: Tensor, edge_index: Tensor) -> Tensor:
    """Trilinear lookup (V, P) of (V, D + 1, h, w) at image positions (V, P, 2) in [-1, 1] and edge indices (V, P)."""
    layers = nearer.shape[1]
    z = (2 * edge_index.clamp(0, layers - 1) + 1) / layers - 1
    grid = torch.cat([position, z[..., None]], dim=-1)[:, None, None]
    sampled = functional.grid_sample(nearer[:, None], grid, padding_mode="border", align_corners=False)
    return sampled[:, 0, 0, 0]
