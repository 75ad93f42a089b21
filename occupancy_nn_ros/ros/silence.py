# SPDX-License-Identifier: Apache-2.0
"""Why no map comes out, as far as the intake and the ROS graph tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from occupancy_nn_ros.messages.names import TF_MESSAGE, TF_TOPICS
from occupancy_nn_ros.ros.graph import why_silent
from occupancy_nn_ros.ros.receiver import Receiver
from occupancy_nn_ros.runtime.intake import Intake


class Silence:
    """Looks at intake and session once a second, so that it can tell what stopped from what never came."""

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._received: Counter[str] = Counter()
        self._quiet_looks: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._new_drops: list[str] = []

    def look(self, intake: Intake, lost: Counter[str], problems: Mapping[str, str]) -> None:
        """Note what arrived and what was dropped since the last look.

        Args:
            intake: counts what arrives.
            lost: what was dropped behind the intake, by reason.
            problems: the latest trouble of each of these reasons.
        """
        for name, count in intake.received.items():
            self._quiet_looks[name] = 0 if count != self._received[name] else self._quiet_looks[name] + 1
        dropped, problems = intake.dropped + lost, {**intake.problems, **problems}
        risen = sorted(reason for reason, count in dropped.items() if count > self._dropped[reason])
        self._new_drops = [problems.get(reason, f"frames are dropped: {reason}") for reason in risen]
        self._received, self._dropped = Counter(intake.received), dropped

    def reason(self, receiver: Receiver, patience: int) -> str:
        """Why there is no map; a sensor counts as stopped after ``patience`` looks without a message."""
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


def _transforms(receiver: Receiver, intake: Intake) -> list[str]:
    """What the oldest frame set waits for, and the transform topics that brought nothing at all."""
    missing = intake.waiting_for()
    if not missing:
        return []
    unheard = [topic for topic in TF_TOPICS if topic not in intake.heard]
    return [*missing, *(f"no message on {topic}: {_why(receiver, topic)}" for topic in unheard)]


def _why(receiver: Receiver, topic: str) -> str:
    msgtype = receiver.intake.topics[topic] if receiver.intake is not None else TF_MESSAGE
    return why_silent(receiver.context.ros, topic, msgtype, receiver.qos[topic])
