# SPDX-License-Identifier: Apache-2.0
"""The network in four parts whose shapes do not depend on the data, as they become ONNX graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint
from occupancy_nn_ros.network.dense_lifting import dense_evidence
from occupancy_nn_ros.network.depth import Appearance, PlaneSweep, merge_sources
from occupancy_nn_ros.network.lifting import cumulative
from occupancy_nn_ros.network.matching import FeatureMaps
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.network.views import normalize_images
from occupancy_nn_ros.network.volume import sample_volume


class Graph(nn.Module):
    """What becomes one ONNX graph: a module that names its inputs, as :func:`example_inputs` does, and its outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class EncoderGraph(Graph):
    """Images (V, H, W, 3) uint8 RGB to features (V, C, H / 8, W / 8), details (V, E, H / 4, W / 4), and what they are matched by."""

    inputs = ("images",)
    outputs = ("features", "details", "match", "match_details", "patches")

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Encode."""
        normalized = normalize_images(images)
        maps = self.network.encode(normalized)
        match = self.network.match_maps(normalized, maps)
        return (*maps, *(torch.stack(parts) for parts in zip(*match, strict=True)))


class DepthGraph(Graph):
    """Depth logits (V, 2 D, 2 h, 2 w) from plane sweeps of each view against S sources.

    ``source_match`` (V, S, C, h, w), ``source_details`` (V, S, E, 2 h, 2 w) and ``source_patches`` (V, S, N, 4 h, 4 w)
    are what the sources are matched by, ``source_K`` (V, S, 3, 3) their intrinsics, ``T_source_view`` (V, S, 4, 4) their
    poses, and ``has_source`` (V, S) is 1, or 0 where there is none.
    """

    inputs = (
        "features", "details", "match", "match_details", "patches", "K",
        "source_match", "source_details", "source_patches", "source_K", "T_source_view", "has_source",
    )  # fmt: skip
    outputs = ("depth_logits",)

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        features: Tensor,
        details: Tensor,
        match: Tensor,
        match_details: Tensor,
        patches: Tensor,
        K: Tensor,
        source_match: Tensor,
        source_details: Tensor,
        source_patches: Tensor,
        source_K: Tensor,
        T_source_view: Tensor,
        has_source: Tensor,
    ) -> Tensor:
        """Match and regularise, twice."""
        network = self.network
        coarse = (match, patches), (source_match, source_patches)
        fine = (match_details, patches), (source_details, source_patches)
        geometry = T_source_view, K, source_K, has_source
        logits = network.sweep_twice(
            FeatureMaps(features, details),
            lambda depths_m: _sweep_all(network.sweep, *coarse, *geometry, depths_m),
            lambda depths_m: _sweep_all(network.detail_sweep, *fine, *geometry, depths_m),
        )
        return logits[-1]


def _sweep_all(
    sweep: PlaneSweep, looks: tuple[Tensor, Tensor], source_looks: tuple[Tensor, Tensor], T_source_view: Tensor,
    K: Tensor, source_K: Tensor, has_source: Tensor, depths_m: Tensor,
) -> Tensor:  # fmt: skip
    """What the sources (V, S, ...) of all views say, (V, 2 * correlations + 1, D, h, w)."""
    merged = []
    for view, calibration in enumerate(K):
        reference = Appearance(*(part[view] for part in looks))
        sources = [Appearance(*parts) for parts in zip(*(part[view] for part in source_looks), strict=True)]
        depths = depths_m if depths_m.ndim == 1 else depths_m[view]
        correlation, seen = sweep(reference, sources, T_source_view[view], calibration, source_K[view], depths)
        weight = has_source[view, :, None, None, None, None]
        merged.append(merge_sources(correlation * weight, seen * weight))
    return torch.stack(merged)


class LiftGraph(Graph):
    """The context volume (C, X, Y, Z) around the base and the cumulative depth (V, 2 D + 1, 2 h, 2 w)."""

    inputs = ("features", "depth_logits", "K", "T_base_cam")
    outputs = ("context", "nearer")

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.bins, self.to_volume, self.volume = network.bins[-1], network.to_volume, network.volume
        self.shape = network.grid.shape
        self.register_buffer("points", network.grid.points(torch.zeros(3)), persistent=False)
        self.register_buffer("edge", torch.full((len(self.points),), network.grid.cell_m), persistent=False)

    points: Tensor
    edge: Tensor

    def forward(self, features: Tensor, depth_logits: Tensor, K: Tensor, T_base_cam: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the views."""
        nearer = cumulative(depth_logits)
        statistics, _, merged = dense_evidence(
            self.points, self.edge, K, T_base_cam, nearer, self.bins, self.to_volume(features)
        )
        volume = torch.cat([statistics, *([] if merged is None else [merged])], dim=1).view(*self.shape, -1)
        context: Tensor = self.volume(volume.permute(3, 0, 1, 2)[None])[0]
        return context, nearer


class QueryGraph(Graph):
    """Calibrated log-odds (P,), class logits (P, classes) and visibility (P,) at points (P, 3).

    ``edge_m`` (P,) is the edge of the cube that is asked about at each point.
    """

    inputs = ("points", "edge_m", "context", "nearer", "K", "T_base_cam")
    outputs = ("log_odds", "class_logits", "visible")

    def __init__(self, network: OccupancyNetwork, calibration: Calibration) -> None:
        super().__init__()
        self.bins, self.grid = network.bins[-1], network.grid
        self.decoder, self.calibration = network.decoder, calibration

    def forward(
        self, points: Tensor, edge_m: Tensor, context: Tensor, nearer: Tensor, K: Tensor, T_base_cam: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answer."""
        statistics, visible, _ = dense_evidence(points, edge_m, K, T_base_cam, nearer, self.bins, None)
        position = self.grid.normalize(points, points.new_zeros(3))
        logits = self.decoder(statistics, sample_volume(context, position), points, edge_m)
        return self.calibration.log_odds(logits[:, 0], visible), logits[:, 1:], visible


def make_graphs(checkpoint: Checkpoint) -> dict[str, Graph]:
    """The four graphs as modules."""
    network = checkpoint.network.eval()
    return {
        "encoder": EncoderGraph(network), "depth": DepthGraph(network), "lift": LiftGraph(network),
        "query": QueryGraph(network, checkpoint.calibration),
    }  # fmt: skip
