# SPDX-License-Identifier: Apache-2.0
"""How settings are declared, checked, and read from YAML files and ``key=value`` words; what they are is in config.py."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from occupancy_nn_ros.errors import ConfigError, OccupancyError
from occupancy_nn_ros.resources import resource_path

T = TypeVar("T")


def setting(default: Any, help: str, *, low: float | None = None, high: float | None = None, live: bool = False) -> Any:
    """A dataclass field with its description, inclusive range, and whether it may change while the node runs."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "live": live})


class CheckedSettings:
    """Base of settings made with :func:`setting`: ranges are checked on construction.

    Raises:
        ConfigError: a value is out of range; names the key, the value and what is allowed.
    """

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            _check_range(item, getattr(self, item.name))


def check_order(settings: CheckedSettings, low: str, high: str) -> None:
    """Check that one setting is no more than another.

    Raises:
        ConfigError: it is not; names both.
    """
    lower, upper = getattr(settings, low), getattr(settings, high)
    if lower > upper:
        raise ConfigError(f"{low} is {lower} and {high} is {upper}, expected no less than that")


def _check_range(item: dataclasses.Field[Any], value: object) -> None:
    low, high = item.metadata.get("low"), item.metadata.get("high")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{item.name} is {value}, expected a finite number")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(f"{item.name} is {value}, expected {_range_text(low, high)}")


def _range_text(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def from_mapping(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a settings dataclass from nested plain values.

    Raises:
        ConfigError: unknown key (with the nearest known one), wrong type, or out of range.
    """
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = (
                f", did you mean '{prefix}{close[0]}'?" if close else f", expected one of: {', '.join(sorted(hints))}"
            )
            raise ConfigError(f"unknown setting '{name}'{hint}")
        arguments[key] = _convert(hints[key], value, name)
    try:
        return cls(**arguments)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(prefix) else f"{prefix}{text}") from None


def to_mapping(config: object) -> dict[str, Any]:
    """Nested plain values of a settings dataclass, ready for YAML or JSON."""
    return dataclasses.asdict(config)  # type: ignore[call-overload, no-any-return]


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if origin is types.UnionType:
        return None if value is None else _convert(typing.get_args(hint)[0], value, name)
    if origin is dict:
        return {
            str(k): _convert(typing.get_args(hint)[1], v, f"{name}.{k}") for k, v in _as_mapping(value, name).items()
        }
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} is {value!r}, expected a list")
        return tuple(_convert(typing.get_args(hint)[0], v, f"{name}[{n}]") for n, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast("type[Any]", hint), _as_mapping(value, name), f"{name}.")
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        return _as_float(value, name)
    if hint is str and value is None:  # as YAML reads a setting with nothing behind its colon
        return ""
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r}, expected {hint.__name__}")
    return value


def _as_float(value: int | str, name: str) -> float:
    """A float from an integer, or from what YAML takes for text although it is a number, such as ``1e-3``."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ConfigError(f"{name} is {value!r}, expected float") from None


def _as_mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}, expected a group of settings")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Plain values of a YAML file that holds a group of settings.

    Raises:
        ConfigError: unreadable, not YAML, not a group, or something is given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeats(yaml.compose(text, Loader=yaml.SafeLoader), "", set())
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:  # an impossible date is a ValueError
        raise ConfigError(f"cannot read settings from {path}: {error}") from None
    return dict(_as_mapping(values if values is not None else {}, str(path)))


def _refuse_repeats(node: yaml.Node | None, name: str, done: set[int]) -> None:
    """Of two values for one key YAML keeps the last, and loses whole groups that way.

    Args:
        node: the file, or a part of it.
        name: what it is the value of.
        done: parts that were looked at, since one may stand in many places.

    Raises:
        ValueError: names the key.
    """
    if not isinstance(node, yaml.MappingNode) or id(node) in done:
        return
    done.add(id(node))
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise ValueError(f"{name}{key.value} is given twice, the second time in line {key.start_mark.line + 1}")
        seen.add(key.value)
        _refuse_repeats(value, f"{name}{key.value}.", done)


def settings_file(path: Path) -> Path:
    """The file that a name means: ``~`` is the home folder, and the package's ``config/`` comes last."""
    named = path.expanduser()
    if named.exists() or named.is_absolute():
        return named
    try:
        return resource_path(f"config/{path}")
    except OccupancyError:
        return named


def parse_override(text: str) -> dict[str, Any]:
    """Nested values of ``key.sub=value``, whose value is read as YAML.

    Raises:
        ConfigError: no key, no equals sign, or a value that is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{text}' is not of the form key=value")
    try:
        nested: Any = yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):
        nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return typing.cast("dict[str, Any]", nested)


def merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put nested values over others, in place."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
