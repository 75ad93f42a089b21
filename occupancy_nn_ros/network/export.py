# SPDX-License-Identifier: Apache-2.0
"""The network as four ONNX graphs for a fixed number of cameras: encoder, depth, lift, query.

``encoder`` runs once for each keyframe, and what it gives for matching is kept for later ones; ``depth`` matches the
views against their sources; ``lift`` gathers them around the robot; ``query`` answers for any number of points. All
poses and points are relative to the robot's base.
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
from torch import Tensor

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.errors import ConfigError, MissingDependencyError
from occupancy_nn_ros.network.checkpoint import Checkpoint
from occupancy_nn_ros.network.encoder import Encoder
from occupancy_nn_ros.network.graphs import Graph, make_graphs
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.network.patches import CHANNELS

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
        "patches": torch.zeros(views, CHANNELS, 4 * h, 4 * w),
        "K": K.repeat(views, 1, 1),
        "source_match": torch.zeros(views, sources, config.feature_channels, h, w),
        "source_details": torch.zeros(views, sources, config.detail_channels, 2 * h, 2 * w),
        "source_patches": torch.zeros(views, sources, CHANNELS, 4 * h, 4 * w),
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
