# SPDX-License-Identifier: Apache-2.0
"""Adapt a model to a site by recordings of cameras and TF alone, with no depth sensor and no labels.

Drive or carry the cameras through the place for a few minutes, past things and not only towards them. Depth is measured by matching
pictures of the whole recording; what views from several places agree on teaches the network for some minutes. The last fifth of each
recording is kept to judge by: its pictures must fit each other better by the map of the new weights than by that of the old ones. If they
do not, this says so, writes no model, and ends with exit status 3. Goes on where an interrupted run stopped.

Writes to the output folder: NAME.safetensors (named like the folder), held_out.png (a picture, the maps before and after as it sees them,
and depth as the views agree on it), adapt.json (figures), run/ (curves and pictures of the training), labels/ (shards, as of:
occupancy-nn label).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.cli.pools import add_pool, open_pool
from occupancy_nn_ros.cli.settings import add_config, add_part, make_folder, progress_bar
from occupancy_nn_ros.config import load_config

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from occupancy_nn_ros.adaptation.adapt import Adapted, Audience

NOT_BETTER = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "bags", type=Path, nargs="+", metavar="BAG", help="rosbag2 folder, .mcap, .db3 or ROS 1 .bag file"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for all that comes of it, such as runs/site")
    parser.add_argument("--model", default="nano", help="model to start from: name or path (default: nano)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="training steps (default: 100)")
    parser.add_argument(
        "--every", type=float, default=0.1, metavar="S", help="keyframes are at least this far apart (default: 0.1)"
    )
    parser.add_argument("--voxel", type=float, default=0.1, metavar="M", help="edge of a voxel (default: 0.1)")
    add_part(parser)
    add_config(parser)
    add_pool(parser, "recordings looked at")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def run(args: argparse.Namespace) -> int:
    """Adapt; ``NOT_BETTER`` if the old model is to be kept."""
    from occupancy_nn_ros.adaptation.adapt import FIT, AdaptPlan, adapt
    from occupancy_nn_ros.bags.reader import BagPart
    from occupancy_nn_ros.labelling.plan import LabelPlan

    config = replace(load_config(args.config, args.overrides), voxel_size_m=args.voxel, model=args.model)
    config = replace(config, keyframes=replace(config.keyframes, min_period_s=args.every))
    labels = LabelPlan(config, BagPart(args.start, args.end), sensor="cameras")
    make_folder(args.out)
    with open_pool(args, len(args.bags), args.out) as pool, progress_bar(args.json) as bar:
        plan = AdaptPlan(labels, pool, replace(FIT, steps=args.steps))
        adapted = adapt(args.bags, args.out, plan, _audience(bar, args.steps))
    if args.json:
        outcomes = [{**asdict(outcome), "bag": str(outcome.bag)} for outcome in adapted.outcomes]
        model = None if adapted.model is None else str(adapted.model)
        verdict = {"share": adapted.share, "improved": adapted.verdict.improved, **asdict(adapted.verdict)}
        print(json.dumps({"model": model, "verdict": verdict, "bags": outcomes}))
    else:
        _print(adapted, args)
    return 0 if adapted.model is not None else NOT_BETTER


def _audience(bar: Bar, steps: int) -> Audience:
    from occupancy_nn_ros.adaptation.adapt import Audience
    from occupancy_nn_ros.training.loop import Progress

    looking = bar.add_task("looking at the recordings", total=1.0)
    learning = bar.add_task("learning", total=steps)

    def report(state: Progress) -> None:
        text = (
            f"learning, depth {state.depth:.3f}, occupancy {state.occupancy:.3f}, {state.samples_per_s:.1f} samples/s"
        )
        bar.update(learning, completed=state.step, description=text)

    return Audience(lambda share: bar.update(looking, completed=share), report)


def _print(adapted: Adapted, args: argparse.Namespace) -> None:
    for outcome in adapted.outcomes:
        if outcome.labels is None:
            print(f"{outcome.bag}: not used: {outcome.refused}", file=sys.stderr)
        else:
            print(f"{outcome.bag}: {outcome.labels.keyframes} keyframes")
            for reason, count in outcome.labels.dropped.items():
                print(f"  not used: {count} {reason}")
    pictures, space, missed = adapted.verdict.pictures, adapted.verdict.space, adapted.verdict.missed
    print(f"maps of {adapted.verdict.keyframes} keyframes kept from training, before and after:")
    print(f"  mismatch of pictures where rays end: {pictures.before:.4f}, {pictures.after:.4f}")
    print(f"  not free before what views agree on: {space.before:.1%}, {space.after:.1%}")
    print(f"  not occupied where views agree on a surface: {missed.before:.1%}, {missed.after:.1%}")
    print(f"  look at {args.out / 'held_out.png'}")
    if adapted.model is None:
        print(f"no better, so the old weights are kept: go on with --model {args.model}", file=sys.stderr)
    else:
        print(f"use it with: occupancy-nn play BAG --model {adapted.model}")
