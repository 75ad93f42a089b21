# SPDX-License-Identifier: Apache-2.0
"""Says how the node is doing: status and diagnostics every second, and a warning when nothing comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from rclpy.clock import Clock, ClockType

from occupancy_nn_ros.messages.names import DIAGNOSTIC_ARRAY, MAP_STATUS
from occupancy_nn_ros.messages.status import encode_diagnostics, encode_map_status
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.ros.qos import STATUS_QOS
from occupancy_nn_ros.ros.receiver import Receiver
from occupancy_nn_ros.ros.silence import Silence
from occupancy_nn_ros.ros.worker import Worker
from occupancy_nn_ros.runtime.intake import RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import NodeStatus

PERIOD_S = 1.0
BUSY = "worker busy: newer keyframe came first"
SILENCE_TICKS = 4
"""After so many seconds without a new keyframe the node says what it waits for."""


class Watch:
    """A timer on the wall clock, so that it ticks even where simulated time stands still."""

    def __init__(self, context: NodeContext, publishers: OutputPublishers, receiver: Receiver) -> None:
        """Start to watch."""
        self.context, self.publishers, self.receiver = context, publishers, receiver
        self._status = context.ros.create_publisher(interface_class(MAP_STATUS), "~/status", STATUS_QOS)
        self._diagnostics = context.ros.create_publisher(interface_class(DIAGNOSTIC_ARRAY), "/diagnostics", STATUS_QOS)
        self._keyframes, self._silent_ticks = 0, 0
        self._silence, self._reason = Silence(), ""
        self._reported: dict[str, str] = {}
        self._previous: NodeStatus | None = None
        self._timer: Any = context.ros.create_timer(PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Stop watching."""
        self.context.ros.destroy_timer(self._timer)
        self.context.ros.destroy_publisher(self._status)
        self.context.ros.destroy_publisher(self._diagnostics)

    def _tick(self) -> None:
        session, worker = self.context.session, self.context.worker
        if session is None or worker is None:
            return
        if self.publishers.missing():
            worker.ask(self.publishers.publish_missing)
        self._silent_ticks = 0 if session.keyframes != self._keyframes else self._silent_ticks + 1
        self._keyframes = session.keyframes
        lost, problems = session.troubles()
        self._look_for_reason(lost, problems)
        if self._reason and worker.is_idle:
            self.context.log.warning(
                f"no map update for {self._silent_ticks} s: {self._reason}", throttle_duration_sec=5.0
            )
        self._report_problems(problems)
        status = self._node_status(session, worker)
        self._status.publish(encode_map_status(status))
        name = self.context.ros.get_fully_qualified_name().lstrip("/")
        self._diagnostics.publish(encode_diagnostics(status, name, self._previous))
        self._previous = status

    def _look_for_reason(self, lost: Counter[str], problems: Mapping[str, str]) -> None:
        """Why it is silent, once it has been for long enough."""
        if self.receiver.intake is not None:
            self._silence.look(self.receiver.intake, lost, problems)
        is_silent = self._silent_ticks >= SILENCE_TICKS and not self.context.is_paused
        self._reason = self._silence.reason(self.receiver, SILENCE_TICKS - 1) if is_silent else ""

    def _report_problems(self, problems: Mapping[str, str]) -> None:
        """Log each kind of trouble when its latest instance is new, at most once a second each."""
        received = {} if self.receiver.intake is None else self.receiver.intake.problems
        for kind, text in {**problems, **received}.items():
            if self._reported.get(kind) != text and kind != "transform":
                self.context.log.warning(text)
                self._reported[kind] = text

    def _node_status(self, session: MappingSession, worker: Worker[RawKeyframe]) -> NodeStatus:
        intake, now_ns = self.receiver.intake, self.context.now_ns()
        if intake is None:
            return NodeStatus(now_ns, frame_id=self.context.config.map_frame, state="waiting", waiting_for=self._reason)
        state: Literal["mapping", "paused", "waiting"] = "waiting"
        if self.context.is_paused:
            state = "paused"
        elif self._silent_ticks < SILENCE_TICKS and session.keyframes:
            state = "mapping"
        elsewhere = {BUSY: worker.overwritten} if worker.overwritten else {}
        return replace(session.status(intake, now_ns, state, elsewhere), waiting_for=self._reason)
