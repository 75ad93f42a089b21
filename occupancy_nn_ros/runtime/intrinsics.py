# SPDX-License-Identifier: Apache-2.0
"""The sensors' intrinsics as their camera_info brings them."""

from __future__ import annotations

from collections.abc import Iterable

from occupancy_nn_ros.geometry.cameras import check_camera
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_stereo_place
from occupancy_nn_ros.messages.headers import STAMP_END
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.values import CameraModel, FloatArray


class Intrinsics:
    """Takes camera_info and keeps what changed.

    Attributes:
        models: newest usable intrinsics of each sensor.
        frames: frame in each sensor's camera_info.
        rigs: (4, 4) where each sensor stands in the frame of its stereo pair.
    """

    def __init__(self, sensors: Iterable[SensorStream]) -> None:
        """Expect camera_info of these sensors."""
        self.models: dict[str, CameraModel] = {}
        self.frames: dict[str, str] = {}
        self.rigs: dict[str, FloatArray] = {}
        self._bodies: dict[str, bytes] = {}
        self._by_topic: dict[str, list[SensorStream]] = {}
        for sensor in sensors:
            if sensor.info_topic:
                self._by_topic.setdefault(sensor.info_topic, []).append(sensor)

    @property
    def topics(self) -> tuple[str, ...]:
        """Where camera_info comes from."""
        return tuple(self._by_topic)

    def receive(self, topic: str, cdr: bytes) -> bool:
        """Take a camera_info; whether it says anything new.

        Raises:
            MessageError: the bytes do not decode.
            CalibrationError: it cannot be used; the one before stays.
        """
        body = cdr[STAMP_END:]
        if self._bodies.get(topic) == body:  # as it nearly always is
            return False
        for sensor in self._by_topic[topic]:
            header, model = decode_camera_info(cdr, is_rectified=sensor.is_rectified)
            check_camera(model)
            self.models[sensor.name], self.frames[sensor.name] = model, header.frame_id
            self.rigs[sensor.name] = decode_stereo_place(cdr, is_rectified=sensor.is_rectified)
        self._bodies[topic] = body
        return True

    def is_missing(self, sensor: SensorStream) -> bool:
        """Whether a sensor that needs intrinsics has none yet."""
        return bool(sensor.info_topic) and sensor.name not in self.models
