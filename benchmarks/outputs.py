# SPDX-License-Identifier: Apache-2.0
"""What every output costs: milliseconds of one core and bytes a message, on the final map of a recording.

    occupancy-nn demo --out out
    python benchmarks/outputs.py out/map.mcap --record      # the table of docs/benchmarks.md

Processor time counts, so that other work on the machine does not. Each output is made alone; what several share (the copy of the map, the
2D grid) is made anew for each of them, so that the sum is more than all together cost. Rates are those of the recording's keyframes and
the settings' defaults.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.compute.threads import use_threads
from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.mapping.moving import MovementTracker
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.voxel_colors import add_colors
from occupancy_nn_ros.mapping.warm_up import warm_up
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE
from occupancy_nn_ros.messages.status import NodeStatus, encode_diagnostics, encode_map_status
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.free_space import FreeSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS, PICTURES, DepthSource, MapSource, depth_topics, free_topic
from occupancy_nn_ros.runtime.pictures import PictureSource, paired
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame
from occupancy_nn_ros.runtime.recorded_snapshots import recorded_snapshots
from occupancy_nn_ros.runtime.viewer_topics import picture_messages, voxel_messages
from occupancy_nn_ros.values import MapView, PosedImage, VoxelState
from occupancy_nn_ros.visualization.animation import MapAnimation
from occupancy_nn_ros.visualization.snapshot import Snapshot

Output = tuple[str, Callable[[], int], float]
"""Name, what makes it and returns its bytes, and how often a second it goes out."""


def main() -> None:
    """Measure and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", type=Path, help="map.mcap that play or demo wrote")
    parser.add_argument("--repeats", type=int, default=9, metavar="N")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with BagReader(args.map) as reader:
        keyframes = max(info.count for topic, info in reader.topics.items() if topic.endswith("/occupancy_grid")) - 1
        rate_hz = keyframes / reader.duration_s  # one more grid goes out at the end
    shown = list(recorded_snapshots(args.map))
    keyframe = [snapshot for snapshot in shown if snapshot.images and snapshot.depths][-1]
    last = replace(keyframe, view=shown[-1].view)
    use_threads(1)
    warm_up()
    rows = [row(name, work, rate, args.repeats) for name, work, rate in outputs(last, rate_hz)]
    for one in rows:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in one.items()})
    if args.record:
        records.record("outputs", rows)


def row(name: str, work: Callable[[], int], rate_hz: float, repeats: int) -> records.Row:
    """Figures of one output; ``work`` makes it and returns its bytes."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        size = work()
        spent.append(time.process_time() - began)
    ms = float(np.median(spent)) * 1e3
    mb_s = size * rate_hz / 1e6 if size else None
    return {
        "name": name, "ms": ms, "kb": size / 1e3 if size else None, "rate_hz": rate_hz, "mb_s": mb_s, "share": ms * rate_hz / 1e3,
    }  # fmt: skip


def outputs(last: Snapshot, rate_hz: float) -> Iterator[Output]:
    """Name, what makes it, and how often, of everything that goes out."""
    config, view, image = Config(), last.view, last.images[0]
    grid = map_of(view, config)
    yield (
        "copy of the map, once for all of a keyframe",
        lambda: len(grid.view(0, "odom", view.T_map_base).state) * 0,
        rate_hz,
    )
    voxels_hz, source = min(rate_hz, 1 / config.outputs.voxels_period_s), sources(last, config, rate_hz)
    for topic in (topic for topic in OUTPUTS if topic.is_available):
        rate = voxels_hz if topic.group == "voxels" else rate_hz
        yield f"`~/{topic.name}`", lambda topic=topic: len(topic.encode(next(source))), rate  # type: ignore[misc]
    yield from of_cameras(last, grid, rate_hz, voxels_hz)
    yield from of_the_node(last)
    yield "`map.mcap`: cubes for Foxglove", lambda: total(voxel_messages(view, "height")), voxels_hz
    yield "`map.mcap`: a camera's pictures and calibration", lambda: total(picture_messages(image, "camera")), rate_hz
    yield "`outputs.color_by: camera`, a camera", painting(grid, view, image), rate_hz
    animation = MapAnimation(config.grid)
    yield "`map.gif`: a keyframe", lambda: animation.offer(last) or 0, rate_hz  # type: ignore[func-returns-value]
    yield from viewing(last, rate_hz)


def of_cameras(last: Snapshot, grid: RollingMap, rate_hz: float, voxels_hz: float) -> Iterator[Output]:
    """What there is for each camera, and the picture of all."""
    image, depth = last.images[0], last.depths[0]
    looks = paired(last.images, last.depths)
    pictures = PictureSource(last.view.stamp_ns, "base_link", looks)
    yield f"`~/{PICTURES.name}`, {len(looks)} cameras", lambda: len(PICTURES.encode(pictures)), rate_hz
    for topic in depth_topics(depth.camera):
        name = f"`~/depth/CAMERA/{topic.name.rsplit('/', 1)[-1]}`, a camera"
        yield name, lambda topic=topic: len(topic.encode(DepthSource(depth, "camera"))), rate_hz  # type: ignore[misc]
    sensor = SensorStream(image.camera, f"/{image.camera}/image/compressed", COMPRESSED_IMAGE)
    frame = RawFrame(sensor, image.stamp_ns, "camera", b"", image.model, image.T_map_cam)
    free = free_topic(image.camera)
    yield "`~/free/CAMERA/points`, a camera", lambda: len(free.encode(FreeSource(grid, frame))), voxels_hz


def of_the_node(last: Snapshot) -> Iterator[Output]:
    """What the node says of itself, once a second."""
    stages = ("decode", "predict", "integrate", "encode", "total")
    times = (1.0,) * len(stages)
    names = tuple(image.camera for image in last.images)
    status = NodeStatus(
        last.view.stamp_ns, last.view.frame_id, "mapping", camera_names=names, frames_received=(100,) * len(names),
        stages=stages, latency_p50_ms=times, latency_p95_ms=times,
    )  # fmt: skip
    yield "`~/status`", lambda: len(encode_map_status(status)), 1.0
    yield "`/diagnostics`", lambda: len(encode_diagnostics(status, "occupancy_nn", status)), 1.0


def sources(last: Snapshot, config: Config, rate_hz: float) -> Iterator[MapSource]:
    """The map again and again, each time a keyframe later, as what moves is told from one to the next."""
    tracker, view = MovementTracker(), last.view
    for number in itertools.count():
        source = MapSource(replace(view, stamp_ns=view.stamp_ns + round(number * 1e9 / rate_hz)), config)
        source.tracker, source.looks = tracker, last.depths
        yield source


def total(messages: list[Any]) -> int:
    """Bytes of some messages."""
    return sum(len(message.cdr) for message in messages)


def map_of(view: MapView, config: Config) -> RollingMap:
    """A map that shows a view."""
    grid = RollingMap.from_config(config)
    probability = np.clip(view.probability, 0.02, 0.98)
    log_odds = torch.from_numpy(np.log(probability / (1 - probability)))
    known = torch.from_numpy(view.state != VoxelState.UNKNOWN)
    grid.replace_content(
        view.window.origin, log_odds, known, torch.zeros((*known.shape, grid.class_evidence.shape[-1])).short()
    )
    return grid


def painting(grid: RollingMap, view: MapView, image: PosedImage) -> Callable[[], int]:
    """One camera's look at the occupied voxels; the map keeps it."""
    colored = map_of(view, load_config([], ["outputs.color_by=camera"]))

    def paint() -> int:
        add_colors(colored, (image,))
        return 0

    return paint


def viewing(last: Snapshot, rate_hz: float) -> Iterator[Output]:
    """A keyframe in Rerun, which a thread of its own writes while somebody looks; nothing without the SDK."""
    from occupancy_nn_ros.visualization.rerun_log import APPLICATION, RerunLog, import_rerun

    try:
        rerun = import_rerun()
    except MissingDependencyError:
        return
    recording = rerun.RecordingStream(APPLICATION)
    stream = recording.memory_recording()
    log = RerunLog(recording, Config().grid, "height")

    def write() -> int:
        log.write(last)
        return len(stream.drain_as_bytes() or b"")

    yield f"`--view`, `--rrd`: a keyframe of {len(last.images)} cameras", write, rate_hz


if __name__ == "__main__":
    main()
