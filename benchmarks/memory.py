# SPDX-License-Identifier: Apache-2.0
"""Peak memory of play, of the live node and of training, beside what ``max_memory_mib`` plans with.

    .venv/bin/python benchmarks/memory.py --data shards --record

Play and node see the demo's recording; training runs for as long as ``--minutes`` says. Peaks are the kernel's (VmHWM of
proc_pid_status(5), ru_maxrss of getrusage(2)): resident memory, libraries and what they map included.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from records import ROOT, record

NO_LIMIT = "max_memory_mib=16777216"
PLAYED = {
    "as it is": [],
    "one thread": ["network.threads=1"],
    "0.1 m voxels": ["voxel_size_m=0.1"],
    "48 m window, 512 MiB of remembered places": ["map.size_xy_m=48", "map.remember_mib=512"],
    "four times the pixels": ["network.canvas_pixels=393216"],
}
PLAYED_S, LIVE_S = "6", 30.0
COMMAND = [sys.executable, "-c", "import sys; from occupancy_nn_ros.cli.main import main; sys.exit(main())"]


def play(name: str, settings: list[str], out: str) -> dict[str, Any]:
    """A row of the player, in a process of its own so that its peak is."""
    overrides = [part for setting in (*settings, NO_LIMIT) for part in ("--set", setting)]
    command = [*COMMAND, "play", "demo/drive.mcap", "--end", PLAYED_S, "--out", out, *overrides]
    peak_mib, text = _run(command)
    return {"command_name": "play", "name": name, "peak_mib": peak_mib, "planned_mib": _planned(text)}


def live(out: str) -> dict[str, Any]:
    """A row of the node, which sees the demo lap after lap, grid and clouds subscribed."""
    from live_node import Bench, LiveNode
    from soak import laps

    from occupancy_nn_ros.bags.reader import BagReader

    with BagReader(ROOT / "demo" / "drive.mcap") as reader:
        messages = list(reader.messages())
        topics = {topic: info.msgtype for topic, info in reader.topics.items()}
    log = Path(out) / "node.log"
    node = LiveNode({NO_LIMIT.split("=")[0]: NO_LIMIT.split("=")[1]}, log)
    bench = Bench()
    try:
        bench.offer(topics)
        bench.wait_for(node, topics)
        start_ns, began = time.time_ns(), time.monotonic()
        for message in itertools.takewhile(lambda m: m.stamp_ns - start_ns < LIVE_S * 1e9, laps(messages, start_ns)):
            bench.rest_until(began + (message.stamp_ns - start_ns) * 1e-9)
            bench.publish(message.topic, message.cdr)
        text = Path(f"/proc/{node.process.pid}/status").read_text(encoding="ascii")
    finally:
        node.stop()
        bench.close()
    peak_mib = int(re.search(r"VmHWM:\s*(\d+)", text)[1]) >> 10  # type: ignore[index]
    planned = _planned(log.read_text(encoding="utf-8"))
    return {"command_name": "live", "name": "as it is", "peak_mib": peak_mib, "planned_mib": planned}


def train(data: Path, minutes: float, out: str) -> dict[str, Any]:
    """A row of training on a CPU."""
    command = [*COMMAND, "train", "config/train/nano.yaml"]
    peak_mib, _ = _run([*command, "--data", str(data), "--out", f"{out}/train", "--minutes", str(minutes)])
    return {"command_name": "train", "name": "config/train/nano.yaml", "peak_mib": peak_mib}


def _run(command: list[str]) -> tuple[int, str]:
    """Peak memory of a command in MiB, and what it prints; measured from a process that does nothing else."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    code += "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, cwd=ROOT, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) >> 10, done.stdout


def _planned(text: str) -> int:
    """What was planned, without what waiting frames and remembered places may take at most, which a short run never fills."""
    parts = re.search(r"memory: at most \d+ MiB \((.*?)\)", text)[1].split(", ")  # type: ignore[index]
    sizes = {name: int(size) for name, size in (part.rsplit(" ", 1) for part in parts)}
    return sum(size for name, size in sizes.items() if name not in ("frames", "remembered places"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="shards to train on; without them training is left out")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training")
    parser.add_argument("--record", action="store_true", help="append the rows to benchmarks/results/memory.jsonl")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        rows = [play(name, settings, out) for name, settings in PLAYED.items()]
        rows.append(live(out))
        if args.data is not None:
            rows.append(train(args.data, args.minutes, out))
    for row in rows:
        print(row)
    if args.record:
        record("memory", rows)


if __name__ == "__main__":
    main()
