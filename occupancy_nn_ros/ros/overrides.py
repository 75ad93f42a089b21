# SPDX-License-Identifier: Apache-2.0
"""Parameters that were given to the node and that it does not have."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.settings import read_yaml

ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters that rclpy declares, or does not on an older distribution."""


def check_overrides(given: Iterable[str], known: Collection[str], lenient: Collection[str]) -> list[str]:
    """Names that the node does not have but may be given, each with the nearest that it has, worded for people.

    Args:
        given: names of all parameters that were given.
        known: names of all that the node has.
        lenient: those that a file gives to every node alike: they may be meant for others.

    Raises:
        ConfigError: a name that nothing has, given to this node.
    """
    unknown = sorted(name for name in set(given) - set(known) if not name.startswith(ROS_OWN))
    refused = [name for name in unknown if name not in lenient]
    if refused:
        raise ConfigError(_unknown(refused[0], known))
    return [_unknown(name, known) for name in unknown if difflib.get_close_matches(name, known, n=1)]


def lenient_names(arguments: Sequence[str]) -> set[str]:
    """Parameters that files give under a pattern for many nodes, such as ``/**``, and that ``-p`` does not give too."""
    pairs = list(itertools.pairwise(arguments))
    direct = {value.split(":=")[0].split(":")[-1] for flag, value in pairs if flag in ("-p", "--param")}
    files = [Path(value) for flag, value in pairs if flag == "--params-file"]
    return {name for path in files for name in _of_many(path)} - direct


def _of_many(path: Path) -> Iterator[str]:
    try:
        groups = read_yaml(path)
    except ConfigError:  # rcl says what is wrong with it
        return
    for nodes, group in groups.items():
        if "*" in str(nodes) and isinstance(group, Mapping):
            yield from _flat(group.get("ros__parameters", {}), "")


def _flat(values: Any, prefix: str) -> Iterator[str]:
    if not isinstance(values, Mapping):
        yield prefix.removesuffix(".")
        return
    for key, value in values.items():
        yield from _flat(value, f"{prefix}{key}.")


def _unknown(name: str, known: Collection[str]) -> str:
    camera, _, item = name.partition(".")
    if item in {field.name for field in dataclasses.fields(CameraConfig)}:
        return f"unknown parameter '{name}': camera '{camera}' is not in cameras"
    close = difflib.get_close_matches(name, known, n=1)
    return f"unknown parameter '{name}'" + (f", did you mean '{close[0]}'?" if close else "")
