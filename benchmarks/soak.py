# SPDX-License-Identifier: Apache-2.0
"""Minutes or hours of the live node on a recording that is played again and again.

Stamps are shifted so that time goes on, and the first one is now: latencies are those of a robot. The robot's pose is not:
at the end of a lap it jumps to where the recording began.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from live_node import NODE, ROOT, Bench, LiveNode

from occupancy_nn_ros.bags.reader import BagMessage, BagReader
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.headers import peek_header, restamp
from occupancy_nn_ros.messages.names import OCCUPANCY_GRID, POINT_CLOUD, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import encode_tf
from occupancy_nn_ros.ros.qos import LATCHED_QOS, STREAM_QOS

PART = 0.2
"""The first and the last part of a run are compared; the first one begins after the warm-up."""

WARM_UP_S, WARM_UP_KEYFRAMES = 60.0, 100
"""Until both are over the allocators still grow to what they need; but never more than half of a run."""

FLOOR_S = 20.0
"""Memory rises while the network runs and falls again: a leak is a slope of the lowest values in stretches this long."""

LAP_GAP_NS = 20_000_000
TELL_EVERY_S = 10.0


@dataclass
class Log:
    """What was seen, in seconds since the start: (moment, latency) of each grid, (moment, megabytes) of each look."""

    grids: list[tuple[float, float]] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


def shifted(message: BagMessage, by_ns: int) -> BagMessage:
    """A recorded message as if it had been recorded later."""
    if message.msgtype == TF_MESSAGE:
        later = [replace(t, stamp_ns=t.stamp_ns + by_ns) for t in decode_tf(message.cdr)]
        cdr = encode_tf(later)
    else:
        cdr = restamp(message.cdr, peek_header(message.cdr).stamp_ns + by_ns)
    return replace(message, stamp_ns=message.stamp_ns + by_ns, cdr=cdr)


def laps(messages: list[BagMessage], start_ns: int) -> Iterator[BagMessage]:
    """The recording without end, the first lap starting at ``start_ns``; latched topics once."""
    first, last = messages[0].stamp_ns, messages[-1].stamp_ns
    lap_ns = last - first + LAP_GAP_NS
    lap = 0
    while True:
        for message in messages:
            if message.topic != "/tf_static" or lap == 0:
                yield shifted(message, start_ns - first + lap * lap_ns)
        lap += 1


def soak(bench: Bench, node: LiveNode, messages: list[BagMessage], minutes: float) -> Log:
    """Play for so long; tells how it goes once in a while."""
    log = Log()
    start_ns, began = time.time_ns(), time.monotonic()

    def take_grid(cdr: bytes) -> None:
        moment = time.monotonic() - began
        log.grids.append((moment, (time.time_ns() - peek_header(cdr).stamp_ns) * 1e-9))

    bench.listen(f"{NODE}/occupancy_grid", OCCUPANCY_GRID, LATCHED_QOS, take_grid)
    bench.listen(f"{NODE}/occupied_voxels", POINT_CLOUD, STREAM_QOS, lambda cdr: None)
    look_s, tell_s = 0.0, TELL_EVERY_S
    for message in laps(messages, start_ns):
        moment = (message.stamp_ns - start_ns) * 1e-9
        bench.rest_until(began + moment)
        if moment > minutes * 60 or not node.is_alive:
            return log
        bench.publish(message.topic, message.cdr)
        if moment >= look_s:
            log.memory.append((moment, node.memory_mb()))
            look_s += 1.0
        if moment >= tell_s:
            tell(log, moment, bench)
            tell_s += TELL_EVERY_S
    return log


def tell(log: Log, moment: float, bench: Bench) -> None:
    """A line for people."""
    lately = [latency for at, latency in log.grids if at > moment - TELL_EVERY_S]
    p95 = np.percentile(lately, 95) * 1e3 if lately else float("nan")
    text = f"{moment / 60:6.1f} min  {len(lately) / TELL_EVERY_S:5.2f} Hz  p95 {p95:7.1f} ms"
    print(f"{text}  {log.memory[-1][1]:7.1f} MB  {sum(bench.drops().values())} drops", file=sys.stderr, flush=True)


def part(log: Log, low_s: float, high_s: float) -> dict[str, float]:
    """Figures of a stretch of the run."""
    latencies = [latency * 1e3 for at, latency in log.grids if low_s <= at < high_s]
    if not latencies:
        return {"rate_hz": 0.0, "p50_ms": float("nan"), "p95_ms": float("nan"), "p99_ms": float("nan")}
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(latencies, (50, 95, 99)))
    return {"rate_hz": round(len(latencies) / (high_s - low_s), 3), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def warm_up_s(log: Log, end_s: float) -> float:
    """How long the warm-up took."""
    hundredth_s = log.grids[WARM_UP_KEYFRAMES - 1][0] if len(log.grids) >= WARM_UP_KEYFRAMES else end_s
    return min(max(WARM_UP_S, hundredth_s), end_s / 2)


def summary(log: Log, minutes: float, dropped: dict[str, int]) -> dict[str, Any]:
    """All figures: of the whole run after the warm-up, and of its beginning and end."""
    end_s = minutes * 60
    warm_s = warm_up_s(log, end_s)
    length_s = PART * (end_s - warm_s)
    whole = part(log, warm_s, end_s)
    first, last = part(log, warm_s, warm_s + length_s), part(log, end_s - length_s, end_s)
    memory = [item for item in log.memory if item[0] >= warm_s]
    return {
        "minutes": minutes,
        "keyframes": len(log.grids),
        **whole,
        "rate_change": round(last["rate_hz"] / first["rate_hz"] - 1, 4) if first["rate_hz"] else float("nan"),
        "memory_mb": round(min(megabytes for at, megabytes in memory if at >= end_s - FLOOR_S), 1),
        "memory_peak_mb": round(max(megabytes for _, megabytes in memory), 1),
        "memory_slope_mb_per_min": round(memory_slope(memory), 3),
        "dropped": sum(dropped.values()),
        "dropped_by_reason": dropped,
        "beginning": first,
        "end": last,
    }


def memory_slope(memory: list[tuple[float, float]]) -> float:
    """Megabytes per minute by which the floor of the memory rises."""
    floors: dict[int, tuple[float, float]] = {}
    for at, megabytes in memory:
        stretch = int(at / FLOOR_S)
        if stretch not in floors or megabytes < floors[stretch][1]:
            floors[stretch] = (at / 60, megabytes)
    if len(floors) < 2:
        return float("nan")
    minutes, megabytes_of = np.array(list(floors.values())).T
    return float(np.polyfit(minutes, megabytes_of, 1)[0])


def show(figures: dict[str, Any]) -> None:
    """A table for people."""
    print(f"{figures['minutes']:g} minutes, {figures['keyframes']} keyframes")
    print(f"{'':<12}{'all':>10}{'beginning':>12}{'end':>10}")
    for key in ("rate_hz", "p50_ms", "p95_ms", "p99_ms"):
        print(f"{key:<12}{figures[key]:>10.2f}{figures['beginning'][key]:>12.2f}{figures['end'][key]:>10.2f}")
    print(f"rate change {figures['rate_change']:+.1%}")
    memory, peak, slope = (figures[f"memory_{key}"] for key in ("mb", "peak_mb", "slope_mb_per_min"))
    print(f"memory {memory:.0f} MB, at most {peak:.0f} MB, slope {slope:+.2f} MB/min")
    for reason, count in figures["dropped_by_reason"].items():
        print(f"dropped: {reason}: {count}")


def parameter(text: str) -> tuple[str, str]:
    """Name and value of ``NAME=VALUE``."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"got {text}, expected NAME=VALUE")
    return name, value


def main() -> int:
    """Run; exit code 1 if the node did not live through it or did not end cleanly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--bag", type=Path, default=ROOT / "demo" / "drive.mcap")
    parser.add_argument("--model", default="nano")
    parser.add_argument(
        "--set", action="append", default=[], type=parameter, metavar="NAME=VALUE", dest="parameters",
        help="a parameter of the node, such as keyframes.min_period_s=1.0",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")
    arguments = parser.parse_args()
    with BagReader(arguments.bag) as reader:
        topics = {topic: info.msgtype for topic, info in reader.topics.items() if topic != "/odom"}
        messages = [message for message in reader.messages() if message.topic in topics]
    bench = Bench()
    bench.offer(topics)
    with tempfile.TemporaryDirectory() as folder:
        node = LiveNode({"model": arguments.model, **dict(arguments.parameters)}, Path(folder) / "node.log")
        try:
            bench.wait_for(node, topics)
            log = soak(bench, node, messages, arguments.minutes)
            lived = node.is_alive
        finally:
            code = node.stop()
        if not lived or code != 0:
            print(f"the node ended with {code}:\n{node.log.read_text(encoding='utf-8')[-4000:]}", file=sys.stderr)
    figures = {**summary(log, arguments.minutes, bench.drops()), "parameters": dict(arguments.parameters)}
    bench.close()
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0 if lived and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
