# SPDX-License-Identifier: Apache-2.0
"""What the ROS graph says about a topic: who publishes it, whether a subscription can match, what else there is."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from occupancy_nn_ros.messages.names import VIDEO_TYPES
from occupancy_nn_ros.ros.qos import TF_QOS, TF_STATIC_QOS, sensor_qos
from occupancy_nn_ros.runtime.discovery import SensorStream, close_topics

POSE_DEPTH = 50
"""Odometry comes often and in bursts."""


def topics_of(node: Any) -> dict[str, str]:
    """Message type of every topic in the graph but the node's own, and videos whose message types are not installed."""
    own = f"{node.get_fully_qualified_name()}/"
    found = {name: types[0] for name, types in node.get_topic_names_and_types() if types}
    return {
        name: msgtype
        for name, msgtype in found.items()
        if not name.startswith(own) and (msgtype not in VIDEO_TYPES or find_spec(msgtype.partition("/")[0]) is not None)
    }


def published_topics(node: Any) -> dict[str, str]:
    """Those of :func:`topics_of` that somebody publishes."""
    return {name: msgtype for name, msgtype in topics_of(node).items() if node.count_publishers(name)}


def published_type(node: Any, topic: str) -> dict[str, str]:
    """A topic's message type as its first publisher has it; empty where there is none."""
    publishers = node.get_publishers_info_by_topic(topic) if topic else []
    return {topic: str(publishers[0].topic_type)} if publishers else {}


def owners_of(sensors: Iterable[SensorStream]) -> dict[str, SensorStream]:
    """The sensor that each topic of data or intrinsics belongs to."""
    return {topic: sensor for sensor in sensors for topic in (sensor.topic, sensor.info_topic)}


def transform_qos(is_static: bool) -> QoSProfile:
    """The QoS with which transforms are subscribed to."""
    return TF_STATIC_QOS if is_static else TF_QOS


def subscription_qos(node: Any, topic: str, sensor: SensorStream | None, *, is_second_try: bool = False) -> QoSProfile:
    """The QoS with which a topic is subscribed to.

    Args:
        node: knows the graph.
        topic: a pose, or what a sensor publishes.
        sensor: the sensor that the topic belongs to, None for poses.
        is_second_try: a publisher came that the first did not match: ``auto`` then is best effort.
    """
    reliability, depth = (sensor.qos_reliability, sensor.qos_depth) if sensor is not None else ("auto", POSE_DEPTH)
    if is_second_try and reliability == "auto":
        reliability = "best_effort"
    offered = [info.qos_profile for info in node.get_publishers_info_by_topic(topic)]
    return sensor_qos(reliability, depth, offered, takes_latched=sensor is not None and topic == sensor.info_topic)


def qos_mismatches(node: Any, topic: str, qos: QoSProfile) -> list[str]:
    """Publishers whose data a subscription cannot get, each with the reason and what to do; empty if all match."""
    return [
        f"{_name(info)} publishes {topic} {mismatch}"
        for info in node.get_publishers_info_by_topic(topic)
        if (mismatch := _mismatch(info.qos_profile, qos))
    ]


def why_silent(node: Any, topic: str, msgtype: str, qos: QoSProfile) -> str:
    """Why nothing arrives on a topic that is subscribed to, as far as the graph tells."""
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        close = ", ".join(close_topics(topic, published_topics(node), [msgtype]))
        return f"nobody publishes it; topics of its type: {close or 'none'}"
    others = sorted({info.topic_type for info in publishers} - {msgtype})
    if others:
        return f"it is published as {', '.join(others)}, expected {msgtype}"
    mismatches = qos_mismatches(node, topic, qos)
    if mismatches:
        return "; ".join(mismatches)
    names = ", ".join(publisher_names(node, topic))
    return f"{names} offers it with a QoS that matches but sends nothing, or nothing gets through"


def publisher_names(node: Any, topic: str) -> list[str]:
    """Names of the nodes that publish a topic, one for each publisher, sorted."""
    return sorted(_name(info) for info in node.get_publishers_info_by_topic(topic))


def _name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _mismatch(offered: QoSProfile, asked: QoSProfile) -> str:
    if asked.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        cure = (
            "make the publisher reliable"
            if asked is TF_QOS or asked is TF_STATIC_QOS
            else "set qos_reliability of its camera to best_effort"
        )
        return f"best effort, this node asks for reliable: {cure}"
    if asked.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        return "volatile, this node asks for transient local: use a static transform broadcaster, which is latched"
    return ""
