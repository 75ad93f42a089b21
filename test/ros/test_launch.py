# SPDX-License-Identifier: Apache-2.0
"""The launch files, built, asked for their arguments, and run by launch itself."""

import importlib.util
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name.partition(".")[0]: path for path in sorted((ROOT / "launch").glob("*.launch.py"))}

# Not `launch` alone: the repository's folder of that name passes for an empty package.
pytest.importorskip("launch.actions", reason="no launch: not part of ROS from PyPI")
pytest.importorskip("launch_ros.actions", reason="no launch_ros: not part of ROS from PyPI")

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory  # noqa: E402
from launch import LaunchContext  # noqa: E402
from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, RegisterEventHandler  # noqa: E402
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions  # noqa: E402
from launch_ros.utilities import evaluate_parameters, normalize_parameters  # noqa: E402


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_launch", FILES[name])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared(name: str) -> dict[str, DeclareLaunchArgument]:
    entities = load(name).generate_launch_description().entities
    return {entity.name: entity for entity in entities if isinstance(entity, DeclareLaunchArgument)}


def default(argument: DeclareLaunchArgument) -> str:
    return perform_substitutions(LaunchContext(), argument.default_value)


def configured(file: str, /, **values: str) -> LaunchContext:
    """A context as launch makes it: every argument at its default, but for those given."""
    context = LaunchContext()
    for argument in declared(file).values():
        if argument.name not in values and argument.name != "rviz_config" and argument.default_value is not None:
            values[argument.name] = default(argument)
    context.launch_configurations.update(values)
    return context


def node_parameters(**values: str) -> dict[str, Any]:
    context = configured("live", **values)
    (merged,) = evaluate_parameters(context, normalize_parameters([load("live").given_parameters(context)]))
    return dict(merged)


def test_these_are_the_launch_files():
    assert set(FILES) == {"live", "playback", "rviz", "visual_odometry"}


@pytest.mark.parametrize("name", FILES)
def test_every_argument_says_what_it_is_for(name: str):
    arguments = declared(name)
    assert arguments
    for argument in arguments.values():
        assert len(argument.description) > 10
        if argument.name not in ("bag", "rviz_config") and default(argument) in ("true", "false"):
            # Nav2's files write True and False.
            assert {"true", "false", "True", "False"} <= set(argument.choices)


def test_arguments_of_the_live_node():
    arguments = declared("live")
    assert set(arguments) == {
        "params_file", "model", "config", "map_frame", "base_frame", "map_folder", "start_map", "use_sim_time", "autostart",
        "namespace", "global_tf", "name", "rviz", "log_level", "use_respawn", "launch_prefix",
    }  # fmt: skip
    assert default(arguments["use_sim_time"]) == ""
    assert default(arguments["name"]) == "occupancy_nn"


def test_arguments_of_playback():
    arguments = declared("playback")
    assert set(arguments) == {"bag", "rate", "loop", "delay", "rviz"}
    assert arguments["bag"].default_value is None


def test_an_argument_left_empty_is_not_a_parameter():
    assert node_parameters() == {}


def test_arguments_become_parameters_of_their_own_type():
    given = node_parameters(
        model="123", config="a.yaml,b.yaml", use_sim_time="True", autostart="false", map_frame="map"
    )
    assert given == {
        "model": "123", "config_files": "a.yaml,b.yaml", "use_sim_time": True, "autostart": False, "map_frame": "map",
    }  # fmt: skip


def test_a_parameter_file_comes_first_so_that_arguments_win(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("/**: {ros__parameters: {map_frame: odom}}")
    assert load("live").params_file(configured("live", params_file=str(path))) == [str(path)]
    with pytest.raises(FileNotFoundError, match="params_file:=/nowhere is not a file"):
        load("live").params_file(configured("live", params_file="/nowhere"))
    with pytest.raises(ValueError, match="holds no ros__parameters: if these are settings alone, say config:="):
        load("live").params_file(configured("live", params_file=str(ROOT / "config" / "base.yaml")))


@pytest.mark.parametrize(("global_tf", "count"), [("false", 2), ("True", 0)])
def test_transforms_are_those_of_the_namespace_unless_asked_otherwise(global_tf: str, count: int):
    rules = load("live").tf_remappings(configured("live", namespace="robot1", global_tf=global_tf))
    assert rules == [("/tf", "tf"), ("/tf_static", "tf_static")][:count]
    shown = dict(load("rviz").remappings(configured("rviz", namespace="robot1", global_tf=global_tf)))
    assert shown.get("/tf") == ("/robot1/tf" if count else None)


def player_of(context: LaunchContext) -> ExecuteProcess:
    """The player that starts when the node becomes active."""
    from launch_ros.events.lifecycle import StateTransition

    (registered,) = load("playback").player_once_active(context)
    assert isinstance(registered, RegisterEventHandler)

    def reached(state: str) -> bool:
        from lifecycle_msgs.msg import TransitionEvent

        message = TransitionEvent()
        message.goal_state.label = state
        return registered.event_handler.matches(StateTransition(action=None, msg=message))

    assert [reached(state) for state in ("inactive", "activating", "active")] == [False, False, True]
    (process,) = registered.event_handler.entities
    assert isinstance(process, ExecuteProcess)
    return process


@pytest.mark.parametrize(("loop", "tail"), [("True", ["--loop"]), ("false", [])])
def test_player_gives_a_clock_once_the_node_is_active(loop: str, tail: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr("ament_index_python.packages.get_package_prefix", lambda name: "/opt")
    context = configured("playback", bag=str(tmp_path), rate="0.5", loop=loop)
    words = [perform_substitutions(context, word) for word in player_of(context).cmd]
    assert words == ["ros2", "bag", "play", str(tmp_path), "--clock", "--rate", "0.5", "--delay", "3.0", *tail]


def not_installed(name: str) -> str:
    raise PackageNotFoundError(name)


def test_what_is_missing_is_said_before_anything_runs(tmp_path: Path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="bag:=/no/bag does not exist"):
        load("playback").player_once_active(configured("playback", bag="/no/bag"))
    monkeypatch.setattr("ament_index_python.packages.get_package_prefix", not_installed)
    with pytest.raises(FileNotFoundError, match="needs `ros2 bag`: apt install ros-"):
        load("playback").player_once_active(configured("playback", bag=str(tmp_path)))


def test_visual_odometry_places_the_frames_that_the_map_is_made_with(monkeypatch):
    module, context = load("visual_odometry"), configured("visual_odometry", left="/zed/left", map_frame="world")
    with pytest.raises(PackageNotFoundError, match=r"apt install ros-\$ROS_DISTRO-rtabmap-odom"):
        module.odometry(context)
    monkeypatch.setattr(module, "get_package_prefix", lambda name: f"/opt/{name}")
    (node,) = module.odometry(context)
    (merged,) = evaluate_parameters(context, node._Node__parameters)
    assert (merged["frame_id"], merged["odom_frame_id"], merged["publish_tf"]) == ("base_link", "world", True)
    assert merged["use_sim_time"] is False and merged["publish_null_when_lost"] is False
    remapped = {perform_substitutions(context, a): perform_substitutions(context, b) for a, b in node._Node__remappings}
    assert remapped == {
        "left/image_rect": "/zed/left/image_rect", "left/camera_info": "/zed/left/camera_info",
        "right/image_rect": "/stereo/right/image_rect", "right/camera_info": "/stereo/right/camera_info",
    }  # fmt: skip


def test_without_rviz_a_word_comes_in_its_place(monkeypatch):
    monkeypatch.setattr("ament_index_python.packages.get_package_prefix", not_installed)
    context = configured("rviz")
    (action,) = load("rviz").rviz(context)
    assert isinstance(action, LogInfo)
    text = perform_substitutions(context, action.msg)
    assert "RViz is not installed and is left out: apt install ros-" in text


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [("", "occupancy_nn", "/occupancy_nn"), ("robot1", "mapper", "/robot1/mapper"), ("/a/b", "m", "/a/b/m")],
)
def test_rviz_shows_the_node_that_was_named(namespace: str, name: str, expected: str):
    context = configured("rviz", namespace=namespace, name=name)
    rules = dict(load("rviz").remappings(context))
    assert rules["/occupancy_nn/markers"] == f"{expected}/markers"
    assert rules["/occupancy_nn/occupancy_grid"] == f"{expected}/occupancy_grid"
    assert rules["/tf"] == f"{expected.removesuffix('/' + name)}/tf"


@pytest.mark.parametrize(("map_frame", "given"), [("", []), ("world", ["-f", "world"])])
def test_rviz_shows_the_frame_of_the_map(map_frame: str, given: list[str], monkeypatch):
    context = configured("rviz", map_frame=map_frame)
    context.launch_configurations["rviz_config"] = "mine.rviz"
    module = load("rviz")
    monkeypatch.setattr(module, "get_package_prefix", lambda name: f"/opt/{name}")
    (node,) = module.rviz(context)
    words = [perform_substitutions(context, normalize_to_list_of_substitutions(word)) for word in node._Node__arguments]
    assert words == ["-d", "mine.rviz", *given]
    included = load("live").rviz()
    assert "map_frame" in {name for name, _ in included.launch_arguments}


def test_rviz_remaps_every_topic_of_its_display_file():
    text = (ROOT / "config" / "rviz" / "occupancy.rviz").read_text(encoding="utf-8")
    shown = {line.split(": /")[1].strip() for line in text.split("\n") if "Value: /" in line or "Topic: /" in line}
    module = load("rviz")
    known = {f"occupancy_nn/{topic}" for topic in module.NODE_TOPICS} | set(module.ROBOT_TOPICS)
    assert shown == known
    rules = dict(module.remappings(configured("rviz", namespace="r")))
    assert rules["/occupancy_nn/pictures"] == "/r/occupancy_nn/pictures"
    assert set(rules) == {f"/{topic}" for topic in shown} | {"/tf", "/tf_static"}


def share() -> Path:
    try:
        return Path(get_package_share_directory("occupancy_nn_ros"))
    except PackageNotFoundError:
        return Path("not installed")


@pytest.mark.skipif(not (share() / "launch").is_dir(), reason="the launch files are not installed: colcon build")
class TestRun:
    """Started by launch as `ros2 launch` does it."""

    def run(self, *arguments: str, until: str, timeout_s: float = 90.0) -> tuple[int, str]:
        """What `ros2 launch` prints until a text, then a SIGINT to all of it; the exit code too."""
        command = ["ros2", "launch", "occupancy_nn_ros", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        killer = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        output = ""
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if until in line:
                os.killpg(process.pid, signal.SIGINT)
                until = "\0"
        killer.cancel()
        return process.wait(), output

    def test_live_ends_cleanly_on_ctrl_c(self, tiny_model: Path):
        code, output = self.run("live.launch.py", f"model:={tiny_model}", "rviz:=False", until="active: ")
        assert code == 0, output
        assert "process has finished cleanly" in output and "Traceback" not in output

    def test_no_rviz_no_harm(self, tiny_model: Path):
        if shutil.which("rviz2"):
            pytest.skip("RViz is installed here")
        code, output = self.run("live.launch.py", f"model:={tiny_model}", "rviz:=True", until="active: ")
        assert code == 0, output
        assert "RViz is not installed and is left out" in output

    def test_a_wrong_argument_starts_nothing(self):
        code, output = self.run("live.launch.py", "params_file:=/nowhere.yaml", until="\0")
        assert code == 1
        assert "params_file:=/nowhere.yaml is not a file" in output and "process started" not in output
