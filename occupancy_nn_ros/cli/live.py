# SPDX-License-Identifier: Apache-2.0
"""Run the ROS 2 node; the same as: ros2 run occupancy_nn_ros occupancy_node.

Takes --ros-args ... as any node does, and with no cameras given finds them in the ROS graph. Needs rclpy, from a sourced
ROS distribution or from the wheels that scripts/setup installs.
"""

from __future__ import annotations

import argparse

from occupancy_nn_ros.cli.settings import add_settings, overrides_of, read_settings
from occupancy_nn_ros.cli.viewing import add_view, say, viewer_asked_for
from occupancy_nn_ros.errors import MissingDependencyError

CLOSE_S = 0.5
"""How long the end of the node waits for its viewer."""


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
    process = viewer_asked_for(args)
    if process is None:
        run_node(start, args.ros_arguments, stop)
    from occupancy_nn_ros.visualization.live_view import show_in

    view = show_in(process, read_settings(args), say=say)

    def close_view() -> None:
        view.close(CLOSE_S)
        if args.view == "web":
            process.close()

    run_node(start, args.ros_arguments, stop, (view,), close_view)
