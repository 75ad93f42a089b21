# SPDX-License-Identifier: Apache-2.0
"""The node's output topics. Nothing is computed for a topic that nobody subscribes to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rclpy.clock import Clock, ClockType

from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.qos import LATCHED_QOS, STREAM_QOS
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutMessage, OutputTopic


class OutputPublishers:
    """Publishers of all outputs, by name."""

    def __init__(self, context: NodeContext) -> None:
        """Create them under the node's own name.

        Raises:
            MissingDependencyError: a message type is not built.
        """
        self._context = context
        self._publishers: dict[str, Any] = {
            topic.name: self._create(topic) for topic in OUTPUTS if self._can_offer(topic)
        }
        self._of_the_map = frozenset(self._publishers)
        self._sent: set[str] = set()
        self._listeners: dict[str, int] = {}
        self._forgetting = frozenset(topic.name for topic in OUTPUTS if not topic.is_latched)
        self._grids: dict[str, tuple[float, bytes]] = {}
        self._newest_last = threading.Lock()
        period_s = context.config.outputs.grid_repeat_s
        self._repeating: Any = (
            context.ros.create_timer(period_s / 2, self._repeat, clock=Clock(clock_type=ClockType.STEADY_TIME))
            if period_s
            else None
        )

    def add(self, topics: Iterable[OutputTopic]) -> None:
        """Offer those of these topics that depend on the cameras."""
        added = {
            topic.name: self._create(topic) for topic in topics if topic.camera and topic.name not in self._publishers
        }
        # A new dictionary, since the worker's thread may be reading the old one.
        self._publishers = {**self._publishers, **added}

    def wanted(self) -> set[str]:
        """Names of the outputs that somebody subscribes to."""
        return {name for name, publisher in self._publishers.items() if publisher.get_subscription_count() > 0}

    def publish(self, messages: Sequence[OutMessage]) -> None:
        """Send messages made by the session, the largest first; call from the worker's thread.

        Fast DDS has 512 KiB of shared memory for all that a process sends, and a large message takes the place of those
        sent just before it, read or not. Grids are small, so nothing follows them.
        """
        for message in sorted(messages, key=lambda message: len(message.cdr), reverse=True):
            with self._newest_last:
                self._publishers[message.name].publish(message.cdr)
                if message.topic.group == "grid" and message.topic.is_latched:
                    self._grids[message.name] = time.monotonic(), message.cdr
            self._sent.add(message.name)

    def missing(self) -> set[str]:
        """Outputs of the map that somebody subscribes to and was not sent although there is a map.

        DDS keeps the last message of latched topics for who joins late; of the others it is sent again.
        """
        session = self._context.session
        if session is None or not session.pipeline.has_map:
            return set()
        counts = {name: self._publishers[name].get_subscription_count() for name in self._forgetting & self._of_the_map}
        self._sent -= {name for name, count in counts.items() if count > self._listeners.get(name, 0)}
        self._listeners = counts
        return (self.wanted() & self._of_the_map) - self._sent

    def publish_missing(self) -> None:
        """Send the map to subscribers that joined after it was made; call from the worker's thread."""
        session, missing = self._context.session, self.missing()
        if session is not None and missing:
            self.publish(session.final_outputs(missing))

    def publish_unknown(self) -> None:
        """Send the latched grids as if nothing were known; call from the worker's thread."""
        session = self._context.session
        if session is not None:
            self.publish(session.unknown_grids(self.wanted()))

    def forget(self) -> None:
        """Let the next subscriber check send everything again, as after the map was cleared or loaded."""
        self._sent.clear()
        with self._newest_last:
            self._grids.clear()

    def close(self) -> None:
        """Destroy the publishers."""
        if self._repeating is not None:
            self._context.ros.destroy_timer(self._repeating)
        for publisher in self._publishers.values():
            self._context.ros.destroy_publisher(publisher)
        self._publishers.clear()

    def _repeat(self) -> None:
        """Send grids again that no new one followed in time; called in the executor's thread, while the worker computes."""
        if self._context.phase != "active" or self._context.is_paused:
            return
        now_s, period_s = time.monotonic(), self._context.config.outputs.grid_repeat_s
        with self._newest_last:
            for name, (sent_s, cdr) in self._grids.items():
                if now_s - sent_s >= period_s and name in self._publishers:
                    self._publishers[name].publish(cdr)
                    self._grids[name] = now_s, cdr

    def _can_offer(self, topic: OutputTopic) -> bool:
        """Whether what an optional topic needs is there; says so if not."""
        if not topic.is_optional:
            return True
        try:
            interface_class(topic.msgtype)
        except MissingDependencyError:
            missing = topic.msgtype.split("/")[0]
        else:
            missing = "" if topic.is_available else topic.extra
        if missing:
            self._context.log.info(f"~/{topic.name} is left out: {missing} is not installed")
        return not missing

    def _create(self, topic: OutputTopic) -> Any:
        qos = LATCHED_QOS if topic.is_latched else STREAM_QOS
        return self._context.ros.create_publisher(interface_class(topic.msgtype), f"~/{topic.name}", qos)
