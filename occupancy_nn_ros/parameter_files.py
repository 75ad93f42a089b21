# SPDX-License-Identifier: Apache-2.0
"""Settings from a file that may be written for ROS (``/**: ros__parameters:``) or for this package alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from occupancy_nn_ros.errors import ConfigError

NODE_NAME = "occupancy_nn"
ROS_KEY = "ros__parameters"
MOST_NAMESPACES = 10
"""Namespaces nest no deeper; parts of YAML that stand in one another do."""

OF_THE_NODE = ("use_sim_time", "autostart", "map_folder", "start_map", "config_files", "qos_overrides")
"""Parameters of the ROS node that are no settings of the map."""


def settings_of(values: Mapping[str, Any], where: str, known: Collection[str] = ()) -> dict[str, Any]:
    """Nested settings of a file's contents.

    Args:
        values: the file as YAML has it; without ``ros__parameters`` they are settings already.
        where: the file's name, for errors.
        known: names of settings, which would be lost beside ``ros__parameters``.

    Raises:
        ConfigError: a ROS parameter file for several nodes, none of them called occupancy_nn or several with different parameters;
            or settings of both kinds.
    """
    groups = dict(_groups(values, ""))
    if not groups:
        return dict(values)
    beside = sorted(set(values) & set(known))
    if beside:
        raise ConfigError(f"{where} has {', '.join(beside)} beside {ROS_KEY}, expected all settings below it")
    ours = {name: group for name, group in groups.items() if name.rsplit("/", 1)[-1] in (NODE_NAME, "*", "**")}
    if not ours and len(groups) > 1:
        raise ConfigError(f"{where} holds parameters of {', '.join(groups)}, expected some of {NODE_NAME}")
    robots = [name for name in ours if "*" not in name]
    if any(ours[name] != ours[robots[0]] for name in robots):
        raise ConfigError(f"{where} holds parameters of {', '.join(robots)} that differ, expected those of one node")
    settings: dict[str, Any] = {}
    for group in ours.values() or groups.values():
        _nest(settings, group)
    for name in OF_THE_NODE:
        settings.pop(name, None)
    if isinstance(settings.get("cameras"), list):
        settings["cameras"] = {str(name): settings.pop(str(name), {}) for name in settings["cameras"] if name}
    return settings


def _groups(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Parameters by the full name of the node, or the pattern, that they are for."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = f"{prefix}/{str(key).strip('/')}"
            if isinstance(value.get(ROS_KEY), Mapping):
                yield name, value[ROS_KEY]
            elif name.count("/") < MOST_NAMESPACES:
                yield from _groups(value, name)


def _nest(settings: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put values in, those with dotted names into the groups that these name."""
    for key, value in values.items():
        *groups, last = str(key).split(".")
        target = settings
        for group in groups:
            target = target.setdefault(group, {})
        if isinstance(value, Mapping):
            _nest(target.setdefault(last, {}), value)
        else:
            target[last] = value
