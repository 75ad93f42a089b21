# SPDX-License-Identifier: Apache-2.0
"""Export a model as ONNX graphs, or a saved map as a surface (.ply) or an OctoMap (.bt).

Of a model, for a rig with a fixed number of cameras, come encoder, depth, lift and query as .onnx files, and model.json, which names and
sizes their inputs and outputs. Needs onnx and onnxscript: pip install 'occupancy-nn-ros[onnx]'. Of a map comes the file that --out names;
a surface needs scikit-image: pip install 'occupancy-nn-ros[mesh]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("model", help="name under models/, or path of a model's or a saved map's file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the graphs; of a map, a .ply or .bt file")
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
    from occupancy_nn_ros.mapping.map_file import is_map

    if is_map(Path(args.model)):
        return _export_map(Path(args.model), args.out)
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


def _export_map(path: Path, out: Path) -> int:
    from occupancy_nn_ros.errors import MapFileError
    from occupancy_nn_ros.mapping.map_file import read_map, read_map_frame
    from occupancy_nn_ros.runtime.map_exports import is_for_others, save_for_others

    if not is_for_others(out):
        raise MapFileError(f"--out is {out}, expected a .ply (surface) or .bt (OctoMap) file for a map")
    grid = read_map(path)
    view = grid.view(0, read_map_frame(path), np.eye(4))
    save_for_others(view, out, "height" if view.colors is None else "camera")
    print(out)
    return 0
