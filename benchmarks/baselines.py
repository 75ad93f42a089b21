# SPDX-License-Identifier: Apache-2.0
"""The shipped model beside simpler ways to the same map, on the same worlds, rig and protocol.

one_view  the same network, which sees single images: no past, no other cameras
bev       a single-frame bird's-eye-view network with heights as channels
sweep     no learning: a plane sweep with ZNCC, its depth fused as a depth camera's would be
depth     perfect depth images, fused: the ceiling of the map

The first two are trained by ``train``; ``eval`` compares all that there is.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baselines_depth import DepthMapper, PlaneSweepDepth, perfect_depth
from baselines_learned import KINDS, load_baseline, make_predictor
from baselines_train import calibrate_baseline, train_baseline
from records import BAG_COLUMNS, TABLES, WORLD_COLUMNS, record

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan, MakeMapper, evaluate_mapper, mapper_of
from occupancy_nn_ros.evaluation.recordings import evaluate_bag
from occupancy_nn_ros.evaluation.recordings import protocol as bag_protocol
from occupancy_nn_ros.network.checkpoint import save_checkpoint, set_canvas
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.settings import from_mapping, read_yaml
from occupancy_nn_ros.training.loop import TrainConfig

ALWAYS = ("model", "sweep", "depth")
Figures = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """What is judged: how it starts a map, and whether it is given depth images rather than pictures."""

    make: MakeMapper
    from_depth: bool = False


def say(text: str) -> None:
    """Progress goes to stderr, so that stdout holds the result alone."""
    print(text, file=sys.stderr, flush=True)


def contender(name: str, args: argparse.Namespace) -> Contender:
    """One that can be asked for by name."""
    if name == "depth":
        return Contender(lambda config: DepthMapper(config, perfect_depth), from_depth=True)
    if name == "sweep":
        return Contender(lambda config: DepthMapper(config, PlaneSweepDepth()))
    if name == "model":
        return Contender(mapper_of(Predictor.load(args.model)))
    return Contender(mapper_of(make_predictor(name, load_baseline(name, getattr(args, name)))))


def judge(name: str, args: argparse.Namespace, plan: EvaluationPlan) -> Figures:
    """Figures of one contender, in simulated worlds or on a recording."""
    what = contender(name, args)
    if args.bag is not None:
        config = Config(voxel_size_m=args.voxel_size)
        return {"name": name, **evaluate_bag(args.bag, config, make=what.make).figures()}
    figures: Figures = {}
    for world, tally in evaluate_mapper(what.make, plan, from_depth=what.from_depth):
        figures = tally.figures()
        say(f"{name}, {world}: {tally.single.text()}")
    return {"name": name, **figures}


def table(rows: list[Figures], columns: dict[str, str]) -> str:
    """Markdown."""
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {row['name']} | {' | '.join(f'{row[key]:.3f}' for key in columns.values())} |" for row in rows]
    return "\n".join(lines)


def run_eval(args: argparse.Namespace) -> None:
    """Judge one after the other and print one table."""
    names = args.names or [*ALWAYS, *(kind for kind in KINDS if getattr(args, kind) is not None)]
    if args.bag is not None:
        names = [name for name in names if name != "depth"]  # the recording's depth is the truth itself
    default = EvaluationPlan()
    plan = EvaluationPlan(
        tuple(args.worlds or default.worlds), tuple(args.seeds or default.seeds), args.rig, args.duration,
        args.voxel_size, changes=args.changes,
    )  # fmt: skip
    rows = [judge(name, args, plan) for name in names]
    if args.record:
        record(args.record, rows)
    protocol = plan.protocol() if args.bag is None else bag_protocol(Config(voxel_size_m=args.voxel_size))
    if args.json:
        plain = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()} for r in rows]
        print(json.dumps({"protocol": protocol, "rows": plain}, indent=1))
    else:
        print(f"{protocol}\n\n{table(rows, WORLD_COLUMNS if args.bag is None else BAG_COLUMNS)}")


def run_train(args: argparse.Namespace) -> None:
    """Train one of the learned baselines."""
    config = from_mapping(TrainConfig, read_yaml(args.config))
    config = replace(config, steps=args.steps or config.steps, name=args.kind)

    def report(step: int, loss: float) -> None:
        if step % 10 == 0 or step == 1:
            say(f"step {step} of {config.steps}: loss {loss:.3f}")

    path = train_baseline(args.kind, config, args.data, args.out, report, args.encoder)
    if args.calibrate or args.canvas_pixels is not None:
        checkpoint = load_baseline(args.kind, path)
        set_canvas(checkpoint, args.canvas_pixels)
        save_checkpoint(calibrate_baseline(args.kind, checkpoint) if args.calibrate else checkpoint, path)
    print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a learned baseline")
    train.set_defaults(run=run_train)
    train.add_argument("kind", choices=KINDS)
    train.add_argument("--data", type=Path, required=True, help="folder of shards")
    train.add_argument("--out", type=Path, required=True, help="folder for the model; training goes on from there")
    train.add_argument("--steps", type=int, help="optimizer steps (default: as configured)")
    train.add_argument("--config", type=Path, default=Path("config/train/nano.yaml"), help="settings of the training")
    train.add_argument(
        "--encoder", metavar="MODEL", help="begin a new bev with the image encoder of this shipped model"
    )
    train.add_argument("--canvas-pixels", type=int, metavar="N", help="area of the pictures that the model is run on")
    train.add_argument("--calibrate", action="store_true", help="fit the probabilities afterwards; takes minutes")
    judged = commands.add_parser("eval", help="compare, print one table")
    judged.set_defaults(run=run_eval)
    judged.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join((*ALWAYS, *KINDS))} (default: what there is)"
    )
    judged.add_argument("--model", default="nano", help="the model to compare with (default: nano)")
    for kind in KINDS:
        judged.add_argument(f"--{kind.replace('_', '-')}", type=Path, metavar="FILE", help=f"trained {kind}")
    judged.add_argument("--bag", type=Path, help="a recording with a depth camera, instead of simulated worlds")
    judged.add_argument("--worlds", nargs="+", metavar="KIND")
    judged.add_argument("--seeds", nargs="+", type=int, metavar="N")
    judged.add_argument("--rig", default="surround4")
    judged.add_argument("--duration", type=float, default=8.0, metavar="S")
    judged.add_argument("--voxel-size", type=float, default=0.2, metavar="M")
    judged.add_argument("--changes", action="store_true", help="also time how the maps follow what appears and leaves")
    judged.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    files = sorted({table.results for table in TABLES.values() if table.results != "map"})
    judged.add_argument("--record", choices=files, help="also append the rows to these results; see records.py")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train or compare."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except OccupancyError as error:
        sys.exit(f"{Path(__file__).name}: {error}")


if __name__ == "__main__":
    main()
