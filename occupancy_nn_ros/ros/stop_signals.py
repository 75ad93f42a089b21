# SPDX-License-Identifier: Apache-2.0
"""Ends the process in good order at whatever moment it is asked to. Imports nothing that takes time, so that it can come first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 3.5
"""launch sends the next, harder signal after five seconds."""


class StopSignals:
    """One thread waits for the signals, so that they interrupt nothing and a second one does no harm.

    Python itself raises KeyboardInterrupt wherever the main thread happens to be: in an import, in a lifecycle transition, or in
    the clean-up after the first one.

    Attributes:
        requested: set once the process is to end.
    """

    def __init__(self) -> None:
        """Block the signals for this thread and all that it starts later, and wait for them in one of its own."""
        self.requested = threading.Event()
        self._on_stop: Callable[[], None] | None = None
        self._lock = threading.Lock()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._wait, name="stop_signals", daemon=True).start()

    def call(self, on_stop: Callable[[], None]) -> None:
        """From now on a signal does not end the process at once but calls this, in the waiting thread."""
        with self._lock:
            self._on_stop = on_stop
            if self.requested.is_set():
                on_stop()

    def _wait(self) -> None:
        signal.sigwait(SIGNALS)
        with self._lock:
            self.requested.set()
            on_stop = self._on_stop
            if on_stop is None:
                leave(0)  # still importing: there is nothing to clean up
            else:
                on_stop()
        time.sleep(GRACE_S)
        sys.stderr.write("occupancy_node: what was being worked on is given up\n")
        leave(0)


def leave(code: int) -> NoReturn:
    """End the process here: with torch and DDS loaded Python's own way out takes seconds, and aborts where a thread is at work."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
