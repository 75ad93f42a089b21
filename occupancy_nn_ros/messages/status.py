# SPDX-License-Identifier: Apache-2.0
"""How the mapper is doing to CDR bytes: our MapStatus, and the DiagnosticArray that ROS tools watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.messages.names import MAP_STATUS
from occupancy_nn_ros.messages.typestore import header, serialize, typestore

NodeState = Literal["unconfigured", "configuring", "inactive", "mapping", "paused", "waiting"]


@dataclass(frozen=True)
class NodeStatus:
    """How the mapper is doing, as in ``MapStatus.msg``. Names and values are parallel tuples.

    Attributes:
        stamp_ns: when this was true.
        frame_id: the map frame.
        state: what the node is doing.
        waiting_for: what is missing while ``waiting``, or done while ``configuring``, worded for people; goes into
            diagnostics alone.
        keyframes: map updates since start.
        keyframe_rate: map updates a second over the last ten.
        map_age: seconds since the newest data in the map; -1 before there is any.
        camera_names: cameras, in configuration order.
        frames_received: images received from each camera.
        drop_reasons: why frames, frame sets or messages were not used.
        drop_counts: how many for each reason, since start.
        doubts: what speaks against the map although frames are used, worded for people; goes into diagnostics alone.
        stages: steps of a map update.
        latency_p50_ms: median of recent updates for each stage.
        latency_p95_ms: 95th percentile of the same.
        device_memory_bytes: of the compute device, 0 on a CPU.
    """

    stamp_ns: int
    frame_id: str = ""
    state: NodeState = "waiting"
    keyframes: int = 0
    keyframe_rate: float = 0.0
    map_age: float = -1.0
    camera_names: tuple[str, ...] = ()
    frames_received: tuple[int, ...] = ()
    drop_reasons: tuple[str, ...] = ()
    drop_counts: tuple[int, ...] = ()
    stages: tuple[str, ...] = ()
    latency_p50_ms: tuple[float, ...] = ()
    latency_p95_ms: tuple[float, ...] = ()
    device_memory_bytes: int = 0
    waiting_for: str = ""
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that parallel tuples are parallel."""
        groups = (
            (self.camera_names, self.frames_received),
            (self.drop_reasons, self.drop_counts),
            (self.stages, self.latency_p50_ms, self.latency_p95_ms),
        )
        for names, *values in groups:
            if any(len(column) != len(names) for column in values):
                raise ValueError(f"{len(names)} names {names} with {[len(v) for v in values]} values, expected as many")


OK, WARN, ERROR = 0, 1, 2
OLD_MAP_S, DEAD_MAP_S = 5.0, 10.0


def encode_map_status(status: NodeStatus) -> bytes:
    """Our ``MapStatus``."""
    return serialize(
        typestore().types[MAP_STATUS](
            header=header(status.stamp_ns, status.frame_id),
            state=status.state,
            keyframes=status.keyframes,
            keyframe_rate=status.keyframe_rate,
            map_age=status.map_age,
            camera_names=list(status.camera_names),
            frames_received=np.array(status.frames_received, dtype=np.uint64),
            drop_reasons=list(status.drop_reasons),
            drop_counts=np.array(status.drop_counts, dtype=np.uint64),
            stages=list(status.stages),
            latency_p50_ms=np.array(status.latency_p50_ms, dtype=np.float32),
            latency_p95_ms=np.array(status.latency_p95_ms, dtype=np.float32),
            device_memory_bytes=status.device_memory_bytes,
        )
    )


def encode_diagnostics(status: NodeStatus, name: str, previous: NodeStatus | None = None) -> bytes:
    """A ``diagnostic_msgs/DiagnosticArray`` with one entry, called ``name``.

    Drops count as rising when there are more of them than in ``previous``, the status that was sent before.
    """
    level, text = diagnose(status, previous)
    figures = _figures(status)
    writer = CdrWriter()
    writer.header(status.stamp_ns, status.frame_id)
    writer.put("I", 1)
    writer.put("B", level)
    writer.string(name)
    writer.string(text)
    writer.string("")  # hardware_id
    writer.put("I", len(figures))
    for key, value in figures:
        writer.string(key)
        writer.string(value)
    return writer.bytes()


def diagnose(status: NodeStatus, previous: NodeStatus | None = None) -> tuple[int, str]:
    """Level and one line of text: ERROR while nothing arrives, WARN while data is lost, late or doubtful, OK otherwise."""
    if status.state == "paused":
        return OK, "paused"
    if status.state == "configuring":
        return OK, f"configuring: {status.waiting_for}"
    if status.state in ("unconfigured", "inactive"):
        step = "configure" if status.state == "unconfigured" else "activate"
        return WARN, f"{status.state}, there is no new map: `ros2 lifecycle set NODE {step}`"
    if status.state == "waiting":
        return ERROR, status.waiting_for or "waiting for data"
    if status.map_age < 0:
        return ERROR, "no map yet"
    if status.map_age > DEAD_MAP_S:
        return ERROR, f"no map update for {status.map_age:.1f} s"
    if status.map_age > OLD_MAP_S:
        return WARN, f"map is {status.map_age:.1f} s old"
    dropped = 0 if previous is None else sum(status.drop_counts) - sum(previous.drop_counts)
    what = f"{dropped} more drops: {_risen(status, previous)}" if dropped > 0 else "mapping"
    return WARN if dropped > 0 or status.doubts else OK, "; ".join([what, *status.doubts])


def _risen(status: NodeStatus, previous: NodeStatus | None) -> str:
    before = {} if previous is None else dict(zip(previous.drop_reasons, previous.drop_counts, strict=True))
    now = zip(status.drop_reasons, status.drop_counts, strict=True)
    return ", ".join(reason for reason, count in now if count > before.get(reason, 0))


def _figures(status: NodeStatus) -> list[tuple[str, str]]:
    figures = [
        ("state", status.state),
        ("keyframes", str(status.keyframes)),
        ("keyframe rate (Hz)", f"{status.keyframe_rate:.2f}"),
        ("map age (s)", f"{status.map_age:.2f}"),
        ("device memory (MiB)", f"{status.device_memory_bytes / 2**20:.0f}"),
    ]
    figures += [
        (f"frames from {camera}", str(count))
        for camera, count in zip(status.camera_names, status.frames_received, strict=True)
    ]
    drops = zip(status.drop_reasons, status.drop_counts, strict=True)
    figures += [(f"dropped: {reason}", str(count)) for reason, count in drops]
    figures += [(f"doubt {number}", text) for number, text in enumerate(status.doubts, 1)]
    latencies = zip(status.stages, status.latency_p50_ms, status.latency_p95_ms, strict=True)
    figures += [(f"{stage} p50 / p95 (ms)", f"{median:.1f} / {high:.1f}") for stage, median, high in latencies]
    return figures
