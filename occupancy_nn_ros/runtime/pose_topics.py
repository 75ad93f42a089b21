# SPDX-License-Identifier: Apache-2.0
"""Which topics place things: transforms under the usual names or a robot's own, odometry, and a bag's late static transforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import MessageError, TransformError
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.names import ODOMETRY, POSE_TYPES, TF_MESSAGE
from occupancy_nn_ros.runtime.discovery import SENSOR_TYPES, SensorStream
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.values import StampedTransform

MAX_STATIC_MESSAGES = 20_000


def name_tf_topics(config: Config, topics: Mapping[str, str], sensors: Iterable[SensorStream] = ()) -> Config:
    """The settings with the transforms' topics that there are, where those of the usual names are missing.

    Args:
        config: ``tf_topic`` and ``tf_static_topic`` that are not the defaults stay.
        topics: message type of every topic there is.
        sensors: whose namespace decides between several robots' transforms.
    """
    spaces = {sensor.topic.split("/")[1] for sensor in sensors if sensor.topic.count("/") > 1}
    default = Config()

    def name(configured: str, usual: str) -> str:
        if configured != usual or topics.get(usual) == TF_MESSAGE:
            return configured
        found = tf_topics_like(usual, topics)
        near = [topic for topic in found if topic.split("/")[1] in spaces]
        return found[0] if len(found) == 1 else near[0] if len(near) == 1 else configured

    return replace(
        config,
        tf_topic=name(config.tf_topic, default.tf_topic),
        tf_static_topic=name(config.tf_static_topic, default.tf_static_topic),
    )


def name_pose_type(config: Config, topics: Mapping[str, str]) -> Config:
    """The settings with the message type that ``pose_topic`` has, where it is there and brings poses.

    Args:
        config: ``pose_type`` is what is expected of a topic that is not there yet.
        topics: message type of every topic there is.
    """
    found = topics.get(config.pose_topic, "")
    return replace(config, pose_type=cast(Any, found)) if found in POSE_TYPES else config


def tf_topics_like(usual: str, topics: Mapping[str, str]) -> list[str]:
    """Topics of transforms that end as one of the usual ones does, sorted."""
    return sorted(topic for topic, msgtype in topics.items() if msgtype == TF_MESSAGE and topic.endswith(usual))


def own_transforms(topics: Mapping[str, str], sensors: Iterable[SensorStream]) -> dict[str, str]:
    """The topics without the transforms of other robots: those in a namespace that has sensors, of which none is taken.

    Args:
        topics: message type of every topic that somebody publishes.
        sensors: the chosen ones.
    """
    taken = {sensor.topic for sensor in sensors}
    seen = [topic for topic, msgtype in topics.items() if msgtype in SENSOR_TYPES]

    def is_another_robots(topic: str) -> bool:
        space = topic.rpartition("/")[0] + "/"
        there = {other for other in seen if other.startswith(space)}
        return space != "/" and bool(there) and not any(topic.startswith(space) for topic in taken)

    return {name: kind for name, kind in topics.items() if kind != TF_MESSAGE or not is_another_robots(name)}


def odometry_topics(config: Config, topics: Mapping[str, str]) -> tuple[str, ...]:
    """Topics that may place the robot where TF does not, sorted; none if ``pose_topic`` is set."""
    return () if config.pose_topic else tuple(sorted(topic for topic, msgtype in topics.items() if msgtype == ODOMETRY))


def hold_statics(reader: BagReader, *intakes: Intake) -> None:
    """Give intakes the first value of every static transform of a bag, which holds for all of it, however late it was recorded.

    Raises:
        BagError: the bag is damaged.
    """
    for intake in intakes:
        topic = intake.config.tf_static_topic
        for transform in first_statics(reader, topic):
            with suppress(TransformError):  # counted when the recording comes there
                intake.placement.poses.set_transform(transform, is_static=True)


def first_statics(reader: BagReader, topic: str) -> list[StampedTransform]:
    """The first value of every static transform of a bag, in order of recording.

    Raises:
        BagError: the bag is damaged.
    """
    found: dict[tuple[str, str], StampedTransform] = {}
    seen: set[bytes] = set()
    for count, message in enumerate(reader.messages({topic})):
        if count >= MAX_STATIC_MESSAGES:
            break
        if message.cdr in seen:
            continue
        seen.add(message.cdr)
        try:
            for transform in decode_tf(message.cdr, []):
                found.setdefault((transform.target_frame, transform.source_frame), transform)
        except MessageError:
            continue
    return list(found.values())
