# SPDX-License-Identifier: Apache-2.0
"""The one thread that owns network and map. Callbacks hand it keyframes and requests, and never wait for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from occupancy_nn_ros.compute.priority import compute_in_batch

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Request = Callable[[], None]


class Worker(Generic[Item]):
    """A thread with a one-slot mailbox in which the newest item wins, and a queue of requests that come first.

    Attributes:
        overwritten: items that a newer one replaced before the thread came to them.
    """

    def __init__(self, work: Callable[[Item], None], on_error: Callable[[BaseException], None]) -> None:
        """Start the thread.

        Args:
            work: called with each item, in the thread.
            on_error: told about anything that ``work`` raises; the thread goes on.
        """
        self.overwritten = 0
        self._work, self._on_error = work, on_error
        self._item: Item | None = None
        self._requests: deque[Request] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="occupancy_worker", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Leave an item in the mailbox, in place of an older one."""
        with self._wake:
            if self._item is not None:
                self.overwritten += 1
            self._item = item
            self._wake.notify()

    def ask(self, request: Callable[[], Answer]) -> Future[Answer]:
        """Have something done in the thread; the future gets its result or what it raised."""
        answer: Future[Answer] = Future()

        def run() -> None:
            try:
                answer.set_result(request())
            except BaseException as error:
                answer.set_exception(error)

        with self._wake:
            if self._stopping:
                answer.set_exception(RuntimeError("the worker has stopped"))
                return answer
            self._requests.append(run)
            self._wake.notify()
        return answer

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Drop the item that waits, finish what is being worked on and all requests; False if that took too long."""
        with self._wake:
            self._item = None
        return not wait([self.ask(lambda: None)], timeout_s).not_done

    @property
    def has_item(self) -> bool:
        """Whether an item waits."""
        with self._wake:
            return self._item is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is being worked on."""
        with self._wake:
            return self._item is None and not self._requests and not self._busy

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Finish what is being worked on, drop what waits, end the thread; False if it did not end in time."""
        with self._wake:
            self._stopping = True
            self._item = None
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        compute_in_batch()
        while True:
            with self._wake:
                self._busy = False
                self._wake.wait_for(lambda: self._stopping or self._requests or self._item is not None)
                if self._requests:
                    task: Request | None = self._requests.popleft()
                    item = None
                elif self._stopping:
                    return
                else:
                    task, item, self._item = None, self._item, None
                self._busy = True
            try:
                if task is not None:
                    task()
                elif item is not None:
                    self._work(item)
            except BaseException as error:
                self._on_error(error)
