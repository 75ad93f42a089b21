# SPDX-License-Identifier: Apache-2.0
"""Settings that are lists within a text, since ROS parameters know no tables: costs of classes, boxes of the robot's body."""

from __future__ import annotations

import math

from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.values import SEMANTIC_CLASSES


def class_values(entries: str) -> dict[str, float]:
    """Numbers by class name from a setting such as ``person=0.5, vehicle=1``.

    Raises:
        ConfigError: an entry that is none, an unknown class, or one that is given twice.
    """
    values = {}
    for entry in filter(None, (part.strip() for part in entries.split(","))):
        name, _, text = entry.partition("=")
        if name.strip() in values:
            raise ConfigError(f"'{name.strip()}' is given twice in '{entries}', expected one number for each class")
        try:
            values[name.strip()] = float(text)
        except ValueError:
            raise ConfigError(f"'{entry}' is no cost of a class, expected CLASS=NUMBER such as person=0.5") from None
        if name.strip() not in SEMANTIC_CLASSES:
            raise ConfigError(f"'{name.strip()}' is no class, expected one of {', '.join(SEMANTIC_CLASSES)}")
    return values


def check_class_values(entries: str, high: float) -> None:
    """Check that all of them lie between 0 and ``high``.

    Raises:
        ConfigError: one does not, an entry is none, or a class is unknown.
    """
    for name, value in class_values(entries).items():
        if not 0 <= value <= high:
            raise ConfigError(f"{name} is {value:g}, expected 0 to {high:g}")


def body_boxes(text: str) -> list[list[float]]:
    """Six numbers for each box of ``robot.body``.

    Raises:
        ConfigError: other than six finite numbers, or a corner that is not below the other.
    """
    boxes = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        try:
            box = [float(value) for value in part.split()]
        except ValueError:
            raise ConfigError(f"robot.body: '{part}' holds more than numbers") from None
        if len(box) != 6 or not all(math.isfinite(v) for v in box) or any(box[n] >= box[n + 3] for n in range(3)):
            raise ConfigError(f"robot.body: '{part}', expected x y z of the lowest corner, then of the highest")
        boxes.append(box)
    return boxes
