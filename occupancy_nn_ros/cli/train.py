# SPDX-License-Identifier: Apache-2.0
"""Train an occupancy network on shards.

Goes on from the last checkpoint in the output folder, and writes there: NAME.safetensors (averaged weights, ready to use),
curve.jsonl (losses) and state.pt (to resume).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from occupancy_nn_ros.cli.settings import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("config", type=Path, help="training settings, such as config/train/nano.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder with the shards of: occupancy-nn shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from occupancy_nn_ros.config import from_mapping, read_yaml
    from occupancy_nn_ros.training.loop import Progress, TrainConfig, train

    config = from_mapping(TrainConfig, read_yaml(args.config))
    with progress_bar(quiet=False) as progress:
        task = progress.add_task("training", total=config.steps)

        def report(state: Progress) -> None:
            text = f"training, depth {state.depth:.3f}, occupancy {state.occupancy:.3f}, class {state.semantic:.3f}"
            text = f"{text}, {state.samples_per_s:.1f} samples/s"
            progress.update(task, completed=state.step, description=text)

        model = train(config, args.data, args.out, report)
    print(f"trained {config.steps} steps; use it with: occupancy-nn play BAG --model {model}")
    return 0
