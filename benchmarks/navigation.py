# SPDX-License-Identifier: Apache-2.0
"""What navigation asks of a map, against the simulator's truth: edges of the ground, and people who walk.

    python benchmarks/navigation.py edges                     # stairs down, loading docks, ramps
    python benchmarks/navigation.py walkers                   # people around the robot

Each is judged for the network and for a map of perfect depth images, which tells what the map's own rules cost.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.evaluation.drop_offs import EdgeScore, watch_edges
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
EDGE_SETTINGS = ("voxel_size_m=0.1", "grid.max_step_down_m=0.1", "map.size_xy_m=12", "map.below_m=1.6")


def main() -> int:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("edges", "walkers"))
    parser.add_argument("--kinds", nargs="+", help="terrains, or worlds")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N")
    parser.add_argument("--model", default="nano", help="name or path; 'none' for perfect depth alone")
    parser.add_argument("--rig", default="surround4")
    parser.add_argument("--duration", type=float, default=10.0, metavar="S", help="of a drive among people")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    settings = EDGE_SETTINGS if args.what == "edges" else ()
    config = load_config([], [*settings, *args.overrides])
    judge = _edges if args.what == "edges" else _walkers
    for kind in args.kinds or (TERRAINS if args.what == "edges" else WORLDS):
        for name, figures in judge(kind, args, config).items():
            shown = {key: round(value, 3) for key, value in figures.items()}
            print(json.dumps({"kind": kind, "map": name, "voxel_size_m": config.voxel_size_m, **shown}), flush=True)
    return 0


def _makers(args: argparse.Namespace, config: Config) -> dict[str, Config]:
    depth = replace(config, source="depth")
    return {"depth": depth} if args.model == "none" else {"depth": depth, args.model: replace(config, model=args.model)}


def _pipelines(configs: dict[str, Config], predictor: Predictor | None) -> dict[str, OccupancyPipeline]:
    if predictor is not None:
        predictor.reset()
    return {name: OccupancyPipeline(config, predictor) for name, config in configs.items()}


def _edges(kind: str, args: argparse.Namespace, config: Config) -> Figures:
    def watch(seed: int, watched: Watched) -> None:
        watch_edges(build_terrain(kind, seed), named_rig(args.rig), config, watched)

    return _judged(args, config, EdgeScore, watch)


def _walkers(kind: str, args: argparse.Namespace, config: Config) -> Figures:
    def watch(seed: int, watched: Watched) -> None:
        scene = plan_walk(build_world(kind, seed), seed, args.duration)
        watch_walkers(scene, named_rig(args.rig), config, watched)

    return _judged(args, config, WalkerScore, watch)


def _judged(
    args: argparse.Namespace, config: Config, score: Callable[[], Any], watch: Callable[[int, Watched], None]
) -> Figures:
    """Figures of each map over all seeds; ``watch`` adds to the scores what a drive gives."""
    configs = _makers(args, config)
    predictor = None if args.model == "none" else Predictor.load(args.model, config.network)
    scores = {name: score() for name in configs}
    for seed in args.seeds:
        maps = _pipelines(configs, predictor)
        watch(seed, [(maps[name], name == "depth", scores[name]) for name in configs])
    return {name: score.figures() for name, score in scores.items()}


if __name__ == "__main__":
    raise SystemExit(main())
