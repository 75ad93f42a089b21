# SPDX-License-Identifier: Apache-2.0
"""A recorded bag instead of a robot: `ros2 launch occupancy_nn_ros playback.launch.py bag:=my_bag`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

BOOLEAN = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the live node on simulated time, and the player."""
    return LaunchDescription([*arguments(), live(), OpaqueFunction(function=player)])


def arguments() -> list[DeclareLaunchArgument]:
    """All arguments of this file."""
    return [
        DeclareLaunchArgument("bag", description="Folder of a rosbag2 recording, or an .mcap or .db3 file."),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed of playback; 1.0: as recorded."),
        DeclareLaunchArgument("loop", default_value="false", choices=BOOLEAN, description="Start again at the end."),
        DeclareLaunchArgument(
            "delay", default_value="5.0", description="Seconds before the first message, for the network to load."
        ),
        DeclareLaunchArgument("rviz", default_value="true", choices=BOOLEAN, description="Open RViz too."),
        DeclareLaunchArgument(
            "model", default_value="", description="Name under models/ or a .safetensors file; empty: as in config."
        ),
        DeclareLaunchArgument(
            "config", default_value="", description="YAML files with settings, comma separated; the last one wins."
        ),
    ]


def live() -> IncludeLaunchDescription:
    """The live node, which takes its time from the bag."""
    path = PathJoinSubstitution([FindPackageShare("occupancy_nn_ros"), "launch", "live.launch.py"])
    passed = [(name, LaunchConfiguration(name)) for name in ("model", "config", "rviz")]
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=[*passed, ("use_sim_time", "true")]
    )


def player(context: LaunchContext) -> list[ExecuteProcess]:
    """`ros2 bag play` with a clock."""
    loop = ["--loop"] if LaunchConfiguration("loop").perform(context) == "true" else []
    options = ["--clock", "--rate", LaunchConfiguration("rate"), "--delay", LaunchConfiguration("delay"), *loop]
    # The bag comes first: --clock takes an optional number and would swallow it.
    return [ExecuteProcess(cmd=["ros2", "bag", "play", LaunchConfiguration("bag"), *options], output="screen")]
