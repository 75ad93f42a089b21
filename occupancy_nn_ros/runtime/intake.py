# SPDX-License-Identifier: Apache-2.0
"""Message bytes in, posed but undecoded keyframes out.

Only headers, camera_info and transforms are decoded here, so that this is cheap enough for the thread that receives messages. All
waiting is measured in message time: a live run and a replay of it choose the same keyframes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

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
from occupancy_nn_ros.geometry.cameras import check_camera
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_odometry, decode_pose_stamped, decode_tf
from occupancy_nn_ros.messages.headers import STAMP_END, peek_header
from occupancy_nn_ros.messages.names import CAMERA_INFO, POSE_STAMPED, TF_MESSAGE, TF_TOPICS
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.video_log import VideoLog
from occupancy_nn_ros.sync.frame_names import FrameNames, choose_frames
from occupancy_nn_ros.sync.frame_sync import DEAD_NS, FrameSet, FrameSync
from occupancy_nn_ros.sync.keyframes import KeyframePolicy
from occupancy_nn_ros.sync.newest_stamps import NewestStamps
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import CameraModel, FloatArray, StampedTransform

MAX_MESSAGE_BYTES = 64 << 20
"""A colour image of 20 megapixels. Frames wait undecoded, so that this bounds the memory they take."""

MAX_WAITING_SETS = 256


@dataclass(frozen=True)
class RawFrame:
    """One sensor's message with all that is needed to decode and place it.

    Attributes:
        sensor: where it came from.
        stamp_ns: acquisition time, offset applied.
        frame_id: the sensor's frame, as configured or as the message says.
        cdr: the message.
        model: intrinsics, None for a LiDAR.
        T_map_sensor: (4, 4) pose at the stamp.
        earlier: messages that a packet of video needs before it, None if they are not known.
    """

    sensor: SensorStream
    stamp_ns: int
    frame_id: str
    cdr: bytes
    model: CameraModel | None
    T_map_sensor: FloatArray
    earlier: tuple[bytes, ...] | None = ()


@dataclass(frozen=True)
class RawKeyframe:
    """A frame set that is worth a map update, not yet decoded.

    Attributes:
        stamp_ns: stamp of the newest frame.
        T_map_base: (4, 4) robot pose at that stamp.
        frames: the sensors' frames.
    """

    stamp_ns: int
    T_map_base: FloatArray
    frames: tuple[RawFrame, ...]


@dataclass(frozen=True)
class _Frame:
    cdr: bytes
    frame_id: str


class Intake:
    """Collects messages, matches frames, finds their poses and picks keyframes.

    Not thread-safe: the thread that receives messages owns it.

    Attributes:
        received: messages of each sensor so far.
        heard: topics that brought a message.
        dropped: frames, sets and messages that were not used, by reason.
        problems: the latest message of each kind of trouble, worded for people.
        frame_names: the map's and the robot's frame, once the transforms have told.
        time_jumps: how often time was turned back.
        info_frames: frame in each sensor's camera_info, which holds where an image names none.
    """

    def __init__(self, config: Config, sensors: Sequence[SensorStream], poses: PoseBuffer | None = None) -> None:
        """Expect these sensors."""
        self.config, self.sensors = config, {sensor.name: sensor for sensor in sensors}
        self.poses = poses or PoseBuffer(round(config.sync.tf_cache_s * 1e9))
        self.frames: FrameSync[_Frame] = FrameSync(list(self.sensors), config.sync)
        self.keyframes = KeyframePolicy(config.keyframes)
        self.received: Counter[str] = Counter(dict.fromkeys(self.sensors, 0))
        self.heard: set[str] = set()
        self.problems: dict[str, str] = {}
        self.time_jumps = 0
        self.frame_names: FrameNames | None = None
        self._stamps = NewestStamps()
        self._models: dict[str, CameraModel] = {}
        self._infos: dict[str, bytes] = {}
        self.info_frames: dict[str, str] = {}
        self._video = VideoLog()
        self._waiting: deque[FrameSet[_Frame]] = deque()
        self._living = self.frames.living
        self._max_wait_ns = round(config.sync.max_wait_s * 1e9)
        self._by_topic = {sensor.topic: sensor for sensor in sensors}
        self._by_info_topic: dict[str, list[SensorStream]] = {}
        for sensor in sensors:
            if sensor.info_topic:
                self._by_info_topic.setdefault(sensor.info_topic, []).append(sensor)
        self._own_drops: Counter[str] = Counter()

    @property
    def map_frame(self) -> str:
        """Name of the map frame: the configured one until transforms tell better."""
        return self.frame_names.map_frame if self.frame_names is not None else self.config.map_frame

    @property
    def newest_ns(self) -> int:
        """Newest stamp of any sensor or transform, 0 before the first."""
        return self._stamps.newest_ns

    @property
    def topics(self) -> dict[str, str]:
        """Every topic to listen to, with its message type."""
        topics = {sensor.topic: sensor.msgtype for sensor in self.sensors.values()}
        topics |= dict.fromkeys(self._by_info_topic, CAMERA_INFO)
        topics |= dict.fromkeys(TF_TOPICS, TF_MESSAGE)
        if self.config.pose_topic:
            topics[self.config.pose_topic] = self.config.pose_type
        return topics

    @property
    def dropped(self) -> Counter[str]:
        """How many frames, sets and messages were not used, by reason."""
        total = Counter(self._own_drops)
        for (sensor, reason), count in self.frames.discarded.items():
            total[f"{sensor}: {reason}"] += count
        return total

    def model_of(self, sensor: str) -> CameraModel | None:
        """A sensor's intrinsics, None before usable ones came."""
        return self._models.get(sensor)

    def receive(self, topic: str, cdr: bytes) -> list[RawKeyframe]:
        """Take one message; returns the keyframes that are ready now, oldest first. Bad messages are counted, never raised."""
        self.heard.add(topic)
        try:
            if len(cdr) > MAX_MESSAGE_BYTES:
                raise OversizedError(f"message of {len(cdr)} bytes, expected at most {MAX_MESSAGE_BYTES}")
            if topic in TF_TOPICS:
                self._take_transforms(decode_tf(cdr), is_static=TF_TOPICS[topic])
            elif topic == self.config.pose_topic:
                self._take_pose(cdr)
            elif topic in self._by_info_topic:
                self._take_camera_info(topic, cdr)
            elif topic in self._by_topic:
                self._take_frame(self._by_topic[topic], cdr)
        except (MessageError, TransformError, CalibrationError) as error:
            self._drop(f"{topic}: {_kind(error)}", f"{topic}: {error}")
        return self._ready_keyframes()

    def flush(self) -> list[RawKeyframe]:
        """The keyframes that can still be made of what waits, as at the end of a recording."""
        self._queue(self.frames.flush())
        ready = self._ready_keyframes()
        while self._waiting:
            missing = self.problems.get("transform", "no transform")
            self._drop_set(
                self._waiting.popleft(), "end of recording", f"the recording ended, still missing: {missing}"
            )
            ready += self._ready_keyframes()
        return ready

    def reset(self, reason: str) -> None:
        """Forget moving transforms and waiting frames, as after a jump back in time."""
        self.poses.clear()
        self.frames.reset(reason)
        for waiting in self._waiting:
            self._own_drops[reason] += len(waiting.items)
        self._waiting.clear()
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
            elif sensor.info_topic and name not in self._models:
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
        apart = self._stamps.furthest_apart(self._by_topic)
        if apart is None:
            return []
        behind, ahead, gap_ns = apart
        if gap_ns <= self._max_wait_ns:
            return []
        return [
            f"stamps of '{self._by_topic[ahead].name}' are {gap_ns * 1e-9:.1f} s ahead of those of "
            f"'{self._by_topic[behind].name}': synchronise their clocks, or set time_offset_s of one of them"
        ]

    def _take_transforms(self, transforms: Sequence[StampedTransform], *, is_static: bool) -> None:
        for transform in transforms:
            if not is_static:
                self._advance(transform.source_frame, transform.stamp_ns)
            self.poses.set_transform(transform, is_static=is_static)

    def _take_pose(self, cdr: bytes) -> None:
        if self.config.pose_type == POSE_STAMPED:
            header, T_map_base = decode_pose_stamped(cdr)
            transform = StampedTransform(header.stamp_ns, header.frame_id, self.config.base_frame, T_map_base)
        else:
            transform = decode_odometry(cdr)
        self._take_transforms([transform], is_static=False)

    def _take_camera_info(self, topic: str, cdr: bytes) -> None:
        body = cdr[STAMP_END:]
        if self._infos.get(topic) == body:  # as it nearly always is
            return
        for sensor in self._by_info_topic[topic]:
            header, model = decode_camera_info(cdr, is_rectified=sensor.is_rectified)
            check_camera(model)
            self._models[sensor.name], self.info_frames[sensor.name] = model, header.frame_id
        self._infos[topic] = body

    def _take_frame(self, sensor: SensorStream, cdr: bytes) -> None:
        header = peek_header(cdr)
        self._video.add(sensor, cdr)
        self.received[sensor.name] += 1
        stamp = header.stamp_ns + sensor.time_offset_ns
        self._advance(sensor.topic, stamp)
        self._queue(self.frames.add(sensor.name, stamp, _Frame(cdr, sensor.frame_id or header.frame_id)))
        if self.frames.living != self._living:
            self._note_living(self.frames.living)

    def _note_living(self, living: tuple[str, ...]) -> None:
        """Tell which cameras have died, and which are back."""
        self._living = living
        dead = [f"'{name}' ({sensor.topic})" for name, sensor in self.sensors.items() if name not in living]
        self.problems["dead"] = (
            f"nothing from {', '.join(dead)} for {DEAD_NS * 1e-9:.0f} s: "
            + (
                f"sets need {self.config.sync.min_cameras} cameras"
                if self.config.sync.min_cameras
                else "mapping without"
            )
            if dead
            else "all sensors are back"
        )

    def _advance(self, source: str, stamp_ns: int) -> None:
        """Note how far time has come; a source whose stamps jump back clears what belongs to the time before."""
        before = self._stamps.jumped_back_from(source, stamp_ns)
        if before is not None:
            self.time_jumps += 1
            self.problems["time"] = (
                f"time jumped back from {before * 1e-9:.3f} to {stamp_ns * 1e-9:.3f} s on {source}: buffers cleared"
            )
            self.reset("time jumped back")
        self._stamps.add(source, stamp_ns)

    def _queue(self, sets: Sequence[FrameSet[_Frame]]) -> None:
        self._waiting.extend(sets)
        while len(self._waiting) > MAX_WAITING_SETS:
            self._drop_set(
                self._waiting.popleft(), "too many sets wait for transforms", "too many frame sets wait for transforms"
            )

    def _ready_keyframes(self) -> list[RawKeyframe]:
        ready = []
        while self._waiting:
            oldest = self._waiting[0]
            try:
                keyframe = self._place(oldest)
            except (LookupTransformError, CalibrationError) as error:
                self.problems["transform"] = str(error)
                if self._may_still_come(error) and self.newest_ns - oldest.stamp_ns <= self._max_wait_ns:
                    break
                self._drop_set(
                    self._waiting.popleft(), _kind(error), f"frame set at {oldest.stamp_ns * 1e-9:.3f} s: {error}"
                )
                continue
            self._waiting.popleft()
            if keyframe is not None:
                ready.append(keyframe)
        return ready

    def _place(self, frames: FrameSet[_Frame]) -> RawKeyframe | None:
        """The set with poses, or None if it is no keyframe.

        Raises:
            LookupTransformError: a pose is not known (yet).
            CalibrationError: a camera's intrinsics are not known (yet).
        """
        names = self.frame_names or choose_frames(self.config, self.poses, next(iter(frames.items.values())).frame_id)
        T_map_base = self.poses.lookup(names.map_frame, names.base_frame, frames.stamp_ns)
        placed = []
        for name, frame in frames.items.items():
            sensor = self.sensors[name]
            frame_id = frame.frame_id or self.info_frames.get(name, "")  # as drivers leave out that of the image
            if sensor.info_topic and name not in self._models:
                raise CalibrationError(f"no camera_info of '{name}' on {sensor.info_topic}")
            stamp = frames.stamps_ns[name]
            pose = self.poses.lookup(names.map_frame, frame_id, stamp)
            placed.append(
                RawFrame(
                    sensor,
                    stamp,
                    frame_id,
                    frame.cdr,
                    self._models.get(name),
                    pose,
                    self._video.before(sensor, frame.cdr),
                )
            )
        self.frame_names = names
        if not self.keyframes.is_keyframe(frames.stamp_ns, T_map_base):
            return None
        self.keyframes.accept(frames.stamp_ns, T_map_base)
        return RawKeyframe(frames.stamp_ns, np.asarray(T_map_base), tuple(placed))

    def _may_still_come(self, error: Exception) -> bool:
        return not isinstance(error, ExtrapolationError) or error.is_future

    def _drop_set(self, frames: FrameSet[_Frame], reason: str, text: str) -> None:
        self._own_drops[reason] += len(frames.items)
        self.problems[reason] = text

    def _drop(self, reason: str, text: str) -> None:
        self._own_drops[reason] += 1
        self.problems[reason] = text


def _kind(error: Exception) -> str:
    """A short reason to count an error under."""
    kinds: list[tuple[type[Exception], str]] = [
        (ExtrapolationError, "no transform at its stamp"),
        (LookupTransformError, "no transform"),
        (TransformError, "invalid transform"),
        (CalibrationError, "no usable camera_info"),
        (OversizedError, "message too large"),
        (MessageError, "message does not decode"),
    ]
    return next(text for kind, text in kinds if isinstance(error, kind))
