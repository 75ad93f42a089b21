# SPDX-License-Identifier: Apache-2.0
"""What image topics hold, by their first messages, as a bag's scan tells it: names alone do not know depth from a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages.images import peek_encoding
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.qos import sensor_qos
from occupancy_nn_ros.runtime.discovery import IMAGE_TYPES
from occupancy_nn_ros.runtime.topic_names import content, own_outputs

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble has it elsewhere
    from rclpy.qos_event import SubscriptionEventCallbacks


class Encodings:
    """Listens to each image topic until it has brought one message.

    Attributes:
        known: encoding (or compressed format) by topic.
        missing: topics that were asked and have said nothing.
        is_open: whether it may listen.
        elsewhere: topics that somebody else listens to, who calls :meth:`learn`.
    """

    def __init__(self, node: Any) -> None:
        """Nothing is known yet."""
        self.known: dict[str, str] = {}
        self.missing: frozenset[str] = frozenset()
        self.is_open = True
        self.elsewhere: frozenset[str] = frozenset()
        self._node = node
        self._subscriptions: dict[str, Any] = {}

    def ask(self, topics: Mapping[str, str]) -> None:
        """Listen to those of these topics, with their types, that are not known; no longer to any others."""
        if not self.is_open:
            return
        for topic in set(self._subscriptions) - set(topics):
            self._end(topic)
        self.missing = frozenset(topics) - set(self.known)
        for topic, msgtype in topics.items():
            if topic not in self.known and topic not in self._subscriptions and topic not in self.elsewhere:
                qos = sensor_qos(
                    "auto", 1, [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]
                )
                self._subscriptions[topic] = self._node.create_subscription(
                    interface_class(msgtype), topic, partial(self.learn, topic, msgtype), qos, raw=True,
                    event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
                )  # fmt: skip

    def learn(self, topic: str, msgtype: str, cdr: bytes) -> None:
        """Take a message; one that does not decode tells nothing, and the next one may."""
        try:
            self.known[topic] = peek_encoding(msgtype, cdr)
        except MessageError:
            return
        self.missing -= {topic}
        self._end(topic)

    def leave_elsewhere(self) -> None:
        """Listen no longer to what is listened to :attr:`elsewhere`."""
        for topic in self.elsewhere & set(self._subscriptions):
            self._end(topic)

    def close(self) -> None:
        """Listen no longer; what is known stays, and what is missing."""
        self.is_open = False
        for topic in list(self._subscriptions):
            self._end(topic)

    def _end(self, topic: str) -> None:
        subscription = self._subscriptions.pop(topic, None)
        if subscription is not None:
            self._node.destroy_subscription(subscription)


def worth_asking(config: Config, topics: Mapping[str, str]) -> dict[str, str]:
    """The image topics whose encodings decide which sensors are taken, with their types.

    None where all cameras are named with their topics, or only LiDARs are looked for; else all that are not left out by their names.
    Other nodes' maps and masks are never asked: many compute only what somebody listens to.

    Args:
        config: names the cameras.
        topics: message type of every topic that may be taken.
    """
    named = [camera.image_topic for camera in config.cameras.values()]
    if (named and all(named)) or (config.source == "lidar" and not named):
        return {}
    own = own_outputs(topics)
    return {
        topic: msgtype
        for topic, msgtype in topics.items()
        if msgtype in IMAGE_TYPES and topic not in own and content(topic, "") != "neither"
    }
