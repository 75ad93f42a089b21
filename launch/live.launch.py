# SPDX-License-Identifier: Apache-2.0
"""The live node on a robot, with RViz on request: `ros2 launch occupancy_nn_ros live.launch.py rviz:=true`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = "occupancy_nn_ros"
BOOLEAN = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the node, and RViz where it is asked for."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=node), rviz()])


def arguments() -> list[DeclareLaunchArgument]:
    """All arguments of this file."""
    return [
        DeclareLaunchArgument(
            "model", default_value="", description="Name under models/ or a .safetensors file; empty: as in config."
        ),
        DeclareLaunchArgument(
            "config", default_value="", description="YAML files with settings, comma separated; the last one wins."
        ),
        DeclareLaunchArgument("namespace", default_value="", description="ROS namespace of the node."),
        DeclareLaunchArgument("name", default_value="occupancy_nn", description="Name of the node and of its topics."),
        DeclareLaunchArgument("rviz", default_value="false", choices=BOOLEAN, description="Open RViz too."),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=BOOLEAN, description="Take the time from /clock."
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="What the node logs.",
        ),
        DeclareLaunchArgument(
            "respawn", default_value="false", choices=BOOLEAN, description="Start the node again when it exits."
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=BOOLEAN,
            description="Configure and activate the node at once; false: wait for `ros2 lifecycle set`.",
        ),
    ]


def node(context: LaunchContext) -> list[Node]:
    """The node, with those parameters that were given: an empty argument must not hide what a config file says."""
    return [
        Node(
            package=PACKAGE,
            executable="occupancy_node",
            namespace=LaunchConfiguration("namespace"),
            name=LaunchConfiguration("name"),
            parameters=[given_parameters(context)],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
            emulate_tty=True,
            respawn=LaunchConfiguration("respawn").perform(context) == "true",
            respawn_delay=2.0,
        )
    ]


def given_parameters(context: LaunchContext) -> dict[str, ParameterValue]:
    """Node parameters of this launch file's arguments."""
    texts = {"model": "model", "config_files": "config"}
    given = {name: LaunchConfiguration(argument) for name, argument in texts.items()}
    parameters = {
        name: ParameterValue(value, value_type=str) for name, value in given.items() if value.perform(context)
    }
    for name in ("use_sim_time", "autostart"):
        parameters[name] = ParameterValue(LaunchConfiguration(name), value_type=bool)
    return parameters


def rviz() -> IncludeLaunchDescription:
    """RViz on the topics of the node."""
    names = ("namespace", "name", "use_sim_time")
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "rviz.launch.py"])),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in names],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
