# SPDX-License-Identifier: Apache-2.0
"""RViz with the displays of the map; closing its window ends the launch."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# The displays of config/rviz/occupancy.rviz name these below /occupancy_nn.
TOPICS = ("occupancy_grid", "occupancy_grid_updates", "markers", "occupied_voxels")


def generate_launch_description() -> LaunchDescription:
    """Arguments and RViz."""
    display = PathJoinSubstitution([FindPackageShare("occupancy_nn_ros"), "config", "rviz", "occupancy.rviz"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("rviz_config", default_value=display, description="RViz display file."),
            DeclareLaunchArgument("namespace", default_value="", description="ROS namespace of the node to show."),
            DeclareLaunchArgument("name", default_value="occupancy_nn", description="Name of the node to show."),
            DeclareLaunchArgument(
                "use_sim_time", default_value="false", choices=["true", "false"], description="Take time from /clock."
            ),
            OpaqueFunction(function=rviz),
        ]
    )


def rviz(context: LaunchContext) -> list[Node]:
    """RViz, its displays pointed at the node that was named."""
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", LaunchConfiguration("rviz_config")],
            parameters=[{"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}],
            remappings=remappings(context),
            on_exit=Shutdown(reason="RViz was closed"),
        )
    ]


def remappings(context: LaunchContext) -> list[tuple[str, str]]:
    """From the topics of the display file to those of the node."""
    names = [LaunchConfiguration(argument).perform(context).strip("/") for argument in ("namespace", "name")]
    node = "/" + "/".join(name for name in names if name)
    return [(f"/occupancy_nn/{topic}", f"{node}/{topic}") for topic in TOPICS]
