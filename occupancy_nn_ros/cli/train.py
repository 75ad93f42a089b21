# SPDX-License-Identifier: Apache-2.0
"""Train an occupancy network on shards.

Goes on from the last checkpoint in the output folder, and writes there: NAME.safetensors (averaged weights, ready to use),
curve.jsonl (losses) and state.pt (to resume).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from occupancy_nn_ros.cli.settings import progress_bar, shard_place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("config", type=Path, help="training settings, such as config/train/nano.yaml")
    parser.add_argument(
        "--data",
        type=shard_place,
        required=True,
        metavar="DIR",
        help="folder with the shards of: occupancy-nn shards, or its URL",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument(
        "--minutes", type=float, help="save and stop after so long; the same command goes on from there"
    )


def run(args: argparse.Namespace) -> int:
    """Train."""
    from occupancy_nn_ros.settings import from_mapping, read_yaml
    from occupancy_nn_ros.training.loop import Progress, TrainConfig, train
    from occupancy_nn_ros.training.object_store import local_copy

    config = from_mapping(TrainConfig, read_yaml(args.config))
    with progress_bar(quiet=False) as progress:
        data = args.data
        if isinstance(data, str):
            bringing = progress.add_task(f"copying shards of {data}", total=1.0)
            data = local_copy(data, lambda share: progress.update(bringing, completed=share))
        task = progress.add_task("training", total=config.steps)

        def report(state: Progress) -> None:
            text = f"training, depth {state.depth:.3f}, occupancy {state.occupancy:.3f}, class {state.semantic:.3f}"
            text = f"{text}, {state.samples_per_s:.1f} samples/s"
            progress.update(task, completed=state.step, description=text)

        seconds = math.inf if args.minutes is None else 60 * args.minutes
        model = train(config, data, args.out, report, seconds=seconds)
    print(
        f"trained {progress.tasks[-1].completed:.0f} of {config.steps} steps; use it with: occupancy-nn play BAG --model {model}"
    )
    return 0
