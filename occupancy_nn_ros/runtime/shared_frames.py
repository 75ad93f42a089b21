# SPDX-License-Identifier: Apache-2.0
"""Cameras that send their images in one frame: a stereo pair, whose distance camera_info tells, or what cannot both be right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intrinsics import Intrinsics
from occupancy_nn_ros.values import FloatArray

LEAST_BASELINE_M, MOST_BASELINE_M = 1e-3, 10.0
"""Nearer cameras stand at one place. No robot is so wide that they stand further apart: such a P is not in metres."""


class SharedFrames:
    """Tells where a camera stands in a frame that others have too, and which camera is left out because nothing tells that.

    The cameras of a stereo pair share the frame of the first one (``sensor_msgs/CameraInfo``): P of the other one holds
    ``-fx * baseline``. Of two cameras in one frame without any baseline between them one is not where its messages say, or both are
    one camera that is published twice. The first is kept then: an image message before what is compressed, a short topic before a long
    one, in order of configuration. A frame that is configured is believed.

    Attributes:
        left_out: cameras that are not mapped with, each with the reason, worded for people.
    """

    def __init__(self, sensors: Iterable[SensorStream], intrinsics: Intrinsics) -> None:
        """Nothing came yet.

        Args:
            sensors: all of them; those without camera_info have no part in this.
            intrinsics: what camera_info tells.
        """
        self._frames: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._intrinsics = intrinsics
        self._sensors = {sensor.name: sensor for sensor in sensors if sensor.info_topic}

    def note(self, name: str, frame_id: str) -> bool:
        """Take the frame of a camera's image; whether it is another than before."""
        is_news = name in self._sensors and self._frames.get(name) != frame_id
        if is_news:
            self._frames[name] = frame_id
        return is_news

    def look(self) -> list[str]:
        """Cameras that from now on are left out."""
        found = []
        for frame in sorted({self.frame_of(name) for name in self._frames} - {""}):
            kept: list[str] = []
            for name in sorted(self._members(frame) & self._frames.keys(), key=self._rank):
                if reason := self._objection(name, kept):
                    self.left_out[name] = reason
                    found.append(name)
                else:
                    kept.append(name)
        return found

    def offset(self, name: str) -> FloatArray | None:
        """``T_frame_camera`` (4, 4) of a camera that stands beside the one whose frame it has, None for all others."""
        rigs = self._intrinsics.rigs
        if name not in rigs or not self.frame_of(name):
            return None
        origin = min((rigs[other] for other in self._members(self.frame_of(name))), key=_length, default=rigs[name])
        if _length(rigs[name], origin) < LEAST_BASELINE_M:
            return None
        T_frame_rig = np.eye(4)
        T_frame_rig[:3, :3] = origin[:3, :3].T
        return np.asarray(T_frame_rig @ rigs[name])

    def frame_of(self, name: str) -> str:
        """Frame of a camera's images, or of its camera_info where they name none or none came; empty if neither is known."""
        return self._frames.get(name, "") or self._intrinsics.frames.get(name, "")

    def _members(self, frame: str) -> set[str]:
        """Cameras in a frame whose camera_info is known, and that are not left out."""
        known = self._sensors.keys() & self._intrinsics.rigs.keys() - self.left_out.keys()
        return {name for name in known if self.frame_of(name) == frame}

    def _rank(self, name: str) -> tuple[bool, float, bool, int, int]:
        order = list(self._sensors).index(name)
        sensor = self._sensors[name]
        return (
            not sensor.frame_id,
            _length(self._intrinsics.rigs[name]),
            sensor.msgtype != IMAGE,
            len(sensor.topic),
            order,
        )

    def _objection(self, name: str, kept: list[str]) -> str:
        """What speaks against a camera beside those in its frame that are kept; empty if nothing does."""
        sensor, rigs = self._sensors[name], self._intrinsics.rigs
        for other in kept:
            apart, frame = _length(rigs[name], rigs[other]), self.frame_of(name)
            if apart > MOST_BASELINE_M:
                return (
                    f"{sensor.topic} is left out: by P of its camera_info it stands {apart:.3g} m beside '{other}', whose frame "
                    f"'{frame}' it has; expected P[3] = -fx * baseline in metres"
                )
            is_same = sensor.kind == self._sensors[other].kind and apart < LEAST_BASELINE_M
            if is_same and not sensor.frame_id:
                return (
                    f"{sensor.topic} is left out: it has the frame of '{other}', '{frame}', and P of its camera_info tells no "
                    f"distance between them: both cannot stand there. Set cameras.{name}.frame_id, if it is another camera"
                )
        return ""


def stereo_baseline(offset: FloatArray) -> str:
    """Where a camera stands beside the one whose frame it has, worded for people."""
    x, y = (float(value) for value in offset[:2, 3])
    where = f"{abs(x):.3f} m to the {'right' if x > 0 else 'left'}"
    if abs(y) > abs(x):
        where = f"{abs(y):.3f} m {'below' if y > 0 else 'above'}"
    return where


def from_frame(offset: FloatArray | None, T_map_camera: FloatArray) -> FloatArray:
    """``T_map_frame`` (4, 4) of the frame in whose images a camera stands at an offset."""
    return T_map_camera if offset is None else np.asarray(T_map_camera @ invert(offset))


def _length(one: FloatArray, other: FloatArray | None = None) -> float:
    return float(np.linalg.norm(one[:3, 3] - (0 if other is None else other[:3, 3])))
