# SPDX-License-Identifier: Apache-2.0
"""A window, a page or a file that shows the map while it is made. A slow or closed viewer never slows the map.

Snapshots go through a slot that holds one: while the last is still being sent, new ones are not even made.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.visualization.rerun_log import APPLICATION, RerunLog, import_rerun
from occupancy_nn_ros.visualization.snapshot import Snapshot

LOOPBACK = "127.0.0.1"
SEND_TIMEOUT_S = 2.0
"""How long a viewer may take for one snapshot before it counts as gone."""

VIEWER_MEMORY = "1GiB"


class LiveView:
    """Shows snapshots. A context manager; :meth:`offer` is called by the thread that makes the map.

    Attributes:
        shown: snapshots sent.
        left_out: snapshots that were not made, since the viewer was still busy with the last.
        problem: why nothing is shown any more, worded for people; empty while all is well.
    """

    def __init__(
        self, recording: Any, config: Config, viewer: subprocess.Popen[bytes] | None = None, *, waits: bool = False
    ) -> None:
        """Show on a recording that is connected already; see :func:`open_view` and :func:`open_file`.

        Args:
            recording: a ``rerun.RecordingStream``.
            config: what the grid's band and the voxels' colours are.
            viewer: the process that shows it, if it is ours.
            waits: lose nothing, and make the map wait instead.
        """
        self.shown, self.left_out, self.problem = 0, 0, ""
        self._recording, self._viewer, self._waits = recording, viewer, waits
        self._log = RerunLog(recording, config.grid, config.outputs.color_by)
        self._slot: Snapshot | None = None
        self._is_closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._thread.start()

    def __enter__(self) -> LiveView:
        """The view itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Send what waits, and let go of the viewer, which stays open."""
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()
        self._thread.join(timeout=2 * SEND_TIMEOUT_S)
        self._recording.disconnect()

    def wants(self) -> bool:
        """Whether a snapshot would be shown now; counts one that would not."""
        if self.problem:
            return False
        with self._wake:
            if self._waits:
                self._wake.wait_for(lambda: self._slot is None)
            is_free = self._slot is None
        self.left_out += not is_free
        return is_free

    def offer(self, snapshot: Snapshot) -> None:
        """Show a snapshot as soon as possible."""
        with self._wake:
            self._slot = snapshot
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._slot is not None or self._is_closing)
                snapshot = self._slot
            if snapshot is None:
                return
            try:
                self._send(snapshot)
            except Exception as error:  # whatever a viewer does to the connection must not end the mapping
                self.problem = f"the viewer is gone ({error}): mapping goes on without it"
            with self._wake:
                self._slot = None
                self._wake.notify_all()
                if self.problem:
                    return

    def _send(self, snapshot: Snapshot) -> None:
        if self._viewer is not None and self._viewer.poll() is not None:
            raise ConnectionError(f"it ended with status {self._viewer.returncode}")
        self._log.write(snapshot)
        self._recording.flush(timeout_sec=SEND_TIMEOUT_S)
        self.shown += 1


def open_view(
    kind: Literal["window", "web"], config: Config, *, address: str = LOOPBACK, port: int = 9876, waits: bool = False
) -> LiveView:
    """A viewer in a process of its own.

    Args:
        kind: ``window`` for Rerun's own, ``web`` for a page at ``port + 1``.
        config: what the grid's band and the voxels' colours are.
        address: where to listen; other machines can look only where this is not the loopback address.
        port: for the data; a page comes at the next one.
        waits: lose nothing, and make whoever offers wait instead.

    Raises:
        MissingDependencyError: the Rerun SDK is not installed, or its viewer does not start.
    """
    rerun = import_rerun()
    try:
        viewer = subprocess.Popen(
            viewer_command(kind, address, port),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise MissingDependencyError(f"the viewer does not start: {error}") from None
    recording = rerun.RecordingStream(APPLICATION)
    recording.connect_grpc(f"rerun+http://{LOOPBACK if address == '0.0.0.0' else address}:{port}/proxy")
    return LiveView(recording, config, viewer, waits=waits)


def viewer_command(kind: Literal["window", "web"], address: str, port: int) -> list[str]:
    """The command that starts Rerun's viewer as :func:`open_view` describes it."""
    command = [sys.executable, "-m", "rerun", f"--bind={address}", f"--port={port}", f"--memory-limit={VIEWER_MEMORY}"]
    page = ["--serve-web", f"--web-viewer-port={port + 1}", f"--server-memory-limit={VIEWER_MEMORY}"]
    return command + (page if kind == "web" else ["--hide-welcome-screen"])


def open_file(path: Path, config: Config) -> LiveView:
    """A recording file (``.rrd``), which ``rerun FILE`` shows.

    Raises:
        MissingDependencyError: the Rerun SDK is not installed.
        OSError: it cannot be written.
    """
    rerun = import_rerun()
    with path.open("wb"):
        pass
    recording = rerun.RecordingStream(APPLICATION)
    recording.save(str(path))
    return LiveView(recording, config, waits=True)
