# SPDX-License-Identifier: Apache-2.0
"""Independent jobs, each done by one worker at a time: whoever does them, what comes back is the same.

A job is a function that can be imported, called with one argument and a function that it tells its progress. What it makes it
writes itself, under its final name only when complete, so that a job may begin anew anywhere.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from occupancy_nn_ros.errors import BagError, OccupancyError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Report = Callable[[float], None]
"""Told the finished share of a job, 0 to 1."""

MOST_DEATHS = 3
"""A job whose worker died so often is given up: it may be what kills them."""

POLL_S = 0.2
REPORT_EVERY_S = 0.2


@dataclass(frozen=True)
class Progress:
    """A job has come so far."""

    job: int
    share: float


@dataclass(frozen=True)
class Ended:
    """A job has ended with a result, or with the reason why there is none."""

    job: int
    result: Any = None
    failure: str = ""


@dataclass(frozen=True)
class Lost:
    """The worker that had a job is gone."""

    job: int


Event = Progress | Ended | Lost


class WorkerPool(Protocol):
    """Workers that do one job at a time."""

    def free_workers(self) -> Sequence[str]:
        """Workers that could begin a job now."""

    def give(self, worker: str, job: int, work: Callable[[Any, Report], Any], argument: Any) -> None:
        """Have a free worker begin a job."""

    def wait(self, seconds: float) -> list[Event]:
        """What has happened, after so many seconds at most."""

    def close(self) -> None:
        """End what still runs; nothing comes back from it."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a job.

    Attributes:
        index: its place among the arguments.
        result: what the function returned, None where it failed.
        failure: why it failed, in one line; empty where it did not.
    """

    index: int
    result: Result | None
    failure: str = ""


def run_jobs(
    pool: WorkerPool,
    work: Callable[[Argument, Report], Result],
    arguments: Sequence[Argument],
    report: Report | None = None,
) -> Iterator[Outcome[Result]]:
    """Do jobs side by side; yields each as it ends, in whatever order.

    A failed job does not stop the others. One whose worker died is given to another, up to ``MOST_DEATHS`` times.

    Args:
        pool: who does them.
        work: a function of a module, called with an argument and what it may tell its progress.
        arguments: one for each job; they travel to the workers by pickle, as do results.
        report: told the finished share of all.

    Raises:
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    waiting, shares, deaths, left = deque(range(len(arguments))), [0.0] * len(arguments), Counter[int](), len(arguments)
    while left:
        for worker in pool.free_workers()[: len(waiting)]:
            job = waiting.popleft()
            pool.give(worker, job, work, arguments[job])
        for event in pool.wait(POLL_S):
            if isinstance(event, Lost):
                deaths[event.job] += 1
                if deaths[event.job] < MOST_DEATHS:
                    waiting.append(event.job)  # last, when there may be more room
                    continue
                event = Ended(event.job, failure=f"its process ended {MOST_DEATHS} times, perhaps for want of memory")
            shares[event.job] = event.share if isinstance(event, Progress) else 1.0
            if isinstance(event, Ended):
                left -= 1
                yield Outcome(event.job, event.result, event.failure)
        if report is not None:
            report(sum(shares) / len(shares))


def do_job(job: int, work: Callable[[Any, Report], Any], argument: Any, send: Callable[[Progress], None]) -> Ended:
    """In a worker: do a job, and turn what goes wrong into a line of text."""
    last = -REPORT_EVERY_S

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY_S:
            last = time.monotonic()
            send(Progress(job, share))

    try:
        return Ended(job, work(argument, report))
    except Exception as error:
        return Ended(job, failure=one_line(error))


def one_line(error: BaseException) -> str:
    """Why something failed: the message of an expected error, else also its type and where it arose."""
    if isinstance(error, (OccupancyError, OSError)) and str(error):
        advice = error.advice if isinstance(error, BagError) else ""
        return " ".join(f"{error}{'; ' if advice else ''}{advice}".split())
    frames = [] if isinstance(error, ImportError) else traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split()) + place
