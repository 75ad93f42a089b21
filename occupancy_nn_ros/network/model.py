# SPDX-License-Identifier: Apache-2.0
"""The whole network: posed images in, an occupancy field that answers for any point out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.config import _Checked, setting
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.network import lifting
from occupancy_nn_ros.network.decoder import Decoder
from occupancy_nn_ros.network.depth import DepthBins, DepthHead, PlaneSweep, relative_poses
from occupancy_nn_ros.network.encoder import Encoder
from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.network.volume import VolumeGrid, VolumeNetwork, sample_volume
from occupancy_nn_ros.types import SEMANTIC_CLASSES


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """Everything that fixes the network's shape; stored in the checkpoint."""

    canvas_pixels: int = setting(49152, "Area of the pinhole images that the network sees.", low=4096, high=4194304)
    widths: tuple[int, ...] = setting((24, 40, 72, 112), "Encoder channels at strides 2, 4, 8, 16.")
    feature_channels: int = setting(48, "Channels of the stride-8 feature maps.", low=8, high=1024)
    match_groups: int = setting(6, "Groups of the matching correlation.", low=1, high=64)
    match_width: int = setting(12, "Channels of the 3D matching network.", low=4, high=256)
    sources: int = setting(2, "Other views that each view is matched against.", low=0, high=8)
    depth_bins: int = setting(48, "Depth intervals.", low=8, high=256)
    depth_min_m: float = setting(0.4, "Nearest depth.", low=0.05, high=10.0)
    depth_max_m: float = setting(20.0, "Depth beyond which everything is far.", low=1.0, high=200.0)
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
        if self.feature_channels % self.match_groups:
            raise ConfigError(f"feature_channels is {self.feature_channels}, expected a multiple of match_groups")
        if self.depth_min_m >= self.depth_max_m:
            raise ConfigError(f"depth_min_m is {self.depth_min_m}, expected less than depth_max_m ({self.depth_max_m})")
        if len(self.classes) > 254:
            raise ConfigError(f"classes has {len(self.classes)} names, expected at most 254")


@dataclass(frozen=True)
class Scene:
    """What the network has made of one keyframe; query it with :meth:`OccupancyNetwork.query`.

    Attributes:
        views: the current views.
        features: (V, C, h, w).
        depth_logits: (V, D, h, w).
        nearer: (V, D + 1, h, w) cumulative depth distribution.
        context: (C, X, Y, Z) volume around the base.
        base: (3,) position of the base in the views' world frame.
    """

    views: Views
    features: Tensor
    depth_logits: Tensor
    nearer: Tensor
    context: Tensor
    base: Tensor


class OccupancyNetwork(nn.Module):
    """A continuous occupancy field from posed pinhole images of any number of cameras and past keyframes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.bins = DepthBins(config.depth_bins, config.depth_min_m, config.depth_max_m)
        self.encoder = Encoder(config.widths, config.feature_channels)
        self.to_match = nn.Conv2d(config.feature_channels, config.feature_channels, 3, padding=1)
        self.sweep = PlaneSweep(self.bins, config.match_groups, Encoder.stride)
        self.depth_head = DepthHead(self.bins, config.feature_channels, config.match_groups, config.match_width)
        self.to_volume = nn.Conv2d(config.feature_channels, config.volume_features, 1)
        x, y, z = config.volume_shape
        cell = config.volume_cell_m
        self.grid = VolumeGrid(cell, (x, y, z), (-x * cell / 2, -y * cell / 2, -config.volume_below_m))
        inputs = config.volume_features + lifting.STATISTICS
        self.volume = VolumeNetwork(inputs, config.volume_channels, z, config.volume_width)
        self.decoder = Decoder(lifting.STATISTICS, config.volume_channels, config.decoder_width, len(config.classes))

    def encode(self, images: Tensor) -> Tensor:
        """Feature maps (V, C, H / 8, W / 8) of normalised images (V, 3, H, W)."""
        features: Tensor = self.encoder(images)
        return features

    def match_features(self, features: Tensor) -> Tensor:
        """Features for matching, each group of channels of unit length, same shape."""
        views, channels, h, w = features.shape
        grouped = self.to_match(features).view(views, self.config.match_groups, -1, h, w)
        return functional.normalize(grouped, dim=2).view(views, channels, h, w)

    def depth(self, features: Tensor, views: Views, match: Tensor, sources: Tensor) -> Tensor:
        """Depth logits (R, D, h, w) of the first R views.

        Args:
            features: (R, C, h, w) features of the views to answer for.
            views: these R views, then any past ones that serve as sources.
            match: (R + past, C, h, w) from :meth:`match_features`.
            sources: (R, S) view indices, -1 where there is none.
        """
        count, slots = sources.shape
        h, w = features.shape[-2:]
        matches = features.new_zeros(count, slots, self.config.match_groups + 1, self.bins.count, h, w)
        row, slot = torch.nonzero(sources >= 0, as_tuple=True)
        if len(row):
            source = sources[row, slot]
            T_source_ref = relative_poses(views, row, source)
            swept = self.sweep(match[row], match[source], T_source_ref, views.K[row], views.K[source])
            matches = matches.index_put((row, slot), swept.to(matches.dtype))
        logits: Tensor = self.depth_head(features, matches)
        return logits

    def lift(self, views: Views, features: Tensor, depth_logits: Tensor, base: Tensor) -> Scene:
        """Gather the current views into the context volume around ``base`` (3,)."""
        nearer = lifting.cumulative(depth_logits)
        points = self.grid.points(base)
        edge = torch.full_like(points[:, 0], self.grid.cell_m)
        evidence = lifting.sample_evidence(points, edge, views, nearer, self.bins, self.to_volume(features))
        parts = [evidence.statistics] if evidence.features is None else [evidence.statistics, evidence.features]
        volume = torch.cat(parts, dim=1).view(*self.grid.shape, -1)
        context = self.volume(volume.permute(3, 0, 1, 2)[None])[0]
        return Scene(views, features, depth_logits, nearer, context, base)

    def query(self, scene: Scene, points: Tensor, edge_m: Tensor) -> tuple[Tensor, Tensor]:
        """Answer for any points.

        Args:
            scene: from :meth:`lift`.
            points: (P, 3) in the scene's world frame.
            edge_m: (P,) edge of the cube asked about at each point.

        Returns:
            (P, 1 + classes) logits (occupancy first) and (P,) how visible each point is, 0 where no camera looks.
        """
        evidence = lifting.sample_evidence(points, edge_m, scene.views, scene.nearer, self.bins, None)
        context = sample_volume(scene.context, self.grid.normalize(points, scene.base))
        logits: Tensor = self.decoder(evidence.statistics, context, points - scene.base, edge_m)
        return logits, evidence.visible
