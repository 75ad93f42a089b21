# SPDX-License-Identifier: Apache-2.0
"""Keyframes of the demo beside other processes that compute: as it is, and as torch's own threads would do it.

    .venv/bin/python benchmarks/busy.py --busy 0 2 4 8 --record

Each row is a process of its own, since torch reads how to wait when it is loaded. ``fair`` is what a keyframe would take if its
processor time were served at this process's share: two threads beside four processes on two cores have a third of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from occupancy_nn_ros.compute.waiting import PASSIVE, SINGLE

VARIANTS = ("as it is", "one thread", "torch's threads, asleep", "torch's threads, spinning")


def run_one(name: str, busy: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one variant in this process."""
    import numpy as np
    from keyframe import Spent, busy_neighbours, demo_keyframes, processor_s

    from occupancy_nn_ros.compute.threads import available_cores
    from occupancy_nn_ros.config import Config, NetworkConfig
    from occupancy_nn_ros.runtime import predictor
    from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline

    if name.startswith("torch"):
        predictor.run_each = _one_after_another
    keyframes = list(demo_keyframes(args.warm + args.keyframes))
    threads = 1 if name == "one thread" else 0
    pipeline, spent = OccupancyPipeline(Config(network=NetworkConfig(threads=threads))), Spent()
    pipeline.warm_up()
    with busy_neighbours(busy):
        for number, keyframe in enumerate(keyframes):
            if number == args.warm:
                began, computed = time.perf_counter(), processor_s()
            if number > args.warm and time.perf_counter() - began > args.limit_s:
                break
            with spent.timed("keyframe"):
                pipeline.fuse(keyframe)
    wall, cpu = np.array(spent.rows["keyframe"][args.warm :]).T
    cores = available_cores()
    own = 1 if name == "one thread" else cores
    share = min(1.0, cores / (own + busy)) * own
    return {
        "busy": busy, "name": name, "keyframes": len(wall), "p50_s": float(np.median(wall)), "p95_s": float(np.percentile(wall, 95)),
        "wall_s": time.perf_counter() - began, "cpu_s": processor_s() - computed,
        "cpu_each_s": float(np.median(cpu)), "fair_s": float(np.median(cpu)) / share,
    }  # fmt: skip


def _one_after_another(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """In place of ``run_each``: every operation is split over all cores instead."""
    import torch

    from occupancy_nn_ros.compute.threads import available_cores, torch_threads

    with torch_threads(available_cores()), torch.inference_mode():
        return [function(item) for item in items]


def main() -> None:
    """Print the rows, one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 4, 8], help="other processes that compute")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--keyframes", type=int, default=12)
    parser.add_argument("--warm", type=int, default=3, help="keyframes at the beginning that are not counted")
    parser.add_argument("--limit-s", type=float, default=60.0, help="seconds after which a row ends with what it has")
    parser.add_argument("--record", action="store_true", help="append the rows to benchmarks/results/busy.jsonl")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.variants[0], args.busy[0], args)))
        return
    for busy in args.busy:
        for name in args.variants:
            row = _measured(name, busy, args)
            print(json.dumps(row), flush=True)
            if args.record:
                from records import record

                record("busy", [row])


def _measured(name: str, busy: int, args: argparse.Namespace) -> dict[str, Any]:
    environment = dict(os.environ)
    with suppress(KeyError):
        del environment["OMP_NUM_THREADS"]
    environment |= PASSIVE | SINGLE  # before numpy and torch are loaded, as every command of ours sets them
    if name.endswith("spinning"):  # as the libraries do by themselves
        environment |= {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000", "OPENCV_FOR_THREADS_NUM": "0"}
        environment["OPENBLAS_NUM_THREADS"] = str(os.cpu_count())
    command = [sys.executable, __file__, "--one", "--variants", name, "--busy", str(busy)]
    command += ["--keyframes", str(args.keyframes), "--warm", str(args.warm), "--limit-s", str(args.limit_s)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
