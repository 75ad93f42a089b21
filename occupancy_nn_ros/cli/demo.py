# SPDX-License-Identifier: Apache-2.0
"""Map the short simulated surround-camera drive that comes with the package, and compare it with the simulator's truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from occupancy_nn_ros.cli.settings import add_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="output folder (default: out/demo)")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Play the demo drive and score the map."""
    from occupancy_nn_ros.cli.play import play, truth_beside
    from occupancy_nn_ros.evaluation.metrics import score_map
    from occupancy_nn_ros.resources import resource_path

    bag = resource_path("demo/drive.mcap")
    result = play(bag, read_settings(args), args.out)
    truth = truth_beside(bag, result.view)
    if result.view is not None and truth is not None:
        score = score_map(result.view, truth)
        print(f"against the simulator's truth: {score.text()}")
    print("next: occupancy-nn play YOUR_BAG, or watch it live with: ros2 launch occupancy_nn_ros live.launch.py")
    return 0
