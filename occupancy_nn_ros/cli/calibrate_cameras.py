# SPDX-License-Identifier: Apache-2.0
"""Ask a recording's own pictures whether focal lengths, mountings and stamps of its cameras are right, and write those that fit.

The robot should turn and move while it records, among things with texture; half a minute is enough. Poses are taken to be right,
but for noise. OUT/CAMERA.yaml holds the corrected intrinsics as drivers load them (camera_info_url), OUT/settings.yaml
the time offsets as settings of this package.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from occupancy_nn_ros.cli.settings import add_part, add_settings, bag_progress, make_folder, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("bag", type=Path, help="a recording with camera images and poses")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the corrected values (default: only print)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    add_part(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Judge, print, and write."""
    from occupancy_nn_ros.bags.reader import BagPart
    from occupancy_nn_ros.doctor.camera_calibration import calibrate_bag
    from occupancy_nn_ros.doctor.camera_files import write_calibrations

    config = read_settings(args)
    with bag_progress(args, "matching") as report:
        found = calibrate_bag(args.bag, config, report, BagPart(args.start, args.end))
    if args.json:
        fits = {item.camera: None if item.fit is None else _plain(asdict(item.fit)) for item in found}
        print(json.dumps(fits))
    else:
        for item in found:
            print(f"{item.camera}: {item.text()}")
    if args.out is not None:
        files = write_calibrations(found, make_folder(args.out))
        if not args.json:
            print("\n".join(f"wrote {file}" for file in files))
    return 0


def _plain(values: dict[str, object]) -> dict[str, object]:
    """Values for JSON: lists for arrays, null for what is not a number."""
    lists = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in values.items()}
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in lists.items()}
