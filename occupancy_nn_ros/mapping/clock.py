# SPDX-License-Identifier: Apache-2.0
"""The map's own clock: milliseconds in 32 bits for each voxel, however long the robot runs."""

from __future__ import annotations

import torch
from torch import Tensor

from occupancy_nn_ros.mapping.map_memory import NEVER

LAST_MS = 1 << 30
"""When the clock passes this (12 days) it is set back."""

JUMP_MS = 10_000
"""Stamps that are older than the newest by more than this do not come late: time began anew."""


class MapClock:
    """Turns stamps into milliseconds.

    Attributes:
        newest_ms: time of the newest data.
        forgotten_ms: until when forgetting was applied.
        started: whether any stamp was seen.
    """

    def __init__(self) -> None:
        """A clock that starts with the first stamp."""
        self.newest_ms = self.forgotten_ms = 0
        self.started = False
        self._epoch_ns = 0

    def to_ms(self, stamp_ns: int, seen_ms: Tensor) -> int:
        """A stamp in milliseconds, never negative; remembers the newest.

        When stamps jump back (a bag starts again), or the clock is set back, the ages of voxels are kept as far as
        possible.

        Args:
            stamp_ns: any stamp.
            seen_ms: (X, Y, Z) int32 times of the voxels, changed in place when the clock is set.
        """
        if not self.started:
            self.started, self._epoch_ns = True, stamp_ns
        now = (stamp_ns - self._epoch_ns) // 1_000_000
        if now < self.newest_ms - JUMP_MS:
            now = self._set(stamp_ns, 0, seen_ms)
        elif now > LAST_MS:
            now = self._set(stamp_ns, LAST_MS // 2, seen_ms)
        self.newest_ms = max(self.newest_ms, now)
        return max(0, int(now))

    def _set(self, stamp_ns: int, now_ms: int, seen_ms: Tensor) -> int:
        """Let the clock show ``now_ms`` at a stamp."""
        moved = (seen_ms + (now_ms - self.newest_ms)).clamp(0, now_ms)
        seen_ms.copy_(torch.where(seen_ms != NEVER, moved, NEVER))
        self._epoch_ns = stamp_ns - now_ms * 1_000_000
        self.newest_ms = self.forgotten_ms = now_ms
        return now_ms
