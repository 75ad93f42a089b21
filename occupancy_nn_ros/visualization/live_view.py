# SPDX-License-Identifier: Apache-2.0
"""A window, a page or a file that shows the map while it is made. A slow or closed viewer never slows the map.

Snapshots go through a slot that holds one: while the last is still being sent, new ones are not even made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.visualization.rerun_log import APPLICATION, RerunLog, import_rerun
from occupancy_nn_ros.visualization.snapshot import Snapshot
from occupancy_nn_ros.visualization.viewer_process import ViewerProcess

SEND_TIMEOUT_S = 2.0
"""How long a viewer may take for one snapshot before it counts as gone."""

_ABANDONED: list[Any] = []
"""Recordings whose viewer is gone: to free one, too, waits for the viewer."""


def _say_nothing(text: str) -> None:
    pass


class LiveView:
    """Shows snapshots. A context manager; :meth:`offer` is called by the thread that makes the map.

    Attributes:
        shown: snapshots sent.
        left_out: snapshots that were not made, since the viewer was still busy with the last.
        problem: why nothing is shown any more, worded for people; empty while all is well.
    """

    def __init__(
        self,
        recording: Any,
        config: Config,
        viewer: ViewerProcess | None = None,
        *,
        waits: bool = False,
        say: Callable[[str], None] = _say_nothing,
    ) -> None:
        """Show on a recording; see :func:`show_in` and :func:`open_file`.

        Args:
            recording: a ``rerun.RecordingStream``; it is connected to the viewer once that answers.
            config: what the grid's band and the voxels' colours are.
            viewer: who shows it; None: the recording is connected already.
            waits: lose nothing, and make the map wait instead.
            say: told of a problem when it happens, by a thread of the view's own.
        """
        self.shown, self.left_out, self.problem = 0, 0, ""
        self._recording, self._viewer, self._waits, self._say = recording, viewer, waits, say
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
        """Send what waits, and let go of the viewer."""
        self.close()

    def close(self, patience_s: float | None = None) -> None:
        """Send what waits.

        Args:
            patience_s: how long that may take; None: until it was sent, or the viewer is gone.
        """
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()
        self._thread.join(patience_s)
        if self._viewer is None:
            self._recording.disconnect()
        else:
            self._let_go()

    def _let_go(self) -> None:
        """Disconnect; for a viewer that is stuck the SDK would wait for ever, and once more at the end of the process."""
        ending = threading.Thread(target=self._recording.disconnect, name="end of live view", daemon=True)
        if not self.problem:
            ending.start()
            ending.join(SEND_TIMEOUT_S)
        if self.problem or ending.is_alive():
            _ABANDONED.append(self._recording)
            import_rerun().unregister_shutdown()

    def wants(self) -> bool:
        """Whether a snapshot would be shown now; counts one that would not."""
        with self._wake:
            if self._waits:
                self._wake.wait_for(lambda: self._slot is None or bool(self.problem))
            is_free = self._slot is None
        if self.problem:
            return False
        self.left_out += not is_free
        return is_free

    def offer(self, snapshot: Snapshot) -> None:
        """Show a snapshot as soon as possible."""
        with self._wake:
            self._slot = snapshot
            self._wake.notify_all()

    def _run(self) -> None:
        try:
            if self._viewer is not None:
                self._viewer.wait_until_it_answers()
                self._recording.connect_grpc(self._viewer.url)
            while (snapshot := self._next()) is not None:
                self._send(snapshot)
                self._free_slot()
        except Exception as error:  # whatever a viewer does to the connection must not end the mapping
            self.problem = f"the viewer is gone ({error}), and the map goes on without it"
            self._free_slot()
            self._say(self.problem)

    def _next(self) -> Snapshot | None:
        """What is to be shown next, once there is something; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._slot is not None or self._is_closing)
            return self._slot

    def _free_slot(self) -> None:
        with self._wake:
            self._slot = None
            self._wake.notify_all()

    def _send(self, snapshot: Snapshot) -> None:
        if self._viewer is not None:
            self._viewer.check()
        self._log.write(snapshot)
        self._recording.flush(timeout_sec=SEND_TIMEOUT_S)
        self.shown += 1


def show_in(
    viewer: ViewerProcess, config: Config, *, waits: bool = False, say: Callable[[str], None] = _say_nothing
) -> LiveView:
    """A view in a viewer that runs or starts.

    Args:
        viewer: from :func:`~occupancy_nn_ros.visualization.viewer_process.start_viewer`.
        config: what the grid's band and the voxels' colours are.
        waits: lose nothing, and make whoever offers wait instead.
        say: told of a problem when it happens, by a thread of the view's own.

    Raises:
        MissingDependencyError: the Rerun SDK is not installed.
    """
    return LiveView(import_rerun().RecordingStream(APPLICATION), config, viewer, waits=waits, say=say)


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
