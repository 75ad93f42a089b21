# SPDX-License-Identifier: Apache-2.0
"""Workers of a Dask cluster, which may be other machines, may come late, and may go.

Scheduler, workers and this process trust each other: they exchange pickles. They see the same files under the same paths.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from occupancy_nn_ros.errors import ClusterError, MissingDependencyError, OccupancyError
from occupancy_nn_ros.jobs.release import RELEASE
from occupancy_nn_ros.jobs.run import Ended, Event, Lost, Progress, Report, do_job, one_line

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

CONNECT_S, PART_S = 10.0, 2.0
LOOK_EVERY_S = 1.0
"""Which workers there are is asked this often."""

PATIENT_LOOKS = 5
"""It is said that there are no workers after so many looks at none."""


class DaskPool:
    """All workers of a cluster that have this release of the package and see the shared folder.

    Args:
        scheduler: its address, such as ``tcp://host:8786``, or ``tls://`` with certificates as Dask's settings name them.
        shared: a folder that every worker must see under this path; None if nothing is shared.

    Raises:
        MissingDependencyError: Dask is not installed.
        ClusterError: no scheduler answers, or the folder cannot be written to.
    """

    def __init__(self, scheduler: str, shared: Path | None) -> None:
        self._topic = f"occupancy_nn_ros-{uuid4().hex}"
        self._mark = None if shared is None else _leave_mark(shared.absolute() / f".{self._topic}")
        try:
            self.scheduler, self._client = scheduler, _connect(scheduler)
        except OccupancyError:
            self._remove_mark()
            raise
        self._reasons: dict[str, str] = {}  # why each worker that is known cannot be used; empty if it can
        self._alive: set[str] = set()
        self._looked_s, self._looks_at_none = -LOOK_EVERY_S, 0
        self._jobs: dict[str, tuple[int, Future]] = {}  # what each worker has
        self._progress: list[Progress] = []
        self._client.subscribe_topic(self._topic, self._note)

    def free_workers(self) -> list[str]:
        """Usable workers without a job.

        Raises:
            ClusterError: the scheduler is gone, or none of its workers can be used.
        """
        if time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            with self._scheduler_needed():
                self._look()
            self._looked_s = time.monotonic()
        return [worker for worker in sorted(self._alive) if not self._reasons[worker] and worker not in self._jobs]

    def give(self, worker: str, job: int, work: Callable[[Any, Report], Any], argument: Any) -> None:
        """Submit a job to this worker alone: if it dies, the scheduler does not choose another one, we do."""
        with self._scheduler_needed():
            future = self._client.submit(
                _work,
                job,
                (work, argument),
                self._topic,
                str(Path.cwd()),
                workers=[worker],
                pure=False,
                key=f"{self._topic}-{uuid4().hex}",
            )
        self._jobs[worker] = job, future

    def wait(self, seconds: float) -> list[Event]:
        """Progress that was told, jobs that have ended, and jobs whose worker is gone.

        Raises:
            ClusterError: the scheduler is gone.
        """
        until = time.monotonic() + seconds
        while not self._progress and not any(future.done() for _, future in self._jobs.values()):
            if (rest := until - time.monotonic()) <= 0:
                break
            time.sleep(min(0.02, rest))
        events: list[Event] = [self._progress.pop(0) for _ in range(len(self._progress))]
        for worker, (job, future) in list(self._jobs.items()):
            if future.done():
                events.append(self._result(job, future))
            elif worker not in self._alive:
                future.cancel()
                events.append(Lost(job))
            else:
                continue
            del self._jobs[worker]
        return events

    def close(self) -> None:
        """Withdraw what was submitted and part from the scheduler; a worker ends the job that it has begun."""
        with suppress(Exception):
            self._client.cancel([future for _, future in self._jobs.values()])
        self._client.close(timeout=PART_S)
        self._remove_mark()

    def _remove_mark(self) -> None:
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)

    def _look(self) -> None:
        self._alive = set(self._client.nthreads())
        self._judge(sorted(self._alive - self._reasons.keys()))
        reasons = [self._reasons[worker] for worker in sorted(self._alive)]
        if reasons and all(reasons):
            raise ClusterError(f"none of the {len(reasons)} workers at {self.scheduler} can be used: {reasons[0]}")
        self._looks_at_none = 0 if reasons else self._looks_at_none + 1
        if self._looks_at_none == PATIENT_LOOKS:
            logger.warning("the scheduler at %s has no workers; waiting for one", self.scheduler)

    def _judge(self, new: list[str]) -> None:
        """Find out whether workers can be used, by functions of Python itself: one that it cannot unpickle ends a worker."""
        if not new:
            return
        name = "occupancy_nn_ros.jobs.release:RELEASE"
        releases = self._client.run(pkgutil.resolve_name, name, workers=new, on_error="return")
        seen = self._client.run(os.path.exists, str(self._mark or Path.cwd().root), workers=new, on_error="return")
        for worker in new:
            if isinstance(releases.get(worker, OSError()), OSError) or isinstance(seen.get(worker, OSError()), OSError):
                self._alive.discard(worker)  # it is gone already, or asked again at the next look
                continue
            self._reasons[worker] = self._why_not(releases[worker], seen[worker])
            if self._reasons[worker]:
                logger.warning("worker %s is not used: %s", worker, self._reasons[worker])

    def _why_not(self, release: object, sees: object) -> str:
        if release != RELEASE:
            found = one_line(release) if isinstance(release, BaseException) else f"it has {release}"
            return f"{found}, expected {RELEASE}"
        return (
            "" if sees is True or self._mark is None else f"it does not see {self._mark.parent}, which has to be shared"
        )

    def _result(self, job: int, future: Future) -> Event:
        from distributed.scheduler import KilledWorker

        with self._scheduler_needed():
            error = future.exception(timeout=CONNECT_S)
            if error is None:
                ended: Ended = future.result(timeout=CONNECT_S)
                return ended
        if isinstance(error, KilledWorker):
            return Lost(job)
        return Ended(job, failure=one_line(error))

    def _note(self, event: tuple[float, tuple[int, float]]) -> None:
        """In the client's thread: a worker tells its progress."""
        self._progress.append(Progress(*event[1]))

    @contextmanager
    def _scheduler_needed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CancelledError, RuntimeError):  # timeouts and closed connections are kinds of OSError
            raise ClusterError(f"the scheduler at {self.scheduler} is gone; what was finished is kept") from None


def _leave_mark(path: Path) -> Path:
    """An empty file, by which a worker shows that it sees the same folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ClusterError(f"cannot write to {path.parent}: {error}") from None
    return path


def _connect(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise MissingDependencyError("--cluster needs Dask: pip install 'occupancy-nn-ros[cluster]'") from None
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong is said here, in a line
    try:
        return Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last: TLS is asked for, and this is not
        raise ClusterError(f"no scheduler answers at {scheduler}: {one_line(error)}") from None


def _work(job: int, call: tuple[Callable[[Any, Report], Any], Any], topic: str, folder: str) -> Ended:
    """In a worker of the cluster: do a job in the folder of the command, so that relative paths mean the same."""
    from distributed import get_worker

    worker, before = get_worker(), Path.cwd()
    with suppress(OSError):  # a folder that is not shared
        os.chdir(folder)
    try:
        return do_job(job, *call, lambda progress: worker.log_event(topic, (progress.job, progress.share)))
    finally:
        os.chdir(before)
