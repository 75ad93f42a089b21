# SPDX-License-Identifier: Apache-2.0
"""ROS parameters are the settings of :mod:`occupancy_nn_ros.config`, declared from the same dataclasses.

Every setting is a parameter under its dotted name. Cameras are named in ``cameras``; each has its own ``<camera>.image_topic`` and
so on. ``config_files`` lists YAML files whose values are the defaults that parameters then override.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.settings import from_mapping

UNBOUNDED = 1.0e9


@dataclass(frozen=True)
class _Setting:
    """One parameter: dotted name, field of the dataclass, and its default."""

    name: str
    field: dataclasses.Field[Any]
    hint: Any
    default: Any


@dataclass(frozen=True)
class StartSettings:
    """Settings of a command line: files, over which those in ``config_files`` win, and single ones, which win over all files."""

    files: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()


def declare_config(node: Node, start: StartSettings | None = None) -> Config:
    """Declare all parameters of a node and return the configuration that they describe.

    Args:
        node: where to declare.
        start: what the command line says.

    Raises:
        ConfigError: a config file cannot be read, or a value is unknown, of the wrong type or out of range.
    """
    files = _declare(node, "config_files", "", "YAML files with settings, comma separated; parameters win over them.")
    start = start or StartSettings()
    named = [Path(name.strip()) for name in files.split(",") if name.strip()]
    config = load_config([*start.files, *named], start.overrides)
    names = _declare(node, "cameras", list(config.cameras) or [""], "Names of the cameras; empty: found by themselves.")
    cameras = {name: config.cameras.get(name, CameraConfig()) for name in names if name}
    for item in _all_settings(dataclasses.replace(config, cameras=cameras)):
        _declare_setting(node, item)
    return read_config(node, tuple(cameras))


def read_config(node: Node, cameras: Sequence[str], changes: Sequence[Parameter] = ()) -> Config:
    """Configuration from the parameters as they are, or as they would be after some changes.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    changed = {parameter.name: parameter.value for parameter in changes}
    values: dict[str, Any] = {}
    for item in _settings(Config(), ""):
        _put(values, item.name, changed.get(item.name, node.get_parameter(item.name).value))
    for camera in cameras:
        for item in _settings(CameraConfig(), ""):
            name = f"{camera}.{item.name}"
            values.setdefault("cameras", {}).setdefault(camera, {})[item.name] = changed.get(
                name, node.get_parameter(name).value
            )
    return from_mapping(Config, values)


def check_changes(
    node: Node, config: Config, changes: Sequence[Parameter], *, is_configured: bool
) -> tuple[SetParametersResult, Config]:
    """Judge a change of parameters; returns the verdict and the configuration that holds afterwards.

    Settings that are not live are built into model, map and subscriptions, and change only while there are none.
    """
    live = {item.name for item in _settings(config, "") if item.field.metadata.get("live")}
    ours = {item.name for item in _all_settings(config)}
    fixed = [change.name for change in changes if change.name in ours - live]
    if fixed and is_configured:
        reason = (
            f"{', '.join(fixed)} cannot change while the node is configured: `ros2 lifecycle set {node.get_name()} deactivate`, "
            "then cleanup, set it, configure, activate"
        )
        return SetParametersResult(successful=False, reason=reason), config
    try:
        return SetParametersResult(successful=True), read_config(node, tuple(config.cameras), changes)
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error)), config


def _all_settings(config: Config) -> Iterator[_Setting]:
    yield from _settings(config, "")
    for name, camera in config.cameras.items():
        yield from _settings(camera, f"{name}.")


def _settings(config: Any, prefix: str) -> Iterator[_Setting]:
    """All leaf settings below a settings dataclass; cameras are declared apart."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        elif field.name != "cameras":
            yield _Setting(f"{prefix}{field.name}", field, hints[field.name], value)


def _declare_setting(node: Node, item: _Setting) -> None:
    meta = item.field.metadata
    choices = typing.get_args(item.hint) if typing.get_origin(item.hint) is typing.Literal else ()
    limits = [f"one of {', '.join(choices)}"] if choices else []
    limits += [] if meta.get("live") else ["changes while the node is unconfigured"]
    descriptor = ParameterDescriptor(description=meta["help"], additional_constraints="; ".join(limits))
    low, high = meta.get("low"), meta.get("high")
    if low is not None or high is not None:
        low, high = (-UNBOUNDED if low is None else low), (UNBOUNDED if high is None else high)
        if isinstance(item.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
    try:
        node.declare_parameter(item.name, item.default, descriptor)
    except Exception as error:  # rclpy raises several kinds for a bad override; all mean the same to the user
        raise ConfigError(f"parameter {item.name}: {error}") from None


def _declare(node: Node, name: str, default: Any, text: str) -> Any:
    try:
        return node.declare_parameter(name, default, ParameterDescriptor(description=text, read_only=True)).value
    except Exception as error:
        raise ConfigError(f"parameter {name}: {error}") from None


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, key = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value
