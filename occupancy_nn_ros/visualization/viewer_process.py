# SPDX-License-Identifier: Apache-2.0
"""Rerun's viewer, or its page and the server behind it, as a process beside ours."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from occupancy_nn_ros.errors import MissingDependencyError, OccupancyError

Kind = Literal["window", "web"]
LOOPBACK, PORT = "127.0.0.1", 9876
START_S = 30.0
"""How long a viewer may take until it listens."""

ANSWER_S, POLL_S = 1.0, 0.1
MEMORY = "1GiB"


class ViewerProcess:
    """Whoever listens at a port for what is to be shown: a process that was started here, or one that was there before.

    Attributes:
        url: where to send to.
        is_ours: whether it was started here.
    """

    def __init__(self, address: str, port: int, command: list[str] | None = None) -> None:
        """Take what listens at the port, or start a command that will.

        Args:
            address: where it listens; 0.0.0.0 for everywhere.
            port: for the data.
            command: from :func:`viewer_command`; None if it runs already.

        Raises:
            MissingDependencyError: the command cannot be started.
        """
        self._host, self._port = _reached_at(address), port
        self.url = f"rerun+http://{self._host}:{port}/proxy"
        self.is_ours = command is not None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process: subprocess.Popen[bytes] | None = None
        if command is not None:
            quiet = {**os.environ, "RUST_LOG": "error"}
            try:
                self._process = subprocess.Popen(
                    command, env=quiet, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True
                )  # fmt: skip
            except OSError as error:
                raise MissingDependencyError(f"the viewer does not start: {error}") from None

    def check(self) -> None:
        """Ask whether it still runs.

        Raises:
            ConnectionError: it ended; says why, as it said itself.
        """
        if self._process is not None and self._process.poll() is not None:
            raise ConnectionError(f"it ended with status {self._process.returncode}{self._last_words()}")

    def wait_until_it_answers(self) -> None:
        """Wait for a viewer that starts.

        Raises:
            ConnectionError: it ended, or does not answer: what starts, in :data:`START_S`; what was there before, at once.
        """
        end = time.monotonic() + (START_S if self.is_ours else 0.0)
        while not _answers(self._host, self._port):
            self.check()
            if time.monotonic() > end:
                raise ConnectionError(f"what listens at {self._host}:{self._port} does not answer as a viewer does")
            time.sleep(POLL_S)

    def wait(self) -> None:
        """Wait until it was closed; not for one that is not ours.

        Raises:
            OccupancyError: it failed; says why, as it said itself.
        """
        if self._process is not None and self._process.wait() != 0:
            raise OccupancyError(f"the viewer ended with status {self._process.returncode}{self._last_words()}")

    def close(self) -> None:
        """End it, if it is ours."""
        if self._process is not None and self._process.poll() is None:
            # The SDK starts the viewer in a process below its own; both have the signals blocked that a node blocks.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1]}" if lines else ""


def start_viewer(kind: Kind, address: str = LOOPBACK, port: int = PORT) -> ViewerProcess:
    """A viewer; that of an earlier run where one listens at this port.

    Raises:
        MissingDependencyError: the command cannot be started.
        OccupancyError: no screen for a window.
    """
    if is_taken(address, port):
        return ViewerProcess(address, port)
    return ViewerProcess(address, port, viewer_command(kind, address, port))


def viewer_command(kind: Kind, address: str, port: int) -> list[str]:
    """The command that starts Rerun's viewer: ``window`` for its own, ``web`` for a page at ``port + 1``.

    Raises:
        OccupancyError: no screen for a window.
    """
    if kind == "window" and not has_screen():
        raise OccupancyError(
            "no screen for the viewer's window (DISPLAY and WAYLAND_DISPLAY are not set): --view web serves a page"
        )
    command = [sys.executable, "-m", "rerun", f"--bind={address}", f"--port={port}", f"--memory-limit={MEMORY}"]
    page = ["--serve-web", f"--web-viewer-port={port + 1}", f"--server-memory-limit={MEMORY}"]
    return command + (page if kind == "web" else ["--hide-welcome-screen"])


def has_screen() -> bool:
    """Whether windows can be opened; only Linux tells."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def page_address(address: str, port: int) -> str:
    """Where a browser on this machine finds the page."""
    host = _reached_at(address)
    return f"http://{host}:{port + 1}/?url=rerun%2Bhttp://{host}:{port}/proxy"


def is_taken(address: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((_reached_at(address), port), timeout=ANSWER_S):
            return True
    except OSError:
        return False


def _answers(host: str, port: int) -> bool:
    """Whether what listens there speaks HTTP, as viewers do for gRPC."""
    asked = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        asked.request("GET", "/")
        asked.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()
    return True


def file_command(file: Path, kind: Kind, address: str, port: int) -> list[str]:
    """The command that shows a recording file.

    Raises:
        OccupancyError: no screen for a window, or something listens at the port.
    """
    if is_taken(address, port):
        raise OccupancyError(
            f"something listens at port {port} already, such as the viewer of another run: close it, or give another --view-port"
        )
    return [*viewer_command(kind, address, port), str(file)]


def _reached_at(address: str) -> str:
    return LOOPBACK if address == "0.0.0.0" else address
