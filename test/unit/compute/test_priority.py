# SPDX-License-Identifier: Apache-2.0
"""Threads that compute let those go first that wait for messages."""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from occupancy_nn_ros.compute.priority import compute_in_batch
from occupancy_nn_ros.compute.threads import pool, torch_threads

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="needs Linux")


def policies():
    """Scheduling policy of every thread of this process, by thread id."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            found[int(task.name)] = os.sched_getscheduler(int(task.name))
    return found


def test_a_computing_thread_and_those_it_starts_are_batch_and_no_others():
    before = policies()

    def compute():
        assert compute_in_batch()
        team = pool(7)  # of a size that no other test has: its threads do not exist yet
        barrier = threading.Barrier(7, timeout=20)
        inside = list(team.map(lambda _: (barrier.wait(), os.sched_getscheduler(0))[1], range(7)))
        with torch_threads(2):  # has OpenMP start a thread for this one
            torch.randn(64, 64, 64).exp().sum()
        return inside, {kind for thread, kind in policies().items() if thread not in before}

    with ThreadPoolExecutor(1) as thread:
        inside, new = thread.submit(compute).result()
    assert inside == [os.SCHED_BATCH] * 7
    assert new == {os.SCHED_BATCH}
    after = policies()
    assert {thread: after[thread] for thread in before if thread in after}.items() <= before.items()


def test_a_thread_of_another_kind_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_FIFO)
    assert not compute_in_batch()


def test_where_it_is_forbidden_nothing_happens(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not compute_in_batch()
