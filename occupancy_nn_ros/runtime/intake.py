# SPDX-License-Identifier: Apache-2.0
"""Message bytes in, posed but undecoded keyframes out.

Only headers, camera_info and transforms are decoded here, so that this is cheap enough for the thread that receives messages. All
waiting is measured by the sensors' own stamps: a live run and a replay of it choose the same keyframes, and no transform from
another clock ends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import (
    CalibrationError,
    ExtrapolationError,
    LookupTransformError,
    MessageError,
    OversizedError,
    TransformError,
)
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.names import CAMERA_INFO
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.doubts import ALL_BACK
from occupancy_nn_ros.runtime.drop_counts import DropCounts, kind_of
from occupancy_nn_ros.runtime.intrinsics import Intrinsics
from occupancy_nn_ros.runtime.pose_intake import PoseIntake
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.set_placing import SetPlacer
from occupancy_nn_ros.runtime.shared_frames import SharedFrames
from occupancy_nn_ros.runtime.video_log import VideoLog
from occupancy_nn_ros.runtime.waiting_sets import QueuedFrame, Waiting, WaitingSets
from occupancy_nn_ros.sync.frame_names import FrameNames
from occupancy_nn_ros.sync.frame_sync import DEAD_NS, FrameSync
from occupancy_nn_ros.sync.keyframes import KeyframePolicy
from occupancy_nn_ros.sync.newest_stamps import NewestStamps
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import CameraModel

MAX_MESSAGE_BYTES = 64 << 20
"""A colour image of 20 megapixels. Frames wait undecoded, so that this bounds the memory they take."""

LEFT_OUT = "has the frame of another camera"
LEAST_QUEUE = 2
"""Frames of each sensor that may wait, however large they are: with fewer, none would be matched."""

START_WAIT_NS = 8_000_000_000
"""Before the first keyframe a set waits this long for what has not come at all: mounts, odometry, intrinsics start late."""

LONGEST_DELAY_NS = 8_000_000_000
"""Transforms that come regularly, but late, are waited for up to this."""


class Intake:
    """Collects messages, matches frames, finds their poses and picks keyframes.

    Not thread-safe: the thread that receives messages owns it.

    Attributes:
        intrinsics: the sensors' camera_info.
        shared: cameras that have one frame.
        received: messages of each sensor so far.
        heard: topics that brought a message.
        sets, placed: frame sets that were matched so far, and those of them whose poses were found.
        lost_early, unfinished: sets that were given up before the first keyframe, and at the end of a recording.
        poses: takes what places things.
        losses: what was not used.
        time_jumps: how often time was turned back.
    """

    def __init__(
        self,
        config: Config,
        sensors: Sequence[SensorStream],
        poses: PoseBuffer | None = None,
        odometries: Sequence[str] = (),
    ) -> None:
        """Expect these sensors.

        Args:
            config: all settings.
            sensors: where the data comes from.
            poses: the transform tree, an own one if None.
            odometries: topics that may place the robot where TF does not.
        """
        self.config, self.losses = config, DropCounts()
        self.sensors = {sensor.name: sensor for sensor in sensors}
        buffer = poses or PoseBuffer(round(config.sync.tf_cache_s * 1e9))
        self.poses = PoseIntake(config, buffer, odometries, self.losses)
        self.placement = self.poses.placement
        self.frames: FrameSync[QueuedFrame] = FrameSync(list(self.sensors), config.sync)
        self.keyframes = KeyframePolicy(config.keyframes)
        self.intrinsics = Intrinsics(sensors)
        self.shared = SharedFrames(sensors, self.intrinsics)
        self.received: Counter[str] = Counter(dict.fromkeys(self.sensors, 0))
        self.heard: set[str] = set()
        self.sets = self.placed = self.lost_early = self.unfinished = self.time_jumps = 0
        self._stamps = NewestStamps()
        self._video = VideoLog()
        self._placer = SetPlacer(self.sensors, self.intrinsics, self.shared, self.placement)
        self._most_bytes, self._largest = config.sync.queue_mib << 20, 1
        self._waiting = WaitingSets(self._most_bytes)
        self._living = self.frames.living
        self._max_wait_ns = round(config.sync.max_wait_s * 1e9)
        self._by_topic = {sensor.topic: sensor for sensor in sensors}

    @property
    def frame_names(self) -> FrameNames | None:
        """The frames that are mapped with, None before the first keyframe."""
        return self.placement.names

    @property
    def map_frame(self) -> str:
        """Name of the map frame: the configured one until transforms tell better."""
        return self.frame_names.map_frame if self.frame_names is not None else self.config.map_frame

    @property
    def newest_ns(self) -> int:
        """Newest stamp of any sensor, 0 before the first."""
        return self._stamps.newest_ns

    @property
    def problems(self) -> dict[str, str]:
        """The latest message of each kind of trouble, worded for people."""
        return self.losses.problems

    @property
    def topics(self) -> dict[str, str]:
        """Every topic to listen to, with its message type."""
        topics = {sensor.topic: sensor.msgtype for sensor in self.sensors.values()}
        return topics | dict.fromkeys(self.intrinsics.topics, CAMERA_INFO) | self.poses.topics

    @property
    def dropped(self) -> Counter[str]:
        """How many frames, sets and messages were not used, by reason."""
        total = Counter(self.losses.counts)
        for (sensor, reason), count in self.frames.discarded.items():
            total[f"{sensor}: {reason}"] += count
        return total

    def model_of(self, sensor: str) -> CameraModel | None:
        """A sensor's intrinsics, None before usable ones came."""
        return self.intrinsics.models.get(sensor)

    def receive(self, topic: str, cdr: bytes) -> list[RawKeyframe]:
        """Take one message; returns the keyframes that are ready now, oldest first. Bad messages are counted, never raised."""
        self.heard.add(topic)
        try:
            if len(cdr) > MAX_MESSAGE_BYTES:
                raise OversizedError(f"message of {len(cdr)} bytes, expected at most {MAX_MESSAGE_BYTES}")
            if topic in self.poses.topics:
                self.poses.receive(topic, cdr)
            elif topic in self.intrinsics.topics:
                self._note_shared(self.intrinsics.receive(topic, cdr, self.newest_ns))
                self.problems.update({f"{name}: camera_info": text for name, text in self.intrinsics.doubts.items()})
            elif topic in self._by_topic:
                self._take_frame(self._by_topic[topic], cdr)
        except (MessageError, TransformError, CalibrationError) as error:
            self.losses.add(f"{topic}: {kind_of(error)}", f"{topic}: {error}")
        return self.retry()

    def retry(self) -> list[RawKeyframe]:
        """The keyframes that are ready now, as after transforms that came another way."""
        ready = []
        while self._waiting:
            oldest = self._waiting.oldest
            try:
                keyframe = self._place(oldest)
            except (LookupTransformError, CalibrationError) as error:
                self.problems["transform"] = str(error)
                if self.newest_ns - oldest.stamp_ns <= self._wait_ns(error):
                    break
                keyframe = self._place_what_is_left(oldest, error)
            self._waiting.pop()
            if keyframe is not None:
                ready.append(keyframe)
        return ready

    def flush(self) -> list[RawKeyframe]:
        """The keyframes that can still be made of what waits, as at the end of a recording."""
        self.placement.end_waiting()
        self._queue(self.frames.flush())
        ready = self.retry()
        while self._waiting:
            ready += self._place_at_end(self._waiting.pop()) + self.retry()
        return ready

    def reset(self, reason: str, now_ns: int) -> None:
        """Forget moving transforms and waiting frames, as after a jump back in time to ``now_ns``."""
        self.placement.rewind(now_ns)
        self.frames.reset(reason)
        while self._waiting:
            self.losses.counts[reason] += len(self._waiting.pop().items)
        self.keyframes.reset()
        self._stamps.clear()

    def reconfigure(self, config: Config) -> None:
        """Take settings that may change while running."""
        self.config = config
        self.keyframes.config = config.keyframes

    def silent_topics(self) -> dict[str, str]:
        """Topics that a map needs and that brought nothing usable yet, each with what is missing, worded for people."""
        missing = {}
        for name, sensor in self.sensors.items():
            if not self.received[name]:
                missing[sensor.topic] = f"no message on {sensor.topic} ({name})"
            elif self.intrinsics.is_missing(sensor):
                unusable = self.problems.get(f"{sensor.info_topic}: no usable camera_info")
                missing[sensor.info_topic] = unusable or f"no camera_info on {sensor.info_topic} ({name})"
        if self.config.pose_topic and self.config.pose_topic not in self.heard:
            missing[self.config.pose_topic] = f"no message on {self.config.pose_topic} (pose)"
        return missing

    def waiting_for(self) -> list[str]:
        """What is missing before there can be a map, worded for people; empty if nothing is."""
        missing = list(self.silent_topics().values())
        if not missing and self._waiting:
            missing.append(self.problems.get("transform", "no transform yet"))
        return missing

    def clock_gaps(self) -> list[str]:
        """Stamps of sensors that lie too far apart to be of one clock, worded for people.

        A sensor that has stopped lags behind too: this means something only while all of them send.
        """
        names = {topic: s.name for topic, s in self._by_topic.items() if s.name not in self.shared.left_out}
        gap = self._stamps.gap(names, self._max_wait_ns)
        return [gap] if gap else []

    def _take_frame(self, sensor: SensorStream, cdr: bytes) -> None:
        header = peek_header(cdr)
        self.received[sensor.name] += 1
        frame_id = sensor.frame_id or header.frame_id
        self._note_shared(self.shared.note(sensor.name, frame_id))
        if sensor.name in self.shared.left_out:
            self.losses.counts[f"{sensor.name}: {LEFT_OUT}"] += 1
            return
        self._video.add(sensor, cdr)
        if len(cdr) > self._largest:
            self._largest = len(cdr)
            fitting = self._most_bytes // (self._largest * len(self.sensors))
            self.frames.queue = max(LEAST_QUEUE, min(self.config.sync.queue, fitting))
        if not header.stamp_ns:
            self.problems[f"{sensor.name}: stamp"] = (
                f"{sensor.topic}: stamps are zero, expected when the data was taken (header.stamp)"
            )
        stamp = header.stamp_ns + sensor.time_offset_ns
        self._advance(sensor.topic, stamp)
        self._queue(self.frames.add(sensor.name, stamp, QueuedFrame(cdr, frame_id)))
        if self.frames.living != self._living:
            self._note_living(self.frames.living)

    def _note_shared(self, is_news: bool) -> None:
        """Leave out what has another camera's frame, if something has changed."""
        for name in self.shared.look() if is_news else ():
            self.problems[f"{name}: {LEFT_OUT}"] = self.shared.left_out[name]
            self._queue(self.frames.leave_out(name, LEFT_OUT))
            self._living = self.frames.living

    def _note_living(self, living: tuple[str, ...]) -> None:
        """Tell which cameras have died, and which are back."""
        self._living, needed = living, self.config.sync.min_cameras
        missing = self.sensors.keys() - {*living} - self.shared.left_out.keys()
        dead = [f"'{name}' ({sensor.topic})" for name, sensor in self.sensors.items() if name in missing]
        then = f"sets need {needed} cameras" if needed else "mapping without"
        text = f"nothing from {', '.join(dead)} for {DEAD_NS * 1e-9:.0f} s: {then}"
        self.problems["dead"] = text if dead else ALL_BACK

    def _advance(self, topic: str, stamp_ns: int) -> None:
        """Note how far time has come; a sensor whose stamps jump back clears what belongs to the time before."""
        before = self._stamps.jumped_back_from(topic, stamp_ns)
        if before is not None:
            self.time_jumps += 1
            self.problems["time"] = (
                f"time jumped back from {before * 1e-9:.3f} to {stamp_ns * 1e-9:.3f} s on {topic}: buffers cleared"
            )
            self.reset("time jumped back", stamp_ns)
        if back_ns := self._stamps.stepped_back(topic, stamp_ns):
            self.problems[f"{topic}: clock"] = (
                f"stamps on {topic} went back by {back_ns * 1e-9:.2f} s: its clock was set, and poses of another no longer fit it"
            )
        self._stamps.add(topic, stamp_ns)
        self.placement.advance(self.newest_ns)

    def _queue(self, sets: Sequence[Waiting]) -> None:
        self.sets += len(sets)
        for lost in self._waiting.add(sets):
            self._drop_set(lost, "too many sets wait for transforms", "too many frame sets wait for transforms")

    def _wait_ns(self, error: Exception) -> int:
        """How much sensor time may pass before a set without a pose is given up."""
        if isinstance(error, ExtrapolationError):
            return self._max_wait_ns + min(error.delay_ns, LONGEST_DELAY_NS) if error.is_future else -1
        return self._max_wait_ns if self.frame_names is not None else max(self._max_wait_ns, START_WAIT_NS)

    def _place(self, frames: Waiting, *, is_last: bool = False) -> RawKeyframe | None:
        """The set with poses, or None if it is no keyframe.

        Raises:
            LookupTransformError: a pose is not known (yet).
            CalibrationError: a camera's intrinsics are not known (yet).
        """
        placed = self._placer.place(frames, self._video, is_last=is_last)
        names, T_map_base, needed = placed.names, placed.T_map_base, self.config.sync.min_cameras
        for name, error in placed.lost.items():
            if len(placed.frames) < min(needed, len(frames.items)):
                raise error
            self.losses.add(f"{name}: {kind_of(error)}", f"{name} is left out: {error}")
        self.placed += 1
        if not self.keyframes.is_keyframe(frames.stamp_ns, T_map_base):
            return None
        self.placement.settle(names)
        if doubt := self.placement.doubt(names):
            self.problems["frames"] = doubt
        seen_from = [frame.frame_id for frame in placed.frames]
        if disagreement := self.placement.disagreement(names, seen_from):
            self.problems.setdefault("poses that jump", disagreement)
        if strangers := self.placement.strangers(names, seen_from):
            self.problems["other bodies"] = strangers
        self.keyframes.accept(frames.stamp_ns, T_map_base)
        return RawKeyframe(frames.stamp_ns, np.asarray(T_map_base), placed.frames, self.newest_ns)

    def _place_at_end(self, frames: Waiting) -> list[RawKeyframe]:
        """Nothing more will come: the keyframe of a set that still waits, with the sensors that can be placed."""
        try:
            keyframe = self._place(frames, is_last=True)
        except (LookupTransformError, CalibrationError):
            self.unfinished += 1
            missing = self.problems.get("transform", "no transform")
            self._drop_set(frames, "end of recording", f"the recording ended, still missing: {missing}")
            return []
        return [] if keyframe is None else [keyframe]

    def _place_what_is_left(self, frames: Waiting, error: Exception) -> RawKeyframe | None:
        """A set that has waited long enough, without the sensors that cannot be placed; None if it is dropped, or no keyframe."""
        try:
            return self._place(frames, is_last=True)
        except (LookupTransformError, CalibrationError):
            text = f"frame set at {frames.stamp_ns * 1e-9:.3f} s: {error}"
            self._drop_set(frames, kind_of(error), text)
            return None

    def _drop_set(self, frames: Waiting, reason: str, text: str) -> None:
        self.lost_early += self.frame_names is None
        self.losses.add(reason, text, len(frames.items))
