# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine as workers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from occupancy_nn_ros.compute.threads import available_cores, use_threads
from occupancy_nn_ros.jobs.run import Ended, Event, Lost, Report, do_job, one_line

STOP_S = 5.0
"""Processes have so long to tidy up when they are told to stop."""

STOPPED = 128 + signal.SIGTERM


@dataclass
class _Worker:
    """A process, this end of the pipe to it, and the job that it has."""

    process: SpawnProcess
    pipe: Connection
    job: int | None = None


class ProcessPool:
    """Up to so many processes, started when they are needed; each splits its work over its share of the cores."""

    def __init__(self, processes: int, jobs: int) -> None:
        self._count = max(1, min(processes, jobs))
        self._workers: dict[str, _Worker] = {}

    def free_workers(self) -> list[str]:
        """Those without a job, started or not."""
        names = [str(number) for number in range(self._count)]
        return [name for name in names if name not in self._workers or self._workers[name].job is None]

    def give(self, worker: str, job: int, work: Callable[[Any, Report], Any], argument: Any) -> None:
        """Send a job to a process, which is started if it does not run."""
        if worker not in self._workers:
            self._workers[worker] = _start(max(1, available_cores() // self._count))
        self._workers[worker].job = job
        with suppress(BrokenPipeError):  # it died while it had nothing to do, which the next wait finds
            self._workers[worker].pipe.send(job)
            self._workers[worker].pipe.send((work, argument))

    def wait(self, seconds: float) -> list[Event]:
        """Messages of the processes; the end of a pipe is the end of its process."""
        busy = {worker.pipe: name for name, worker in self._workers.items() if worker.job is not None}
        ready = connection.wait(list(busy), seconds)
        return [self._read(name) for pipe, name in busy.items() if pipe in ready]

    def _read(self, name: str) -> Event:
        worker = self._workers[name]
        assert worker.job is not None
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            event = Lost(worker.job)
            worker.process.join()
            worker.pipe.close()
            del self._workers[name]
        if isinstance(event, Ended):
            worker.job = None
        return event

    def close(self) -> None:
        """Stop all processes; what they had begun is tidied up."""
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(STOP_S)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()


def _start(threads: int) -> _Worker:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, threads), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _serve(pipe: Connection, threads: int) -> None:
    """Do jobs as they come, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; whoever started this one decides
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(STOPPED))
    torch.set_num_threads(threads)
    use_threads(threads)
    with suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                work, argument = pipe.recv()
                ended = do_job(job, work, argument, pipe.send)
            except (ImportError, AttributeError) as error:  # a function of a module that cannot be imported here
                ended = Ended(job, failure=one_line(error))
            pipe.send(ended)
