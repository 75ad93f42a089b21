# SPDX-License-Identifier: Apache-2.0
"""Where one frame is in another over time: samples in order of their stamps, and what lies between two of them.

Stamps come from clocks that need not agree. What a sample means is judged against the sensors' newest stamp, where it is known:
some transforms are dated ahead of their time on purpose, others come from another clock altogether.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque

import numpy as np

from occupancy_nn_ros.errors import ExtrapolationError
from occupancy_nn_ros.geometry.poses import interpolate, rotation_angle
from occupancy_nn_ros.sync.frame_words import BODY_WORDS, is_fixed_name, words_of
from occupancy_nn_ros.sync.step_watch import StepWatch
from occupancy_nn_ros.values import FloatArray

MAX_SAMPLES = 100_000

GAP_NS, GAP_M, GAP_RAD = 1_000_000_000, 0.1, 0.1
"""Over a longer gap than this between two samples, more motion than this is no longer a straight line."""

JUMP_M, JUMP_M_S = 0.2, 50.0
JUMP_RAD, JUMP_RAD_S = 0.5, 20.0
"""Motion both larger and faster than this is a correction of the pose, and what lies between was never passed."""

CORRECTION_M_S, CORRECTION_RAD_S = 2.0, 1.0
"""Where two frames stand still, as odom in map, and one moves in the other, drift is corrected: faster than this at one moment."""

AHEAD_NS = 5_000_000_000
"""Localisation dates its transforms ahead, so that they hold until the next one: AMCL by 1 s, ROS 1's robot_state_publisher by
0.5 s. What lies further ahead of all sensors comes from another clock, and is not looked at before they come there."""

BEHIND_NS = 1_000_000_000
"""A sample this much older than its frame's newest is from another clock, or from after a jump back in time."""

DATED_AHEAD_NS, SAME_M, SAME_RAD = 300_000_000, 0.01, 0.01
"""A frame whose first samples are the same and lie this far ahead is dated ahead on purpose: it holds from when it was sent."""

UNKNOWN_DELAY_NS = 2_000_000_000
"""After its first sample it is not known how long a frame's next takes: odometry of one sample a second is no rarity."""

SILENT_NS = 2_000_000_000
"""A frame of which nothing came for so long is not late: its publisher has stopped, or meant to send it once."""

KEPT_BEHIND = 200
REMEMBERED = 20
"""How many of the last samples tell how late samples come."""


class PoseTrack:
    """Samples of a frame's pose in its parent.

    Attributes:
        parent, child: the frames.
        stamps: of all samples, in order.
        too_old: samples so far that lay before everything that is kept.
        behind: samples so far that were much older than the newest.
        contradicted: samples so far that say another pose than the one before of the same stamp.
    """

    def __init__(self, parent: str, child: str, cache_ns: int) -> None:
        """Keep samples for ``cache_ns`` behind the newest."""
        self.parent, self.child, self.cache_ns = parent, child, cache_ns
        self._is_correction = is_fixed_name(parent) and is_fixed_name(child) and not words_of(child) & BODY_WORDS
        self.stamps: list[int] = []
        self.too_old = self.behind = self.contradicted = 0
        self._watch = StepWatch()
        self._poses: dict[int, FloatArray] = {}
        self._late: deque[tuple[int, FloatArray]] = deque(maxlen=KEPT_BEHIND)
        self._delays: deque[int] = deque(maxlen=REMEMBERED)
        self._leads: deque[int] = deque(maxlen=REMEMBERED)
        self._sent_ns: int | None = None
        self._noted_ns: int | None = None
        self._came_ns: int | None = None

    @property
    def delay_ns(self) -> int:
        """How long after a sensor's stamp the pose at that stamp became known, at the worst of late; 0 if at once."""
        return max((0, *self._delays))

    @property
    def ahead_ns(self) -> int:
        """How far ahead of the sensors the samples are dated, at the least of late; 0 if they are not."""
        return max(0, min(self._leads, default=0))

    def newest(self, now_ns: int | None) -> int | None:
        """Stamp of the newest sample that the sensors' time allows to use, None if there is none."""
        usable = self._usable(now_ns)
        return self.stamps[usable - 1] if usable else None

    def add(self, stamp_ns: int, pose: FloatArray, now_ns: int | None) -> bool:
        """Take a sample; False if it lies before all that is kept, and was left out.

        Args:
            stamp_ns: when it holds.
            pose: (4, 4) pose of the child in the parent.
            now_ns: newest stamp of any sensor, None where that is not known.
        """
        newest = self.newest(now_ns)
        if newest is not None and stamp_ns < newest - BEHIND_NS:
            self.behind += 1
            self._late.append((stamp_ns, pose))
            if stamp_ns < newest - self.cache_ns:
                self.too_old += 1
                return False
        if now_ns is not None and stamp_ns <= now_ns + AHEAD_NS:
            self._note_time(stamp_ns, newest, now_ns)
        self._came_ns = now_ns
        if stamp_ns not in self._poses:
            insort(self.stamps, stamp_ns)
        else:
            self.contradicted += not is_same_pose(self._poses[stamp_ns], pose)
        self._poses[stamp_ns] = pose
        self._forget_old(now_ns)
        return True

    def begin(self, now_ns: int) -> None:
        """The sensors' first stamp is known, and with it how far ahead the samples are dated."""
        self._came_ns = now_ns
        if self.stamps and now_ns + DATED_AHEAD_NS <= self.stamps[0] <= now_ns + AHEAD_NS:
            self._sent_ns = now_ns

    def rewind(self, now_ns: int) -> None:
        """Time was turned back to ``now_ns``: keep only what came since, which looked old until now."""
        late = [(stamp, pose) for stamp, pose in self._late if abs(stamp - now_ns) <= self.cache_ns]
        self.clear()
        for stamp, pose in late:
            self.add(stamp, pose, None)

    def clear(self) -> None:
        """Forget all samples."""
        self.stamps.clear()
        self._poses.clear()
        self._late.clear()
        self._delays.clear()
        self._leads.clear()
        self._sent_ns = None
        self._watch.forget()

    def sample(self, stamp_ns: int) -> FloatArray:
        """(4, 4) pose of the sample with one of :attr:`stamps`."""
        return self._poses[stamp_ns]

    def look_at_steps(self) -> StepWatch:
        """What the samples are like from one to the next, up to the newest; costs what came since the last call."""
        for stamp_ns in self.stamps[bisect_right(self.stamps, self._watch.newest_ns) :]:
            self._watch.add(stamp_ns, self._poses[stamp_ns])
        return self._watch

    def would_replace(self, stamp_ns: int, pose: FloatArray) -> bool:
        """Whether another pose is known of this very stamp."""
        return stamp_ns in self._poses and not np.array_equal(self._poses[stamp_ns], pose)

    def at(self, stamp_ns: int, now_ns: int | None) -> FloatArray:
        """(4, 4) pose of the child in the parent at a stamp.

        Raises:
            ExtrapolationError: outside of the samples, or between two that do not tell what was between them.
        """
        before, after = self.around(stamp_ns, now_ns)
        if before == after:
            return self._poses[before]
        return interpolate(self._poses[before], self._poses[after], (stamp_ns - before) / (after - before))

    def around(self, stamp_ns: int, now_ns: int | None) -> tuple[int, int]:
        """Stamps of the samples between which a stamp lies; twice the same where one sample holds at it.

        Raises:
            ExtrapolationError: outside of the samples, or between two that do not tell what was between them.
        """
        usable = self._usable(now_ns)
        upper = bisect_left(self.stamps, stamp_ns)
        if upper < usable and self.stamps[upper] == stamp_ns:
            return stamp_ns, stamp_ns
        if usable and upper == 0 and self._sent_ns is not None and stamp_ns >= self._sent_ns:
            self._check_held_back(stamp_ns, usable, now_ns)
            return self.stamps[0], self.stamps[0]
        if upper == 0 or upper >= usable:
            raise self._outside(stamp_ns, usable, now_ns)
        before, after = self.stamps[upper - 1], self.stamps[upper]
        first, second = self._poses[before], self._poses[after]
        rates = (CORRECTION_M_S, CORRECTION_RAD_S) if self._is_correction else (JUMP_M_S, JUMP_RAD_S)
        if not _is_steady(first, second, after - before, rates):
            raise ExtrapolationError(
                f"transform from '{self.child}' to '{self.parent}' moves {_distance(first, second):.2f} m and turns "
                f"{rotation_angle(first, second):.2f} rad from {before * 1e-9:.3f} to {after * 1e-9:.3f} s, too much to know it at "
                f"{stamp_ns * 1e-9:.3f} s",
                is_future=False,
            )
        return before, after

    def _check_held_back(self, stamp_ns: int, usable: int, now_ns: int | None) -> None:
        """The first sample holds if the second tells that the frame stands still; one that moves is not known before its first."""
        first = self._poses[self.stamps[0]]
        if usable > 1:
            second = self._poses[self.stamps[1]]
            if is_same_pose(first, second):
                return
        error = self._outside(stamp_ns, usable, now_ns)
        raise ExtrapolationError(str(error), is_future=usable == 1)

    def _outside(self, stamp_ns: int, usable: int, now_ns: int | None) -> ExtrapolationError:
        what = f"transform from '{self.child}' to '{self.parent}'"
        if not self.stamps:
            return ExtrapolationError(f"{what} has no samples", is_future=True)
        if not usable and now_ns is not None:
            gap = (self.stamps[0] - now_ns) * 1e-9
            text = f"{what} is dated {gap:.1f} s ahead of the sensors: another clock"
            return ExtrapolationError(text, is_future=False)
        known = f"known from {self.stamps[0] * 1e-9:.3f} to {self.stamps[max(usable, 1) - 1] * 1e-9:.3f} s"
        is_future = stamp_ns > self.stamps[0]
        delay_ns = self.delay_ns if len(self.stamps) > 1 else max(self.delay_ns, UNKNOWN_DELAY_NS)
        text = f"{what} is {known}, asked for {stamp_ns * 1e-9:.3f} s"
        ending, words = self._ending(stamp_ns, now_ns)
        return ExtrapolationError(f"{text}{words}", is_future=is_future, delay_ns=delay_ns, ending=ending)

    def _ending(self, stamp_ns: int, now_ns: int | None) -> tuple[str, str]:
        """How samples end of which none came for long, and that worded for people; empty if they go on, or lie after the stamp."""
        silent_ns = 0 if now_ns is None or self._came_ns is None else now_ns - self._came_ns
        if stamp_ns < self.stamps[-1] or silent_ns < SILENT_NS:
            return "", ""
        first, belongs = self._poses[self.stamps[0]], "what stands still belongs on /tf_static"
        if len(self.stamps) == 1:
            return "mount", f": it came once, as one that moves; {belongs}"
        if all(is_same_pose(first, self._poses[stamp]) for stamp in self.stamps[-REMEMBERED:]):
            return "mount", f": it stood still, and came no more; {belongs}"
        return "stopped", f": nothing of it came for {silent_ns * 1e-9:.1f} s"

    def _usable(self, now_ns: int | None) -> int:
        """How many of the first samples are not from a clock that runs ahead."""
        return len(self.stamps) if now_ns is None else bisect_right(self.stamps, now_ns + AHEAD_NS)

    def _note_time(self, stamp_ns: int, newest: int | None, now_ns: int) -> None:
        if (newest is None or stamp_ns > newest) and now_ns != self._noted_ns:
            self._noted_ns = now_ns
            self._leads.append(stamp_ns - now_ns)
            self._delays.append(now_ns - (stamp_ns if newest is None else newest))
        if not self.stamps and stamp_ns >= now_ns + DATED_AHEAD_NS:
            self._sent_ns = now_ns

    def _forget_old(self, now_ns: int | None) -> None:
        newest = self.newest(now_ns)
        if newest is not None:
            self._delete(0, bisect_left(self.stamps, newest - self.cache_ns))
        usable, excess = self._usable(now_ns), len(self.stamps) - MAX_SAMPLES
        if excess > 0:  # another clock's samples go first
            start = usable if len(self.stamps) - usable >= excess else 0
            self._delete(start, start + excess)

    def _delete(self, start: int, stop: int) -> None:
        if start == 0 and stop > 0:
            self._sent_ns = None
        for stamp in self.stamps[start:stop]:
            del self._poses[stamp]
        del self.stamps[start:stop]


def is_same_pose(first: FloatArray, second: FloatArray) -> bool:
    """Whether two poses differ by no more than rounding and noise."""
    return _distance(first, second) <= SAME_M and rotation_angle(first, second) <= SAME_RAD


def _is_steady(first: FloatArray, second: FloatArray, gap_ns: int, rates: tuple[float, float]) -> bool:
    """Whether two samples tell what was between them: neither a long gap with motion nor a jump."""
    moved, turned, gap_s = _distance(first, second), rotation_angle(first, second), gap_ns * 1e-9
    if gap_ns > GAP_NS and (moved > GAP_M or turned > GAP_RAD):
        return False
    return (moved <= JUMP_M or moved <= rates[0] * gap_s) and (turned <= JUMP_RAD or turned <= rates[1] * gap_s)


def _distance(first: FloatArray, second: FloatArray) -> float:
    return float(np.linalg.norm(second[:3, 3] - first[:3, 3]))
