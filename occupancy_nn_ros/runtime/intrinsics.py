# SPDX-License-Identifier: Apache-2.0
"""The sensors' intrinsics as their camera_info brings them."""

from __future__ import annotations

from collections.abc import Iterable

from occupancy_nn_ros.geometry.cameras import check_camera
from occupancy_nn_ros.messages.decode import decode_camera_info
from occupancy_nn_ros.messages.headers import STAMP_END
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.values import CameraModel


class Intrinsics:
    """Takes camera_info and keeps what changed.

    Attributes:
        models: newest usable intrinsics of each sensor.
        frames: frame in each sensor's camera_info.
    """

    def __init__(self, sensors: Iterable[SensorStream]) -> None:
        """Expect camera_info of these sensors."""
        self.models: dict[str, CameraModel] = {}
        self.frames: dict[str, str] = {}
        self._bodies: dict[str, bytes] = {}
        self._by_topic: dict[str, list[SensorStream]] = {}
        for sensor in sensors:
            if sensor.info_topic:
                self._by_topic.setdefault(sensor.info_topic, []).append(sensor)

    @property
    def topics(self) -> tuple[str, ...]:
        """Where camera_info comes from."""
        return tuple(self._by_topic)

    def receive(self, topic: str, cdr: bytes) -> None:
        """Take a camera_info.

        Raises:
            MessageError: the bytes do not decode.
            CalibrationError: it cannot be used; the one before stays.
        """
        body = cdr[STAMP_END:]
        if self._bodies.get(topic) == body:  # as it nearly always is
            return
        for sensor in self._by_topic[topic]:
            header, model = decode_camera_info(cdr, is_rectified=sensor.is_rectified)
            check_camera(model)
            self.models[sensor.name], self.frames[sensor.name] = model, header.frame_id
        self._bodies[topic] = body

    def is_missing(self, sensor: SensorStream) -> bool:
        """Whether a sensor that needs intrinsics has none yet."""
        return bool(sensor.info_topic) and sensor.name not in self.models
