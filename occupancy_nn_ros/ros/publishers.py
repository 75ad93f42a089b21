# SPDX-License-Identifier: Apache-2.0
"""The node's output topics. Nothing is computed for a topic that nobody subscribes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from occupancy_nn_ros.outputs import OUTPUTS, OutMessage
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.qos import LATCHED_QOS, STREAM_QOS

if TYPE_CHECKING:
    from occupancy_nn_ros.ros.node import OccupancyNode


class OutputPublishers:
    """Publishers of all outputs, by name."""

    def __init__(self, node: OccupancyNode) -> None:
        """Create them under the node's own name.

        Raises:
            MissingDependencyError: a message type is not built.
        """
        self._node = node
        self._publishers: dict[str, Any] = {
            topic.name: node.create_publisher(
                interface_class(topic.msgtype), f"~/{topic.name}", LATCHED_QOS if topic.is_latched else STREAM_QOS
            )
            for topic in OUTPUTS
        }
        self._last_version: dict[str, int] = {}

    def wanted(self) -> set[str]:
        """Names of the outputs that somebody subscribes to."""
        return {name for name, publisher in self._publishers.items() if publisher.get_subscription_count() > 0}

    def publish(self, messages: Sequence[OutMessage]) -> None:
        """Send messages made by the session; call from the worker's thread."""
        session = self._node.session
        for message in messages:
            self._publishers[message.name].publish(message.cdr)
            self._last_version[message.name] = session.keyframes if session is not None else 0

    def publish_missing(self) -> None:
        """Send the map to subscribers that joined after it was made; call from the worker's thread."""
        session = self._node.session
        if session is None or not session.keyframes:
            return
        behind = {name for name in self.wanted() if name not in self._last_version}
        if behind:
            self.publish(session.final_outputs(behind))

    def has_missing(self) -> bool:
        """Whether somebody subscribes to an output that was never sent although there is a map."""
        session = self._node.session
        return (
            session is not None
            and session.keyframes > 0
            and any(name not in self._last_version for name in self.wanted())
        )

    def forget(self) -> None:
        """Let the next subscriber check send everything again, as after the map was cleared or loaded."""
        self._last_version.clear()

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()
