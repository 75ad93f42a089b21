# SPDX-License-Identifier: Apache-2.0
"""Show what a model file, a bag or a saved map holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from occupancy_nn_ros.errors import OccupancyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("what", help="a model's name, a .safetensors file, or a bag")


def run(args: argparse.Namespace) -> int:
    """Print what there is."""
    path = Path(args.what)
    if path.suffix == ".safetensors" or not path.exists():
        return _print_safetensors(args.what)
    return _print_bag(path)


def _print_safetensors(name: str) -> int:
    from safetensors import SafetensorError, safe_open

    from occupancy_nn_ros.network.checkpoint import find_model

    path = find_model(name)
    try:
        with safe_open(str(path), framework="np") as file:
            header = dict(file.metadata() or {})
            weights = sum(int(size) for key in file.keys() for size in [_size(file.get_slice(key).get_shape())])  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise OccupancyError(f"cannot read {path}: {error}") from None
    print(f"{path}: {header.pop('format', 'unknown format')}, {weights:,} numbers, {path.stat().st_size / 1e6:.1f} MB")
    for key, value in header.items():
        print(f"{key}: {_pretty(value)}")
    return 0


def _print_bag(path: Path) -> int:
    from occupancy_nn_ros.bags.reader import BagReader
    from occupancy_nn_ros.bags.scan import scan_bag

    with BagReader(path) as reader:
        scan = scan_bag(reader)
        print(f"{path}: {reader.duration_s:.1f} s")
        for topic, info in sorted(reader.topics.items()):
            extra = " ".join(filter(None, (scan.encodings.get(topic, ""), scan.frames.get(topic, ""))))
            print(f"  {topic}  {info.msgtype}  {info.count}  {extra}")
        print(f"frames: {', '.join(sorted(scan.poses.frames())) or 'none'}")
    return 0


def _size(shape: list[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _pretty(value: str) -> str:
    try:
        return json.dumps(json.loads(value), indent=1)
    except ValueError:
        return value
