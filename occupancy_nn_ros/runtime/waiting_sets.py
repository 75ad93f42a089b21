# SPDX-License-Identifier: Apache-2.0
"""Frame sets that wait for their poses, in order and within a limit of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from occupancy_nn_ros.sync.frame_sync import FrameSet

MAX_SETS = 256


@dataclass(frozen=True)
class QueuedFrame:
    """A sensor's message, not yet decoded, and its frame."""

    cdr: bytes
    frame_id: str


Waiting = FrameSet[QueuedFrame]


class WaitingSets:
    """A queue that gives up its oldest sets when they are too many or too large."""

    def __init__(self, most_bytes: int) -> None:
        """Nothing waits."""
        self._most_bytes = most_bytes
        self._sets: deque[Waiting] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Number of sets."""
        return len(self._sets)

    @property
    def oldest(self) -> Waiting:
        """The set whose turn it is."""
        return self._sets[0]

    def add(self, sets: Iterable[Waiting]) -> list[Waiting]:
        """Append sets; returns those that had to be given up."""
        for item in sets:
            self._sets.append(item)
            self._bytes += _size(item)
        lost = []
        while len(self._sets) > MAX_SETS or self._bytes > self._most_bytes:
            lost.append(self.pop())
        return lost

    def pop(self) -> Waiting:
        """Take the oldest."""
        item = self._sets.popleft()
        self._bytes -= _size(item)
        return item


def _size(frames: Waiting) -> int:
    return sum(len(frame.cdr) for frame in frames.items.values())
