# SPDX-License-Identifier: Apache-2.0
"""Says how the node is doing: status and diagnostics every second, and a warning when nothing comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from rclpy.clock import Clock, ClockType

from occupancy_nn_ros.messages.names import DIAGNOSTIC_ARRAY, MAP_STATUS
from occupancy_nn_ros.messages.status import encode_diagnostics, encode_map_status
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.ros.qos import STATUS_QOS
from occupancy_nn_ros.ros.silence import Silence
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import NodeStatus

if TYPE_CHECKING:
    from occupancy_nn_ros.ros.node import OccupancyNode

PERIOD_S = 1.0
SILENCE_TICKS = 4
"""After so many seconds without a new keyframe the node says what it waits for."""


class Watch:
    """A timer on the wall clock, so that it ticks even where simulated time stands still."""

    def __init__(self, node: OccupancyNode, publishers: OutputPublishers) -> None:
        """Start to watch."""
        self.node, self.publishers = node, publishers
        self._status = node.create_publisher(interface_class(MAP_STATUS), "~/status", STATUS_QOS)
        self._diagnostics = node.create_publisher(interface_class(DIAGNOSTIC_ARRAY), "/diagnostics", STATUS_QOS)
        self._keyframes, self._silent_ticks = 0, 0
        self._silence, self._reason = Silence(), ""
        self._reported: dict[str, str] = {}
        self._previous: NodeStatus | None = None
        self._timer: Any = node.create_timer(PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Stop watching."""
        self.node.destroy_timer(self._timer)
        self.node.destroy_publisher(self._status)
        self.node.destroy_publisher(self._diagnostics)

    def _tick(self) -> None:
        session, worker = self.node.session, self.node.worker
        if session is None or worker is None:
            return
        if self.publishers.missing():
            worker.ask(self.publishers.publish_missing)
        self._silent_ticks = 0 if session.keyframes != self._keyframes else self._silent_ticks + 1
        self._keyframes = session.keyframes
        self._look_for_reason(session)
        if self._reason and worker.is_idle:
            self.node.get_logger().warning(
                f"no map update for {self._silent_ticks} s: {self._reason}", throttle_duration_sec=5.0
            )
        self._report_problems()
        status = self._node_status()
        self._status.publish(encode_map_status(status))
        name = self.node.get_fully_qualified_name().lstrip("/")
        self._diagnostics.publish(encode_diagnostics(status, name, self._previous))
        self._previous = status

    def _look_for_reason(self, session: MappingSession) -> None:
        """Why it is silent, once it has been for long enough."""
        receiver = self.node.receiver
        if receiver is not None and receiver.intake is not None:
            self._silence.look(receiver.intake, session)
        is_silent = self._silent_ticks >= SILENCE_TICKS and not self.node.is_paused
        self._reason = self._silence.reason(receiver, SILENCE_TICKS - 1) if is_silent else ""

    def _report_problems(self) -> None:
        """Log each kind of trouble when its latest instance is new, at most once a second each."""
        session, receiver = self.node.session, self.node.receiver
        problems = dict(session.problems) if session is not None else {}
        if receiver is not None and receiver.intake is not None:
            problems |= receiver.intake.problems
        for kind, text in problems.items():
            if self._reported.get(kind) != text and kind != "transform":
                self.node.get_logger().warning(text)
                self._reported[kind] = text

    def _node_status(self) -> NodeStatus:
        receiver, session, worker = self.node.receiver, self.node.session, self.node.worker
        now_ns = self.node.now_ns()
        if receiver is None or receiver.intake is None or session is None:
            return NodeStatus(now_ns, frame_id=self.node.config.map_frame, state="waiting", waiting_for=self._reason)
        state: Literal["mapping", "paused", "waiting"]
        state = (
            "paused"
            if self.node.is_paused
            else "mapping"
            if self._silent_ticks < SILENCE_TICKS and session.keyframes
            else "waiting"
        )
        if worker is not None and worker.overwritten:
            session.dropped["worker busy: newer keyframe came first"] = worker.overwritten
        return replace(session.status(receiver.intake, now_ns, state), waiting_for=self._reason)
