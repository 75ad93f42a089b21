# SPDX-License-Identifier: Apache-2.0
"""Checks the live graph from outside: listens as the node would, for a few seconds, and leaves no trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.doctor.examination import Examination, find_sensors
from occupancy_nn_ros.doctor.findings import Finding, check_model, ok, problem, warning
from occupancy_nn_ros.doctor.witnesses import find_witnesses
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.ros.encodings import Encodings, worth_asking
from occupancy_nn_ros.ros.further_decoders import installed_decoders
from occupancy_nn_ros.ros.graph import (
    owners_of,
    published_topics,
    publisher_names,
    qos_mismatches,
    subscription_qos,
    topics_of,
    transform_qos,
    why_silent,
)
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.tf2_transforms import uses_tf2
from occupancy_nn_ros.ros.topic_names import TopicNames, topics_named
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.namespaces import search_rings
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.runtime.pose_topics import name_pose_type, name_tf_topics, odometry_topics, own_transforms

LOOK_PERIOD_S, STEADY_S, PATIENCE_S = 0.25, 1.5, 4.0
"""The graph is looked at this often, until it shows the same sensors for so long, or until patience ends."""


def examine_graph(config: Config, seconds: float, arguments: Sequence[str] = ()) -> list[Finding]:
    """All findings about the live graph.

    Args:
        config: the node's settings.
        seconds: how long to listen.
        arguments: ``--ros-args`` and what follows, as the node gets them: its namespace and remappings.
    """
    findings = [check_model(config), *_check_interfaces(), _check_packages(config)]
    with _Listener(arguments) as listener:
        names = TopicNames(listener.node)
        config = names.in_config(config)
        sensors, missing = _look_for_sensors(listener, config)
        findings += missing
        if not sensors:
            return findings
        topics = topics_of(listener.node)
        config = name_tf_topics(config, own_transforms(published_topics(listener.node), sensors), sensors)
        config = name_pose_type(config, topics)
        witnesses = find_witnesses(config, sensors, _ring_of(listener, config, sensors))
        examination = Examination(config, sensors, odometry_topics(config, topics), installed_decoders(), witnesses)
        listener.listen(examination, clock=None if "/clock" in topics else time.time_ns)
        listener.spin(seconds)
        return findings + examination.findings(topics, listener.why_silent) + listener.findings(examination)


def _look_for_sensors(listener: _Listener, config: Config) -> tuple[tuple[SensorStream, ...], list[Finding]]:
    """What is there once it no longer grows: publishers do not become known all at once."""
    end = time.monotonic() + PATIENCE_S
    found, since = find_sensors(config, {}), time.monotonic()
    encodings = Encodings(listener.node)
    while time.monotonic() < end:
        listener.spin(LOOK_PERIOD_S)
        rings = search_rings(topics_of(listener.node), listener.node.get_namespace(), topics_named(config))
        each = [find_sensors(config, ring, encodings.known) for ring in rings]
        now_found, ring = next(((f, ring) for f, ring in zip(each, rings, strict=True) if f[0]), (each[-1], rings[-1]))
        encodings.ask(worth_asking(config, ring))
        if now_found != found:
            found, since = now_found, time.monotonic()
        elif not found[1] and time.monotonic() - since >= STEADY_S:
            break
    encodings.close()
    return found


def _ring_of(listener: _Listener, config: Config, sensors: Sequence[SensorStream]) -> Mapping[str, str]:
    """The nearest part of the graph that has the sensors: whatever else is theirs is there, and no other robot's."""
    rings = search_rings(topics_of(listener.node), listener.node.get_namespace(), topics_named(config))
    return next((ring for ring in rings if all(sensor.topic in ring for sensor in sensors)), {})


def _check_interfaces() -> list[Finding]:
    """Whether the message types of all outputs are installed and built."""
    for topic in (topic for topic in OUTPUTS if not topic.is_optional):
        try:
            interface_class(topic.msgtype)
        except MissingDependencyError as error:
            return [problem("interfaces", str(error), "build and source the workspace")]
    return []


def _check_packages(config: Config) -> Finding:
    """Which of the usual ROS packages the node works with here, and what it does without the others."""
    try:
        by = "tf2_ros" if uses_tf2(config) else "this package's own tree"
    except MissingDependencyError as error:
        return problem("packages", str(error), "install it, or leave tf_source at auto")
    further = installed_decoders()
    missing = sorted({"cv_bridge", "sensor_msgs_py"} - set(further.names))
    read = (
        f"images and clouds by this package, what it does not know by {' and '.join(further.names) or 'nothing else'}"
    )
    text = f"transforms by {by}; {read}"
    return ok("packages", f"{text}; not installed: {', '.join(missing)}" if missing else text)


class _Listener:
    """A node of its own context that subscribes to what the real one would."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Listen where ``--ros-args`` say."""
        self._arguments = [*arguments]

    def __enter__(self) -> _Listener:
        self._context = rclpy.Context()
        rclpy.init(args=self._arguments, context=self._context)
        self.node: Any = rclpy.create_node("occupancy_doctor", context=self._context, enable_rosout=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._qos: dict[str, QoSProfile] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Receive for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def listen(self, examination: Examination, clock: Callable[[], int] | None) -> None:
        """Subscribe to all that an examination wants; stamps are compared with the clock, if there is one."""
        owners = owners_of(examination.intake.sensors.values())

        def receive(topic: str, cdr: bytes) -> None:
            examination.receive(topic, cdr, None if clock is None else clock())

        for topic, msgtype in examination.topics.items():
            is_static = examination.intake.poses.tf_topics.get(topic)
            self._qos[topic] = (
                subscription_qos(self.node, topic, owners.get(topic)) if is_static is None else transform_qos(is_static)
            )
            self.node.create_subscription(
                interface_class(msgtype), topic, partial(receive, topic), self._qos[topic], raw=True
            )

    def why_silent(self, topic: str, msgtype: str) -> str:
        """Why nothing came on a topic, by the graph."""
        return why_silent(self.node, topic, msgtype, self._qos[topic])

    def findings(self, examination: Examination) -> list[Finding]:
        """Publishers that do not match although others do, and sensors with more than one publisher."""
        found = [
            warning("qos", text, "data of this publisher is not received")
            for topic in sorted(examination.intake.heard)
            for text in qos_mismatches(self.node, topic, self._qos[topic])
        ]
        for name, sensor in examination.intake.sensors.items():
            publishers = publisher_names(self.node, sensor.topic)
            if len(publishers) > 1:
                text = f"{sensor.topic} has {len(publishers)} publishers: {', '.join(publishers)}"
                found.append(warning(name, text, "their images alternate: stop one, or remap it"))
        return found
