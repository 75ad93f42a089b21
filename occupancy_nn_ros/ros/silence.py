# SPDX-License-Identifier: Apache-2.0
"""Why no map comes out, as far as the intake and the ROS graph tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from occupancy_nn_ros.messages.names import TF_MESSAGE
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.graph import why_silent
from occupancy_nn_ros.ros.receiver import Receiver
from occupancy_nn_ros.runtime.intake import Intake


class Silence:
    """Looks at intake and session once a second, so that it can tell what stopped from what never came."""

    def __init__(self, context: NodeContext) -> None:
        """Nothing was looked at yet."""
        self._context = context
        self._clock_ns, self._clock_looks = -1, 0
        self._received: Counter[str] = Counter()
        self._quiet_looks: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._new_drops: list[str] = []

    def look(self, intake: Intake | None, lost: Counter[str], problems: Mapping[str, str]) -> None:
        """Note what arrived and what was dropped since the last look.

        Args:
            intake: counts what arrives, None before the sensors are found.
            lost: what was dropped behind the intake, by reason.
            problems: the latest trouble of each of these reasons.
        """
        now_ns = self._context.now_ns()
        self._clock_looks = self._clock_looks + 1 if now_ns == self._clock_ns else 0
        self._clock_ns = now_ns
        if intake is None:
            return
        for name, count in intake.received.items():
            self._quiet_looks[name] = 0 if count != self._received[name] else self._quiet_looks[name] + 1
        dropped, problems = intake.dropped + lost, {**intake.problems, **problems}
        risen = sorted(reason for reason, count in dropped.items() if count > self._dropped[reason])
        self._new_drops = [problems.get(reason, f"frames are dropped: {reason}") for reason in risen]
        self._received, self._dropped = Counter(intake.received), dropped

    def reason(self, receiver: Receiver, patience: int) -> str:
        """Why there is no map; a sensor counts as stopped after ``patience`` looks without a message."""
        clock = self._clock(patience)
        if clock:
            return clock
        intake = receiver.intake
        if intake is None:
            return receiver.obstacle
        parts = [
            text if topic in intake.heard else f"{text}: {_why(receiver, topic)}"
            for topic, text in intake.silent_topics().items()
        ]
        parts = parts or [
            f"{sensor.topic} ({name}) stopped: {_why(receiver, sensor.topic)}"
            for name, sensor in intake.sensors.items()
            if self._quiet_looks[name] >= patience
        ]
        parts = parts or intake.clock_gaps() or _transforms(receiver, intake) or self._new_drops
        return "; ".join(parts) or "images arrive, but none of their sets makes a keyframe"

    def _clock(self, patience: int) -> str:
        """What is wrong with simulated time; empty if nothing is."""
        ros = self._context.ros
        if not ros.get_parameter("use_sim_time").value or self._clock_looks < patience:
            return ""
        if self._clock_ns:
            return f"/clock stands still at {self._clock_ns * 1e-9:.3f} s: the simulation or the bag is paused, or has ended"
        who = "it is published but nothing comes" if ros.count_publishers("/clock") else "nobody publishes it"
        return f"use_sim_time is true and no message came on /clock ({who}): start the simulation, or set it to false"


def _transforms(receiver: Receiver, intake: Intake) -> list[str]:
    """What the oldest frame set waits for, and the transform topics that brought nothing at all."""
    missing = intake.waiting_for()
    if not missing:
        return []
    unheard = [topic for topic in intake.poses.tf_topics if topic not in intake.heard]
    return [*missing, *(f"no message on {topic}: {_why(receiver, topic)}" for topic in unheard)]


def _why(receiver: Receiver, topic: str) -> str:
    msgtype = receiver.intake.topics[topic] if receiver.intake is not None else TF_MESSAGE
    return why_silent(receiver.context.ros, topic, msgtype, receiver.qos[topic])
