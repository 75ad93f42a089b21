# SPDX-License-Identifier: Apache-2.0
"""The live node on a robot, with RViz on request: `ros2 launch occupancy_nn_ros live.launch.py rviz:=true`."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = "occupancy_nn_ros"
BOOLEAN = ["true", "false", "True", "False"]
TEXTS = {
    "model": "Name under models/ or a .safetensors file.",
    "config": "YAML files with settings, comma separated, the last one wins; also looked for in the package's config/.",
    "map_frame": "Fixed frame of the map.",
    "base_frame": "Frame of the robot.",
    "map_folder": "Folder for saved maps.",
    "start_map": "Map file in map_folder to go on with.",
}
"""Arguments that become parameters of the node where they are given."""
SWITCHES = {
    "use_sim_time": "Take the time from /clock.",
    "autostart": "Configure and activate the node at once; false: wait for a lifecycle manager or `ros2 lifecycle set`.",
}
PARAMETER_NAMES = {"config": "config_files"}


def generate_launch_description() -> LaunchDescription:
    """Arguments, the node, and RViz where it is asked for."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=node), rviz()])


def arguments() -> list[DeclareLaunchArgument]:
    """All arguments of this file."""
    return [
        DeclareLaunchArgument(
            "params_file", default_value="", description="ROS parameter file; arguments win over it."
        ),
        *(argument(name, f"{text} Empty: as in files, else as the node has it.") for name, text in TEXTS.items()),
        *(argument(name, f"{text} Empty: likewise.", choices=["", *BOOLEAN]) for name, text in SWITCHES.items()),
        argument("namespace", "ROS namespace of the node; its transforms then are those of /NAMESPACE/tf."),
        argument("global_tf", "Listen to /tf and /tf_static in a namespace too.", "false", choices=BOOLEAN),
        argument("name", "Name of the node and of its topics.", "occupancy_nn"),
        argument("rviz", "Open RViz too.", "false", choices=BOOLEAN),
        argument("log_level", "What it logs.", "info", choices=["debug", "info", "warn", "error", "fatal"]),
        argument("use_respawn", "Start the node again when it exits.", "false", choices=BOOLEAN),
        argument("launch_prefix", "Command to run the node with, such as `nice -n 5` or `gdb -ex run --args`."),
    ]


def argument(name: str, text: str, default: str = "", choices: list[str] | None = None) -> DeclareLaunchArgument:
    """One argument with a default."""
    return DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)


def node(context: LaunchContext) -> list[LifecycleNode]:
    """The node, with those parameters that were given: an empty argument must not hide what a file says."""
    return [
        LifecycleNode(
            package=PACKAGE,
            executable="occupancy_node",
            namespace=LaunchConfiguration("namespace"),
            name=LaunchConfiguration("name"),
            parameters=[*params_file(context), given_parameters(context)],
            remappings=tf_remappings(context),
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            prefix=LaunchConfiguration("launch_prefix"),
            output="screen",
            emulate_tty=True,
            respawn=is_true(context, "use_respawn"),
            respawn_delay=2.0,
        )
    ]


def is_true(context: LaunchContext, name: str) -> bool:
    """Whether a switch is on, in either spelling."""
    return LaunchConfiguration(name).perform(context).lower() == "true"


def params_file(context: LaunchContext) -> list[str]:
    """The ROS parameter file, if one is given.

    Raises:
        FileNotFoundError: it is not there; better said before anything runs.
        ValueError: it is of another kind.
    """
    name = LaunchConfiguration("params_file").perform(context)
    if not name:
        return []
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"params_file:={name} is not a file")
    if "ros__parameters" not in path.read_text(encoding="utf-8"):
        raise ValueError(
            f"params_file:={name} holds no ros__parameters: if these are settings alone, say config:={name}"
        )
    return [str(path)]


def given_parameters(context: LaunchContext) -> dict[str, ParameterValue]:
    """Node parameters of this launch file's arguments."""
    types = {**dict.fromkeys(TEXTS, str), **dict.fromkeys(SWITCHES, bool)}
    given = [name for name in types if LaunchConfiguration(name).perform(context)]
    return {
        PARAMETER_NAMES.get(name, name): ParameterValue(LaunchConfiguration(name), value_type=types[name])
        for name in given
    }


def tf_remappings(context: LaunchContext) -> list[tuple[str, str]]:
    """Transforms of the node's own namespace, as Nav2 has them, unless they are to stay global."""
    return [] if is_true(context, "global_tf") else [("/tf", "tf"), ("/tf_static", "tf_static")]


def rviz() -> IncludeLaunchDescription:
    """RViz on the topics of the node."""
    names = ("namespace", "global_tf", "name", "use_sim_time", "map_frame")
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "rviz.launch.py"])),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in names],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
