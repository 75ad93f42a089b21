# SPDX-License-Identifier: Apache-2.0
"""Weights between those of two models of one shape, such as before and after training on other data.

What the first model knew stays better than with the second one's weights alone (Wortsman et al. 2022). Calibration and size of the
pictures are the first one's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from occupancy_nn_ros.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("first", help="name under models/ or path of a .safetensors file")
    parser.add_argument("second", help="likewise, trained from the first one")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the second one's weights, from 0 to 1 (default: 0.5)"
    )
    parser.add_argument("--out", type=Path, required=True, help="where to write the model")


def run(args: argparse.Namespace) -> int:
    """Read both, write what lies between."""
    from occupancy_nn_ros.network.checkpoint import blend_checkpoints, find_model, load_checkpoint, save_checkpoint

    if not 0 <= args.share <= 1:
        raise ConfigError(f"--share is {args.share}, expected 0 to 1")
    first, second = (load_checkpoint(find_model(name)) for name in (args.first, args.second))
    save_checkpoint(blend_checkpoints(first, second, args.share), args.out)
    print(args.out)
    return 0
