# SPDX-License-Identifier: Apache-2.0
"""Threads of this process: how many there may be, and work split over them with one thread for each part.

Inside a small operation two threads do little but wait for each other, and where other processes want the cores as well, each
such wait costs a time slice. So whole parts of the work, such as cameras, go to one thread each. These take turns with other
processes where cores are busy, and wait for each other once, at the end: fewer of them would only get less of the machine.
Threads inside each operation, which there are where cameras are fewer than cores, are no more than others leave cores free.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import TypeVar

import torch

from occupancy_nn_ros.compute.free_cores import FreeCores

Item = TypeVar("Item")
Result = TypeVar("Result")

CGROUP = Path("/sys/fs/cgroup")

_inside = local()
_wanted = 0
_free: FreeCores | None = None
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use, at least 1: those it may run on, and no more than its container's share of time."""
    may_run_on = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(may_run_on, round(_quota(cgroup) or may_run_on)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that control groups allow (version 2, then 1), None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            names = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
            quota, period = ((cgroup / name).read_text(encoding="ascii").strip() for name in names)
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return cores if cores > 0 else None


def use_threads(count: int) -> None:
    """Split work over so many threads from now on; 0: as many as there are cores to use."""
    global _wanted
    _wanted = count


def heed_load(judge: FreeCores | None) -> None:
    """From now on use no more threads inside an operation than cores are free; None: whatever others do.

    How many there are changes the last bits of a result, so this is for who has to keep up with sensors.
    """
    global _free
    _free = judge


def threads() -> int:
    """Threads that work is split over."""
    return _wanted or available_cores()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch use so many threads inside each operation that the calling thread starts, for as long as this lasts."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)


@contextmanager
def _alone(alone: bool) -> Iterator[None]:
    """Have the calling thread split nothing further for as long as this lasts, if it is one of several."""
    before = getattr(_inside, "alone", False)
    _inside.alone = before or alone
    try:
        yield
    finally:
        _inside.alone = before


def parts_worth(count: int, least: int) -> int:
    """In how many parts the calling thread is to split ``count`` items, of which at least so many are worth a thread."""
    return 1 if getattr(_inside, "alone", False) else max(1, min(threads(), count // max(1, least)))


def run_each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function with each item, the items side by side, and torch with what threads are left for each.

    Runs without gradients. If a call raises, so does this, after all have ended. Calls must not call this in turn.

    Args:
        function: must not change what another call reads.
        items: whose results come back in their order.
    """
    listed = list(items)
    workers = min(threads(), len(listed))
    inner = max(1, _inner_threads() // max(1, workers))

    def run(item: Item) -> Result:
        with torch_threads(inner), torch.inference_mode(), _alone(workers > 1):
            return function(item)

    if workers <= 1:
        return [run(item) for item in listed]
    team = pool(workers)
    answers = [team.submit(run, item) for item in listed]
    wait(answers)
    return [answer.result() for answer in answers]


def _inner_threads() -> int:
    """Threads that may wait for each other at every operation: those asked for, or as many as there are free cores."""
    return threads() if _wanted or _free is None else _free.count(threads())


def pool(workers: int) -> ThreadPoolExecutor:
    """The pool of this process of so many threads: threads do not survive a fork."""
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="compute")
    return _pools[key]
