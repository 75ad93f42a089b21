# SPDX-License-Identifier: Apache-2.0
"""Command line options that several subcommands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import OccupancyError

if TYPE_CHECKING:
    from rich.progress import Progress

    from occupancy_nn_ros.runtime.decoding import FurtherDecoders
    from occupancy_nn_ros.runtime.player import PlayProgress


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    parser.add_argument(
        "--config", type=Path, action="append", default=[], metavar="YAML", help="settings file; later files win"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="one setting, such as voxel_size_m=0.1 or grid.max_height_m=2; wins over files (docs/parameters.md lists all)",
    )  # fmt: skip


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options that make a :class:`Config`."""
    add_config(parser)
    parser.add_argument("--model", help="name under models/ or path of a .safetensors file")
    add_depth_model(parser)
    parser.add_argument(
        "--source", choices=["network", "depth", "lidar"], help="what the map is built from (default: network)"
    )


def add_depth_model(parser: argparse.ArgumentParser) -> None:
    """``--depth-model``, which sets ``network.depth_model``."""
    parser.add_argument(
        "--depth-model", metavar="ONNX", help="a single-image depth network to run beside ours (network.depth_model)"
    )


def add_scale(parser: argparse.ArgumentParser) -> None:
    """The size of pictures in shards, whose sides stay multiples of 16 pixels."""
    parser.add_argument(
        "--scale", type=float, default=1.0, choices=(1.0, 1.5, 2.0, 3.0, 4.0),
        help="multiply width and height of the pictures, about 256 x 192 (default: 1)",
    )  # fmt: skip


def add_format(parser: argparse.ArgumentParser) -> None:
    """The layout of training data."""
    parser.add_argument(
        "--format", choices=("shards", "numpy"), default="shards",
        help="numpy: beside the shards also dataset.json and .npz files, for other programs (default: shards alone)",
    )  # fmt: skip


def add_part(parser: argparse.ArgumentParser) -> None:
    """``--start`` and ``--end`` of a recording."""
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="seconds into the recording (default: 0)")
    parser.add_argument(
        "--end", type=float, default=math.inf, metavar="S", help="likewise, where to stop (default: its end)"
    )


def read_settings(args: argparse.Namespace) -> Config:
    """The configuration that the options describe.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value out of range.
    """
    return load_config(args.config, overrides_of(args))


def overrides_of(args: argparse.Namespace) -> list[str]:
    """The single settings among the options, as ``key=value``."""
    named = [f"{key}={value}" for key in ("model", "source") if (value := getattr(args, key)) is not None]
    if args.depth_model is not None:
        named.append(f"network.depth_model={args.depth_model}")
    return [*args.overrides, *named]


def further_decoders() -> FurtherDecoders:
    """cv_bridge's and sensor_msgs_py's where a ROS distribution is sourced, so that bags are read as the node reads topics."""
    from occupancy_nn_ros.runtime.decoding import OWN_ONLY

    if find_spec("rclpy") is None or not (find_spec("cv_bridge") or find_spec("sensor_msgs_py")):
        return OWN_ONLY
    from occupancy_nn_ros.ros.further_decoders import installed_decoders

    return installed_decoders()


def make_folder(path: Path) -> Path:
    """Make an output folder.

    Raises:
        OccupancyError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OccupancyError(f"cannot make output folder {path}: {error}") from None
    return path


def shard_place(text: str) -> Path | str:
    """Where training data lies: a folder, or a URL that fsspec knows, as it is."""
    from occupancy_nn_ros.training.object_store import is_url

    return text if is_url(text) else Path(text)


def make_place(args: argparse.Namespace) -> Path | None:
    """Make the output folder of training data; None where it is a URL.

    Raises:
        OccupancyError: it cannot be made, or not have the layout that is asked for.
    """
    if isinstance(args.out, Path):
        return make_folder(args.out)
    if args.format == "numpy":
        raise OccupancyError(f"--format numpy writes into a folder, got {args.out}: convert a copy of it")
    return None


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A rich progress display on standard error, or a silent one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        yield progress


@contextmanager
def bag_progress(args: argparse.Namespace, doing: str) -> Iterator[Callable[[PlayProgress], None]]:
    """A progress display of going through a bag, unless ``--json`` is given; yields who is told about it."""
    with progress_bar(args.json) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda p: progress.update(task, completed=p.done_s, total=max(p.total_s, 1e-3))
