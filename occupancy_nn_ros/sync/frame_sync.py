# SPDX-License-Identifier: Apache-2.0
"""Frames of N cameras with their own rates and drops become sets taken at about the same time.

All waiting is measured in message time, never in wall time, so that a live run and a replay of it make the same sets.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from occupancy_nn_ros.config import SyncConfig

Item = TypeVar("Item")
JUMP_BACK_NS = 1_000_000_000
"""A frame this much older than its camera's newest means that time was turned back, not that a frame was late."""

DEAD_NS = 5_000_000_000
"""A camera that sent nothing for this long is dead until it sends again: nothing waits for it, and a set of all cameras
is one without it. Shorter, and every hiccup of a driver would change which cameras the map is made from."""


@dataclass(frozen=True)
class FrameSet(Generic[Item]):
    """Frames that belong together.

    Attributes:
        stamp_ns: stamp of the newest of them.
        stamps_ns: stamp of each, by camera.
        items: the frames, by camera, in configuration order.
    """

    stamp_ns: int
    stamps_ns: dict[str, int]
    items: dict[str, Item]


class FrameSync(Generic[Item]):
    """Matches frames by stamp: exactly where stamps agree, else the nearest within a tolerance.

    Of all frames that wait, the camera whose oldest frame is newest sets the pivot; every other camera gives its frame
    nearest to it, and where a camera's rate promises a still nearer one, that is waited for. A set without some cameras
    goes out only by policy (``min_cameras``), once they have moved past it or after ``max_wait_s`` of message time, or
    where those cameras are dead.
    """

    def __init__(self, cameras: Sequence[str], config: SyncConfig) -> None:
        """Expect these cameras."""
        self.cameras = tuple(cameras)
        self.tolerance_ns = round(config.tolerance_s * 1e9)
        self.max_wait_ns = round(config.max_wait_s * 1e9)
        self.min_cameras = min(config.min_cameras, len(self.cameras))
        self.queue = config.queue
        self.discarded: Counter[tuple[str, str]] = Counter()
        self._stamps: dict[str, list[int]] = {camera: [] for camera in self.cameras}
        self._items: dict[str, dict[int, Item]] = {camera: {} for camera in self.cameras}
        self._newest: dict[str, int] = {}
        self._began_ns: int | None = None
        self._period: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._done_ns: int | None = None

    def add(self, camera: str, stamp_ns: int, item: Item) -> list[FrameSet[Item]]:
        """Take one frame; returns the sets that it completes, oldest first."""
        if stamp_ns < self._newest.get(camera, stamp_ns) - JUMP_BACK_NS:
            self.reset("time jumped back")
        self._note_stamp(camera, stamp_ns)
        if stamp_ns in self._items[camera] or stamp_ns == self._used.get(camera):
            self.discarded[camera, "duplicate stamp"] += 1
            return []
        if self._is_past(camera, stamp_ns):
            self.discarded[camera, "older than the last set"] += 1
            return []
        insort(self._stamps[camera], stamp_ns)
        self._items[camera][stamp_ns] = item
        if len(self._stamps[camera]) > self.queue:
            self._discard(camera, self._stamps[camera][0], "queue full")
        return self._complete_sets()

    def leave_out(self, camera: str, reason: str) -> list[FrameSet[Item]]:
        """Expect nothing more of a camera; returns the sets that are complete without it."""
        for stamp in list(self._stamps[camera]):
            self._discard(camera, stamp, reason)
        self.cameras = tuple(name for name in self.cameras if name != camera)
        self.min_cameras = min(self.min_cameras, len(self.cameras))
        for kept in (self._stamps, self._items, self._newest, self._period, self._used):
            kept.pop(camera, None)
        self._began_ns = self._began_ns if self._newest else None
        return self._complete_sets()

    @property
    def living(self) -> tuple[str, ...]:
        """The cameras that sets are made of: all that sent something lately, or still have time to begin."""
        if self._began_ns is None:
            return self.cameras
        since = max(self._newest.values()) - DEAD_NS
        return tuple(camera for camera in self.cameras if self._newest.get(camera, self._began_ns) >= since)

    def flush(self) -> list[FrameSet[Item]]:
        """The sets that can still be made of what waits, as at the end of a recording; all else is discarded."""
        sets = []
        while any(self._stamps.values()):
            oldest = min(stamps[0] for stamps in self._stamps.values() if stamps)
            sets += self._partial_set(oldest)
        return sets

    def reset(self, reason: str) -> None:
        """Drop everything that waits, counted under a reason."""
        for camera in self.cameras:
            for stamp in list(self._stamps[camera]):
                self._discard(camera, stamp, reason)
        self._newest.clear()
        self._began_ns = None
        self._period.clear()
        self._used.clear()
        self._done_ns = None

    def _note_stamp(self, camera: str, stamp_ns: int) -> None:
        if self._began_ns is None:
            self._began_ns = stamp_ns
        newest = self._newest.setdefault(camera, stamp_ns)
        if stamp_ns > newest:
            self._period[camera] = stamp_ns - newest
            self._newest[camera] = stamp_ns

    def _is_past(self, camera: str, stamp_ns: int) -> bool:
        """Whether a frame comes after a set, or after a frame of its own camera, that it should have preceded."""
        if self._done_ns is not None and stamp_ns <= self._done_ns - self.tolerance_ns:
            return True
        return camera in self._used and stamp_ns < self._used[camera]

    def _complete_sets(self) -> list[FrameSet[Item]]:
        sets: list[FrameSet[Item]] = []
        while True:
            made = self._next_set()
            if made is None:
                return sets
            sets += made

    def _next_set(self) -> list[FrameSet[Item]] | None:
        """One step of matching: a list with a set, an empty one if frames were only discarded, None if it must wait."""
        waiting = [stamps for stamps in self._stamps.values() if stamps]
        if not waiting:
            return None
        oldest = min(stamps[0] for stamps in waiting)
        is_late = max(self._newest.values()) - oldest > self.max_wait_ns
        living = self.living
        if all(self._stamps[camera] for camera in living):
            pivot = max(self._stamps[camera][0] for camera in living)
            picks = {camera: self._nearest(camera, pivot) for camera in living}
            if self._is_enough(picks) and max(picks.values()) - min(picks.values()) <= self.tolerance_ns:
                if not is_late and self._is_better_coming(picks, pivot):
                    return None
                return [self._take(picks)]
        if is_late or self._is_hopeless(oldest, living):
            return self._partial_set(oldest)
        return None

    def _is_better_coming(self, picks: dict[str, int], pivot: int) -> bool:
        """Whether some camera's next frame, by its rate, will lie nearer to the pivot than what it has to give now."""
        return any(
            self._newest[camera] < pivot
            and abs(self._newest[camera] + self._period.get(camera, self.max_wait_ns) - pivot) < pivot - stamp
            for camera, stamp in picks.items()
        )

    def _is_enough(self, picks: dict[str, int]) -> bool:
        """Whether so many cameras may make a set: the configured number, or all that live."""
        return len(picks) >= (self.min_cameras or len(self.living))

    def _is_hopeless(self, oldest: int, living: Sequence[str]) -> bool:
        """Whether every living camera that could still complete the oldest frame's set has moved past it."""
        return all(
            any(abs(stamp - oldest) <= self.tolerance_ns for stamp in self._stamps[camera])
            or self._newest.get(camera, oldest) > oldest + self.tolerance_ns
            for camera in living
        )

    def _partial_set(self, oldest: int) -> list[FrameSet[Item]]:
        picks = {}
        for camera in self.cameras:
            if self._stamps[camera]:
                stamp = self._nearest(camera, oldest)
                if abs(stamp - oldest) <= self.tolerance_ns:
                    picks[camera] = stamp
        if self._is_enough(picks):
            return [self._take(picks)]
        for camera in self.cameras:
            if self._stamps[camera] and self._stamps[camera][0] == oldest:
                self._discard(camera, oldest, "no matching frames of the other cameras")
        return []

    def _nearest(self, camera: str, stamp_ns: int) -> int:
        stamps = self._stamps[camera]
        upper = bisect_left(stamps, stamp_ns)
        around = stamps[max(0, upper - 1) : upper + 1]
        return min(around, key=lambda stamp: (abs(stamp - stamp_ns), stamp))

    def _take(self, picks: dict[str, int]) -> FrameSet[Item]:
        items = {camera: self._items[camera].pop(stamp) for camera, stamp in picks.items()}
        for camera, stamp in picks.items():
            self._stamps[camera].remove(stamp)
            self._used[camera] = stamp
            for older in self._stamps[camera][: bisect_left(self._stamps[camera], stamp)]:
                self._discard(camera, older, "passed over by a newer set")
        newest = max(picks.values())
        self._done_ns = newest
        return FrameSet(newest, dict(picks), items)

    def _discard(self, camera: str, stamp_ns: int, reason: str) -> None:
        self._stamps[camera].remove(stamp_ns)
        del self._items[camera][stamp_ns]
        self.discarded[camera, reason] += 1
