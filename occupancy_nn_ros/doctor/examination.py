# SPDX-License-Identifier: Apache-2.0
"""Could the node run on this? Watches messages through the node's own discovery and intake, and notes what it judges by.

The judging is in :mod:`occupancy_nn_ros.doctor.findings`. Where the messages come from, a bag or the ROS graph, is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.bags.scan import scan_bag
from occupancy_nn_ros.camera_settings import check_enough
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.doctor.camera_calibration import calibrate_bag
from occupancy_nn_ros.doctor.findings import (
    Finding,
    WhySilent,
    check_camera_info,
    check_messages,
    check_model,
    problem,
    warning,
)
from occupancy_nn_ros.doctor.looks import Looks
from occupancy_nn_ros.doctor.network_depth import NetworkDepth
from occupancy_nn_ros.doctor.partners import check_partners
from occupancy_nn_ros.doctor.placing import check_keyframes, check_pose_topic, check_statics, check_transforms
from occupancy_nn_ros.doctor.shared_frames import check_places
from occupancy_nn_ros.doctor.witnesses import Witnesses, find_witnesses
from occupancy_nn_ros.errors import BagError, ConfigError, MessageError, OccupancyError
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.runtime.decoding import OWN_ONLY, FurtherDecoders
from occupancy_nn_ros.runtime.discovery import (
    SensorStream,
    close_topics,
    discover_sensors,
    left_out_cameras,
    wanted_types,
)
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.own_body import OwnBody
from occupancy_nn_ros.runtime.pose_topics import hold_statics, name_pose_type, name_tf_topics, odometry_topics
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.topic_names import absolute_names
from occupancy_nn_ros.setting_doubts import doubts_about
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer

FOREVER_NS = 10**18
LATE_S = 0.5


@dataclass
class SensorRecord:
    """What was noted of one sensor.

    Attributes:
        stamps_ns: stamp of each message, offset applied, in order of arrival.
        ages_s: how long after its stamp each message arrived, where the clock of arrival is known.
        lags_s: how far the sensors' newest stamp was ahead of each message when it arrived.
        frame_id: frame of the newest message.
        first: the first message.
        last: the newest that has a header.
    """

    stamps_ns: list[int] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    frame_id: str = ""
    first: bytes = b""
    last: bytes = b""


class Examination:
    """Feeds messages to an intake as the node would, and keeps what the intake does not.

    Attributes:
        intake: the node's own; its transforms are kept forever here.
        records: what was noted of each sensor.
        keyframes: map updates that the node would have made.
        late_statics_s: static transforms that first came after the first image: how long after, by frame.
    """

    def __init__(
        self,
        config: Config,
        sensors: tuple[SensorStream, ...],
        odometries: Sequence[str] = (),
        further: FurtherDecoders = OWN_ONLY,
        witnesses: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing came yet.

        Args:
            config: the node's settings.
            sensors: what it would map with.
            odometries: topics that may place the robot where TF does not.
            further: reads messages that this package's own decoders do not know.
            witnesses: message types of topics by which depth cameras are judged, beside the sensors.
        """
        self.config, self._further = config, further
        self.intake = Intake(config, sensors, PoseBuffer(FOREVER_NS), odometries)
        self.late_statics_s: dict[str, float] = {}
        self._first_ns, self._static_frames = 0, set[str]()
        self.records = {sensor.name: SensorRecord() for sensor in sensors}
        self.keyframes = 0
        self._looks = Looks(further, NetworkDepth(config))
        self._witnesses = Witnesses(witnesses or {})

    @property
    def topics(self) -> dict[str, str]:
        """Every topic to listen to, with its message type."""
        return self.intake.topics | self._witnesses.topics

    def receive(self, topic: str, cdr: bytes, now_ns: int | None = None) -> None:
        """Take one message.

        Args:
            topic: where it came from.
            cdr: its bytes.
            now_ns: when it arrived, on the clock of its stamps; None where that clock is not known.
        """
        if topic in self._witnesses.topics:
            self._witnesses.add(topic, cdr)
            return
        self._look(self.intake.receive(topic, cdr))
        if topic == self.config.tf_static_topic:
            self._note_statics(cdr)
        for name, sensor in self.intake.sensors.items():
            if sensor.topic == topic:
                self._note(name, sensor, cdr, now_ns)

    def findings(self, topics: Mapping[str, str], why_silent: WhySilent) -> list[Finding]:
        """What the messages so far say, check by check."""
        self._look(self.intake.flush())
        found = []
        for name, sensor in self.intake.sensors.items():
            record = self.records[name]
            found += check_messages(sensor, record.first, record.stamps_ns, record.ages_s, why_silent, self._further)
            found += check_camera_info(sensor, record.last, self.intake, why_silent)
        frames = {
            n: self.intake.sensors[n].frame_id or r.frame_id or self.intake.intrinsics.frames.get(n, "")
            for n, r in self.records.items()
            if r.stamps_ns
        }
        stamps_ns = {n: r.stamps_ns for n, r in self.records.items()}
        mapped = self.records.keys() - self.intake.shared.left_out.keys()
        lags_s = {n: self.records[n].lags_s for n in self.records if n in mapped}
        found += check_partners(
            {n: s for n, s in stamps_ns.items() if n in mapped}, lags_s, self.intake.sets, self.config.sync
        )
        found += check_places(self.intake, {name: record.first for name, record in self.records.items()})
        found += check_pose_topic(self.intake, why_silent)
        found += check_transforms(self.intake, frames, stamps_ns, topics, why_silent, self._looks.tilt)
        found += check_statics(self.late_statics_s)
        found += self._looks.findings()
        if doubt := OwnBody(self.config.robot.body).doubt(self.config.map):
            found.append(
                problem("robot.body", doubt, "give boxes around the robot alone, x y z of both corners in metres")
            )
        found += [
            warning("settings", text, f"change {name}, or the other")
            for name, text in doubts_about(self.config).items()
        ]
        if self._looks.keyframes and not self._looks.usable:
            text = f"no map update would be made: no frame is usable, {self._looks.cause}"
            return [*found, problem("map", text, "solve the problems above")]
        return [*found, check_keyframes(self.intake, self.keyframes)]

    def _look(self, ready: Sequence[RawKeyframe]) -> None:
        self.keyframes += len(ready)
        for raw in ready:
            self._looks.hear(self._witnesses.looks(raw.stamp_ns, self.intake))
            self._looks.take(raw, self.intake.map_frame, self.config.sync.min_cameras)

    def _note_statics(self, cdr: bytes) -> None:
        try:
            frames = {transform.source_frame for transform in decode_tf(cdr, [])} - self._static_frames
        except MessageError:
            return
        self._static_frames |= frames
        self._first_ns = self._first_ns or self.intake.newest_ns
        late_s = (self.intake.newest_ns - self._first_ns) * 1e-9
        if late_s > LATE_S:
            self.late_statics_s |= dict.fromkeys(frames, late_s)

    def _note(self, name: str, sensor: SensorStream, cdr: bytes, now_ns: int | None) -> None:
        record = self.records[name]
        record.first = record.first or bytes(cdr)
        try:
            header = peek_header(cdr)
        except MessageError:
            return
        record.frame_id, record.last = header.frame_id, bytes(cdr)
        self._first_ns = self._first_ns or header.stamp_ns
        record.stamps_ns.append(header.stamp_ns + sensor.time_offset_ns)
        record.lags_s.append((self.intake.newest_ns - record.stamps_ns[-1]) * 1e-9)
        if now_ns is not None:
            record.ages_s.append((now_ns - record.stamps_ns[-1]) * 1e-9)


def find_sensors(
    config: Config,
    topics: Mapping[str, str],
    encodings: Mapping[str, str] | None = None,
    silent: Collection[str] = (),
) -> tuple[tuple[SensorStream, ...], list[Finding]]:
    """The sensors that the node would take, and what is wrong with those that it would not find."""
    if not config.cameras:
        sensors = discover_sensors(config, topics, encodings, silent)
        findings = [_left_out(topic) for topic in left_out_cameras(config, topics, encodings, silent)]
        return sensors, findings + _too_few(config, sensors) if sensors else [_no_sensors(config, topics)]
    found: list[SensorStream] = []
    findings = []
    alone = replace(config.sync, min_cameras=0)
    for name, camera in config.cameras.items():  # one by one, so that one missing camera does not hide the others
        try:
            found += discover_sensors(replace(config, cameras={name: camera}, sync=alone), topics, encodings, silent)
        except ConfigError as error:
            findings.append(problem(name, str(error), f"set cameras.{name}.image_topic, or start its driver"))
    return tuple(found), findings


def examine_bag(path: Path, config: Config, seconds: float, further: FurtherDecoders = OWN_ONLY) -> list[Finding]:
    """All findings about the first ``seconds`` of a bag."""
    findings = [check_model(config)]
    try:
        with BagReader(path) as reader:
            found = _bag_findings(reader, config, seconds, further)
            findings = [*findings, *_what_is_lost(reader), *found]
    except BagError as error:
        return [*findings, problem("bag", str(error), error.advice or "record it again")]
    return findings + _calibration_findings(path, config, seconds)


def _what_is_lost(reader: BagReader) -> list[Finding]:
    """What of a bag cannot be read."""
    damages = [warning("bag", text, "what could be read is used; mind what is missing") for text in reader.warnings]
    return damages + [
        warning("bag", f"{topic} cannot be read: {why}", "record it as CDR, if it is needed")
        for topic, why in reader.unreadable.items()
    ]


def _calibration_findings(path: Path, config: Config, seconds: float) -> list[Finding]:
    """Cameras whose pictures disagree with calibration, stamps or poses; nothing where that cannot be told."""
    if config.source != "network":
        return []
    try:
        found = calibrate_bag(path, config, part=BagPart(0.0, seconds))
    except OccupancyError:  # what is missing is among the other findings
        return []
    values = "occupancy-nn calibrate-cameras BAG --out DIR writes the values that fit; longer recordings tell more"
    odometry = "docs/odometry.md: how good odometry has to be, and what gives it"
    frame = (
        "compare the camera's mount in TF with the robot; cameras.{}.frame_id and image_topic name frame and pictures"
    )
    return [
        warning(
            item.camera,
            item.text(),
            frame.format(item.camera) if item.contradiction else values if item.is_wrong else odometry,
        )
        for item in found
        if item.contradiction or item.is_wrong or item.is_unexplained
    ]


def _bag_findings(reader: BagReader, config: Config, seconds: float, further: FurtherDecoders) -> list[Finding]:
    scan, config = scan_bag(reader), absolute_names(config)
    sensors, findings = find_sensors(config, scan.topics, scan.encodings, scan.silent)
    if not sensors:
        return findings
    config = name_pose_type(name_tf_topics(config, scan.topics, sensors), scan.topics)
    witnesses = find_witnesses(config, sensors, scan.topics)
    examination = Examination(config, sensors, odometry_topics(config, scan.topics), further, witnesses)
    hold_statics(reader, examination.intake)
    end_ns = reader.start_ns + round(seconds * 1e9)
    for message in reader.messages(set(examination.topics)):
        if message.stamp_ns > end_ns:
            break
        examination.receive(message.topic, message.cdr)

    def why_silent(topic: str, msgtype: str) -> str:
        if topic in scan.topics and topic in reader.topics:
            return f"the bag has {reader.topics[topic].count} messages of it, none in its first {seconds:g} s"
        close = ", ".join(close_topics(topic, scan.topics, [msgtype]))
        return f"it is not in the bag; topics of its type: {close or 'none'}"

    return findings + examination.findings(scan.topics, why_silent)


def _too_few(config: Config, sensors: Sequence[SensorStream]) -> list[Finding]:
    try:
        check_enough(config.sync.min_cameras, [sensor.name for sensor in sensors])
    except ConfigError as error:
        return [problem("sensors", str(error), "start the drivers of the others, or set sync.min_cameras to as many")]
    return []


def _left_out(topic: str) -> Finding:
    return warning(
        "sensors",
        f"{topic} is left out: no camera_info beside it, as other cameras have",
        "publish its calibration, or name the cameras and their camera_info_topic",
    )


def _no_sensors(config: Config, topics: Mapping[str, str]) -> Finding:
    kinds = wanted_types(config.source)
    there = ", ".join(sorted(name for name, msgtype in topics.items() if msgtype in kinds))
    return problem(
        "sensors",
        f"no topic looks like a sensor for source '{config.source}'; topics of its types: {there or 'none'}",
        "start the drivers, or name one: --set cameras.front.image_topic=/...",
    )
