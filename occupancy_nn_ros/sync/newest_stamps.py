# SPDX-License-Identifier: Apache-2.0
"""How far time has come, by the stamps of messages alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from occupancy_nn_ros.sync.frame_sync import JUMP_BACK_NS

HOLE = 1.5
"""A step of so many of the one before leaves a hole, which messages that come late may fill."""


class NewestStamps:
    """The newest stamp of each source: a topic or a moving frame.

    Attributes:
        newest_ns: of all of them, 0 before the first.
    """

    def __init__(self) -> None:
        self.newest_ns = 0
        self._of: dict[str, int] = {}
        self._steps: dict[str, tuple[int, int]] = {}
        self._older: dict[str, int] = {}

    def stepped_back(self, source: str, stamp_ns: int) -> int:
        """By how many nanoseconds a source's clock was set back, told with the second stamp after that, before it is added; else 0.

        Two stamps in a row, the later one newer, lie before the newest, and none was missing before it: no message is out of order.
        """
        newest, first = self._of.get(source, stamp_ns), self._older.pop(source, None)
        if stamp_ns >= newest:
            return 0
        before, last = self._steps.get(source, (0, 0))
        if first is None:
            self._older[source] = stamp_ns
        is_hole = last > HOLE * before
        return newest - first + last if first is not None and stamp_ns > first and not is_hole else 0

    def add(self, source: str, stamp_ns: int) -> None:
        """Note a stamp; an older one than the newest changes nothing."""
        if source in self._of and stamp_ns > self._of[source]:
            self._steps[source] = (self._steps.get(source, (0, 0))[1], stamp_ns - self._of[source])
        self._of[source] = max(stamp_ns, self._of.get(source, stamp_ns))
        self.newest_ns = max(self.newest_ns, stamp_ns)

    def jumped_back_from(self, source: str, stamp_ns: int) -> int | None:
        """The source's newest stamp, if this one lies so far before it that time was turned back; else None."""
        newest = self._of.get(source, stamp_ns)
        return newest if stamp_ns < newest - JUMP_BACK_NS else None

    def furthest_apart(self, sources: Iterable[str]) -> tuple[str, str, int] | None:
        """Of these sources the one behind, the one ahead and the nanoseconds between; None if fewer than two are known."""
        known = [source for source in sources if source in self._of]
        if len(known) < 2:
            return None
        behind, ahead = min(known, key=self._of.__getitem__), max(known, key=self._of.__getitem__)
        return behind, ahead, self._of[ahead] - self._of[behind]

    def gap(self, names: Mapping[str, str], limit_ns: int) -> str:
        """Which of some sources, by their names, lie further apart than a limit, worded for people; empty if none do."""
        apart = self.furthest_apart(names)
        if apart is None or apart[2] <= limit_ns:
            return ""
        behind, ahead, gap_ns = apart
        return (
            f"stamps of '{names[ahead]}' are {gap_ns * 1e-9:.1f} s ahead of those of '{names[behind]}': synchronise their clocks, "
            "or set time_offset_s of one of them"
        )

    def clear(self) -> None:
        """Forget all of them."""
        for known in (self._of, self._steps, self._older):
            known.clear()
        self.newest_ns = 0
