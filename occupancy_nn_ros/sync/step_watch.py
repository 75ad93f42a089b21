# SPDX-License-Identifier: Apache-2.0
"""Whether the samples of a frame are those of one thing that moves: jumps, and steps back and forth, looked at as they come."""

from __future__ import annotations

from collections import deque

import numpy as np

from occupancy_nn_ros.values import FloatArray

BACK_M, BACK_RAD, BACK_S = 0.03, 0.03, 0.25
"""Samples that lie by turns this far to one side and the other of their neighbours, after steps no longer than this, are of no robot."""

LEAST_BACK, BACK_SHARE = 5, 0.05
"""So many such steps, and this share of all, are of two publishers."""

JUMP_M, JUMP_M_S = 0.2, 5.0
JUMP_RAD, JUMP_RAD_S = 0.2, 6.0
"""One step both larger and faster than this, and three times faster than any of those before, is no motion."""

PAUSE_S, AT_ORIGIN, LEFT_M = 1.0, 0.02, 0.5
"""After a pause of this long a frame that is back at its origin, to so many metres and radians, was begun anew if it had left it."""

REMEMBERED = 20
LONG_AGO_NS = -(1 << 62)


class StepWatch:
    """Takes the samples of a frame in order of their stamps.

    Attributes:
        steps: how many there were.
        back_and_forth: how many of them ended on the other side than the one before.
        jumps: how many were no motion.
        largest_m, largest_rad: of these.
    """

    def __init__(self) -> None:
        """Nothing came yet."""
        self.steps = self.back_and_forth = self.jumps = 0
        self.largest_m = self.largest_rad = 0.0
        self._last: deque[tuple[int, FloatArray]] = deque(maxlen=2)
        self._steps: deque[tuple[float, FloatArray]] = deque(maxlen=3)
        self._rates: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)

    @property
    def are_two(self) -> bool:
        """Whether two publishers take turns."""
        return self.back_and_forth >= max(LEAST_BACK, BACK_SHARE * self.steps)

    def add(self, stamp_ns: int, pose: FloatArray) -> None:
        """Take the next sample; one that is not newer than the last is not looked at."""
        if self._last and stamp_ns <= self._last[-1][0]:
            return
        self._last.append((stamp_ns, pose))
        if len(self._last) > 1:
            self.steps += 1
            self._look_at_step()
            self.back_and_forth += self._goes_back()

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest sample that was looked at, far in the past before the first."""
        return self._last[-1][0] if self._last else LONG_AGO_NS

    def forget(self) -> None:
        """The next sample does not follow the last one, as after a jump back in time."""
        self._last.clear()
        self._steps.clear()

    def _look_at_step(self) -> None:
        (before_ns, before), (after_ns, after) = self._last
        seconds = (after_ns - before_ns) * 1e-9
        step = np.stack([after[:3, 3] - before[:3, 3], _turn(before, after)])
        moved, turned = (float(size) for size in np.linalg.norm(step, axis=1))
        self._steps.append((seconds, step))
        rates = moved / seconds, turned / seconds
        usual = np.max(self._rates, axis=0) if self._rates else (np.inf, np.inf)
        is_jump = (moved > JUMP_M and rates[0] > max(JUMP_M_S, 3 * usual[0])) or (
            turned > JUMP_RAD and rates[1] > max(JUMP_RAD_S, 3 * usual[1])
        )
        if is_jump or (seconds > PAUSE_S and _is_anew(before, after)):
            self.jumps += 1
            self.largest_m, self.largest_rad = max(self.largest_m, moved), max(self.largest_rad, turned)
        else:
            self._rates.append(rates)

    def _goes_back(self) -> bool:
        """Whether the last four samples lie by turns to one side and the other of the way between their neighbours."""
        if len(self._steps) < 3 or max(seconds for seconds, _ in self._steps) > BACK_S:
            return False
        one, two, three = (step for _, step in self._steps)
        aside, then = (one - two) / 2, (two - three) / 2
        sizes = np.minimum(np.linalg.norm(aside, axis=1), np.linalg.norm(then, axis=1))
        return bool(((sizes > (BACK_M, BACK_RAD)) & ((aside * then).sum(axis=1) < -(sizes**2) / 2)).any())


def _is_anew(before: FloatArray, after: FloatArray) -> bool:
    """Whether a frame is back at its origin: odometry that was restarted, a recording of two drives, a robot that was carried."""
    turn = float(np.linalg.norm(_turn(np.eye(4), after)))
    is_back = float(np.linalg.norm(after[:3, 3])) < AT_ORIGIN and turn < AT_ORIGIN
    return is_back and float(np.linalg.norm(before[:3, 3])) > LEFT_M


def _turn(before: FloatArray, after: FloatArray) -> FloatArray:
    """Rotation vector (3,) from one pose to another; its length is the angle, the axis of half a turn is left open."""
    R = after[:3, :3] @ before[:3, :3].T
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    sine, cosine = float(np.linalg.norm(axis)), float(np.trace(R) - 1) / 2
    angle = float(np.arctan2(sine, cosine))
    return axis * (angle / sine) if sine > 1e-9 else np.array([angle, 0.0, 0.0])
