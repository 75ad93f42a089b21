# SPDX-License-Identifier: Apache-2.0
"""A depth distribution for every feature pixel: a plane sweep against other views, joined with what one image tells.

Matching (Collins 1996; learned as in Yao et al. 2018) is what carries over to scenes never trained on; where no other
view helps, the single-image prior remains. A second, narrow sweep at twice the resolution sharpens the first one's
answer (the cascade of Gu et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.network.convolution import Conv3d, Conv3dBlock, channels_beside
from occupancy_nn_ros.network.correlation import correlate
from occupancy_nn_ros.network.depth_kernels import by_pixel, depths_of_peaks, likeliest_stretch, split_twice
from occupancy_nn_ros.network.encoder import ConvBlock, ResidualBlock
from occupancy_nn_ros.network.patches import patches_at
from occupancy_nn_ros.network.precision import in_float32
from occupancy_nn_ros.network.sweep_kernels import NEAREST_M
from occupancy_nn_ros.network.views import Views, invert_rigid


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


SURE_REACH = 2
"""Intervals on each side of the most likely one whose depth is taken to be the same."""


def sure_depth(logits: Tensor, nearer: Tensor, bins: DepthBins, least: float) -> Tensor:
    """Depth (V, h, w) in metres where a distribution has one narrow peak, 0 elsewhere.

    The geometric mean of the most likely interval and its neighbours, by their probabilities. What is beyond the last
    edge has no depth.

    Args:
        logits: (V, D, h, w) unnormalised log-probabilities over ``bins``.
        nearer: (V, D + 1, h, w) their cumulative probabilities.
        bins: the intervals.
        least: probability that the peak must have more than.
    """
    if by_pixel(logits) and by_pixel(nearer):
        return depths_of_peaks(logits, nearer, bins.centers.log(), SURE_REACH, least)
    last = logits.shape[1] - 2  # the one after it is everything beyond
    peak = logits[:, : last + 1].max(dim=1, keepdim=True).indices
    first, end = (peak - SURE_REACH).clamp(min=0), (peak + SURE_REACH + 1).clamp(max=last + 1)
    index = first + torch.arange(2 * SURE_REACH + 1, device=logits.device).view(1, -1, 1, 1)
    inside = index < end
    index = index.clamp(max=last)
    share = torch.softmax(logits.gather(1, index).float().masked_fill(~inside, -torch.inf), dim=1)
    depth = torch.exp((share * bins.centers.log()[index]).sum(dim=1))
    total = (nearer.gather(1, end) - nearer.gather(1, first))[:, 0]
    return torch.where(total > least, depth, 0.0)


class Appearance(NamedTuple):
    """What a view is compared by.

    Attributes:
        features: (C, h, w), each group of channels of unit length.
        patches: (N, H / 2, W / 2) of :func:`~occupancy_nn_ros.network.patches.image_patches`.
    """

    features: Tensor
    patches: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows h and columns w."""
        return self.features.shape[-2], self.features.shape[-1]


class PlaneSweep(nn.Module):
    """Correlation of a reference view with source views warped at each depth, which does not need to be learned.

    By group of features (Guo et al. 2019), and of the patches of the images.
    """

    def __init__(self, groups: int, stride: int) -> None:
        super().__init__()
        self.groups, self.stride = groups, stride

    @property
    def correlations(self) -> int:
        """How many there are at each place: those of the groups and that of the patches."""
        return self.groups + 1

    def forward(
        self,
        reference: Appearance,
        sources: Sequence[Appearance],
        T_source_ref: Tensor,
        K: Tensor,
        K_source: Tensor,
        depths_m: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Correlate a view with S sources.

        Args:
            reference: the view, whose features are (C, h, w).
            sources: the S sources.
            T_source_ref: (S, 4, 4).
            K: (3, 3) of the view, at image resolution.
            K_source: (S, 3, 3).
            depths_m: (D,) to try everywhere, or (D, h, w) to try at each pixel.

        Returns:
            (S, groups + 1, D, h, w) correlations in [-1, 1], that of the patches last, and (S, 1, D, h, w) whether the
            source sees the point, 0 or 1; where it does not, the correlation is 0.
        """
        h, w = reference.features.shape[-2:]
        place, seen = self._project(T_source_ref, K, K_source, depths_m, (h, w))
        placed = Appearance(reference.features, patches_at(reference.patches, h, w))
        correlation = torch.stack([self._correlate(placed, *pair) for pair in zip(sources, place, strict=True)])
        seen = seen[:, None].to(correlation.dtype)
        return (correlation * seen).view(*correlation.shape[:3], h, w), seen.view(*seen.shape[:3], h, w)

    @in_float32
    def projections(self, T_source_ref: Tensor, K_source: Tensor, size: tuple[int, int]) -> Tensor:
        """From the view's optical frame to x and y in the sources (h, w cells) from -1 to 1, times the depth there, (S, 3, 4)."""
        h, w = size
        to_unit = K_source.new_tensor([[2 / (w * self.stride), 0, -1], [0, 2 / (h * self.stride), -1], [0, 0, 1]])
        to_unit[:2, 2] += to_unit[:2, :2].sum(dim=1) / 2  # pixel centres lie at integers
        return to_unit @ K_source @ T_source_ref[:, :3]

    @in_float32
    def _project(
        self, T_source_ref: Tensor, K: Tensor, K_source: Tensor, depths_m: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Where the sources see the points: x and y from -1 to 1 (S, D, h * w, 2), and whether they do (S, D, h * w)."""
        h, w = size
        projection = self.projections(T_source_ref, K_source, size)
        rays = projection[:, :, :3] @ pixel_rays(K[None], h, w, self.stride)
        points = rays[:, :, None] * depths_m.view(len(depths_m), -1) + projection[:, :, 3, None, None]
        x, y, z = points.unbind(1)
        place = torch.stack([x, y], dim=-1) / z.clamp(min=NEAREST_M)[..., None]
        return place, (z > NEAREST_M) & (place.abs() < 1).all(dim=-1)

    def _correlate(self, reference: Appearance, source: Appearance, place: Tensor) -> Tensor:
        """One source, (groups + 1, D, h * w): its warped features fit into the cache, those of all would not."""
        by_features = correlate(reference.features, source.features, place, self.groups)
        return torch.cat([by_features, correlate(reference.patches, source.patches, place, 1)])


def merge_sources(correlation: Tensor, seen: Tensor) -> Tensor:
    """What all sources of a view say, however many there are.

    Args:
        correlation: (..., S, N, D, h, w) of :class:`PlaneSweep`.
        seen: (..., S, 1, D, h, w) of the same; all 0 for a source that does not exist.

    Returns:
        (..., 2 * N + 1, D, h, w): the mean and the best of each correlation, number of sources that see the point.
    """
    count = seen.sum(dim=-5)
    mean = correlation.sum(dim=-5) / count.clamp(min=1)  # it is 0 where a source sees nothing
    best = (correlation - 2.0 * (1 - seen)).amax(dim=-5).clamp(min=-1) * (count > 0)
    return torch.cat([mean, best, count], dim=-4)


class WideContext(nn.Module):
    """What the whole picture says about each place: a network at strides 32 and 64, beside features at stride 16.

    It carries depth from textured borders across flat surfaces. It adds nothing until it has learned.

    Args:
        channels: of the features.
        width: channels at strides 32 and 64.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down32 = nn.Sequential(ConvBlock(channels, width, stride=2), ResidualBlock(width))
        self.down64 = nn.Sequential(ConvBlock(width, width, stride=2), ResidualBlock(width), ResidualBlock(width))
        self.merge = nn.Sequential(ConvBlock(2 * width, width), ResidualBlock(width))
        self.expand = nn.Conv2d(width, channels, 1)
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """(V, channels, h, w) to the same shape, however many cells are left over at strides 32 and 64."""
        x32 = self.down32(features)
        x64 = resized(self.down64(x32), x32)
        wide: Tensor = features + resized(self.expand(self.merge(torch.cat([x32, x64], dim=1))), features)
        return wide


def resized(x: Tensor, like: Tensor) -> Tensor:
    """(V, C, h, w) at the rows and columns of another, linear between."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class DepthHead(nn.Module):
    """Depth logits from image features and, where there are any, matches.

    Args:
        bins: the depth intervals.
        channels: of the features.
        correlations: of the matching.
        width: channels of the 3D network.
        wide: channels of the :class:`WideContext`; 0: none.
    """

    def __init__(self, bins: DepthBins, channels: int, correlations: int, width: int, wide: int = 0) -> None:
        super().__init__()
        self.prior = nn.Sequential(ConvBlock(channels, channels), nn.Conv2d(channels, bins.count, 1))
        matched = Conv3dBlock(2 * correlations + 2, width)
        self.regularize = nn.Sequential(matched, Conv3dBlock(width, width), Conv3d(width, 1))
        self.down = nn.Sequential(ConvBlock(bins.count + channels, 80, stride=2), ConvBlock(80, 80))
        self.wide = WideContext(80, wide) if wide else nn.Identity()
        self.skip = ConvBlock(bins.count + channels, 64)
        self.up = nn.Sequential(ConvBlock(64 + 80, 64), nn.Conv2d(64, bins.count, 1))

    def forward(self, features: Tensor, matches: Tensor) -> Tensor:
        """Depth logits.

        Args:
            features: (V, C, h, w).
            matches: (V, 2 * correlations + 1, D, h, w) from :func:`merge_sources`, zeros for a view without any source.

        Returns:
            (V, D, h, w) unnormalised log-probabilities over the depth intervals.
        """
        prior = self.prior(features)
        volume = channels_beside(matches, prior[:, None])
        logits = prior.float() + self.regularize(volume)[:, 0]  # sums of logits keep their digits under autocast
        context = torch.cat([logits, features], dim=1)
        coarse = resized(self.wide(self.down(context)), logits)
        refined: Tensor = logits + self.up(torch.cat([self.skip(context), coarse], dim=1))
        return refined


class DepthRefiner(nn.Module):
    """Corrects the most likely stretch of a depth distribution by matches at twice the resolution.

    Args:
        bins: the finer intervals, an even split of the coarse ones.
        planes: how many finer intervals are matched at each pixel.
        channels: of the detail features.
        correlations: of the matching.
        width: channels by plane of the 3D network.
    """

    def __init__(self, bins: DepthBins, planes: int, channels: int, correlations: int, width: int) -> None:
        super().__init__()
        self.bins, self.planes = bins, planes
        self.compare = Conv3dBlock(2 * correlations + 2, width)
        correct = nn.Conv2d(48, planes, 1)
        for parameter in correct.parameters():
            nn.init.zeros_(parameter)  # learning starts from the first answer
        self.correct = nn.Sequential(ConvBlock(width * planes + channels, 48), correct)
        self.window = tuple(math.sin(math.pi * (n + 1) / (planes + 1)) ** 2 for n in range(planes))  # Hann

    def split(self, logits: Tensor) -> Tensor:
        """Logits (V, D, h, w) of the coarse intervals as those of the finer ones, (V, bins.count, 2h, 2w)."""
        if by_pixel(logits):
            return split_twice(logits)
        size = (self.bins.count, 2 * logits.shape[2], 2 * logits.shape[3])
        return functional.interpolate(logits[:, None], size=size, mode="trilinear", align_corners=False)[:, 0]

    @torch.no_grad()
    def candidates(self, logits: Tensor) -> Tensor:
        """The successive intervals (V, planes, 2h, 2w), int64, amid which most of the probability lies."""
        start = likeliest_stretch(logits, self.window) if by_pixel(logits) else self._likeliest_stretch(logits)
        return start + torch.arange(self.planes, device=logits.device).view(1, -1, 1, 1)

    def _likeliest_stretch(self, logits: Tensor) -> Tensor:
        """The first of these intervals."""
        probability = torch.softmax(logits, dim=1)
        starts = logits.shape[1] - self.planes + 1
        around = torch.zeros_like(probability[:, :starts])
        for step, weight in enumerate(self.window):  # as a convolution, which torch does slowly with one channel
            around = around.add_(probability[:, step : step + starts], alpha=weight)
        return around.argmax(dim=1, keepdim=True)

    def forward(self, logits: Tensor, index: Tensor, detail: Tensor, matches: Tensor) -> Tensor:
        """Finer depth logits.

        Args:
            logits: (V, D, h, w) from :meth:`split`.
            index: (V, planes, h, w) from :meth:`candidates`.
            detail: (V, C, h, w) features.
            matches: (V, 2 * correlations + 1, planes, h, w) at these candidates, from :func:`merge_sources`.

        Returns:
            (V, D, h, w) unnormalised log-probabilities over the finer intervals.
        """
        expected = logits.gather(1, index) - logits.amax(dim=1, keepdim=True)
        compared = self.compare(channels_beside(matches, expected[:, None]))
        correction = self.correct(torch.cat([compared.flatten(1, 2), detail], dim=1))
        return logits.scatter_add(1, index, correction.to(logits.dtype))


@in_float32
def relative_poses(views: Views, index: Tensor, source: Tensor) -> Tensor:
    """T_source_ref (P, 4, 4) for pairs of view indices."""
    return invert_rigid(views.T_world_cam[source]) @ views.T_world_cam[index]
