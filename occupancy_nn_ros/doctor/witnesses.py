# SPDX-License-Identifier: Apache-2.0
"""LiDARs and laser scanners that no map is made with, but that tell whether depth cameras measure metres."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import LookupTransformError, MessageError
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.laser_scan import decode_laser_scan
from occupancy_nn_ros.messages.names import LASER_SCAN
from occupancy_nn_ros.runtime.discovery import SensorStream, discover_sensors
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.plausibility import WORLD_FRAMES
from occupancy_nn_ros.runtime.topic_names import own_outputs
from occupancy_nn_ros.values import PosedCloud

KEPT = 10
"""Messages of each that are kept: a keyframe is looked at once its transforms are there."""

AT_ONCE_NS = 500_000_000
"""A look that lies further from a keyframe in time says nothing about it."""


def find_witnesses(config: Config, sensors: Sequence[SensorStream], topics: Mapping[str, str]) -> dict[str, str]:
    """Topics of clouds and scans that could judge the depth cameras among the sensors, with their message types."""
    if not any(sensor.kind == "depth" for sensor in sensors):
        return {}
    clouds = discover_sensors(replace(config, source="lidar", cameras={}), topics)
    scans = {topic for topic, msgtype in topics.items() if msgtype == LASER_SCAN} - own_outputs(topics)
    used = {sensor.topic for sensor in sensors}
    return {topic: topics[topic] for topic in sorted({cloud.topic for cloud in clouds} | scans) if topic not in used}


class Witnesses:
    """Their latest messages.

    Attributes:
        topics: message type of each topic.
    """

    def __init__(self, topics: Mapping[str, str]) -> None:
        """Nothing came yet."""
        self.topics = dict(topics)
        self._latest: dict[str, deque[bytes]] = {topic: deque(maxlen=KEPT) for topic in topics}

    def add(self, topic: str, cdr: bytes) -> None:
        """Take a message."""
        self._latest[topic].append(bytes(cdr))

    def looks(self, stamp_ns: int, intake: Intake) -> Iterator[PosedCloud]:
        """What each of them saw about a keyframe's time, where the intake can place it; what cannot be read is left out."""
        for topic, messages in self._latest.items():
            try:
                nearest = min(messages, key=lambda cdr: abs(peek_header(cdr).stamp_ns - stamp_ns), default=None)
                if nearest is not None and (look := self._look(topic, nearest, stamp_ns, intake)) is not None:
                    yield look
            except (MessageError, LookupTransformError):
                messages.clear()

    def _look(self, topic: str, cdr: bytes, stamp_ns: int, intake: Intake) -> PosedCloud | None:
        header, names = peek_header(cdr), intake.frame_names
        if names is None or abs(header.stamp_ns - stamp_ns) > AT_ONCE_NS:
            return None
        if header.frame_id in (names.map_frame, *WORLD_FRAMES):
            return None  # registered: where the sensor was is not known
        pose = intake.placement.lookup(names, header.frame_id, header.stamp_ns)
        decode = decode_laser_scan if self.topics[topic] == LASER_SCAN else decode_point_cloud
        return PosedCloud(topic, header.stamp_ns, decode(cdr)[1], pose)
