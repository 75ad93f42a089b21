# SPDX-License-Identifier: Apache-2.0
"""Where the frames of a set were taken; a sensor that cannot be placed costs itself, once it has been waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from occupancy_nn_ros.errors import CalibrationError, ExtrapolationError, LookupTransformError
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intrinsics import Intrinsics
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame
from occupancy_nn_ros.runtime.shared_frames import SharedFrames
from occupancy_nn_ros.runtime.video_log import VideoLog
from occupancy_nn_ros.runtime.waiting_sets import QueuedFrame, Waiting
from occupancy_nn_ros.sync.frame_names import FrameNames
from occupancy_nn_ros.sync.placement import Placement
from occupancy_nn_ros.values import FloatArray

NotPlaced = LookupTransformError | CalibrationError


@dataclass(frozen=True)
class PlacedSet:
    """A set whose robot and sensors have poses.

    Attributes:
        names: the frames that it is placed by.
        T_map_base: (4, 4) pose of the robot at the set's stamp.
        frames: those that could be placed, one at least.
        lost: why others could not, by sensor.
    """

    names: FrameNames
    T_map_base: FloatArray
    frames: tuple[RawFrame, ...]
    lost: Mapping[str, NotPlaced]


class SetPlacer:
    """Places sets. A sensor of which nothing was known for as long as a set waits is waited for no more, until it is placed again."""

    def __init__(
        self, sensors: Mapping[str, SensorStream], intrinsics: Intrinsics, shared: SharedFrames, placement: Placement
    ) -> None:
        """Nothing was placed yet.

        Args:
            sensors: by name.
            intrinsics: the sensors' camera_info.
            shared: cameras that have one frame.
            placement: answers for poses.
        """
        self._sensors, self._intrinsics, self._shared, self._placement = sensors, intrinsics, shared, placement
        self._lacking: set[str] = set()

    def place(self, frames: Waiting, video: VideoLog, *, is_last: bool) -> PlacedSet:
        """Place a set.

        Args:
            frames: the set.
            video: the packets before those of its frames.
            is_last: whether it has waited long enough, and goes without the sensors that cannot be placed.

        Raises:
            LookupTransformError: the robot's pose, or that of a sensor that may still come, is not known.
            CalibrationError: intrinsics are missing that may still come, or no sensor is left.
        """
        # Where an image names no frame, its camera_info's holds.
        frame_ids = {
            name: self._sensors[name].sensor_frame or f.frame_id or self._intrinsics.frames.get(name, "")
            for name, f in frames.items.items()
        }
        names = self._placement.choose(frame_ids.values())
        T_map_base = self._placement.lookup(names, names.base_frame, frames.stamp_ns)
        placed, lost = [], {}
        for name, frame in frames.items.items():
            if name in self._shared.left_out:
                continue
            try:
                placed.append(
                    self._place(names, frame, frame_ids[name], self._sensors[name], frames.stamps_ns[name], video)
                )
                self._lacking.discard(name)
            except (LookupTransformError, CalibrationError) as error:
                if not is_last and name not in self._lacking:
                    raise
                lost[name] = error
        if lost and not placed:
            raise next(iter(lost.values()))
        if is_last:
            self._lacking |= {name for name, error in lost.items() if not isinstance(error, ExtrapolationError)}
        return PlacedSet(names, T_map_base, tuple(placed), lost)

    def _place(
        self, names: FrameNames, frame: QueuedFrame, frame_id: str, sensor: SensorStream, stamp_ns: int, video: VideoLog
    ) -> RawFrame:
        if self._intrinsics.is_missing(sensor):
            raise CalibrationError(f"no camera_info of '{sensor.name}' on {sensor.info_topic}")
        pose, offset = self._placement.lookup(names, frame_id, stamp_ns), self._shared.offset(sensor.name)
        pose = pose if offset is None else pose @ offset
        T_sensor_points = None
        if sensor.sensor_frame:
            T_sensor_points = invert(pose) @ self._placement.lookup(names, frame.frame_id, stamp_ns)
        model, earlier = self._intrinsics.at(sensor.name, stamp_ns), video.before(sensor, frame.cdr)
        return RawFrame(sensor, stamp_ns, frame_id, frame.cdr, model, pose, earlier, T_sensor_points, offset)
