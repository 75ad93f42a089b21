# SPDX-License-Identifier: Apache-2.0
"""A recorded bag instead of a robot: `ros2 launch occupancy_nn_ros playback.launch.py bag:=my_bag`.

All arguments of live.launch.py may be given too. The bag starts once the node is active.
"""

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.event_handlers import OnStateTransition
from launch_ros.substitutions import FindPackageShare

BOOLEAN = ["true", "false", "True", "False"]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the live node on simulated time, and the player."""
    # The player's handler comes before the node: it must not miss that the node becomes active.
    return LaunchDescription([*arguments(), OpaqueFunction(function=player_once_active), live()])


def arguments() -> list[DeclareLaunchArgument]:
    """The arguments that this file adds to those of live.launch.py, or has other defaults for."""
    return [
        DeclareLaunchArgument("bag", description="Folder of a rosbag2 recording, or an .mcap or .db3 file."),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed of playback; 1.0: as recorded."),
        DeclareLaunchArgument("loop", default_value="false", choices=BOOLEAN, description="Start again at the end."),
        DeclareLaunchArgument(
            "delay",
            default_value="3.0",
            description="Seconds between the topics of the bag, for the node to find, and the first message.",
        ),
        DeclareLaunchArgument("rviz", default_value="true", choices=BOOLEAN, description="Open RViz too."),
    ]


def live() -> IncludeLaunchDescription:
    """The live node, which takes its time from the bag."""
    path = PathJoinSubstitution([FindPackageShare("occupancy_nn_ros"), "launch", "live.launch.py"])
    fixed = [("use_sim_time", "true"), ("autostart", "true"), ("rviz", LaunchConfiguration("rviz"))]
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=fixed)


def player_once_active(context: LaunchContext) -> list[RegisterEventHandler]:
    """`ros2 bag play` with a clock, started by the node's transition to active, and only by the first.

    Raises:
        FileNotFoundError: no such bag, or no `ros2 bag`; better said before anything runs.
    """
    bag = Path(LaunchConfiguration("bag").perform(context)).expanduser()
    if not bag.exists():
        raise FileNotFoundError(f"bag:={bag} does not exist")
    check_player()
    loop = ["--loop"] if LaunchConfiguration("loop").perform(context).lower() == "true" else []
    options = ["--clock", "--rate", LaunchConfiguration("rate"), "--delay", LaunchConfiguration("delay"), *loop]
    # The bag comes first: --clock takes an optional number and would swallow it.
    process = ExecuteProcess(cmd=["ros2", "bag", "play", str(bag), *options], output="screen")
    return [RegisterEventHandler(OnStateTransition(goal_state="active", entities=[process], handle_once=True))]


def check_player() -> None:
    """Refuse to go on without `ros2 bag`.

    Raises:
        FileNotFoundError: it is not installed.
    """
    try:
        get_package_prefix("ros2bag")
    except PackageNotFoundError:
        distribution = os.environ.get("ROS_DISTRO", "DISTRO")
        raise FileNotFoundError(
            f"playback needs `ros2 bag`: apt install ros-{distribution}-ros2bag ros-{distribution}-rosbag2-storage-mcap"
        ) from None
