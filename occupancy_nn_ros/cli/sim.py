# SPDX-License-Identifier: Apache-2.0
"""Simulate a drive through a random world and record it.

Writes drive.mcap (images, camera_info, tf, odometry, depth, LiDAR), world.json (the exact world) and truth.npz (its occupancy).
Needs MuJoCo: pip install 'occupancy-nn-ros[sim]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from occupancy_nn_ros.cli.settings import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument(
        "--world", default="indoor", help="indoor, warehouse, street, or one of them with _heldout (default: indoor)"
    )
    parser.add_argument("--rig", default="surround4", help="front, stereo, surround4 or surround6 (default: surround4)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world and drive (default: 0)")
    parser.add_argument("--duration", type=float, default=20.0, metavar="S", help="seconds (default: 20)")
    parser.add_argument(
        "--rate", type=float, default=5.0, metavar="HZ", help="pictures a second of each camera (default: 5)"
    )
    parser.add_argument("--handheld", action="store_true", help="carried by hand instead of driven on the floor")
    parser.add_argument(
        "--imperfect", action="store_true", help="pictures, poses and calibration as imperfect as those of real robots"
    )
    parser.add_argument("--raw", action="store_true", help="raw pictures instead of jpeg")
    parser.add_argument("--no-depth", action="store_true", help="record no depth images")
    parser.add_argument("--no-lidar", action="store_true", help="record no LiDAR")
    parser.add_argument("--out", type=Path, required=True, help="output folder")


def run(args: argparse.Namespace) -> int:
    """Simulate and record."""
    from occupancy_nn_ros.simulation.drives import plan_drive
    from occupancy_nn_ros.simulation.layouts import build_world
    from occupancy_nn_ros.simulation.recording import RecordingOptions, record_drive
    from occupancy_nn_ros.simulation.rigs import named_rig

    rig, world = named_rig(args.rig), build_world(args.world, args.seed)
    drive = plan_drive(world, args.seed, args.duration, args.rate, handheld=args.handheld)
    options = RecordingOptions(0 if args.raw else 85, not args.no_depth, not args.no_lidar, is_imperfect=args.imperfect)
    with progress_bar(quiet=False) as progress:
        task = progress.add_task("rendering", total=1.0)
        bag = record_drive(world, rig, drive, args.out, options, lambda done: progress.update(task, completed=done))
    print(
        f"{len(drive.stamps_s)} pictures from each of {len(rig.cameras)} cameras in {bag}; truth in {args.out / 'world.json'}"
    )
    return 0
