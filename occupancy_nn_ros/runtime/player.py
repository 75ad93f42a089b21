# SPDX-License-Identifier: Apache-2.0
"""Plays a bag through the mapper without ROS: the same intake and session as the live node, on a bag's bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.bags.scan import scan_bag
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.camera_settings import check_enough
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.messages.names import MAP_STATUS
from occupancy_nn_ros.messages.status import encode_map_status
from occupancy_nn_ros.runtime.decoding import OWN_ONLY, FurtherDecoders, decode_image_frame, decode_keyframe
from occupancy_nn_ros.runtime.discovery import SensorStream, discover_sensors, left_out_cameras, wanted_types
from occupancy_nn_ros.runtime.doubts import lasting, not_taken
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutMessage, output_topics
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.pose_topics import hold_statics, name_pose_type, name_tf_topics, odometry_topics
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.runtime.topic_names import absolute_names
from occupancy_nn_ros.runtime.viewer_topics import ViewerMessage, ViewerTopics, picture_topics, voxel_messages
from occupancy_nn_ros.settings import to_mapping
from occupancy_nn_ros.values import FloatArray, Keyframe, MapView, PosedDepth, PosedImage, Prediction, VoxelState
from occupancy_nn_ros.visualization.foxglove_layout import foxglove_layout
from occupancy_nn_ros.visualization.snapshot import Viewer

NODE_NAME = "/occupancy_nn"
RECORDED = tuple(topic.name for topic in OUTPUTS if not topic.is_optional)


@dataclass(frozen=True)
class PlayPlan:
    """What will be played: settings with frames filled in, and the sensors chosen.

    Attributes:
        config: the settings, with ``tf_topic`` and ``tf_static_topic`` as the bag names them.
        sensors: the chosen sensors.
        frames: header frame of each sensor topic.
        odometries: topics that may place the robot where TF does not.
        left_out: topics that look like cameras and have no camera_info, as others do.
    """

    config: Config
    sensors: tuple[SensorStream, ...]
    frames: dict[str, str]
    odometries: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def intake(self) -> Intake:
        """An intake for all of it; which frames are mapped with, it finds out on the way, as it does live."""
        intake = Intake(self.config, self.sensors, odometries=self.odometries)
        intake.problems.update(not_taken(self.left_out))
        return intake


@dataclass(frozen=True)
class PlayProgress:
    """How far a bag has been played: seconds of it, seconds in all, keyframes so far."""

    done_s: float
    total_s: float
    keyframes: int


Look = tuple[PosedImage, PosedDepth]


@dataclass(frozen=True)
class PlayResult:
    """What came of playing a bag.

    Attributes:
        view: the final map, None if no keyframe was made.
        path_m: (K, 3) robot positions at the keyframes, map frame.
        summary: plain values for ``summary.json``.
        looks: the last keyframe's images, each with the depth that the network is sure of.
    """

    view: MapView | None
    path_m: FloatArray
    summary: dict[str, Any]
    looks: tuple[Look, ...]


def plan_play(reader: BagReader, config: Config) -> PlayPlan:
    """Find sensors and frames in a bag.

    Raises:
        BagError: no sensor of the wanted kind; says what there is.
        ConfigError: a configured topic does not exist, or there are fewer sensors than a set needs.
    """
    scan, config = scan_bag(reader), absolute_names(config)
    sensors = discover_sensors(config, scan.topics, scan.encodings, scan.silent)
    if not sensors:
        kind = {"network": "camera images", "depth": "depth images", "lidar": "point clouds"}[config.source]
        there = ", ".join(f"{topic} ({msgtype})" for topic, msgtype in sorted(scan.topics.items()))
        raise BagError(f"{reader.path} has no {kind} ({' or '.join(wanted_types(config.source))}); it has: {there}")
    check_enough(config.sync.min_cameras, [sensor.name for sensor in sensors])
    config = name_pose_type(name_tf_topics(config, scan.topics, sensors), scan.topics)
    left_out = left_out_cameras(config, scan.topics, scan.encodings, scan.silent)
    return PlayPlan(config, sensors, scan.frames, odometry_topics(config, scan.topics), tuple(left_out))


def play_bag(
    reader: BagReader,
    plan: PlayPlan,
    out: Path | None = None,
    *,
    report: Callable[[PlayProgress], None] | None = None,
    viewers: tuple[Viewer, ...] = (),
    further: FurtherDecoders = OWN_ONLY,
) -> PlayResult:
    """Map a whole bag.

    Args:
        reader: the open bag.
        plan: from :func:`plan_play`.
        out: folder for ``map.mcap`` (the node's topics), or None to keep nothing.
        report: told about the progress.
        viewers: are shown each keyframe.
        further: reads messages that this package's own decoders do not know.

    Raises:
        BagError: the bag is damaged, or the output cannot be written.
        CheckpointError: the model cannot be loaded.
    """
    intake = plan.intake()
    session = MappingSession(plan.config, OccupancyPipeline(plan.config), further)
    shown = None if out is None else ViewerTopics(plan.config)
    session.viewers = viewers if shown is None else (*viewers, shown)
    session.warm_up()
    topics = () if out is None else output_topics(plan.config, plan.sensors)
    wanted = tuple(topic.name for topic in topics if not topic.is_optional)
    path = [np.zeros((0, 3))]
    raw: RawKeyframe | None = None
    with nullcontext() if out is None else BagWriter(out / "map.mcap", overwrite=True) as writer:
        for stamp_ns, ready in steps(reader, intake, report):
            for raw in ready:
                messages = session.process(raw, intake.map_frame, wanted)
                path.append(raw.T_map_base[None, :3, 3])
                if writer is not None and shown is not None:
                    _record(writer, messages, stamp_ns)
                    _record_for_viewers(writer, shown.messages(raw, _base_frame(plan, intake)), stamp_ns)
                session.look_again()
        if writer is not None:
            _record(writer, session.final_outputs(RECORDED), stamp_ns)
            status = session.status(intake, stamp_ns, "mapping" if session.keyframes else "waiting")
            writer.write(f"{NODE_NAME}/status", MAP_STATUS, stamp_ns, encode_map_status(status))
            if (last := session.view()) is not None:
                _record_for_viewers(writer, voxel_messages(last, plan.config.outputs.color_by), stamp_ns)
    view = session.view()
    looks = () if raw is None else _looks(raw, session.pipeline.prediction, further)
    return PlayResult(view, np.concatenate(path), _summary(plan, intake, session, view), looks)


def steps(
    reader: BagReader, intake: Intake, report: Callable[[PlayProgress], None] | None = None
) -> Iterator[tuple[int, list[RawKeyframe]]]:
    """Every message of a bag that matters: when it was recorded (ns), and the keyframes that it completes; at last the rest.

    Args:
        reader: the open bag.
        intake: makes the keyframes.
        report: told about the progress after each message, once its keyframes have been dealt with.
    """
    made, stamp_ns = 0, reader.start_ns
    hold_statics(reader, intake)
    for message in reader.messages({topic for topic in intake.topics if topic in reader.topics}):
        stamp_ns, ready = message.stamp_ns, intake.receive(message.topic, message.cdr)
        made += len(ready)
        yield stamp_ns, ready
        if report is not None:
            report(PlayProgress((stamp_ns - reader.start_ns) * 1e-9, reader.duration_s, made))
    yield stamp_ns, intake.flush()


def read_keyframes(bag: Path, config: Config | None = None, part: BagPart | None = None) -> Iterator[Keyframe]:
    """The keyframes of a bag, decoded and placed, for one's own program; frames that do not decode are left out.

    Args:
        bag: the recording.
        config: which cameras, frames and keyframes; all found by default.
        part: which part of the recording.

    Raises:
        BagError: the bag cannot be read, or has no sensor of the wanted kind.
    """
    config = config or Config()
    with BagReader(bag, part) as reader:
        plan = plan_play(reader, config)
        for _, ready in steps(reader, plan.intake()):
            for raw in ready:
                keyframe, _ = decode_keyframe(raw, config.sync.min_cameras)
                if keyframe is not None:
                    yield keyframe


def _looks(raw: RawKeyframe, prediction: Prediction | None, further: FurtherDecoders) -> tuple[Look, ...]:
    """The images that a prediction was made of, decoded once more, and their depth."""
    frames = {(frame.sensor.name, frame.stamp_ns): frame for frame in raw.frames}
    depths = () if prediction is None else prediction.depths
    known = ((frames.get((depth.camera, depth.stamp_ns)), depth) for depth in depths)
    return tuple((decode_image_frame(frame, further), depth) for frame, depth in known if frame is not None)


def _record(writer: BagWriter, messages: Iterable[OutMessage], stamp_ns: int) -> None:
    for message in messages:
        topic = message.topic
        name = f"{NODE_NAME}/{topic.name}"
        writer.write(name, topic.msgtype, stamp_ns, message.cdr, is_latched=topic.is_latched)


def _record_for_viewers(writer: BagWriter, messages: Iterable[ViewerMessage], stamp_ns: int) -> None:
    for message in messages:
        name = message.topic if message.topic.startswith("/") else f"{NODE_NAME}/{message.topic}"
        writer.write(name, message.msgtype, stamp_ns, message.cdr)


def write_layout(result: PlayResult, out: Path) -> None:
    """Write ``foxglove_layout.json``, which shows the cameras and frames of this ``map.mcap``.

    Raises:
        BagError: it cannot be written.
    """
    cameras = [sensor["name"] for sensor in result.summary["sensors"] if sensor["kind"] == "image"]
    topics = [picture_topics(camera) for camera in cameras]
    text = foxglove_layout(
        [(f"{NODE_NAME}/{a}", f"{NODE_NAME}/{b}") for a, b in topics], result.summary["frames"]["base"]
    )
    try:
        (out / "foxglove_layout.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise BagError(f"cannot write {out / 'foxglove_layout.json'}: {error}") from None


def _base_frame(plan: PlayPlan, intake: Intake) -> str:
    """The robot's frame as it was found, else as it is configured."""
    return intake.frame_names.base_frame if intake.frame_names else plan.config.base_frame


def write_summary(result: PlayResult, out: Path) -> None:
    """Write ``summary.json``.

    Raises:
        BagError: it cannot be written.
    """
    try:
        (out / "summary.json").write_text(json.dumps(result.summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BagError(f"cannot write {out / 'summary.json'}: {error}") from None


def _summary(plan: PlayPlan, intake: Intake, session: MappingSession, view: MapView | None) -> dict[str, Any]:
    names = intake.frame_names
    return {
        "sensors": [asdict(sensor) for sensor in plan.sensors],
        "frames": {
            "map": session.frame_id,
            "base": _base_frame(plan, intake),
            "reason": names.reason if names else "",
            "pose_topic": names.pose.topic if names and names.pose else "",
        },
        "received": dict(intake.received),
        "keyframes": session.keyframes,
        "dropped": dict(sorted((intake.dropped + session.dropped).items())),
        "problems": {**intake.problems, **session.problems},
        "doubts": list(lasting({**intake.problems, **session.problems}, intake.dropped + session.dropped)),
        "cause": "" if session.keyframes else _cause(intake, session),
        "peak_memory_mib": session.memory.peak_mib,
        "latency_ms": {stage: asdict(item) for stage, item in session.latency.summary().items()},
        "map": _map_statistics(view),
        "config": to_mapping(plan.config),
    }


def _cause(intake: Intake, session: MappingSession) -> str:
    """Why there is no map, worded for people: what cost most frames, else what never came."""
    problems = {**intake.problems, **session.problems}
    dropped = intake.dropped + session.dropped
    del dropped["keyframe without usable frames"]  # a consequence
    told = [reason for reason, _ in dropped.most_common() if reason in problems]
    if told:
        return problems[told[0]]
    silent = list(intake.silent_topics().values())
    if silent:
        return silent[0]
    if dropped:
        reason, count = dropped.most_common(1)[0]
        return f"{count} frames dropped, {reason}"
    return f"messages received: {dict(intake.received)}"


def _map_statistics(view: MapView | None) -> dict[str, Any] | None:
    if view is None:
        return None
    return {
        "voxel_size_m": view.window.voxel_size_m,
        "shape": list(view.window.shape),
        "origin": list(view.window.origin),
        "unknown": int((view.state == VoxelState.UNKNOWN).sum()),
        "free": int((view.state == VoxelState.FREE).sum()),
        "occupied": int((view.state == VoxelState.OCCUPIED).sum()),
    }
