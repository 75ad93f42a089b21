# SPDX-License-Identifier: Apache-2.0
"""What the intake hands on: frames with their poses, not yet decoded."""

from __future__ import annotations

from dataclasses import dataclass

from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.values import CameraModel, FloatArray


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
        T_frame_sensor: (4, 4) where a stereo camera stands in ``frame_id``, which is another one's; None for all others.
        T_sensor_points: (4, 4) for a cloud that is given in another frame than its sensor's, None for all others.
    """

    sensor: SensorStream
    stamp_ns: int
    frame_id: str
    cdr: bytes
    model: CameraModel | None
    T_map_sensor: FloatArray
    earlier: tuple[bytes, ...] | None = ()
    T_sensor_points: FloatArray | None = None
    T_frame_sensor: FloatArray | None = None


@dataclass(frozen=True)
class RawKeyframe:
    """A frame set that is worth a map update, not yet decoded.

    Attributes:
        stamp_ns: stamp of the newest frame.
        T_map_base: (4, 4) robot pose at that stamp.
        frames: the sensors' frames.
        ready_ns: newest stamp of any sensor when all of it was known.
    """

    stamp_ns: int
    T_map_base: FloatArray
    frames: tuple[RawFrame, ...]
    ready_ns: int = 0
