# SPDX-License-Identifier: Apache-2.0
"""A depth distribution for every feature pixel: a plane sweep against other views, joined with what one image tells.

Matching (Collins 1996; learned as in Yao et al. 2018) is what carries over to scenes never trained on; where no other
view helps, the single-image prior remains.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.network.encoder import ConvBlock, norm
from occupancy_nn_ros.network.views import Views, invert_rigid

BEYOND_IMAGE = 3.0
"""A normalised sampling position that lies outside any image."""


class DepthBins(nn.Module):
    """Depth intervals of equal ratio between ``low_m`` and ``high_m``; the last one also holds everything beyond."""

    edges: Tensor
    centers: Tensor

    def __init__(self, count: int, low_m: float, high_m: float) -> None:
        super().__init__()
        self.count, self.low_m, self.high_m = count, low_m, high_m
        self.log_ratio = math.log(high_m / low_m) / count
        edges = low_m * torch.exp(torch.arange(count + 1) * self.log_ratio)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centers", (edges[:-1] * edges[1:]).sqrt(), persistent=False)

    def position(self, depth_m: Tensor) -> Tensor:
        """Continuous edge index of a depth: 0 at ``low_m``, ``count`` at ``high_m``; not clamped."""
        return torch.log(depth_m.clamp(min=1e-3) / self.low_m) / self.log_ratio

    def index(self, depth_m: Tensor) -> Tensor:
        """Interval that holds a depth, int64 in [0, count - 1]; nearer and further depths go to the end intervals."""
        return self.position(depth_m).floor().long().clamp(0, self.count - 1)


def pixel_rays(K: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Rays (V, 3, height * width) with z = 1 through the centres of feature cells of ``stride`` pixels."""
    v, u = torch.meshgrid(
        torch.arange(height, device=K.device, dtype=K.dtype),
        torch.arange(width, device=K.device, dtype=K.dtype),
        indexing="ij",
    )
    offset = (stride - 1) / 2
    pixels = torch.stack([u * stride + offset, v * stride + offset, torch.ones_like(u)]).reshape(1, 3, -1)
    x = (pixels[:, 0] - K[:, 0, 2, None]) / K[:, 0, 0, None]
    y = (pixels[:, 1] - K[:, 1, 2, None]) / K[:, 1, 1, None]
    return torch.stack([x, y, torch.ones_like(x)], dim=1)


class PlaneSweep(nn.Module):
    """Group-wise correlation (Guo et al. 2019) of reference features with source features warped at each depth."""

    def __init__(self, bins: DepthBins, groups: int, stride: int) -> None:
        super().__init__()
        self.bins, self.groups, self.stride = bins, groups, stride

    def forward(
        self, features: Tensor, source_features: Tensor, T_source_ref: Tensor, K: Tensor, K_source: Tensor
    ) -> Tensor:
        """Correlate P pairs of views.

        Args:
            features: (P, C, h, w) of the reference views, each group of channels of unit length.
            source_features: (P, C, h, w) of the source views.
            T_source_ref: (P, 4, 4).
            K: (P, 3, 3) at image resolution.
            K_source: (P, 3, 3) of the source views.

        Returns:
            (P, groups + 1, D, h, w): correlation in [-1, 1] by group, then whether the source sees that point at all.
        """
        pairs, _, h, w = features.shape
        depths = self.bins.centers.to(features.dtype)
        rays = T_source_ref[:, :3, :3] @ pixel_rays(K, h, w, self.stride)
        points = rays[:, :, None] * depths[None, None, :, None] + T_source_ref[:, :3, 3, None, None]
        z = points[:, 2].clamp(min=1e-3)
        u = K_source[:, 0, 0, None, None] * points[:, 0] / z + K_source[:, 0, 2, None, None]
        v = K_source[:, 1, 1, None, None] * points[:, 1] / z + K_source[:, 1, 2, None, None]
        grid = torch.stack([(u + 0.5) / (w * self.stride), (v + 0.5) / (h * self.stride)], dim=-1) * 2 - 1
        seen = (points[:, 2] > 0.05) & (grid.abs() < 1).all(dim=-1)
        grid = torch.where(seen[..., None], grid, BEYOND_IMAGE)
        correlation = torch.stack(
            [self._correlate(*pair) for pair in zip(features, source_features, grid, strict=True)]
        )
        return torch.cat([correlation, seen.view(pairs, 1, len(depths), h, w).to(correlation.dtype)], dim=1)

    def _correlate(self, features: Tensor, source_features: Tensor, grid: Tensor) -> Tensor:
        """One pair, (groups, D, h, w): its warped features fit into the cache, those of all pairs would not."""
        channels, h, w = features.shape
        depths = len(grid)
        warped = functional.grid_sample(source_features[None], grid[None], align_corners=False)
        warped = warped.view(self.groups, channels // self.groups, depths, h * w)
        reference = features.view(self.groups, channels // self.groups, 1, h * w)
        return (warped * reference).sum(dim=1).view(self.groups, depths, h, w)


class Conv3dBlock(nn.Sequential):
    """3x3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU(inplace=True))


class DepthHead(nn.Module):
    """Depth logits from image features and, where there are any, matches."""

    def __init__(self, bins: DepthBins, channels: int, groups: int, width: int) -> None:
        super().__init__()
        self.bins, self.groups = bins, groups
        self.prior = nn.Sequential(ConvBlock(channels, channels), nn.Conv2d(channels, bins.count, 1))
        self.regularize = nn.Sequential(
            Conv3dBlock(2 * groups + 2, width), Conv3dBlock(width, width), nn.Conv3d(width, 1, 3, padding=1)
        )
        self.down = nn.Sequential(ConvBlock(bins.count + channels, 80, stride=2), ConvBlock(80, 80))
        self.skip = ConvBlock(bins.count + channels, 64)
        self.up = nn.Sequential(ConvBlock(64 + 80, 64), nn.Conv2d(64, bins.count, 1))

    def forward(self, features: Tensor, matches: Tensor) -> Tensor:
        """Depth logits.

        Args:
            features: (V, C, h, w).
            matches: (V, S, groups + 1, D, h, w), zeros for a source that does not exist.

        Returns:
            (V, D, h, w) unnormalised log-probabilities over the depth intervals.
        """
        prior = self.prior(features)
        seen = matches[:, :, -1:]
        count = seen.sum(dim=1)
        correlation = matches[:, :, :-1]
        mean = (correlation * seen).sum(dim=1) / count.clamp(min=1)
        best = (correlation - 2.0 * (1 - seen)).amax(dim=1).clamp(min=-1) * (count > 0)
        volume = torch.cat([mean, best, count, prior[:, None]], dim=1)
        logits = prior + self.regularize(volume)[:, 0]
        context = torch.cat([logits, features], dim=1)
        coarse = functional.interpolate(
            self.down(context), size=logits.shape[-2:], mode="bilinear", align_corners=False
        )
        refined: Tensor = logits + self.up(torch.cat([self.skip(context), coarse], dim=1))
        return refined


def relative_poses(views: Views, index: Tensor, source: Tensor) -> Tensor:
    """T_source_ref (P, 4, 4) for pairs of view indices."""
    return invert_rigid(views.T_world_cam[source]) @ views.T_world_cam[index]
