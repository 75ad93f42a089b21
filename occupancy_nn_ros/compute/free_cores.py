# SPDX-License-Identifier: Apache-2.0
"""How many cores other processes leave to this one, judged anew now and then. Linux only; elsewhere all count as free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
JUDGED_AFTER_S = 2.0
"""Shorter, and the kernel's counters of 10 ms and one keyframe's rhythm would show."""

MARGIN = 0.75
"""Cores that must be free beyond, or lacking below, the last judgement before it changes: a neighbour that uses half a core
must not have it change to and fro."""


@dataclass(frozen=True)
class CoreTimes:
    """What has been computed so far, in seconds: by everybody on the cores that this process may run on, and by itself."""

    cores: int
    wall: float
    everybody: float
    itself: float


def core_times(stat: Path = STAT, cores: Collection[int] | None = None) -> CoreTimes | None:
    """The counters now, None where the system has none.

    Processes of lower priority (``nice``) leave their time to others, and are not counted unless this one is of low priority
    too. Time that a hypervisor gave to other machines is.

    Args:
        stat: the kernel's table, see proc_stat(5).
        cores: which cores; those that this process may run on if None.
    """
    if cores is None:
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    names = {f"cpu{core}" for core in cores}
    try:
        rows = [line.split() for line in stat.read_text(encoding="ascii").splitlines()]
        counters = [[int(value) for value in row[1:9]] for row in rows if row and row[0] in names]
        user, nice, system, _, _, irq, softirq, steal = (sum(column) for column in zip(*counters, strict=True))
    except (OSError, ValueError):
        return None
    polite = nice if os.getpriority(os.PRIO_PROCESS, 0) > 0 else 0
    ticks = user + system + irq + softirq + steal + polite
    usage = os.times()
    return CoreTimes(len(counters), time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), usage.user + usage.system)


class FreeCores:
    """Judges, from what was computed since the last time, how many cores this process can have to itself.

    Where there are more threads than cores, each gets its turn: what others computed is then what this process left them. So
    the judgement never counts on time that would have to be taken from others.
    """

    def __init__(self, read: Callable[[], CoreTimes | None] = core_times) -> None:
        """Count all cores as free at first."""
        self._read = read
        self._before = read()
        self._count: int | None = None

    def count(self, cores: int) -> int:
        """Of so many cores that this process may use at a time, how many are free; at least 1."""
        before, now = self._before, self._read()
        if before is None or now is None:
            return cores
        count = cores if self._count is None else min(self._count, cores)
        elapsed_s = now.wall - before.wall
        if elapsed_s < JUDGED_AFTER_S:
            return count
        others = max(0.0, (now.everybody - before.everybody) - (now.itself - before.itself)) / elapsed_s
        self._before, free = now, min(cores, now.cores - others)
        if free < count - MARGIN or free > count + MARGIN:
            count = round(free)
        self._count = max(1, min(count, cores))
        return self._count
