# SPDX-License-Identifier: Apache-2.0
"""Score a model on simulated drives whose truth is known everywhere, or on a recording against its own depth camera.

Without --bag in held-out worlds, whose layouts and textures no training run sees; that needs MuJoCo: pip install
'occupancy-nn-ros[sim]'. With --bag the map is made from the cameras alone and then compared with the depth images.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.cli.pools import add_pool, open_pool
from occupancy_nn_ros.cli.settings import add_config, add_depth_model, add_part, bag_progress, progress_bar
from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import OccupancyError

if TYPE_CHECKING:
    from occupancy_nn_ros.evaluation.depth_breakdown import DepthBreakdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "--model", default="nano", help="name under models/ or path of a .safetensors file (default: nano)"
    )
    parser.add_argument("--bag", type=Path, help="a recording with a depth camera, instead of simulated worlds")
    add_part(parser)
    parser.add_argument(
        "--errors", nargs="?", type=Path, const=Path(), metavar="PNG",
        help="with --bag: where predicted depth is wrong, as a table, and as a picture if a file is named",
    )  # fmt: skip
    parser.add_argument(
        "--worlds", nargs="+", metavar="KIND", help="kinds of worlds (default: the three held-out ones)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds of each kind (default: 9000 9001)")
    parser.add_argument("--rig", default="surround4", help="front, stereo, surround4 or surround6 (default: surround4)")
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="seconds of each drive (default: 8)")
    parser.add_argument(
        "--imperfect", action="store_true",
        help="simulated pictures, poses and calibration as imperfect as those of real robots",
    )  # fmt: skip
    parser.add_argument("--handheld", action="store_true", help="carry the simulated rig, instead of driving it")
    parser.add_argument("--voxel-size", type=float, default=0.2, metavar="M", help="edge of a voxel (default: 0.2)")
    parser.add_argument(
        "--canvas-pixels", type=int, default=0, metavar="N",
        help="area of the images that the network is shown (default: as the model says)",
    )  # fmt: skip
    add_depth_model(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    add_config(parser)
    add_pool(parser, "simulated drives judged")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR",
        help="keep what each simulated drive gave in this folder, and judge only those that are missing",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Evaluate."""
    config = load_config(args.config, args.overrides)
    network = replace(
        config.network,
        canvas_pixels=args.canvas_pixels or config.network.canvas_pixels,
        depth_model=args.depth_model or config.network.depth_model,
    )
    config = replace(config, model=args.model, voxel_size_m=args.voxel_size, network=network)
    return _run_bag(args, config) if args.bag else _run_worlds(args, config)


def _run_bag(args: argparse.Namespace, config: Config) -> int:
    from occupancy_nn_ros.bags.reader import BagPart
    from occupancy_nn_ros.evaluation.recordings import evaluate_bag, protocol

    if args.cluster or args.keep or args.processes:
        raise OccupancyError(
            "--processes, --cluster and --keep are for simulated drives, expected none of them with --bag"
        )
    with bag_progress(args, "mapping") as report:
        scores = evaluate_bag(args.bag, config, report, part=BagPart(args.start, args.end))
    figures = {**scores.figures(), **(scores.breakdown.figures() if args.errors is not None else {})}
    _print(figures, protocol(config), args.json)
    if args.errors is not None:
        _show_errors(scores.breakdown, args)
    return 0


def _show_errors(breakdown: DepthBreakdown, args: argparse.Namespace) -> None:
    """The breakdown of depth errors as a table, unless JSON is wanted, and as a picture if a file is named."""
    from rich.console import Console
    from rich.table import Table

    from occupancy_nn_ros.evaluation.depth_breakdown_picture import draw_breakdown

    rows = breakdown.rows()
    if not args.json:
        table = Table("pixels", title="predicted depth beside measured depth", title_justify="left")
        for column in ("share", "sure", "bias", "median error", "over 10 % off"):
            table.add_column(column, justify="right")
        for row in rows:
            values = (f"{100 * value:.1f} %" for value in (row.share, row.sure, row.bias, row.median, row.off))
            table.add_row(row.name, *values)
        Console().print(table)
    if args.errors.name and rows:
        draw_breakdown(breakdown, args.errors, f"{args.bag.name}: predicted depth beside measured depth")


def _run_worlds(args: argparse.Namespace, config: Config) -> int:
    from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan
    from occupancy_nn_ros.evaluation.model_scores import Contender, evaluate_model, sum_of

    default = EvaluationPlan()
    plan = EvaluationPlan(
        tuple(args.worlds or default.worlds),
        tuple(args.seeds or default.seeds),
        args.rig,
        args.duration,
        args.voxel_size,
        imperfect=args.imperfect,
        handheld=args.handheld,
        settings=config,
    )
    count = len(plan.worlds) * len(plan.seeds)
    with open_pool(args, count) as pool, progress_bar(args.json) as progress:
        task = progress.add_task(f"judging {count} drives", total=1.0)
        drives = evaluate_model(
            Contender(config.model, config.network), plan, pool,
            lambda share: progress.update(task, completed=share), args.keep,
        )  # fmt: skip
    _print(sum_of(drives).figures(), plan.protocol(), args.json)
    failed = [drive for drive in drives if drive.failure]
    for drive in failed:
        print(f"{drive.name} is not among them: {drive.failure}", file=sys.stderr)
    return 1 if failed else 0


def _print(figures: dict[str, float], protocol: str, as_json: bool) -> None:
    """Print figures; those that do not exist (no classes, never marked) are null in JSON and a dash for people."""
    if as_json:
        values = {key: round(value, 5) if math.isfinite(value) else None for key, value in figures.items()}
        print(json.dumps({**values, "protocol": protocol}))
        return
    print(protocol)
    for key, value in figures.items():
        print(f"  {key:40} {f'{value:.3f}' if math.isfinite(value) else '-'}")
