# SPDX-License-Identifier: Apache-2.0
"""Turn recordings with cameras, TF and a LiDAR or depth camera into training data.

Goes on where an interrupted run stopped. The shards lie beside those of: occupancy-nn shards, and train with them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.cli.pools import add_pool, open_pool, say_what_failed
from occupancy_nn_ros.cli.settings import add_config, add_format, add_part, add_scale, make_folder, progress_bar
from occupancy_nn_ros.config import load_config

if TYPE_CHECKING:
    from occupancy_nn_ros.labelling.bags import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "bags", type=Path, nargs="+", metavar="BAG", help="rosbag2 folder, .mcap, .db3 or ROS 1 .bag file"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument(
        "--voxel",
        type=float,
        default=0.1,
        metavar="M",
        help="edge of a voxel, whatever the settings say (default: 0.1)",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=0.25,
        metavar="S",
        help="keyframes are at least this far apart, likewise (default: 0.25)",
    )
    add_part(parser)
    add_scale(parser)
    add_format(parser)
    add_config(parser)
    add_pool(parser, "recordings labelled")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def run(args: argparse.Namespace) -> int:
    """Label all bags; 1 if any of them was refused."""
    from occupancy_nn_ros.bags.reader import BagPart
    from occupancy_nn_ros.labelling.bag import LabelPlan
    from occupancy_nn_ros.labelling.bags import label_bags
    from occupancy_nn_ros.training.numpy_dataset import write_numpy_dataset

    part = BagPart(args.start, args.end)
    config = replace(load_config(args.config, args.overrides), voxel_size_m=args.voxel)
    config = replace(config, keyframes=replace(config.keyframes, min_period_s=args.every))
    make_folder(args.out)
    plan = LabelPlan(config, part, args.scale)
    with open_pool(args, len(args.bags), args.out) as pool, progress_bar(args.json) as progress:
        task = progress.add_task(f"labelling {len(args.bags)} recordings", total=1.0)
        outcomes = label_bags(args.bags, args.out, plan, pool, lambda share: progress.update(task, completed=share))
        unconverted = write_numpy_dataset(args.out, pool) if args.format == "numpy" else {}
    if args.json:
        print(json.dumps({"bags": [{**asdict(outcome), "bag": str(outcome.bag)} for outcome in outcomes]}))
    else:
        for outcome in outcomes:
            _print(outcome)
    say_what_failed(unconverted, "conversions to numpy")
    return 1 if unconverted or any(outcome.labels is None for outcome in outcomes) else 0


def _print(outcome: Outcome) -> None:
    if outcome.labels is None:
        print(f"{outcome.bag}: refused: {outcome.refused}", file=sys.stderr)
        return
    labels = outcome.labels
    points = f"{labels.free} free and {labels.occupied} occupied points"
    print(f"{outcome.bag}: {labels.keyframes} keyframes in {len(labels.shards)} shards, {points}")
    for reason, count in labels.dropped.items():
        print(f"  not used: {count} {reason}")
