# SPDX-License-Identifier: Apache-2.0
"""Look at what ``play`` wrote: pictures, predicted depth, map, grid and path on one time line.

Shows map.rrd where it is (occupancy-nn play BAG --rrd), else map.mcap, which has no plots of latency and drops.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from occupancy_nn_ros.cli.settings import add_config
from occupancy_nn_ros.cli.viewing import add_view, closing, say_where, shown_in, stay, viewer_asked_for
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.visualization.viewer_process import ViewerProcess, file_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("path", type=Path, help="output folder of play, or a .rrd or .mcap file")
    add_view(parser)
    parser.set_defaults(view="window")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Open the viewer, and stay until it is closed."""
    path = _find(args.path)
    if path.suffix == ".rrd":
        _show_file(path, args)
    else:
        _show_bag(path, args)
    return 0


def _show_file(path: Path, args: argparse.Namespace) -> None:
    from occupancy_nn_ros.visualization.rerun_log import import_rerun

    import_rerun()
    command = file_command(path, args.view, args.view_address, args.view_port)
    process = ViewerProcess(args.view_address, args.view_port, command)
    say_where(args, process)
    with closing(process):
        stay(process)


def _show_bag(path: Path, args: argparse.Namespace) -> None:
    from occupancy_nn_ros.runtime.recorded_snapshots import recorded_snapshots

    process = viewer_asked_for(args)
    with closing(process):
        with shown_in(process, load_config(args.config, args.overrides), waits=True) as views:
            for snapshot in recorded_snapshots(path):
                if not views[0].wants():  # it waits until there is room: now the viewer is gone
                    break
                views[0].offer(snapshot)
        stay(process)


def _find(path: Path) -> Path:
    if path.is_dir():
        found = [path / name for name in ("map.rrd", "map.mcap") if (path / name).exists()]
        if not found:
            raise BagError(
                f"{path} has neither map.rrd nor map.mcap: make them with occupancy-nn play BAG --out {path}"
            )
        return found[0]
    if not path.exists():
        raise BagError(f"nothing at {path}")
    return path
