# SPDX-License-Identifier: Apache-2.0
"""A single-frame bird's-eye-view network with heights as channels: the design of FlashOcc (Yu et al. 2023), compactly.

Image features are lifted by a depth distribution (Lift, Splat, Shoot: Philion and Fidler 2020) and summed into columns,
two-dimensional convolutions follow, and the last one's channels are (class, height). It has the interface of
``OccupancyNetwork``, so that the same losses train it and the same predictor runs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.network import lifting
from occupancy_nn_ros.network.depth import DepthBins, pixel_rays
from occupancy_nn_ros.network.encoder import ConvBlock, Encoder, ResidualBlock
from occupancy_nn_ros.network.matching import FeatureMaps, MatchMaps
from occupancy_nn_ros.network.model import ModelConfig, Scene
from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.network.volume import VolumeGrid, sample_volume

LIFTED = 32
"""Channels of a column before the two-dimensional network."""


class BevTrunk(nn.Module):
    """A small U-net over the bird's-eye view, (1, inputs, X, Y) to (1, outputs, X, Y)."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(ConvBlock(inputs, width), ResidualBlock(width))
        self.middle = nn.Sequential(ConvBlock(width, width, stride=2), ResidualBlock(width))
        self.coarse = nn.Sequential(ConvBlock(width, 2 * width, stride=2), ResidualBlock(2 * width))
        self.merge_middle = ConvBlock(3 * width, width)
        self.merge_fine = ConvBlock(2 * width, width)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, columns: Tensor) -> Tensor:
        """Run the U-net."""
        fine = self.fine(columns)
        middle = self.middle(fine)
        coarse = functional.interpolate(self.coarse(middle), size=middle.shape[-2:], mode="nearest")
        middle = self.merge_middle(torch.cat([middle, coarse], dim=1))
        middle = functional.interpolate(middle, size=fine.shape[-2:], mode="nearest")
        out: Tensor = self.head(self.merge_fine(torch.cat([fine, middle], dim=1)))
        return out


class BevNetwork(nn.Module):
    """Occupancy and classes of a fixed grid around the robot from one frame of any number of cameras.

    Its cells are half as large as those of the context volume in ``config`` and cover the same space.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_bins = DepthBins(config.depth_bins, config.depth_min_m, config.depth_max_m)
        self.encoder = Encoder(config.widths, config.feature_channels)
        channels = config.feature_channels
        self.depth_head = nn.Sequential(
            ConvBlock(channels, channels), ResidualBlock(channels), nn.Conv2d(channels, config.depth_bins, 1)
        )
        self.to_columns = nn.Conv2d(channels, LIFTED, 1)
        x, y, z = (2 * n for n in config.volume_shape)
        cell = config.volume_cell_m / 2
        self.grid = VolumeGrid(cell, (x, y, z), (-x * cell / 2, -y * cell / 2, -config.volume_below_m))
        self.trunk = BevTrunk(LIFTED, config.volume_width, (1 + len(config.classes)) * z)

    @property
    def bins(self) -> tuple[DepthBins, ...]:
        """The depth intervals of a scene's ``depth_logits``."""
        return (self.image_bins,)

    def encode(self, images: Tensor) -> FeatureMaps:
        """Feature maps of normalised images (V, 3, H, W); the details are not used further."""
        x4, features = self.encoder(images)
        return FeatureMaps(features, x4)

    def match_maps(self, images: Tensor, maps: FeatureMaps) -> list[MatchMaps]:
        """What is there: nothing is matched."""
        return [MatchMaps(*parts) for parts in zip(*maps, images, strict=True)]

    def depth(
        self, maps: FeatureMaps, views: Views, match: Sequence[MatchMaps], sources: Tensor, first: int = 0
    ) -> tuple[Tensor, ...]:
        """Depth logits (V, D, h, w) of each image by itself; the other arguments are not used."""
        return (self.depth_head(maps.features),)

    def lift(
        self,
        views: Views,
        maps: FeatureMaps,
        depth_logits: tuple[Tensor, ...],
        base: Tensor,
        nearer: Tensor | None = None,
    ) -> Scene:
        """The whole grid (1 + classes, X, Y, Z) of logits around ``base`` (3,), as the scene's context."""
        columns = self._splat(views, self.to_columns(maps.features), depth_logits[-1], base)
        x, y, z = self.grid.shape
        out = self.trunk(columns).view(-1, z, x, y).permute(0, 2, 3, 1)
        return Scene(views, depth_logits, lifting.cumulative(depth_logits[-1]), out, base)

    def query(self, scene: Scene, points: Tensor, edge_m: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, 1 + classes) interpolated at points (P, 3), and how visible each is, (P,), by the depth."""
        seen = lifting.sample_evidence(points, edge_m, scene.views, scene.nearer, self.image_bins, None)
        return sample_volume(scene.context, self.grid.normalize(points, scene.base)), seen.visible

    def _splat(self, views: Views, lifted: Tensor, depth_logits: Tensor, base: Tensor) -> Tensor:
        """Sum of features times depth probability over each column, (1, LIFTED, X, Y)."""
        count, channels, h, w = lifted.shape
        depths = self.image_bins.centers[:-1]  # the last interval is everything beyond
        rays = views.T_world_cam[:, :3, :3] @ pixel_rays(views.K, h, w, Encoder.stride)
        points = rays[:, None] * depths[None, :, None, None] + views.T_world_cam[:, None, :3, 3, None]
        low = torch.tensor(self.grid.low_m, device=points.device) + base
        cells = ((points - low[:, None]) / self.grid.cell_m).floor().long()
        shape = torch.tensor(self.grid.shape, device=points.device)[:, None]
        view, depth, pixel = torch.nonzero(((cells >= 0) & (cells < shape)).all(dim=2), as_tuple=True)
        column = cells[view, depth, 0, pixel] * self.grid.shape[1] + cells[view, depth, 1, pixel]
        probability = torch.softmax(depth_logits, dim=1).view(count, -1, h * w)[view, depth, pixel]
        values = lifted.view(count, channels, h * w)[view, :, pixel] * probability[:, None]
        total = lifted.new_zeros(self.grid.shape[0] * self.grid.shape[1], channels).index_add(0, column, values)
        return total.T.view(1, channels, *self.grid.shape[:2])
