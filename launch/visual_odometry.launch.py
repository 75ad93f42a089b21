# SPDX-License-Identifier: Apache-2.0
"""The live node beside RTAB-Map's stereo odometry, for a robot that has none of its own.

    ros2 launch occupancy_nn_ros visual_odometry.launch.py left:=/stereo/left right:=/stereo/right

Both pictures are rectified and belong together; TF has the two cameras on the robot. Arguments of live.launch.py are passed on.
"""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE, ODOMETRY = "occupancy_nn_ros", "rtabmap_odom"
ARGUMENTS = {
    "left": ("/stereo/left", "Namespace of the left camera's image_rect and camera_info."),
    "right": ("/stereo/right", "Namespace of the right camera's."),
    "map_frame": ("odom", "Frame in which the odometry starts; the map's too."),
    "base_frame": ("base_link", "Frame of the robot."),
}


def generate_launch_description() -> LaunchDescription:
    """Arguments, odometry, and the live node."""
    live = PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "live.launch.py"])
    frames = [(name, LaunchConfiguration(name)) for name in ("map_frame", "base_frame")]
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ),
            DeclareLaunchArgument(
                "use_sim_time", default_value="false", description="Take the time from /clock.",
                choices=["true", "false", "True", "False"],
            ),
            OpaqueFunction(function=odometry),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(live), launch_arguments=frames),
        ]
    )  # fmt: skip


def odometry(_: LaunchContext) -> list[Node]:
    """RTAB-Map's odometry, which sends the transform from the map frame to the robot.

    Raises:
        PackageNotFoundError: it is not installed; says how it is.
    """
    try:
        get_package_prefix(ODOMETRY)
    except PackageNotFoundError:
        raise PackageNotFoundError(f"{ODOMETRY} is not installed: apt install ros-$ROS_DISTRO-rtabmap-odom") from None
    parameters = {
        "frame_id": LaunchConfiguration("base_frame"),
        "odom_frame_id": LaunchConfiguration("map_frame"),
        "publish_tf": True,
        "publish_null_when_lost": False,  # no pose at all is better than one that is none
        "approx_sync": False,
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
    }
    topics = [
        (f"{side}/{name}", [LaunchConfiguration(side), f"/{name}"])
        for side in ("left", "right")
        for name in ("image_rect", "camera_info")
    ]
    return [
        Node(
            package=ODOMETRY, executable="stereo_odometry", parameters=[parameters], remappings=topics, output="screen"
        )
    ]
