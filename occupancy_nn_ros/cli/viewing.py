# SPDX-License-Identifier: Apache-2.0
"""Options of the viewer that several subcommands share. The viewer is Rerun's, an extra: pip install 'occupancy-nn-ros[view]'."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.visualization.viewer_process import (
    LOOPBACK,
    PORT,
    ViewerProcess,
    page_address,
    start_viewer,
)

if TYPE_CHECKING:
    from occupancy_nn_ros.visualization.live_view import LiveView

TERMINATED = 128 + signal.SIGTERM


def add_view(parser: argparse.ArgumentParser) -> None:
    """``--view``, ``--view-address`` and ``--view-port``."""
    parser.add_argument(
        "--view", nargs="?", const="window", choices=("window", "web"), metavar="KIND",
        help="show pictures, predicted depth and map while it is made: in a window, or with 'web' on a page",
    )  # fmt: skip
    parser.add_argument(
        "--view-address", default=LOOPBACK, metavar="IP",
        help="where the viewer listens (default: %(default)s, this machine alone; 0.0.0.0: everyone who reaches it)",
    )  # fmt: skip
    parser.add_argument(
        "--view-port",
        type=int,
        default=PORT,
        metavar="N",
        help="for the data; the page is at N + 1 (default: %(default)s)",
    )


def viewer_asked_for(args: argparse.Namespace) -> ViewerProcess | None:
    """The viewer that the options ask for, None for none; says where it is.

    Raises:
        MissingDependencyError: the Rerun SDK is not installed.
        OccupancyError: no screen for a window.
    """
    if args.view is None:
        return None
    from occupancy_nn_ros.visualization.rerun_log import import_rerun

    import_rerun()
    process = start_viewer(args.view, args.view_address, args.view_port)
    say_where(args, process)
    return process


def say_where(args: argparse.Namespace, process: ViewerProcess) -> None:
    """Print the address of the page, and whether it was there before."""
    if not process.is_ours:
        say(f"something listens at port {args.view_port} already: taken for the viewer of an earlier run, and used")
    if args.view == "web":
        say(f"look at {page_address(args.view_address, args.view_port)}")


@contextmanager
def shown_in(process: ViewerProcess | None, config: Config, *, waits: bool = False) -> Iterator[tuple[LiveView, ...]]:
    """A view in this viewer, or none; says at the end how much it was shown.

    Args:
        process: from :func:`viewer_asked_for`.
        config: what the grid's band and the voxels' colours are.
        waits: show everything.
    """
    if process is None:
        yield ()
        return
    from occupancy_nn_ros.visualization.live_view import show_in

    with show_in(process, config, waits=waits, say=say) as view:
        yield (view,)
    say(f"the viewer was shown {view.shown} keyframes, {view.left_out} came too fast for it")


@contextmanager
def written_to(file: Path | None, config: Config) -> Iterator[tuple[LiveView, ...]]:
    """A view that is a recording file, or none.

    Raises:
        MissingDependencyError: the Rerun SDK is not installed.
        OccupancyError: the file cannot be written.
    """
    if file is None:
        yield ()
        return
    from occupancy_nn_ros.visualization.live_view import open_file

    try:
        view = open_file(file, config)
    except OSError as error:
        raise OccupancyError(f"cannot write {file}: {error}") from None
    with view:
        yield (view,)
    say(view.problem or f"{file}: {view.shown} keyframes; occupancy-nn view {file} shows them")


@contextmanager
def closing(process: ViewerProcess | None, *, is_kept: bool = False) -> Iterator[None]:
    """End the viewer with the command, also one that is terminated.

    Args:
        process: from :func:`viewer_asked_for`.
        is_kept: leave it open, as a window that people close themselves.
    """
    if process is None or is_kept:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        process.close()


def stay(process: ViewerProcess | None) -> None:
    """Wait until the viewer is closed, or Ctrl-C.

    Raises:
        OccupancyError: it failed.
    """
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        if process is not None:
            process.wait()


def say(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr)
