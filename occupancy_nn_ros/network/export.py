# SPDX-License-Identifier: Apache-2.0
"""The network as four ONNX graphs for a fixed number of cameras: encoder, depth, lift, query.

``encoder`` runs once for each keyframe and its ``match`` is kept for later ones; ``depth`` matches the views against
their sources; ``lift`` gathers them around the robot; ``query`` answers for any number of points. All poses and points
are relative to the robot's base.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.errors import ConfigError, MissingDependencyError
from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint
from occupancy_nn_ros.network.depth import DepthBins, PlaneSweep, merge_sources
from occupancy_nn_ros.network.encoder import DetailEncoder, Encoder
from occupancy_nn_ros.network.lifting import HALF_DEPTH, cumulative
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.network.views import normalize_images
from occupancy_nn_ros.network.volume import sample_volume

OPSET = 20
"""The first that samples volumes."""

MULTIPLE = 32
"""Width and height of the images are multiples of this, as the encoder halves them four times and the depth once more."""

EXAMPLE_POINTS = 64


@dataclass(frozen=True)
class GraphShape:
    """What is fixed in the graphs.

    Attributes:
        views: cameras of the rig.
        height, width: pixels of their rectified images.
        sources: other views that each view is matched against; fewer at run time are padded, see ``has_source``.
    """

    views: int
    height: int
    width: int
    sources: int = NetworkConfig().sources

    def __post_init__(self) -> None:
        """Check what the network can take.

        Raises:
            ConfigError: names what is wrong.
        """
        for name, count in (("views", self.views), ("sources", self.sources)):
            if count < 1:
                raise ConfigError(f"{name} is {count}, expected at least 1")
        for name, value in (("height", self.height), ("width", self.width)):
            if value < MULTIPLE or value % MULTIPLE:
                raise ConfigError(f"{name} is {value}, expected a positive multiple of {MULTIPLE}")


def default_size(config: ModelConfig) -> tuple[int, int]:
    """Width and height of the images of a 4:3 camera that the network would be shown."""
    aspect = 4 / 3
    sides = ((config.canvas_pixels * aspect) ** 0.5, (config.canvas_pixels / aspect) ** 0.5)
    width, height = (max(1, round(side / MULTIPLE)) * MULTIPLE for side in sides)
    return width, height


class Graph(nn.Module):
    """What becomes one ONNX graph: a module that names its inputs, as :func:`example_inputs` does, and its outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class EncoderGraph(Graph):
    """Images (V, H, W, 3) uint8 RGB to features (V, C, H / 8, W / 8), details (V, E, H / 4, W / 4), and both for matching."""

    inputs = ("images",)
    outputs = ("features", "details", "match", "match_details")

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Encode."""
        maps = self.network.encode(normalize_images(images))
        return (*maps, *self.network.match_features(maps))


class DepthGraph(Graph):
    """Depth logits (V, 2 D, 2 h, 2 w) from plane sweeps of each view against S sources.

    ``source_match`` (V, S, C, h, w) and ``source_details`` (V, S, E, 2 h, 2 w) are the sources' matching features,
    ``source_K`` (V, S, 3, 3) their intrinsics, ``T_source_view`` (V, S, 4, 4) their poses, and ``has_source`` (V, S) is
    1, or 0 where there is none.
    """

    inputs = (
        "features", "details", "match", "match_details", "K",
        "source_match", "source_details", "source_K", "T_source_view", "has_source",
    )  # fmt: skip
    outputs = ("depth_logits",)

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.sweep, self.detail_sweep = network.sweep, network.detail_sweep
        self.head, self.refiner = network.depth_head, network.refiner
        self.coarse_bins, self.fine_bins = network.bins

    def forward(
        self,
        features: Tensor,
        details: Tensor,
        match: Tensor,
        match_details: Tensor,
        K: Tensor,
        source_match: Tensor,
        source_details: Tensor,
        source_K: Tensor,
        T_source_view: Tensor,
        has_source: Tensor,
    ) -> Tensor:
        """Match and regularise, twice."""
        geometry = (T_source_view, K, source_K)
        coarse = _sweep_all(self.sweep, match, source_match, *geometry, has_source, self.coarse_bins.centers)
        split = self.refiner.split(self.head(features, coarse))
        index = self.refiner.candidates(split)
        depths_m = self.fine_bins.centers[index]
        fine = _sweep_all(self.detail_sweep, match_details, source_details, *geometry, has_source, depths_m)
        logits: Tensor = self.refiner(split, index, details, fine)
        return logits


def _sweep_all(
    sweep: PlaneSweep, match: Tensor, sources: Tensor, T_source_view: Tensor, K: Tensor, source_K: Tensor,
    has_source: Tensor, depths_m: Tensor,
) -> Tensor:  # fmt: skip
    """What the sources (V, S, ...) of all views say, (V, 2 * groups + 1, D, h, w)."""
    merged = []
    for view in range(len(match)):
        slots = sources.shape[1]
        reference, calibration = (t[view].expand(slots, *t.shape[1:]) for t in (match, K))
        depths = depths_m if depths_m.ndim == 1 else depths_m[view][None]
        correlation, seen = sweep(reference, sources[view], T_source_view[view], calibration, source_K[view], depths)
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
        fit = self.calibration
        seen = logits[:, 0] * fit.visible_scale + fit.visible_offset
        hidden = logits[:, 0] * fit.inferred_scale + fit.inferred_offset
        return torch.where(visible >= 0.5, seen, hidden), logits[:, 1:], visible


def dense_evidence(
    points: Tensor, edge_m: Tensor, K: Tensor, T_base_cam: Tensor, nearer: Tensor, bins: DepthBins,
    features: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """What :func:`occupancy_nn_ros.network.lifting.sample_evidence` says, with no shape that depends on the data.

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
    local = (points[None] - T_base_cam[:, None, :3, 3]) @ T_base_cam[:, :3, :3]
    z = local[..., 2].clamp(min=1e-3)
    height, width = (n * DetailEncoder.stride for n in nearer.shape[-2:])
    x = (K[:, 0, 0, None] * local[..., 0] / z + K[:, 0, 2, None] + 0.5) / width * 2 - 1
    y = (K[:, 1, 1, None] * local[..., 1] / z + K[:, 1, 2, None] + 0.5) / height * 2 - 1
    inside = ((local[..., 2] > 0.05) & (x.abs() < 1) & (y.abs() < 1)).to(points.dtype)
    position = torch.stack([x, y], dim=-1).clamp(-1, 1)
    half = edge_m * HALF_DEPTH
    start, end = (_sample_nearer(nearer, position, bins.position(depth)) for depth in (z - half, z + half))
    surface, free, hidden = (end - start).clamp(min=0), 1 - end, start
    odds = torch.log((surface + 0.01) / (free + 0.01)) * (1 - hidden)
    total = (torch.stack([surface, free, hidden, torch.ones_like(free), odds]) * inside).sum(dim=1)
    best = (torch.stack([surface, free, 1 - hidden, 1 / z.clamp(min=0.3)]) * inside).amax(dim=1)
    count = total[3].clamp(min=1)
    statistics = torch.stack([*(total[:3] / count), total[3] / 4, total[4] * 0.5, best[0], best[1], best[3]], dim=1)
    if features is None:
        return statistics, best[2], None
    weight = (surface + 0.05) * inside
    sampled = functional.grid_sample(features, position[:, None], align_corners=False)[:, :, 0]
    merged = (sampled * weight[:, None]).sum(dim=0) / (weight.sum(dim=0) + 1e-3)
    return statistics, best[2], merged.T


def _sample_nearer(nearer: Tensor, position: Tensor, edge_index: Tensor) -> Tensor:
    """Trilinear lookup (V, P) of (V, D + 1, h, w) at image positions (V, P, 2) in [-1, 1] and edge indices (V, P)."""
    layers = nearer.shape[1]
    z = (2 * edge_index.clamp(0, layers - 1) + 1) / layers - 1
    grid = torch.cat([position, z[..., None]], dim=-1)[:, None, None]
    sampled = functional.grid_sample(nearer[:, None], grid, padding_mode="border", align_corners=False)
    return sampled[:, 0, 0, 0]


def make_graphs(checkpoint: Checkpoint) -> dict[str, Graph]:
    """The four graphs as modules."""
    network = checkpoint.network.eval()
    return {
        "encoder": EncoderGraph(network), "depth": DepthGraph(network), "lift": LiftGraph(network),
        "query": QueryGraph(network, checkpoint.calibration),
    }  # fmt: skip


def example_inputs(network: OccupancyNetwork, shape: GraphShape) -> dict[str, Tensor]:
    """Tensors of the right shape and kind for every input of every graph, by name."""
    config, views, sources = network.config, shape.views, shape.sources
    h, w = shape.height // Encoder.stride, shape.width // Encoder.stride
    focal = shape.width / 2.0
    K = torch.tensor([[focal, 0, shape.width / 2], [0, focal, shape.height / 2], [0, 0, 1.0]])
    poses = torch.eye(4).repeat(views, 1, 1)
    return {
        "images": torch.zeros(views, shape.height, shape.width, 3, dtype=torch.uint8),
        "features": torch.zeros(views, config.feature_channels, h, w),
        "details": torch.zeros(views, config.detail_channels, 2 * h, 2 * w),
        "match": torch.zeros(views, config.feature_channels, h, w),
        "match_details": torch.zeros(views, config.detail_channels, 2 * h, 2 * w),
        "K": K.repeat(views, 1, 1),
        "source_match": torch.zeros(views, sources, config.feature_channels, h, w),
        "source_details": torch.zeros(views, sources, config.detail_channels, 2 * h, 2 * w),
        "source_K": K.repeat(views, sources, 1, 1),
        "T_source_view": torch.eye(4).repeat(views, sources, 1, 1),
        "has_source": torch.ones(views, sources),
        "depth_logits": torch.zeros(views, 2 * config.depth_bins, 2 * h, 2 * w),
        "T_base_cam": poses,
        "nearer": torch.zeros(views, 2 * config.depth_bins + 1, 2 * h, 2 * w),
        "context": torch.zeros(config.volume_channels, *config.volume_shape),
        "points": torch.ones(EXAMPLE_POINTS, 3),
        "edge_m": torch.full((EXAMPLE_POINTS,), 0.2),
    }


def export_onnx(checkpoint: Checkpoint, shape: GraphShape, out: Path) -> list[Path]:
    """Write ``encoder.onnx``, ``depth.onnx``, ``lift.onnx``, ``query.onnx`` and ``model.json``, which describes them.

    Raises:
        MissingDependencyError: onnx or onnxscript is not installed.
    """
    _check_installed()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which libraries it could also export
    out.mkdir(parents=True, exist_ok=True)
    examples = example_inputs(checkpoint.network, shape)
    paths = []
    for name, graph in make_graphs(checkpoint).items():
        paths.append(out / f"{name}.onnx")
        _export(graph, {key: examples[key] for key in graph.inputs}, paths[-1])
    paths.append(out / "model.json")
    paths[-1].write_text(json.dumps(_description(checkpoint, shape, examples), indent=1), encoding="utf-8")
    return paths


def _export(graph: Graph, inputs: Mapping[str, Tensor], path: Path) -> None:
    points = torch.export.Dim("points")
    varying = {key: {0: points} if key in ("points", "edge_m") else None for key in inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own use of itself
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(varying.values()),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"exporting needs {error.name}: pip install 'occupancy-nn-ros[onnx]'") from None


def _description(checkpoint: Checkpoint, shape: GraphShape, examples: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a program that runs the graphs has to know."""
    graphs = {
        name: {
            "inputs": {
                key: {"shape": _shape_of(key, examples[key]), "dtype": str(examples[key].dtype).removeprefix("torch.")}
                for key in graph.inputs
            },
            "outputs": list(graph.outputs),
        }
        for name, graph in make_graphs(checkpoint).items()
    }
    config = checkpoint.network.config
    return {
        "shape": asdict(shape), "classes": list(config.classes),
        "range_m": config.range_m, "calibration": asdict(checkpoint.calibration), "config": asdict(config),
        "graphs": graphs,
    }  # fmt: skip


def _shape_of(name: str, tensor: Tensor) -> list[int | str]:
    shape: list[int | str] = [*tensor.shape]
    return ["P", *shape[1:]] if name in ("points", "edge_m") else shape
