# SPDX-License-Identifier: Apache-2.0
"""Labels of keyframes by what a LiDAR or depth camera of the same recording measured."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import cast

import numpy as np

from occupancy_nn_ros.bags.reader import BagMessage, BagReader
from occupancy_nn_ros.bags.scan import scan_bag
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError, CalibrationError, ImplausibleError, MessageError
from occupancy_nn_ros.jobs.run import Report
from occupancy_nn_ros.labelling.frames import FrameMaker, ShardWriter
from occupancy_nn_ros.labelling.left_out import LeftOut
from occupancy_nn_ros.labelling.plan import BagLabels, LabelPlan
from occupancy_nn_ros.labelling.space_votes import Scan, SpaceVotes
from occupancy_nn_ros.runtime.decoding import decode_cloud_frame, decode_depth_frame, decode_image_frame
from occupancy_nn_ros.runtime.discovery import SensorStream, discover_sensors
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.plausibility import Plausibility
from occupancy_nn_ros.runtime.player import plan_play
from occupancy_nn_ros.runtime.pose_topics import hold_statics
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.training.shards import MOST_VIEWS
from occupancy_nn_ros.values import Keyframe, PosedImage

MOMENT_NS = 150_000_000
"""A scan this near in time to a keyframe tells of its moment."""

NEAREST_CLOUD_M = 0.5
"""LiDAR points nearer than this are the robot itself."""

FIRST_PASS = 0.4
"""Share of the work that gathering the votes is, about."""


class RangeLabeller:
    """Goes through one bag twice: first to learn what space is like, then to label keyframes with it."""

    def __init__(self, reader: BagReader, plan: LabelPlan, report: Report) -> None:
        """Find sensors and frames.

        Raises:
            BagError: no cameras, or no range sensor.
        """
        self.reader, self.plan, self.report = reader, plan, report
        found = plan_play(reader, replace(plan.config, source="network"))
        self.config, self.odometries = found.config, found.odometries
        self.cameras = tuple(s for s in found.sensors if s.kind == "image")
        self.ranges = tuple(s for s in found.sensors if s.kind != "image") or _range_sensors(reader, self.config)
        if not 1 <= len(self.cameras) <= MOST_VIEWS:
            raise BagError(f"{reader.path} has {len(self.cameras)} cameras, expected 1 to {MOST_VIEWS}")
        if not self.ranges:
            topics = ", ".join(sorted(f"{topic} ({info.msgtype})" for topic, info in reader.topics.items()))
            raise BagError(
                f"{reader.path} has no range sensor, expected depth images or point clouds; it has: {topics}",
                advice="--from cameras makes labels of the pictures alone",
            )
        self.left_out, self.plausibility = LeftOut(), Plausibility()

    def run(self, writer: ShardWriter) -> BagLabels:
        """Write the shards.

        Raises:
            BagError: no scan or fewer than two keyframes can be used; says why.
        """
        votes = self._gather_votes()
        maker = FrameMaker(self.config.voxel_size_m, self.plan.scale, zlib.crc32(self.reader.path.stem.encode()))
        for raw, near in self._moments():
            found = (self._decode_scan(frame) for frame in near)
            scans = [self.plausibility.without_ends(scan) for scan in found if scan is not None]
            images = self._decode_images(raw)
            if not scans:
                self.left_out.drop(
                    "keyframe without a range scan", f"no scan lies within {MOMENT_NS * 1e-9:g} s of a keyframe"
                )
            elif len(raw.frames) < len(self.cameras):
                self.left_out.drop("keyframe without all cameras", "a camera stopped")
            elif images:
                keyframe = Keyframe(raw.stamp_ns, raw.T_map_base, images)
                writer.add(maker.make(keyframe, scans, votes.settle(scans, raw.T_map_base)))
        return self.left_out.labels(writer, self.reader.path)

    def _gather_votes(self) -> SpaceVotes:
        """What space is like by the sensors that can be believed; begun anew without one that turns out to measure no metres."""
        votes, balance = SpaceVotes(self.config.voxel_size_m, self.config.map), Counter[str]()
        self.plausibility = Plausibility()
        for raw in self._scans_in_order():
            (frame,) = raw.frames
            scan, name = self._decode_scan(frame), frame.sensor.name
            if scan is None:
                continue
            try:
                scan = cast(Scan, self.plausibility.check(raw.T_map_base, self.config.map_frame, frame, scan))
            except ImplausibleError as error:
                self.left_out.drop(f"{name}: {error.reason}", str(error))
                balance[name] -= 1
                if error.spoils_map:
                    self.ranges = tuple(sensor for sensor in self.ranges if sensor.name != name)
                    return self._gather_votes()
                continue
            votes.add(scan, raw.T_map_base)
            balance[name] += 1
        self.ranges = tuple(sensor for sensor in self.ranges if balance[sensor.name] > 0)
        if not self.ranges:
            raise BagError(f"no range scan of {self.reader.path} can be used; {self.left_out.problem}")
        return votes

    def _scans_in_order(self) -> Iterator[RawKeyframe]:
        """Every scan of every range sensor with its pose."""
        intakes = [self._range_intake(sensor) for sensor in self.ranges]
        hold_statics(self.reader, *intakes)
        for message in self._messages({topic for intake in intakes for topic in intake.topics}, 0.0, FIRST_PASS):
            for intake in intakes:
                if message.topic in intake.topics:
                    yield from intake.receive(message.topic, message.cdr)
        for intake in intakes:
            yield from intake.flush()
            self.left_out.note(intake)

    def _moments(self) -> Iterator[tuple[RawKeyframe, list[RawFrame]]]:
        """Keyframes of the cameras, each with the scan of every range sensor that is nearest in time, if near enough."""
        cameras = Intake(self.config, self.cameras, odometries=self.odometries)
        ranges = [self._range_intake(sensor) for sensor in self.ranges]
        hold_statics(self.reader, cameras, *ranges)
        recent: list[deque[RawFrame]] = [deque() for _ in ranges]
        waiting: deque[RawKeyframe] = deque()
        topics = {topic for intake in (cameras, *ranges) for topic in intake.topics}
        for message in self._messages(topics, FIRST_PASS, 1.0):
            if message.topic in cameras.topics:
                waiting.extend(cameras.receive(message.topic, message.cdr))
            for intake, frames in zip(ranges, recent, strict=True):
                if message.topic in intake.topics:
                    frames.extend(raw.frames[0] for raw in intake.receive(message.topic, message.cdr))
            wait_ns = MOMENT_NS + round(self.config.sync.max_wait_s * 1e9)
            while waiting and cameras.newest_ns - waiting[0].stamp_ns > wait_ns:
                raw = waiting.popleft()
                yield raw, _nearest(recent, raw.stamp_ns)
        waiting.extend(cameras.flush())
        for intake, frames in zip(ranges, recent, strict=True):
            frames.extend(raw.frames[0] for raw in intake.flush())
        for raw in waiting:
            yield raw, _nearest(recent, raw.stamp_ns)
        self.left_out.note(cameras)

    def _messages(self, topics: Collection[str], done: float, until: float) -> Iterator[BagMessage]:
        """Messages of these topics, as far as the recording has them; reports progress from ``done`` to ``until``."""
        start_ns, length_s = self.reader.start_ns, max(1e-3, min(self.reader.duration_s, self.plan.part.end_s))
        for message in self.reader.messages(topics & self.reader.topics.keys()):
            self.report(done + (until - done) * min(1.0, (message.stamp_ns - start_ns) * 1e-9 / length_s))
            yield message

    def _range_intake(self, sensor: SensorStream) -> Intake:
        every = replace(self.config.keyframes, min_period_s=0.0, max_period_s=0.0)
        return Intake(replace(self.config, keyframes=every), [sensor], odometries=self.odometries)

    def _decode_scan(self, frame: RawFrame) -> Scan | None:
        try:
            if frame.model is not None:
                return decode_depth_frame(frame)
            cloud = decode_cloud_frame(frame)
            far = np.linalg.norm(cloud.points_m, axis=1) >= NEAREST_CLOUD_M
            return replace(cloud, points_m=cloud.points_m[far])
        except (MessageError, CalibrationError) as error:
            self.left_out.drop(f"{frame.sensor.name}: scan does not decode", str(error))
            return None

    def _decode_images(self, raw: RawKeyframe) -> tuple[PosedImage, ...] | None:
        try:
            return tuple(decode_image_frame(frame) for frame in raw.frames)
        except MessageError as error:
            self.left_out.drop("keyframe with a picture that does not decode", str(error))
            return None


def _range_sensors(reader: BagReader, config: Config) -> tuple[SensorStream, ...]:
    """All depth cameras and LiDARs that the bag has."""
    scan = scan_bag(reader)
    found = [
        discover_sensors(replace(config, source=source, cameras={}), scan.topics, scan.encodings, scan.silent)
        for source in ("depth", "lidar")
    ]
    return found[0] + found[1]


def _nearest(recent: list[deque[RawFrame]], stamp_ns: int) -> list[RawFrame]:
    """Of each sensor's recent scans the nearest in time, if near enough; forgets those that are too old for later."""
    near = []
    for frames in recent:
        while frames and frames[0].stamp_ns < stamp_ns - MOMENT_NS:
            frames.popleft()
        best = min(frames, key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        if best is not None and abs(best.stamp_ns - stamp_ns) <= MOMENT_NS:
            near.append(best)
    return near
