# SPDX-License-Identifier: Apache-2.0
"""Message and service classes by name, with an error that tells how to get those that have to be built."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from occupancy_nn_ros.errors import MissingDependencyError


def interface_class(name: str) -> Any:
    """Class of a message or service such as ``sensor_msgs/msg/Image``.

    Raises:
        MissingDependencyError: its package is not installed or not built.
    """
    package, kind, item = name.split("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), item)
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"no ROS interface {name} ({error}): build this package with colcon and source it, or run scripts/setup"
        ) from None
