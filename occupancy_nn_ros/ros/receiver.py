# SPDX-License-Identifier: Apache-2.0
"""Finds the sensors in the ROS graph, subscribes to their raw bytes, and feeds the intake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ConfigError, LookupTransformError
from occupancy_nn_ros.messages.names import ODOMETRY, TF_MESSAGE
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.graph import owners_of, qos_mismatches, subscription_qos, topics_of, transform_qos
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.tf2_transforms import Take, Tf2Listener, make_pose_buffer, uses_tf2
from occupancy_nn_ros.ros.topic_names import TopicNames, topics_named
from occupancy_nn_ros.runtime.discovery import SensorStream, discover_sensors, wanted_types
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.namespaces import other_robots, search_rings
from occupancy_nn_ros.runtime.pose_topics import odometry_topics
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.values import FloatArray

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble has it elsewhere
    from rclpy.qos_event import SubscriptionEventCallbacks

LOOK_PERIOD_S = 0.5
SENSOR_WORDS = {"network": "camera", "depth": "depth camera", "lidar": "LiDAR"}
STEADY_LOOKS = 3
"""The graph must show the same cameras this often in a row before they are taken: they do not appear all at once."""
PATIENT_LOOKS = 10
"""So many looks find nothing before the search goes beyond the node's namespace: its own drivers may only be slow."""


class Receiver:
    """Subscriptions of one active phase.

    Attributes:
        intake: takes the messages, None until the sensors are found.
        obstacle: why no sensor is found yet, worded for people; empty once they are.
        qos: what each topic is subscribed to with.
    """

    def __init__(
        self,
        context: NodeContext,
        offer: Callable[[Sequence[RawKeyframe]], None],
        on_sensors: Callable[[Sequence[SensorStream]], None],
    ) -> None:
        """Start to look for sensors; transforms are listened to at once.

        Args:
            context: what the parts of the node share.
            offer: called with keyframes that are ready.
            on_sensors: called once with the sensors found.
        """
        self.context, self.offer, self.on_sensors = context, offer, on_sensors
        self.intake: Intake | None = None
        self.obstacle = "looking for cameras"
        self.qos: dict[str, QoSProfile] = {}
        self._takes: dict[str, Take] = {}
        self._listener: Tf2Listener | None = None
        self._subscriptions: dict[str, Any] = {}
        self._seen: tuple[SensorStream, ...] = ()
        self._looks = self._empty_looks = 0
        self._names = TopicNames(context.ros)
        self._config = self._names.in_config(context.config)
        # On a steady clock: simulated time may not have begun.
        self._timer: Any = context.ros.create_timer(
            LOOK_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._look()

    @property
    def map_frame(self) -> str:
        """Name of the map frame: the configured one until transforms tell better."""
        return self.intake.map_frame if self.intake is not None else self.context.config.map_frame

    def reconfigure(self, config: Config) -> None:
        """Take settings that may change while running."""
        self._config = self._names.in_config(config)
        if self.intake is not None:
            self.intake.reconfigure(self._config)

    def close(self) -> None:
        """Unsubscribe from everything."""
        self._stop_looking()
        for subscription in self._subscriptions.values():
            self.context.ros.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._takes.clear()
        self._listener = None

    def _look(self) -> None:
        try:
            sensors = self._discover(topics_of(self.context.ros))
        except ConfigError as error:
            self.obstacle, self._looks = str(error), 0
            return
        self._looks = self._looks + 1 if sensors == self._seen else 1
        self._seen = sensors
        if self._looks >= (1 if self._config.cameras else STEADY_LOOKS):
            self._subscribe(sensors)

    def _discover(self, topics: Mapping[str, str]) -> tuple[SensorStream, ...]:
        """The sensors in the nearest ring of the graph that has some; further ones only when it has had none for a while.

        Raises:
            ConfigError: there are none, or not those that are named.
        """
        rings = search_rings(topics, self.context.ros.get_namespace(), topics_named(self._config))
        ring = min(self._empty_looks // PATIENT_LOOKS, len(rings) - 1)
        try:
            sensors = discover_sensors(self._config, rings[ring])
            if not sensors:
                raise ConfigError(self._nothing_found(topics))
        except ConfigError:
            self._empty_looks += 1
            raise
        if ring and sensors != self._seen:
            where = ", ".join(sensor.topic for sensor in sensors)
            self.context.log.warning(
                f"no sensors in {self.context.ros.get_namespace()}; taking those elsewhere: {where}"
            )
        return sensors

    def _nothing_found(self, topics: Mapping[str, str]) -> str:
        source, namespace = self._config.source, self.context.ros.get_namespace()
        there = ", ".join(sorted(name for name, kind in topics.items() if kind in wanted_types(source)))
        text = f"no {SENSOR_WORDS[source]} topics found; candidates: {there or 'none'}"
        robots = other_robots(topics, namespace)
        return (
            f"{text}; topics of other robots ({', '.join(robots)}) are theirs: set this node's namespace"
            if robots
            else text
        )

    def _subscribe(self, sensors: tuple[SensorStream, ...]) -> None:
        self._stop_looking()
        self.obstacle = ""
        config = self._config_in_map_frame()
        odometries = odometry_topics(config, topics_of(self.context.ros))
        self.intake = Intake(config, sensors, make_pose_buffer(config), odometries)
        for sensor in sensors:
            self.context.log.info(f"{sensor.name}: {sensor.topic}, camera_info {sensor.info_topic or '-'}")
        self.on_sensors(sensors)
        if uses_tf2(config):
            self._listener = Tf2Listener(self.intake, self._listen_for_tf2)
        owners = owners_of(sensors)
        for topic, msgtype in self.intake.topics.items():
            is_static = self.intake.poses.tf_topics.get(topic)
            owner = owners.get(topic)
            qos = subscription_qos(self.context.ros, topic, owner) if is_static is None else transform_qos(is_static)
            if topic not in self._takes:
                self._listen(topic, msgtype, owner, qos)
        self._timer = self.context.ros.create_timer(LOOK_PERIOD_S, self._look_for_odometry)

    def _config_in_map_frame(self) -> Config:
        """The settings, with the frame that the map is in already: after a pause, or as a loaded one says."""
        session = self.context.session
        return self._config if session is None else replace(self._config, map_frame=session.frame_id)

    def place(self, frame_id: str, stamp_ns: int) -> FloatArray:
        """``T_map_frame`` (4, 4) at a stamp, at the newest that is known for 0.

        Raises:
            LookupTransformError: not known.
        """
        names = None if self.intake is None else self.intake.frame_names
        if self.intake is None or names is None:
            raise LookupTransformError(f"where '{frame_id}' lies is not known before the first map update")
        placement = self.intake.placement
        return placement.lookup(names, frame_id, stamp_ns or placement.newest_stamp(names, frame_id))

    def take_map_frame(self) -> None:
        """A map was loaded: what follows has to be placed in its frame."""
        if self.intake is not None:
            self.intake.placement.config = self._config_in_map_frame()

    def _look_for_odometry(self) -> None:
        """Until the frames are settled odometry may still appear; once they are, what does not place the robot is left."""
        intake = self.intake
        if intake is None:
            return
        names = intake.frame_names
        if names is None:
            for topic in odometry_topics(intake.config, topics_of(self.context.ros)):
                if topic not in intake.poses.pose_topics:
                    intake.poses.pose_topics[topic] = ODOMETRY
                    self._listen(topic, ODOMETRY, None, subscription_qos(self.context.ros, topic, None))
            return
        self._stop_looking()
        self.context.log.info(f"map frame '{names.map_frame}', robot frame '{names.base_frame}': {names.reason}")
        for topic in intake.poses.forget_others(names):
            self.context.ros.destroy_subscription(self._subscriptions.pop(topic))
            del self.qos[topic]

    def _listen_for_tf2(self, topic: str, take: Take) -> Any:
        """Subscribe for tf2's listener, which takes messages as objects."""
        assert self.intake is not None
        self._takes[topic] = take
        self._listen(topic, TF_MESSAGE, None, transform_qos(self.intake.poses.tf_topics[topic]))
        return self._subscriptions[topic]

    def _listen(self, topic: str, msgtype: str, sensor: SensorStream | None, qos: QoSProfile) -> None:
        self.qos[topic] = qos
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(self._on_incompatible_qos, topic, msgtype, sensor), use_default_callbacks=False
        )
        self._subscriptions[topic] = self.context.ros.create_subscription(
            interface_class(msgtype), self._names.written(topic), partial(self._on_message, topic), qos,
            raw=topic not in self._takes, event_callbacks=events,
        )  # fmt: skip

    def _on_message(self, topic: str, message: Any) -> None:
        """Take a message, and one of every other topic that has one: a turn of the executor costs more than a message.

        Transforms come first, all of them: where messages have piled up, images must not run ahead of their poses.
        """
        pose_topics = self.intake.poses.topics if self.intake is not None else {}
        if topic in pose_topics:
            self._take(topic, message)
        for other, qos in list(self.qos.items()):
            if other in pose_topics:
                self._take_waiting(other, qos.depth)
        if topic not in pose_topics:
            self._take(topic, message)
        for other in list(self.qos):
            if other != topic and other not in pose_topics:
                self._take_waiting(other, 1)

    def _take_waiting(self, topic: str, count: int) -> None:
        """Take at most so many messages that have arrived already."""
        subscription = self._subscriptions[topic]
        for _ in range(count):
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, topic not in self._takes)
            if taken is None:
                return
            self._take(topic, taken[0])

    def _take(self, topic: str, message: Any) -> None:
        """Give the intake a message: its bytes, or the object that tf2's listener takes."""
        if self.intake is None:
            return
        take = self._takes.get(topic)
        keyframes = self.intake.receive(topic, message) if take is None else take(message)
        if keyframes:
            self.offer(keyframes)

    def _on_incompatible_qos(self, topic: str, msgtype: str, sensor: SensorStream | None, event: Any) -> None:
        second_try = subscription_qos(self.context.ros, topic, sensor, is_second_try=True)
        is_transform = self.intake is not None and topic in self.intake.poses.tf_topics
        if not is_transform and second_try.reliability != self.qos[topic].reliability:
            self.context.log.info(f"{topic}: a publisher is best effort, so that this subscription becomes it too")
            self.context.ros.destroy_subscription(self._subscriptions.pop(topic))
            self._listen(topic, msgtype, sensor, second_try)
            return
        mismatches = qos_mismatches(self.context.ros, topic, self.qos[topic])
        reason = (
            "; ".join(mismatches) or f"{topic}: a publisher offers a QoS that does not match ({event.last_policy_kind})"
        )
        self.context.log.warning(reason, throttle_duration_sec=5.0)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self.context.ros.destroy_timer(self._timer)
            self._timer = None
