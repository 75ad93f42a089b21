# SPDX-License-Identifier: Apache-2.0
"""The launch files, built and asked for their arguments by launch itself."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name.partition(".")[0]: path for path in sorted((ROOT / "launch").glob("*.launch.py"))}

# Not `launch` alone: the repository's folder of that name passes for an empty package.
pytest.importorskip("launch.actions", reason="no launch: not part of ROS from PyPI")
pytest.importorskip("launch_ros.actions", reason="no launch_ros: not part of ROS from PyPI")

from launch import LaunchContext  # noqa: E402
from launch.actions import DeclareLaunchArgument, ExecuteProcess  # noqa: E402
from launch.utilities import perform_substitutions  # noqa: E402
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
    assert set(FILES) == {"live", "playback", "rviz"}


@pytest.mark.parametrize("name", FILES)
def test_every_argument_says_what_it_is_for(name: str):
    arguments = declared(name)
    assert arguments
    for argument in arguments.values():
        assert len(argument.description) > 10
        if argument.name not in ("bag", "rviz_config") and default(argument) in ("true", "false"):
            assert argument.choices == ["true", "false"]


def test_arguments_of_the_live_node():
    arguments = declared("live")
    expected = {"model", "config", "namespace", "name", "rviz", "use_sim_time", "log_level", "respawn", "autostart"}
    assert set(arguments) == expected
    assert default(arguments["use_sim_time"]) == "false"
    assert default(arguments["name"]) == "occupancy_nn"


def test_arguments_of_playback():
    arguments = declared("playback")
    assert set(arguments) == {"bag", "rate", "loop", "delay", "rviz", "model", "config"}
    assert arguments["bag"].default_value is None


def test_an_argument_left_empty_is_not_a_parameter():
    assert node_parameters() == {"use_sim_time": False, "autostart": True}


def test_arguments_become_parameters_of_their_own_type():
    given = node_parameters(model="123", config="a.yaml,rigs/b.yaml", use_sim_time="true", autostart="false")
    assert given == {"model": "123", "config_files": "a.yaml,rigs/b.yaml", "use_sim_time": True, "autostart": False}


@pytest.mark.parametrize(("loop", "tail"), [("true", ["--loop"]), ("false", [])])
def test_player_gives_a_clock(loop: str, tail: list[str]):
    context = configured("playback", bag="my bag", rate="0.5", loop=loop)
    (process,) = load("playback").player(context)
    assert isinstance(process, ExecuteProcess)
    words = [perform_substitutions(context, word) for word in process.cmd]
    assert words == ["ros2", "bag", "play", "my bag", "--clock", "--rate", "0.5", "--delay", "5.0", *tail]


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [("", "occupancy_nn", "/occupancy_nn"), ("robot1", "mapper", "/robot1/mapper"), ("/a/b", "m", "/a/b/m")],
)
def test_rviz_shows_the_node_that_was_named(namespace: str, name: str, expected: str):
    context = configured("rviz", namespace=namespace, name=name)
    rules = dict(load("rviz").remappings(context))
    assert rules["/occupancy_nn/markers"] == f"{expected}/markers"
    assert rules["/occupancy_nn/occupancy_grid"] == f"{expected}/occupancy_grid"


def test_rviz_remaps_every_topic_of_its_display_file():
    text = (ROOT / "config" / "rviz" / "occupancy.rviz").read_text(encoding="utf-8")
    shown = {line.split("/occupancy_nn/")[1].strip() for line in text.split("\n") if "/occupancy_nn/" in line}
    assert shown == set(load("rviz").TOPICS)
