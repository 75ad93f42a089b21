# SPDX-License-Identifier: Apache-2.0
"""Look at what ``play`` wrote: pictures, predicted depth, map, grid and path on one time line.

Shows map.rrd where it is (occupancy-nn play BAG --rrd), else map.mcap, which has no plots of latency and drops.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from occupancy_nn_ros.cli.settings import add_config
from occupancy_nn_ros.cli.viewing import add_view, say_where, viewer
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import BagError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("path", type=Path, help="output folder of play, or a .rrd or .mcap file")
    add_view(parser)
    parser.set_defaults(view="window")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Open the viewer, and stay while a page is served."""
    path = _find(args.path)
    if path.suffix == ".rrd":
        return _show_file(path, args)
    from occupancy_nn_ros.runtime.recorded_snapshots import recorded_snapshots

    with viewer(args, load_config(args.config, args.overrides), waits=True) as view:
        for snapshot in recorded_snapshots(path):
            if view is None or not view.wants():  # it waits until there is room: now the viewer is gone
                break
            view.offer(snapshot)
    return 0


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


def _show_file(path: Path, args: argparse.Namespace) -> int:
    from occupancy_nn_ros.visualization.live_view import viewer_command

    say_where(args.view, args.view_address, args.view_port)
    return subprocess.run(
        [*viewer_command(args.view, args.view_address, args.view_port), str(path)], check=False, stdout=sys.stderr
    ).returncode
