# SPDX-License-Identifier: Apache-2.0
"""Simulate many short drives through random worlds with random rigs, as training data.

Goes on where an interrupted run stopped. Needs MuJoCo: pip install 'occupancy-nn-ros[sim]'.
"""

from __future__ import annotations

import argparse

from occupancy_nn_ros.cli.pools import add_pool, open_pool, say_what_failed
from occupancy_nn_ros.cli.settings import add_format, add_scale, make_place, progress_bar, shard_place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "--out",
        type=shard_place,
        required=True,
        metavar="DIR",
        help="folder of the shards, or its URL; about 12 MB each at scale 1",
    )
    parser.add_argument("--count", type=int, default=400, help="number of drives (default: 400)")
    parser.add_argument(
        "--photos", action="store_true", help="photographic textures too; needs: pip install --no-deps robosuite"
    )
    parser.add_argument(
        "--furnished", action="store_true",
        help="every second drive in rooms of real furniture; needs: occupancy-nn assets",
    )  # fmt: skip
    add_scale(parser)
    add_format(parser)
    add_pool(parser, "drives simulated")


def run(args: argparse.Namespace) -> int:
    """Make the shards; 1 if any drive failed."""
    from occupancy_nn_ros.training.numpy_dataset import write_numpy_dataset
    from occupancy_nn_ros.training.object_store import count_shards
    from occupancy_nn_ros.training.simulated_shards import ShardPlan, make_shards

    plan = ShardPlan(args.count, args.photos, args.furnished, args.scale)
    failed: dict[str, str] = {}
    with open_pool(args, args.count, make_place(args)) as pool, progress_bar(quiet=False) as progress:
        task = progress.add_task("simulating drives", total=args.count)
        for now in make_shards(args.out, plan, pool):
            progress.update(task, completed=now.done)
            failed = now.failed
        unconverted = write_numpy_dataset(args.out, pool) if args.format == "numpy" else {}
    print(f"{count_shards(args.out)} shards in {args.out}")
    say_what_failed(failed, "drives")
    say_what_failed(unconverted, "conversions to numpy")
    return 1 if failed or unconverted else 0
