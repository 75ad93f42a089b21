# SPDX-License-Identifier: Apache-2.0
"""What speaks against a map although frames are used: troubles that last, apart from what was dropped and from what has passed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.setting_doubts import doubts_about

ALL_BACK = "all sensors are back"

PASSING = frozenset({"transform", "time", "memory"})
"""Kinds of trouble that tell of a moment: a wait, a jump, a limit that was kept."""

NO_DROP_OFFS = (
    "grid.max_step_down_m is set, and no depth camera or LiDAR is among the sensors: a network that takes floors to go on, as the "
    "shipped one, sees most drop-offs late"
)
SETTINGS = "settings: "
NOT_TAKEN = ("cameras without camera_info", "late sensors")


def setting_problems(config: Config) -> dict[str, str]:
    """What settings cost beside each other, by a kind of trouble of its own."""
    return {f"{SETTINGS}{name}": text for name, text in doubts_about(config).items()}


def not_taken(without_info: Collection[str], late: Collection[str] = ()) -> dict[str, str]:
    """Cameras that no map is made with, though they are there, by a kind of trouble.

    Args:
        without_info: topics that look like cameras and have no camera_info, as others do.
        late: topics of sensors that came after the map was begun.
    """
    lacking, after = (", ".join(topics) for topics in (without_info, late))
    texts = (
        lacking
        and f"{lacking} is left out: no camera_info beside it, as other cameras have; publish its calibration, or name the cameras",
        after
        and f"{after} came after the map was begun, and is not used: start it earlier, or name all sensors in cameras",
    )
    return {kind: text for kind, text in zip(NOT_TAKEN, texts, strict=True) if text}


def lasting(problems: Mapping[str, str], dropped: Collection[str]) -> tuple[str, ...]:
    """Of the latest troubles those that hold, each worded once.

    Args:
        problems: by kind.
        dropped: kinds that are counted as drops.
    """
    kinds = problems.keys() - PASSING - set(dropped)
    return tuple(dict.fromkeys(text for kind, text in problems.items() if kind in kinds and text != ALL_BACK))
