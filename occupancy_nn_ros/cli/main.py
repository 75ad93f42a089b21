# SPDX-License-Identifier: Apache-2.0
"""The ``occupancy-nn`` command. Each subcommand is a module with ``add_arguments`` and ``run``; heavy imports happen in ``run``."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from occupancy_nn_ros.compute.waiting import wait_passively
from occupancy_nn_ros.errors import BagError, OccupancyError

COMMANDS = {
    "demo": "map a short simulated drive and show the pictures; start here",
    "doctor": "check cameras, transforms, QoS and model, on the live graph or on a bag",
    "calibrate-cameras": "ask a recording whether focal lengths, mountings and stamps of its cameras are right",
    "mask": "propose masks of what cameras see of the robot itself, from a recording",
    "play": "map a recorded bag without ROS",
    "live": "run the ROS 2 node",
    "view": "look at what play wrote: map, pictures and path on one time line",
    "sim": "simulate a drive and record it as a bag with exact truth",
    "assets": "import installed furniture for simulated rooms",
    "shards": "simulate many drives as training data",
    "label": "make training data of your own recordings",
    "adapt": "adapt a model to a site by recordings of its cameras alone",
    "train": "train an occupancy network",
    "calibrate": "fit a trained model's probabilities",
    "blend": "weights between those of two models",
    "eval": "score a model against the simulator's truth",
    "export": "write a model as ONNX graphs",
    "info": "show a model, a bag or a saved map",
}

EPILOG = """examples:
  occupancy-nn demo
  occupancy-nn play my_bag --out out
  occupancy-nn play my_bag --set voxel_size_m=0.1 --set cameras.front.image_topic=/front/image_raw
  occupancy-nn sim --world warehouse --rig surround6 --out recordings/w1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    wait_passively()
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if rest and args.command not in ("live", "doctor"):  # what follows --ros-args is for ROS to judge
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.ros_arguments = rest
    if args.command is None:
        parser.print_help()
        return 2
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        result = int(_module(args.command).run(args))
        sys.stdout.flush()  # a pipe that is closed is met here, not at the interpreter's end
        return result
    except OccupancyError as error:
        if args.verbose:
            traceback.print_exc()
        advice = f"; {error.advice}" if isinstance(error, BagError) and error.advice else ""
        print(f"occupancy-nn {args.command}: {error}{advice}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as `| head` does, once it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"occupancy-nn {args.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="occupancy-nn", description="Live 3D occupancy maps from ordinary cameras.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        module = _module(name)
        command = commands.add_parser(
            name, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("-v", "--verbose", action="store_true", help="log more, and print tracebacks")
        module.add_arguments(command)
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"occupancy_nn_ros.cli.{name.replace('-', '_')}")
