# SPDX-License-Identifier: Apache-2.0
"""What to make labels of, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from occupancy_nn_ros.bags.reader import BagPart
from occupancy_nn_ros.config import Config

Sensor = Literal["range", "cameras"]
"""What labels come from: LiDAR and depth cameras, or the pictures themselves."""


@dataclass(frozen=True)
class LabelPlan:
    """What to make labels of.

    Attributes:
        config: voxel size, keyframes, map and sensors; for labels from cameras also the network, and the depth model beside it.
        part: which part of the recording.
        scale: multiplies width and height of the pictures in the shards.
        sensor: what labels come from.
    """

    config: Config
    part: BagPart = field(default_factory=BagPart)
    scale: float = 1.0
    sensor: Sensor = "range"


@dataclass(frozen=True)
class BagLabels:
    """What came of a bag.

    Attributes:
        shards: names of its files.
        keyframes: how many they hold.
        free, occupied: labelled points.
        dropped: what was not used, by reason.
    """

    shards: tuple[str, ...]
    keyframes: int
    free: int
    occupied: int
    dropped: dict[str, int] = field(default_factory=dict)
