# SPDX-License-Identifier: Apache-2.0
"""Propose a mask for each camera of a recording: what never changes in its pictures while the robot moves is the robot itself, or dirt.

Some tens of pictures from different places are needed; the robot should turn as well as drive. Look at CAMERA_overlay.png, where the mask
is red, and correct CAMERA.png in any image editor: white is never looked at. settings.yaml uses the masks (--config).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from occupancy_nn_ros.cli.settings import add_part, add_settings, bag_progress, make_folder, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("bag", type=Path, help="a recording with camera images and poses")
    parser.add_argument(
        "--out", type=Path, default=Path("masks"), metavar="DIR", help="folder to write to (default: masks)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    add_part(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Propose, write, and print the settings."""
    from occupancy_nn_ros.bags.reader import BagPart
    from occupancy_nn_ros.doctor.mask_proposals import propose_masks, write_masks

    config = read_settings(args)
    with bag_progress(args, "looking") as report:
        found = propose_masks(args.bag, config, report, BagPart(args.start, args.end))
    files, settings = write_masks(found, make_folder(args.out))
    if args.json:
        shares = {
            item.camera: {"masked": round(float(item.mask.mean()), 5), "pictures": item.pictures} for item in found
        }
        print(json.dumps(shares))
        return 0
    for item in found:
        print(f"{item.camera}: {item.text()}")
    print("\n".join(f"wrote {file}" for file in files))
    print("\n" + yaml.safe_dump(settings, sort_keys=False), end="")
    return 0
