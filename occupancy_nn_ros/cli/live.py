# SPDX-License-Identifier: Apache-2.0
"""Run the ROS 2 node; the same as: ros2 run occupancy_nn_ros occupancy_node.

Takes --ros-args ... as any node does, and with no cameras given finds them in the ROS graph. Needs rclpy, from a sourced
ROS distribution or from the wheels that scripts/setup installs.
"""

from __future__ import annotations

import argparse

from occupancy_nn_ros.cli.settings import add_settings, overrides_of, read_settings
from occupancy_nn_ros.cli.viewing import add_view, viewer
from occupancy_nn_ros.errors import MissingDependencyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    add_view(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Run the node until it is interrupted."""
    from occupancy_nn_ros.ros.stop_signals import StopSignals

    stop = StopSignals()
    try:
        from occupancy_nn_ros.ros.parameters import StartSettings
        from occupancy_nn_ros.ros.running import run_node
    except ImportError as error:
        raise MissingDependencyError(
            f"the live node needs rclpy ({error}): source a ROS 2 distribution, or run scripts/setup"
        ) from None
    start = StartSettings(tuple(args.config), tuple(overrides_of(args)))
    with viewer(args, read_settings(args)) as shown:
        run_node(start, args.ros_arguments, stop, () if shown is None else (shown,))
