# SPDX-License-Identifier: Apache-2.0
"""Options of the viewer that several subcommands share. The viewer is Rerun's, an extra: pip install 'occupancy-nn-ros[view]'."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.visualization.snapshot import Viewer

LOOPBACK, PORT = "127.0.0.1", 9876


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


@contextmanager
def viewer(
    args: argparse.Namespace, config: Config, file: Path | None = None, *, waits: bool = False
) -> Iterator[Viewer | None]:
    """The viewer that the options ask for, or a recording file, or None; with ``waits`` it is shown everything.

    Raises:
        MissingDependencyError: the Rerun SDK is not installed.
        OccupancyError: the file cannot be written.
    """
    if args.view is None and file is None:
        yield None
        return
    from occupancy_nn_ros.visualization.live_view import open_file, open_view

    if args.view is None and file is not None:
        try:
            view = open_file(file, config)
        except OSError as error:
            raise OccupancyError(f"cannot write {file}: {error}") from None
    else:
        view = open_view(args.view, config, address=args.view_address, port=args.view_port, waits=waits)
        say_where(args.view, args.view_address, args.view_port)
    with view:
        yield view
    for text in (view.problem, f"the viewer was shown {view.shown} keyframes, {view.left_out} came too fast for it"):
        if text:
            print(text, file=sys.stderr)


def say_where(kind: Literal["window", "web"], address: str, port: int) -> None:
    """Print the address of the page."""
    if kind == "web":
        host = LOOPBACK if address == "0.0.0.0" else address
        print(f"look at http://{host}:{port + 1}/?url=rerun%2Bhttp://{host}:{port}/proxy", file=sys.stderr)
