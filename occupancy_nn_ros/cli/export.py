# SPDX-License-Identifier: Apache-2.0
"""Export a model as ONNX graphs for a rig with a fixed number of cameras: encoder, depth, lift and query.

Writes these four .onnx files and model.json, which names and sizes their inputs and outputs. Needs onnx and onnxscript: pip install
'occupancy-nn-ros[onnx]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("model", help="name under models/ or path of a .safetensors file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the graphs")
    parser.add_argument("--views", type=int, default=4, metavar="N", help="cameras of the rig (default: 4)")
    parser.add_argument(
        "--sources", type=int, metavar="N", help="views to match each view against (default: as the mapper does)"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("W", "H"),
        help="pixels of the rectified images, multiples of 32 (default: 4:3 and as many as the model sees)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export."""
    from occupancy_nn_ros.cli.settings import make_folder
    from occupancy_nn_ros.config import NetworkConfig
    from occupancy_nn_ros.network.checkpoint import find_model, load_checkpoint
    from occupancy_nn_ros.network.export import GraphShape, default_size, export_onnx

    checkpoint = load_checkpoint(find_model(args.model))
    width, height = args.size or default_size(checkpoint.network.config)
    sources = NetworkConfig().sources if args.sources is None else args.sources
    shape = GraphShape(args.views, height, width, sources)
    for path in export_onnx(checkpoint, shape, make_folder(args.out)):
        print(path)
    return 0
