# SPDX-License-Identifier: Apache-2.0
"""Finds the sensors in the ROS graph, subscribes to their raw bytes, and feeds the intake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import LookupTransformError
from occupancy_nn_ros.messages.names import CAMERA_INFO, ODOMETRY, TF_MESSAGE
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.graph import (
    owners_of,
    published_type,
    qos_mismatches,
    subscription_qos,
    topics_of,
    transform_qos,
)
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.search import SensorSearch
from occupancy_nn_ros.ros.tf2_transforms import Tf2Listener, make_pose_buffer, uses_tf2
from occupancy_nn_ros.ros.topic_names import TopicNames
from occupancy_nn_ros.runtime.discovery import IMAGE_TYPES, SensorStream
from occupancy_nn_ros.runtime.doubts import NOT_TAKEN, not_taken
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.pose_topics import name_pose_type, odometry_topics
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.sync.frame_names import FrameNames
from occupancy_nn_ros.values import FloatArray

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble has it elsewhere
    from rclpy.qos_event import SubscriptionEventCallbacks

LOOK_PERIOD_S = 0.5
LATE_LOOKS = 6
"""Every so many looks it is seen whether more sensors have appeared."""
STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""Simulated time may not have begun, or stand still."""


class Receiver:
    """Subscriptions of one active phase.

    Attributes:
        intake: takes the messages, None until the sensors are found.
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
        self.qos: dict[str, QoSProfile] = {}
        self._listener: Tf2Listener | None = None
        self._subscriptions: dict[str, Any] = {}
        self._unchecked: set[str] = set()
        self._is_outdated = self._is_settled = False
        self._looks = 0
        self._names = TopicNames(context.ros)
        self._search = SensorSearch(context, self._names.in_config(context.config))
        self._timer: Any = None
        self._begin_to_look()

    @property
    def obstacle(self) -> str:
        """Why no sensor is found yet, worded for people; empty once they are."""
        return self._search.obstacle

    @property
    def map_frame(self) -> str:
        """Name of the map frame: the configured one until transforms tell better."""
        return self.intake.map_frame if self.intake is not None else self._in_map_frame(self.context.config).map_frame

    def reconfigure(self, config: Config) -> None:
        """Take settings that may change while running."""
        self._search.config = self._names.in_config(config)
        if self.intake is not None:
            found = self.intake.config
            self.intake.reconfigure(
                replace(self._search.config, tf_topic=found.tf_topic, tf_static_topic=found.tf_static_topic)
            )

    def close(self) -> None:
        """Unsubscribe from everything."""
        self._search.encodings.close()
        self._unsubscribe()

    def _unsubscribe(self) -> None:
        self._stop_looking()
        for subscription in self._subscriptions.values():
            self.context.ros.destroy_subscription(subscription)
        self._subscriptions.clear()
        self.qos.clear()
        self._listener = None

    def _begin_to_look(self) -> None:
        # On a steady clock: simulated time may not have begun.
        self._timer = self.context.ros.create_timer(LOOK_PERIOD_S, self._look, clock=STEADY)
        self._look()

    def _look(self) -> None:
        sensors = self._search.look()
        if sensors is not None:
            self._subscribe(sensors, self._search.config)

    def _subscribe(self, sensors: tuple[SensorStream, ...], config: Config) -> None:
        self._unsubscribe()
        self._sensors, self._is_outdated, self._is_settled = sensors, False, False
        self._unchecked = {sensor.topic for sensor in sensors if sensor.msgtype in IMAGE_TYPES}
        config = self._with_pose_type(self._in_map_frame(config))
        odometries = odometry_topics(config, topics_of(self.context.ros))
        self.intake = Intake(config, sensors, make_pose_buffer(config), odometries)
        for sensor in sensors:
            self.context.log.info(f"{sensor.name}: {sensor.topic}, camera_info {sensor.info_topic or '-'}")
        self.on_sensors(sensors)
        if uses_tf2(config):
            self._listener = Tf2Listener(self.intake.poses, self._listen_to_transforms)
        owners = owners_of(sensors)
        for topic, msgtype in self.intake.topics.items():
            if topic not in self.intake.poses.tf_topics:
                owner = owners.get(topic)
                self._listen(topic, msgtype, owner, subscription_qos(self.context.ros, topic, owner))
            elif self._listener is None:
                self._listen_to_transforms(topic)
        self._timer = self.context.ros.create_timer(LOOK_PERIOD_S, self._look_again, clock=STEADY)

    def _with_pose_type(self, config: Config) -> Config:
        """The settings, with the message type with which somebody publishes the poses."""
        return name_pose_type(config, published_type(self.context.ros, config.pose_topic))

    def _in_map_frame(self, config: Config) -> Config:
        """The settings, with the frame that the map is in already: after a pause, or as a loaded one says."""
        session = self.context.session
        return config if session is None else replace(config, map_frame=session.frame_id)

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
            self.intake.placement.config = self._in_map_frame(self.intake.config)

    def _look_again(self) -> None:
        """Until the frames are settled what was chosen may turn out wrong, and more may appear; later ones are told."""
        intake = self.intake
        if intake is None:
            return
        self._looks += 1
        if self._looks % LATE_LOOKS == 0:
            self._look_for_late(intake)
        self._look_for_latched(intake)
        if self._is_outdated or (self._search.has_news() and self._search.is_outdated(self._sensors)):
            self.context.log.info("images are not what their topics' names say: looking for sensors anew")
            self.intake = None
            self._unsubscribe()
            self._search.begin_anew()
            self._begin_to_look()
        elif intake.frame_names is None:
            self._look_for_transforms(intake)
        elif not self._is_settled:
            self._settle(intake, intake.frame_names)

    def _look_for_transforms(self, intake: Intake) -> None:
        """Transforms may be published in the robot's namespace alone, and odometry may appear."""
        config = self._search.look_for_transforms(self._sensors, intake.config)
        if config != intake.config:
            names = f"{config.tf_topic} and {config.tf_static_topic}"
            self.context.log.info(f"nobody publishes {intake.config.tf_topic}: transforms are taken from {names}")
            self._subscribe(self._sensors, config)
            return
        if self._with_pose_type(intake.config) != intake.config:  # it has appeared since, and is of another type
            self._subscribe(self._sensors, intake.config)
            return
        for topic in odometry_topics(intake.config, topics_of(self.context.ros)):
            if topic not in intake.poses.pose_topics:
                intake.poses.pose_topics[topic] = ODOMETRY
                self._listen(topic, ODOMETRY, None, subscription_qos(self.context.ros, topic, None))

    def _settle(self, intake: Intake, names: FrameNames) -> None:
        """The map has begun: what does not place the robot is left, and images are asked no more."""
        self._is_settled = True
        self._search.encodings.close()
        self.context.log.info(f"map frame '{names.map_frame}', robot frame '{names.base_frame}': {names.reason}")
        for topic in intake.poses.forget_others(names):
            self.context.ros.destroy_subscription(self._subscriptions.pop(topic))
            del self.qos[topic]

    def _listen_to_transforms(self, topic: str) -> Any:
        assert self.intake is not None
        self._listen(topic, TF_MESSAGE, None, transform_qos(self.intake.poses.tf_topics[topic]))
        return self._subscriptions[topic]

    def _listen(self, topic: str, msgtype: str, sensor: SensorStream | None, qos: QoSProfile) -> None:
        self.qos[topic] = qos
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(self._on_incompatible_qos, topic, msgtype, sensor), use_default_callbacks=False
        )
        self._subscriptions[topic] = self.context.ros.create_subscription(
            interface_class(msgtype), self._names.written(topic), partial(self._on_message, topic), qos,
            raw=True, event_callbacks=events,
        )  # fmt: skip

    def _on_message(self, topic: str, cdr: bytes) -> None:
        """Take a message, and one of every other topic that has one: a turn of the executor costs more than a message.

        Transforms and camera_info come first, all of them: where messages have piled up, images must not run ahead of their poses,
        nor of a new resolution.
        """
        first = {*self.intake.poses.topics, *self.intake.intrinsics.topics} if self.intake is not None else set()
        if topic in first:
            self._take(topic, cdr)
        for other, qos in list(self.qos.items()):
            if other in first:
                self._take_waiting(other, qos.depth)
        if topic not in first:
            self._take(topic, cdr)
        for other in list(self.qos):
            if other != topic and other not in first:
                self._take_waiting(other, 1)

    def _take_waiting(self, topic: str, count: int) -> None:
        """Take at most so many messages that have arrived already."""
        subscription = self._subscriptions[topic]
        for _ in range(count):
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, True)
            if taken is None:
                return
            self._take(topic, taken[0])

    def _take(self, topic: str, cdr: bytes) -> None:
        if self.intake is None:
            return
        if topic in self._unchecked:
            self._check_content(topic, cdr)
        if self._is_outdated:
            return
        keyframes = self.intake.receive(topic, cdr)
        if keyframes:
            self.offer(keyframes)

    def _check_content(self, topic: str, cdr: bytes) -> None:
        """A sensor's first message may show that it is none, or of another kind; nothing is mapped of it before that."""
        self._unchecked.discard(topic)
        if topic not in self._search.encodings.known:
            self._search.encodings.learn(topic, next(s.msgtype for s in self._sensors if s.topic == topic), cdr)
        self._is_outdated = self._search.is_outdated(self._sensors)

    def _on_incompatible_qos(self, topic: str, msgtype: str, sensor: SensorStream | None, event: Any) -> None:
        second_try = subscription_qos(self.context.ros, topic, sensor, is_second_try=True)
        is_transform = self.intake is not None and topic in self.intake.poses.tf_topics
        if not is_transform and not _is_same(second_try, self.qos[topic]):
            self.context.log.info(f"{topic}: a publisher offers less, so that this subscription asks for less too")
            self._listen_anew(topic, msgtype, sensor, second_try)
            return
        mismatches = qos_mismatches(self.context.ros, topic, self.qos[topic])
        reason = (
            "; ".join(mismatches) or f"{topic}: a publisher offers a QoS that does not match ({event.last_policy_kind})"
        )
        self.context.log.warning(reason, throttle_duration_sec=5.0)

    def _listen_anew(self, topic: str, msgtype: str, sensor: SensorStream | None, qos: QoSProfile) -> None:
        self.context.ros.destroy_subscription(self._subscriptions.pop(topic))
        self._listen(topic, msgtype, sensor, qos)

    def _look_for_latched(self, intake: Intake) -> None:
        """A camera_info that is sent once, and kept, by who came after the subscription: only one that asks for it gets it."""
        for sensor in intake.sensors.values():
            topic = sensor.info_topic
            if not intake.intrinsics.is_missing(sensor):
                continue
            qos = subscription_qos(self.context.ros, topic, sensor)
            if qos.durability != self.qos[topic].durability:
                self._listen_anew(topic, CAMERA_INFO, sensor, qos)

    def _look_for_late(self, intake: Intake) -> None:
        """Sensors that appear once others were taken: all are taken anew before the map is begun, and said afterwards."""
        late = self._search.late(self._sensors)
        if late and intake.frame_names is None:
            self.context.log.info(f"{', '.join(late)} came later: looking for sensors anew")
            self._is_outdated = True
            return
        for kind in NOT_TAKEN:
            intake.problems.pop(kind, None)
        intake.problems.update(not_taken(self._search.left_out(), late))

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self.context.ros.destroy_timer(self._timer)
            self._timer = None


def _is_same(one: QoSProfile, other: QoSProfile) -> bool:
    return (one.reliability, one.durability) == (other.reliability, other.durability)
