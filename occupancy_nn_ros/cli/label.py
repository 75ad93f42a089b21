# SPDX-License-Identifier: Apache-2.0
"""Turn recordings into training data. They need cameras and TF, and a LiDAR or depth camera, or motion.

Labels come from the range sensor or, with --from cameras, from the pictures themselves: the network measures depth of each with those
before and after it, and what views from several places of the recording agree on is taken for measured. With --depth-model a depth
network of yours measures instead, in metres by what the views agree on and by the ground. Recordings whose cameras hardly move, or whose
calibration is wrong, are refused with the reason.

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
from occupancy_nn_ros.cli.settings import (
    add_config,
    add_format,
    add_part,
    add_scale,
    make_place,
    progress_bar,
    shard_place,
)
from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import OccupancyError

if TYPE_CHECKING:
    from occupancy_nn_ros.labelling.bags import Outcome
    from occupancy_nn_ros.labelling.plan import Sensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "bags", type=Path, nargs="+", metavar="BAG", help="rosbag2 folder, .mcap, .db3 or ROS 1 .bag file"
    )
    parser.add_argument(
        "--out", type=shard_place, required=True, metavar="DIR", help="folder of the shards, or its URL"
    )
    parser.add_argument(
        "--from", dest="sensor", choices=("range", "cameras"),
        help="what measures: a LiDAR or depth camera (the default), or the cameras themselves",
    )  # fmt: skip
    parser.add_argument(
        "--depth-model", type=Path, metavar="ONNX",
        help="a single-image depth network that measures instead of ours (implies --from cameras); NAME.yaml beside it says "
        "what it takes",
    )  # fmt: skip
    parser.add_argument(
        "--model", help="network that looks at the pictures, with --from cameras: name or path (default: nano)"
    )
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
    from occupancy_nn_ros.labelling.bags import label_bags
    from occupancy_nn_ros.labelling.plan import LabelPlan
    from occupancy_nn_ros.training.numpy_dataset import write_numpy_dataset

    part = BagPart(args.start, args.end)
    plan = LabelPlan(_config(args), part, args.scale, _sensor(args))
    with open_pool(args, len(args.bags), make_place(args)) as pool, progress_bar(args.json) as progress:
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


def _config(args: argparse.Namespace) -> Config:
    config = replace(load_config(args.config, args.overrides), voxel_size_m=args.voxel)
    network = config.network
    if args.depth_model is not None:
        network = replace(network, depth_model=str(args.depth_model.absolute()))
    keyframes = replace(config.keyframes, min_period_s=args.every)
    return replace(config, keyframes=keyframes, network=network, model=args.model or config.model)


def _sensor(args: argparse.Namespace) -> Sensor:
    """What labels come from.

    Raises:
        OccupancyError: a depth model is named, and a range sensor asked for.
    """
    if args.depth_model is not None and args.sensor == "range":
        raise OccupancyError("--depth-model measures with the cameras, expected --from cameras or none")
    return "cameras" if args.depth_model is not None or args.sensor == "cameras" else "range"


def _print(outcome: Outcome) -> None:
    if outcome.labels is None:
        print(f"{outcome.bag}: refused: {outcome.refused}", file=sys.stderr)
        return
    labels = outcome.labels
    points = f"{labels.free} free and {labels.occupied} occupied points"
    print(f"{outcome.bag}: {labels.keyframes} keyframes in {len(labels.shards)} shards, {points}")
    for reason, count in labels.dropped.items():
        print(f"  not used: {count} {reason}")
