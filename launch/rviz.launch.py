# SPDX-License-Identifier: Apache-2.0
"""RViz with the displays of the map; closing its window ends the launch."""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

BOOLEAN = ["true", "false", "True", "False"]

# The displays of config/rviz/occupancy.rviz name these below /occupancy_nn, and these without a folder.
NODE_TOPICS = (
    "occupancy_grid", "occupancy_grid_updates", "cost_grid", "cost_grid_updates", "markers", "occupied_voxels", "mesh", "moving",
    "pictures",
)  # fmt: skip
ROBOT_TOPICS = ("goal_pose", "plan", "local_costmap/costmap", "local_costmap/costmap_updates")
TF_TOPICS = ("tf", "tf_static")


def generate_launch_description() -> LaunchDescription:
    """Arguments and RViz."""
    display = PathJoinSubstitution([FindPackageShare("occupancy_nn_ros"), "config", "rviz", "occupancy.rviz"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("rviz_config", default_value=display, description="RViz display file."),
            DeclareLaunchArgument("namespace", default_value="", description="ROS namespace of the node to show."),
            DeclareLaunchArgument(
                "global_tf",
                default_value="false",
                choices=BOOLEAN,
                description="Its transforms are in /tf all the same.",
            ),
            DeclareLaunchArgument("name", default_value="occupancy_nn", description="Name of the node to show."),
            DeclareLaunchArgument(
                "use_sim_time", default_value="false", choices=["", *BOOLEAN], description="Take time from /clock."
            ),
            DeclareLaunchArgument(
                "map_frame", default_value="", description="Fixed frame to show; empty: the display file's."
            ),
            OpaqueFunction(function=rviz),
        ]
    )


def rviz(context: LaunchContext) -> list[Action]:
    """RViz, its displays pointed at the node that was named; a word on how to get it where it is not installed."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        package = f"ros-{os.environ.get('ROS_DISTRO', 'DISTRO')}-rviz2"
        return [LogInfo(msg=f"RViz is not installed and is left out: apt install {package}, or say rviz:=false")]
    use_sim_time = LaunchConfiguration("use_sim_time").perform(context).lower() == "true"
    fixed_frame = LaunchConfiguration("map_frame").perform(context)
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", LaunchConfiguration("rviz_config"), *(["-f", fixed_frame] if fixed_frame else [])],
            parameters=[{"use_sim_time": use_sim_time}],
            remappings=remappings(context),
            on_exit=Shutdown(reason="RViz was closed"),
        )
    ]


def remappings(context: LaunchContext) -> list[tuple[str, str]]:
    """From the topics of the display file to those of the robot and its node."""
    names = ("namespace", "name", "global_tf")
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    robot = f"/{values['namespace'].strip('/')}".rstrip("/")
    node = f"{robot}/{values['name'].strip('/')}"
    of_robot = [*ROBOT_TOPICS, *(TF_TOPICS if values["global_tf"].lower() != "true" else ())]
    return [
        *((f"/{topic}", f"{robot}/{topic}") for topic in of_robot),
        *((f"/occupancy_nn/{topic}", f"{node}/{topic}") for topic in NODE_TOPICS),
    ]
