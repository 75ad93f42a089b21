# SPDX-License-Identifier: Apache-2.0
"""The whole network: posed images in, an occupancy field that answers for any point out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from occupancy_nn_ros.compute.compiled import use_kernels
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.network import lifting
from occupancy_nn_ros.network.decoder import Decoder
from occupancy_nn_ros.network.dense_lifting import dense_evidence
from occupancy_nn_ros.network.depth import DepthBins, DepthHead, DepthRefiner, PlaneSweep
from occupancy_nn_ros.network.encoder import DetailEncoder, Encoder
from occupancy_nn_ros.network.match_tables import MatchTables, feature_table, grey_tables
from occupancy_nn_ros.network.matching import FeatureMaps, Match, Matchable, MatchMaps, match_sources, of_unit_length
from occupancy_nn_ros.network.patches import image_patches
from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.network.volume import VolumeGrid, VolumeNetwork, sample_volume
from occupancy_nn_ros.settings import CheckedSettings, setting
from occupancy_nn_ros.values import SEMANTIC_CLASSES

MAX_VOLUME_CELLS = 1 << 22
"""Of the context volume: 200 times the shipped model's. A model file from a stranger must not ask for all the memory."""


@dataclass(frozen=True)
class ModelConfig(CheckedSettings):
    """Everything that fixes the network's shape; stored in the checkpoint."""

    canvas_pixels: int = setting(49152, "Area of the pinhole images that the network sees.", low=4096, high=4194304)
    widths: tuple[int, ...] = setting((24, 40, 72, 112), "Encoder channels at strides 2, 4, 8, 16.")
    further_blocks: int = setting(0, "Residual blocks at stride 16 beyond the usual two.", low=0, high=32)
    wide_channels: int = setting(0, "Channels of the depth network at strides 32 and 64; 0: none.", low=0, high=1024)
    feature_channels: int = setting(48, "Channels of the stride-8 feature maps.", low=8, high=1024)
    match_groups: int = setting(6, "Groups of the matching correlation.", low=1, high=64)
    match_width: int = setting(12, "Channels of the 3D matching network.", low=4, high=256)
    sources: int = setting(4, "Other views that each view is matched against in training.", low=0, high=8)
    depth_bins: int = setting(48, "Depth intervals.", low=8, high=256)
    depth_min_m: float = setting(0.4, "Nearest depth.", low=0.05, high=10.0)
    depth_max_m: float = setting(20.0, "Depth beyond which everything is far.", low=1.0, high=200.0)
    detail_channels: int = setting(24, "Channels of the stride-4 feature maps.", low=4, high=1024)
    detail_groups: int = setting(4, "Groups of their matching correlation.", low=1, high=64)
    detail_width: int = setting(8, "Channels of their 3D matching network.", low=1, high=256)
    detail_planes: int = setting(12, "Depths matched at stride 4, half as wide as the depth intervals.", low=4, high=64)
    volume_cell_m: float = setting(0.4, "Cell edge of the context volume.", low=0.05, high=5.0)
    volume_shape: tuple[int, ...] = setting((44, 44, 10), "Cells of the context volume (X, Y, Z).")
    volume_below_m: float = setting(1.6, "How far the context volume reaches below the base.", low=0.0, high=50.0)
    volume_features: int = setting(16, "Image channels lifted into the volume.", low=1, high=256)
    volume_channels: int = setting(16, "Channels of the context at a point.", low=1, high=256)
    volume_width: int = setting(64, "Channels of the bird's-eye network.", low=8, high=1024)
    decoder_width: int = setting(48, "Hidden channels of the decoder.", low=8, high=1024)
    range_m: float = setting(8.0, "Horizontal reach from the base.", low=1.0, high=200.0)
    classes: tuple[str, ...] = field(default=SEMANTIC_CLASSES, metadata={"help": "Class names in order."})

    def __post_init__(self) -> None:
        """Check ranges, and what must fit together.

        Raises:
            ConfigError: names the setting and what is expected.
        """
        super().__post_init__()
        for name, values, count in (("widths", self.widths, 4), ("volume_shape", self.volume_shape, 3)):
            if len(values) != count or not all(1 <= value <= 1024 for value in values):
                raise ConfigError(f"{name} is {list(values)}, expected {count} numbers from 1 to 1024")
        if math.prod(self.volume_shape) > MAX_VOLUME_CELLS:
            raise ConfigError(f"volume_shape is {list(self.volume_shape)}, expected at most {MAX_VOLUME_CELLS} cells")
        if self.feature_channels % self.match_groups:
            raise ConfigError(f"feature_channels is {self.feature_channels}, expected a multiple of match_groups")
        if self.detail_channels % self.detail_groups:
            raise ConfigError(f"detail_channels is {self.detail_channels}, expected a multiple of detail_groups")
        if self.detail_planes > 2 * self.depth_bins:
            raise ConfigError(f"detail_planes is {self.detail_planes}, expected at most twice depth_bins")
        if self.depth_min_m >= self.depth_max_m:
            raise ConfigError(f"depth_min_m is {self.depth_min_m}, expected less than depth_max_m ({self.depth_max_m})")
        if len(self.classes) > 254:
            raise ConfigError(f"classes has {len(self.classes)} names, expected at most 254")


@dataclass(frozen=True)
class Scene:
    """What the network has made of one keyframe; query it with :meth:`OccupancyNetwork.query`.

    Attributes:
        views: the current views.
        depth_logits: from coarse to fine: (V, D, h, w), then (V, 2 D, 2 h, 2 w) over intervals half as wide.
        nearer: (V, 2 D + 1, 2 h, 2 w) cumulative depth distribution of the last one.
        context: (C, X, Y, Z) volume around the base.
        base: (3,) position of the base in the views' world frame.
    """

    views: Views
    depth_logits: tuple[Tensor, ...]
    nearer: Tensor
    context: Tensor
    base: Tensor


class OccupancyNetwork(nn.Module):
    """A continuous occupancy field from posed pinhole images of any number of cameras and past keyframes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.coarse_bins = DepthBins(config.depth_bins, config.depth_min_m, config.depth_max_m)
        self.fine_bins = DepthBins(2 * config.depth_bins, config.depth_min_m, config.depth_max_m)
        channels, details = config.feature_channels, config.detail_channels
        self.encoder = Encoder(config.widths, channels, config.further_blocks)
        self.to_match = nn.Conv2d(channels, channels, 3, padding=1)
        self.sweep = PlaneSweep(config.match_groups, Encoder.stride)
        self.depth_head = DepthHead(
            self.coarse_bins, channels, self.sweep.correlations, config.match_width, config.wide_channels
        )
        self.detail_encoder = DetailEncoder(config.widths[1], channels, details)
        self.detail_to_match = nn.Conv2d(details, details, 3, padding=1)
        self.detail_sweep = PlaneSweep(config.detail_groups, DetailEncoder.stride)
        self.refiner = DepthRefiner(
            self.fine_bins, config.detail_planes, details, self.detail_sweep.correlations, config.detail_width
        )
        self.to_volume = nn.Conv2d(channels, config.volume_features, 1)
        x, y, z = config.volume_shape
        cell = config.volume_cell_m
        self.grid = VolumeGrid(cell, (x, y, z), (-x * cell / 2, -y * cell / 2, -config.volume_below_m))
        inputs = config.volume_features + lifting.STATISTICS
        self.volume = VolumeNetwork(inputs, config.volume_channels, z, config.volume_width)
        self.decoder = Decoder(lifting.STATISTICS, config.volume_channels, config.decoder_width, len(config.classes))

    @property
    def bins(self) -> tuple[DepthBins, ...]:
        """The depth intervals of each of a scene's ``depth_logits``."""
        return self.coarse_bins, self.fine_bins

    def encode(self, images: Tensor) -> FeatureMaps:
        """Feature maps of normalised images (V, 3, H, W)."""
        x4, features = self.encoder(images)
        return FeatureMaps(features, self.detail_encoder(x4, features))

    def match_maps(self, images: Tensor, maps: FeatureMaps) -> list[MatchMaps]:
        """What each of the normalised images (V, 3, H, W), whose feature maps these are, is matched by."""
        whole = (
            of_unit_length(self.to_match(maps.features), self.config.match_groups),
            of_unit_length(self.detail_to_match(maps.details), self.config.detail_groups),
            image_patches(images),
        )
        by_pixel = (part.contiguous(memory_format=torch.channels_last) for part in whole)
        return [MatchMaps(*parts) for parts in zip(*by_pixel, strict=True)]

    def matchable(self, images: Tensor, maps: FeatureMaps) -> Sequence[Matchable]:
        """The same as :meth:`match_maps`, in the way that is fastest on the device without gradients."""
        if torch.is_grad_enabled() or not use_kernels(images.device):
            return self.match_maps(images, maps)
        features, details = self.to_match(maps.features).float(), self.detail_to_match(maps.details).float()
        groups = self.config.match_groups, self.config.detail_groups
        return [
            MatchTables(feature_table(coarse, groups[0]), feature_table(fine, groups[1]), *grey_tables(image))
            for coarse, fine, image in zip(features, details, images, strict=True)
        ]

    def depth(
        self, maps: FeatureMaps, views: Views, match: Sequence[Matchable], sources: Tensor, first: int = 0
    ) -> tuple[Tensor, ...]:
        """Depth logits of R of the views, coarse and fine, as in :class:`Scene`.

        Args:
            maps: of the R views to answer for.
            views: these R views, and any that serve as sources.
            match: of all of them, from :meth:`match_maps` or :meth:`matchable`.
            sources: (R, S) view indices, -1 where there is none.
            first: index among the views of the first of the R, which follow each other.
        """
        coarse, fine = [view.coarse for view in match], [view.fine for view in match]
        return self.sweep_twice(
            maps,
            lambda depths_m: match_sources(self.sweep, coarse, views, sources, depths_m, first),
            lambda depths_m: match_sources(self.detail_sweep, fine, views, sources, depths_m, first),
        )

    def sweep_twice(self, maps: FeatureMaps, match: Match, match_details: Match) -> tuple[Tensor, ...]:
        """Depth logits, coarse and fine, from matches at all depths and then at those around the first answer.

        Args:
            maps: of the R views to answer for.
            match: what :func:`merge_sources` says at depths (D,) of the features.
            match_details: the same at depths (R, planes, 2 h, 2 w) of the details.
        """
        coarse = self.depth_head(maps.features, match(self.coarse_bins.centers))
        split = self.refiner.split(coarse)
        index = self.refiner.candidates(split)
        return coarse, self.refiner(split, index, maps.details, match_details(self.fine_bins.centers[index]))

    def lift(
        self,
        views: Views,
        maps: FeatureMaps,
        depth_logits: tuple[Tensor, ...],
        base: Tensor,
        nearer: Tensor | None = None,
    ) -> Scene:
        """Gather the current views into the context volume around ``base`` (3,); ``nearer`` as in the scene, if it is known."""
        nearer = lifting.cumulative(depth_logits[-1]) if nearer is None else nearer
        points = self.grid.points(base)
        edge = torch.full_like(points[:, 0], self.grid.cell_m)
        evidence = self._evidence(points, edge, views, nearer, self.to_volume(maps.features))
        parts = [evidence.statistics] if evidence.features is None else [evidence.statistics, evidence.features]
        volume = torch.cat(parts, dim=1).view(*self.grid.shape, -1)
        context = self.volume(volume.permute(3, 0, 1, 2)[None])[0]
        return Scene(views, depth_logits, nearer, context, base)

    def query(self, scene: Scene, points: Tensor, edge_m: Tensor) -> tuple[Tensor, Tensor]:
        """Answer for any points.

        Args:
            scene: from :meth:`lift`.
            points: (P, 3) in the scene's world frame.
            edge_m: (P,) edge of the cube asked about at each point.

        Returns:
            (P, 1 + classes) logits (occupancy first) and (P,) how visible each point is, 0 where no camera looks.
        """
        evidence = self._evidence(points, edge_m, scene.views, scene.nearer, None)
        context = sample_volume(scene.context, self.grid.normalize(points, scene.base))
        logits: Tensor = self.decoder(evidence.statistics, context, points - scene.base, edge_m)
        return logits, evidence.visible

    def _evidence(
        self, points: Tensor, edge_m: Tensor, views: Views, nearer: Tensor, features: Tensor | None
    ) -> lifting.Evidence:
        """What all views say about points, in the way that is fastest on the device."""
        if points.device.type == "cpu":
            return lifting.sample_evidence(points, edge_m, views, nearer, self.fine_bins, features)
        dense = dense_evidence(points, edge_m, views.K, views.T_world_cam, nearer, self.fine_bins, features)
        statistics, visible, merged = dense
        return lifting.Evidence(statistics, merged, visible)
