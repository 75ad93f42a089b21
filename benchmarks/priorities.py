# SPDX-License-Identifier: Apache-2.0
"""How long a thread that receives waits for its turn while keyframes are computed, by the priority of those that compute.

    .venv/bin/python benchmarks/priorities.py --busy 4 --record

The receiving thread sleeps 10 ms and works for a moment, again and again; what it oversleeps is what it waits for a core and for the
interpreter lock. A priority can only be lowered, so each row has a thread of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from typing import Any

import numpy as np
from keyframe import busy_neighbours, demo_keyframes
from records import record

from occupancy_nn_ros.compute import threads
from occupancy_nn_ros.compute.priority import compute_in_batch
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.values import Keyframe

NICE = (1, 5, 10)
NAP_S, MOMENT = 0.01, 3000


def measure(name: str, keyframes: list[Keyframe], warm: int) -> dict[str, Any]:
    """Keyframes in a thread of that priority, and how late this one is meanwhile."""
    pipeline, times, late, done = OccupancyPipeline(Config()), [], [], threading.Event()

    def compute() -> None:
        if name == "batch":
            compute_in_batch()
        elif name.startswith("nice"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), int(name.split()[1]))
        threads._pools.clear()  # so that its threads are this one's, of its priority
        for number, keyframe in enumerate(keyframes):
            if number == warm:
                late.clear(), times.clear()
            began = time.perf_counter()
            pipeline.fuse(keyframe)
            times.append(time.perf_counter() - began)
        done.set()

    worker = threading.Thread(target=compute)
    worker.start()
    while not done.is_set():
        due = time.perf_counter() + NAP_S
        time.sleep(NAP_S)
        late.append(time.perf_counter() - due)
        sum(range(MOMENT))
    worker.join()
    p50, p95, p99 = (float(value) * 1e3 for value in np.percentile(late, (50, 95, 99)))
    return {
        "name": name, "late_p50_ms": p50, "late_p95_ms": p95, "late_p99_ms": p99, "late_most_ms": max(late) * 1e3,
        "keyframe_p50_s": float(np.median(times)),
    }  # fmt: skip


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=4, help="other processes that compute")
    parser.add_argument("--keyframes", type=int, default=8)
    parser.add_argument("--warm", type=int, default=2, help="keyframes at the beginning that are not counted")
    parser.add_argument("--record", action="store_true", help="append the rows to benchmarks/results/priorities.jsonl")
    args = parser.parse_args()
    keyframes = list(demo_keyframes(args.keyframes))
    with busy_neighbours(args.busy):
        rows = [measure(name, keyframes, args.warm) for name in ("as others", "batch", *(f"nice {n}" for n in NICE))]
    for row in rows:
        print(json.dumps(row))
    if args.record:
        record("priorities", [{"busy": args.busy, **row} for row in rows])


if __name__ == "__main__":
    main()
