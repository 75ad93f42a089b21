# SPDX-License-Identifier: Apache-2.0
"""The sensors' intrinsics as their camera_info brings them, and from when on which hold."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np

from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.geometry.cameras import check_camera, unproject
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_stereo_place
from occupancy_nn_ros.messages.headers import STAMP_END
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.values import CameraModel, FloatArray

KEPT = 8
"""Of camera_info that changes, the latest are kept: images that wait for their poses are older than the newest."""

ANOTHER_CLOCK_NS = 2_000_000_000
"""camera_info whose stamp lies further from the sensors' time than this, or is zero, holds from when it came."""

ALTERNATES = 3
"""camera_info that so often was what it had been before its last change comes from two publishers."""


SHORTEST = {"equidistant": 0.12}
SHORTEST_PINHOLE = 0.06
"""Focal lengths in widths of the image: shorter, and a fisheye sees more than all around, a pinhole more than 166 degrees."""

LEAST_SEEN = {"equidistant": 0.25}
LEAST_SEEN_PINHOLE = 0.5
"""Share of the pixels that a ray in front of the camera must reach: a fisheye sees behind it, and corners may be dark."""


class Intrinsics:
    """Takes camera_info and keeps what changed.

    Attributes:
        models: newest usable intrinsics of each sensor.
        changes: how often they have changed.
        doubts: what speaks against them, worded for people, by sensor.
        frames: frame in each sensor's camera_info.
        rigs: (4, 4) where each sensor stands in the frame of its stereo pair.
    """

    def __init__(self, sensors: Iterable[SensorStream]) -> None:
        """Expect camera_info of these sensors."""
        self.models: dict[str, CameraModel] = {}
        self.changes: Counter[str] = Counter()
        self.doubts: dict[str, str] = {}
        self._since: dict[str, deque[tuple[int, CameraModel]]] = {}
        self._returns: Counter[str] = Counter()
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

    def receive(self, topic: str, cdr: bytes, now_ns: int = 0) -> bool:
        """Take a camera_info; whether it says anything new.

        Args:
            topic: where it came from.
            cdr: its bytes.
            now_ns: newest stamp of any sensor, 0 before the first.

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
            check_lens(model)
            is_other_clock = now_ns and abs(header.stamp_ns - now_ns) > ANOTHER_CLOCK_NS
            self._change(sensor, now_ns if is_other_clock else header.stamp_ns + sensor.time_offset_ns, model)
            self.models[sensor.name], self.frames[sensor.name] = model, header.frame_id
            self.rigs[sensor.name] = decode_stereo_place(cdr, is_rectified=sensor.is_rectified)
        self._bodies[topic] = body
        return True

    def at(self, name: str, stamp_ns: int) -> CameraModel | None:
        """The intrinsics that held when an image was taken: the newest of then, the oldest that are known for what came before."""
        known = self._since.get(name, ())
        return next(
            (model for since_ns, model in reversed(known) if since_ns <= stamp_ns), known[0][1] if known else None
        )

    def _change(self, sensor: SensorStream, since_ns: int, model: CameraModel) -> None:
        name, known = sensor.name, self._since.setdefault(sensor.name, deque(maxlen=KEPT))
        if known and known[-1][1] == model:
            return
        self.changes[name] += bool(known)
        self._returns[name] += len(known) > 1 and known[-2][1] == model
        if self._returns[name] >= ALTERNATES:
            one, other = (_words(each) for each in (known[-1][1], model))
            self.doubts[name] = (
                f"{sensor.info_topic} of '{name}' changes back and forth, {self.changes[name]} times between {one} and {other}: "
                "two publishers that disagree?"
            )
        known.append((since_ns, model))

    def is_missing(self, sensor: SensorStream) -> bool:
        """Whether a sensor that needs intrinsics has none yet."""
        return bool(sensor.info_topic) and sensor.name not in self.models


def _words(model: CameraModel) -> str:
    return f"{model.width}x{model.height} fx {model.K[0, 0]:.1f}"


def check_lens(model: CameraModel) -> None:
    """Check that checked intrinsics can be those of a lens, in pixels.

    Raises:
        CalibrationError: K in other units or order, without a centre, or distortion under which hardly any pixel has a ray.
    """
    focal, centre = model.K[0, 0], (model.K[0, 2], model.K[1, 2])
    if model.K[1, 0] or model.K[2, 0] or model.K[2, 1]:
        raise CalibrationError(f"K is {model.K.tolist()}, expected 0 below the diagonal: fx 0 cx, 0 fy cy, 0 0 1")
    if focal < SHORTEST.get(model.distortion_model, SHORTEST_PINHOLE) * model.width:
        raise CalibrationError(f"focal length is {focal:.4g} for images {model.width} wide, expected pixels")
    if centre == (0, 0):
        raise CalibrationError("the centre cx, cy of K is 0, 0, expected that of the image (uncalibrated camera?)")
    u, v = np.meshgrid(np.linspace(0, model.width - 1, 15), np.linspace(0, model.height - 1, 15))
    seen = float(np.isfinite(unproject(model, np.column_stack([u.ravel(), v.ravel()]))).all(axis=1).mean())
    if seen < LEAST_SEEN.get(model.distortion_model, LEAST_SEEN_PINHOLE):
        raise CalibrationError(
            f"by D {model.D.tolist()} only {seen:.0%} of the pixels have a ray: not the distortion of this lens"
        )
