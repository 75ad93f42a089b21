# SPDX-License-Identifier: Apache-2.0
"""Says how the node is doing: status and diagnostics every second, and a warning when nothing comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rclpy.clock import Clock, ClockType

from occupancy_nn_ros.messages.names import DIAGNOSTIC_ARRAY, MAP_STATUS
from occupancy_nn_ros.messages.status import NodeState, NodeStatus, encode_diagnostics, encode_map_status
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.ros.qos import STATUS_QOS
from occupancy_nn_ros.ros.receiver import Receiver
from occupancy_nn_ros.ros.silence import Silence
from occupancy_nn_ros.ros.worker import Worker
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession

PERIOD_S = 1.0
BUSY = "worker busy: newer keyframe came first"
SILENCE_TICKS = 4
"""After so many seconds without a new keyframe the node says what it waits for."""


class Watch:
    """Ticks from the first moment to the last, on the wall clock: simulated time may stand still."""

    def __init__(self, context: NodeContext) -> None:
        """Start to watch.

        Raises:
            MissingDependencyError: a message type is not built.
        """
        self.context = context
        self.receiver: Receiver | None = None
        self.publishers: OutputPublishers | None = None
        self._status = context.ros.create_publisher(interface_class(MAP_STATUS), "~/status", STATUS_QOS)
        self._diagnostics = context.ros.create_publisher(interface_class(DIAGNOSTIC_ARRAY), "/diagnostics", STATUS_QOS)
        self._keyframes = self._silent_ticks = 0
        self._counted = self._old_ticks = 0
        self._silence, self._reason, self._said = Silence(context), "", ""
        self._reported: dict[str, str] = {}
        self._previous: NodeStatus | None = None
        self._timer: Any = context.ros.create_timer(PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def attach(self, receiver: Receiver, publishers: OutputPublishers) -> None:
        """Also watch what is received and sent, from activation on."""
        self.receiver, self.publishers = receiver, publishers
        self._start_anew()

    def detach(self) -> None:
        """Watch what is sent, and the node, from deactivation on."""
        self.receiver = None
        self._start_anew()

    def detach_outputs(self) -> None:
        """Watch the node alone, from cleaning up on."""
        self.publishers = None

    def close(self) -> None:
        """Stop watching."""
        self.context.ros.destroy_timer(self._timer)
        self.context.ros.destroy_publisher(self._status)
        self.context.ros.destroy_publisher(self._diagnostics)

    def _start_anew(self) -> None:
        self._silent_ticks, self._silence, self._reason, self._said = 0, Silence(self.context), "", ""

    def _tick(self) -> None:
        session, worker, receiver = self.context.session, self.context.worker, self.receiver
        if session is not None and worker is not None:
            self._look_at_age(session, worker)
        if session is None or worker is None or receiver is None:
            phase = self.context.phase
            state: NodeState = "waiting" if phase == "active" else phase
            status = NodeStatus(self.context.now_ns(), state=state, waiting_for=self.context.doing)
        else:
            self._look(session, worker, receiver)
            status = self._node_status(session, worker, receiver)
        self._status.publish(encode_map_status(status))
        name = self.context.ros.get_fully_qualified_name().lstrip("/")
        self._diagnostics.publish(encode_diagnostics(status, name, self._previous))
        self._previous = status

    def _look_at_age(self, session: MappingSession, worker: Worker[RawKeyframe]) -> None:
        """Take back the latched grids of a map that is no longer kept up to date, whatever the reason."""
        self._old_ticks = 0 if session.keyframes != self._counted else self._old_ticks + 1
        self._counted = session.keyframes
        limit_ticks = self.context.config.outputs.stale_after_s / PERIOD_S
        if self.publishers is None or not session.keyframes or not limit_ticks:
            return
        if limit_ticks <= self._old_ticks < limit_ticks + 1:
            worker.ask(self.publishers.publish_unknown)
            self.context.log.warning(
                f"no map update for {self._old_ticks * PERIOD_S:.0f} s: the grids go out as unknown"
            )

    def _look(self, session: MappingSession, worker: Worker[RawKeyframe], receiver: Receiver) -> None:
        """Send what late subscribers lack, and log what is wrong."""
        if self.publishers is not None and self.publishers.missing():
            worker.ask(self.publishers.publish_missing)
        is_silent = session.keyframes == self._keyframes and not self.context.is_paused
        self._silent_ticks = self._silent_ticks + 1 if is_silent else 0
        self._keyframes = session.keyframes
        lost, problems = session.troubles()
        self._look_for_reason(receiver, lost, problems)
        if not self._reason:
            self._said = ""
        elif worker.is_idle and self._reason != self._said:
            text = f"no map update for {self._silent_ticks} s: {self._reason}"
            if self.context.log.warning(text, throttle_duration_sec=5.0):
                self._said = self._reason
        self._report_problems(receiver, problems)

    def _look_for_reason(self, receiver: Receiver, lost: Counter[str], problems: Mapping[str, str]) -> None:
        """Why it is silent, once it has been for long enough."""
        self._silence.look(receiver.intake, lost, problems)
        is_silent = self._silent_ticks >= SILENCE_TICKS
        self._reason = self._silence.reason(receiver, SILENCE_TICKS - 1) if is_silent else ""

    def _report_problems(self, receiver: Receiver, problems: Mapping[str, str]) -> None:
        """Log each kind of trouble when its latest instance is new, at most once a second each."""
        received = {} if receiver.intake is None else receiver.intake.problems
        for kind, text in {**problems, **received}.items():
            if self._reported.get(kind) != text and kind != "transform":
                self.context.log.warning(text)
                self._reported[kind] = text

    def _node_status(self, session: MappingSession, worker: Worker[RawKeyframe], receiver: Receiver) -> NodeStatus:
        intake, now_ns = receiver.intake, self.context.now_ns()
        if intake is None:
            return NodeStatus(now_ns, frame_id=self.context.config.map_frame, state="waiting", waiting_for=self._reason)
        state: NodeState = "waiting"
        if self.context.is_paused:
            state = "paused"
        elif self._silent_ticks < SILENCE_TICKS and session.keyframes:
            state = "mapping"
        elsewhere = {BUSY: worker.overwritten} if worker.overwritten else {}
        return replace(session.status(intake, now_ns, state, elsewhere), waiting_for=self._reason)
