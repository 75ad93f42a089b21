# SPDX-License-Identifier: Apache-2.0
"""What navigation asks of a map, against the simulator's truth: edges of the ground, people who walk, the robot's own body.

    python benchmarks/navigation.py edges --record            # stairs down, loading docks, ramps
    python benchmarks/navigation.py walkers --record          # people around the robot
    python benchmarks/navigation.py body --record             # a box on the robot before its camera

Each is judged for the network and for a map of perfect depth images, which tells what the map's own rules cost. ``--record`` keeps the
rows of the tables in docs/benchmarks.md, which ``python benchmarks/records.py`` then writes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from records import record

from occupancy_nn_ros.config import Config, RobotConfig, load_config
from occupancy_nn_ros.evaluation.body_scores import BodyScore, Looker, watch_body
from occupancy_nn_ros.evaluation.drop_offs import EdgeScore, watch_edges
from occupancy_nn_ros.evaluation.truth import planned_drive
from occupancy_nn_ros.evaluation.walkers import WalkerScore, plan_walk, watch_walkers
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rigs import named_rig
from occupancy_nn_ros.simulation.terrains import TERRAINS, build_terrain

Watched = list[tuple[OccupancyPipeline, bool, Any]]
"""Maps, whether they are made of perfect depth, and their scores."""

Figures = dict[str, dict[str, float]]
WORLDS = ("indoor_heldout", "street_heldout")
BOX_M = np.array([[0.45, -0.3, 0.3], [0.7, 0.3, 0.5]])
"""The robot's body in the base frame: a load before the camera, in the lower third of its picture."""

MARGIN_M = 0.05
"""By so much the boxes that the map is told are larger: surfaces are seen a little before where they are."""

WAYS = {
    "no body": (False, False, False), "not told": (True, False, False), "mask": (True, True, False), "boxes": (True, False, True),
    "mask and boxes": (True, True, True),
}  # fmt: skip
"""Whether the body is in the pictures, its cameras have masks, and the map knows its boxes."""

DEFAULTS = {
    "edges": (tuple(TERRAINS), (1,), "front"), "walkers": (WORLDS, (9000, 9001), "surround4"),
    "body": (WORLDS, (9000,), "front"),
}  # fmt: skip
"""Worlds, seeds and rig of each."""

EDGE_SETTINGS = ("voxel_size_m=0.1", "grid.max_step_down_m=0.1", "map.size_xy_m=12", "map.below_m=1.6")


def main() -> int:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(DEFAULTS))
    parser.add_argument("--kinds", nargs="+", help="terrains, or worlds")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N")
    parser.add_argument("--model", default="nano", help="name or path; 'none' for perfect depth alone")
    parser.add_argument("--rig")
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="of a drive through a world")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results/")
    args = parser.parse_args()
    kinds, seeds, rig = DEFAULTS[args.what]
    args.kinds, args.seeds, args.rig = args.kinds or kinds, args.seeds or seeds, args.rig or rig
    config = load_config([], [*(EDGE_SETTINGS if args.what == "edges" else ()), *args.overrides])
    rows = [
        {"kind": kind, "name": name, "voxel_size_m": config.voxel_size_m, **figures}
        for kind, found in RUNS[args.what](args, config)
        for name, figures in found.items()
    ]
    for row in rows:
        print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}), flush=True)
    if args.record:
        record(args.what, rows)
    return 0


def _makers(args: argparse.Namespace, config: Config) -> dict[str, Config]:
    depth = replace(config, source="depth")
    return {"depth": depth} if args.model == "none" else {"depth": depth, args.model: replace(config, model=args.model)}


def _pipelines(configs: dict[str, Config], predictor: Predictor | None) -> dict[str, OccupancyPipeline]:
    if predictor is not None:
        predictor.reset()
    return {name: OccupancyPipeline(config, predictor) for name, config in configs.items()}


def _edges(args: argparse.Namespace, config: Config) -> Iterator[tuple[str, Figures]]:
    """Each terrain by itself."""

    def watch(kind: str, seed: int, watched: Watched) -> None:
        watch_edges(build_terrain(kind, seed), named_rig(args.rig), config, watched)

    for kind in args.kinds:
        yield kind, _judged(args, config, [kind], lambda: EdgeScore(config.voxel_size_m), watch)


def _walkers(args: argparse.Namespace, config: Config) -> Iterator[tuple[str, Figures]]:
    """All worlds together, since few people walk in each."""

    def watch(kind: str, seed: int, watched: Watched) -> None:
        scene = plan_walk(build_world(kind, seed), seed, args.duration)
        watch_walkers(scene, named_rig(args.rig), config, watched)

    yield ", ".join(args.kinds), _judged(args, config, args.kinds, WalkerScore, watch)


def _body(args: argparse.Namespace, config: Config) -> Iterator[tuple[str, Figures]]:
    """All worlds together; each way of telling the map of its body is a map of its own."""
    told_m = BOX_M + np.array([[-MARGIN_M], [MARGIN_M]])
    boxes = replace(config, robot=RobotConfig(" ".join(f"{v:g}" for v in told_m.reshape(-1))))
    scores = {(name, way): BodyScore() for name in _makers(args, config) for way in WAYS}
    for kind, seed in product(args.kinds, args.seeds):
        world = build_world(kind, seed)
        lookers = [
            Looker(
                OccupancyPipeline(one, None if name == "depth" else Predictor.load(args.model, config.network)),
                name == "depth", sees, masked, scores[name, way],
            )
            for way, (sees, masked, knows) in WAYS.items()
            for name, one in _makers(args, boxes if knows else config).items()
        ]  # fmt: skip
        watch_body(world, planned_drive(world, args.duration), named_rig(args.rig), BOX_M, lookers)
    for way in WAYS:
        yield way, {name: score.figures() for (name, other), score in scores.items() if other == way}


def _judged(
    args: argparse.Namespace, config: Config, kinds: Sequence[str], score: Callable[[], Any],
    watch: Callable[[str, int, Watched], None],
) -> Figures:  # fmt: skip
    """Figures of each map over all kinds and seeds; ``watch`` adds to the scores what a drive gives."""
    configs = _makers(args, config)
    predictor = None if args.model == "none" else Predictor.load(args.model, config.network)
    scores = {name: score() for name in configs}
    for kind, seed in product(kinds, args.seeds):
        maps = _pipelines(configs, predictor)
        watch(kind, seed, [(maps[name], name == "depth", scores[name]) for name in configs])
    return {name: score.figures() for name, score in scores.items()}


RUNS = {"edges": _edges, "walkers": _walkers, "body": _body}


if __name__ == "__main__":
    raise SystemExit(main())
