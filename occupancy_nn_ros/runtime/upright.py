# SPDX-License-Identifier: Apache-2.0
"""Whether the robot stands upright in its map: heights, floors and grids are along the map's z axis."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.geometry.poses import has_moved, rotation_angle
from occupancy_nn_ros.values import FloatArray

TILTED_RAD = float(np.deg2rad(15.0))
"""No ramp for wheels is steeper, and no slope lasts."""

STEP_M, STEP_RAD, STEPS = 0.1, 0.1, 20
"""Poses are looked at after this much motion; the least tilted of so many in a row counts."""


class Upright:
    """Looks at the robot's poses in turn.

    Attributes:
        doubt: how the map lies askew, worded for people; empty while nothing speaks for that.
    """

    def __init__(self) -> None:
        """No pose was seen yet."""
        self.doubt = ""
        self._last: FloatArray | None = None
        self._tilts: list[float] = []

    def look(self, T_map_base: FloatArray, T_map_sensor: FloatArray) -> None:
        """Take the robot's pose; one that is a sensor's own, as of visual odometry without a robot, tells nothing."""
        if rotation_angle(T_map_base, T_map_sensor) < 1e-6:
            return
        if self._last is not None and not has_moved(self._last, T_map_base, STEP_M, STEP_RAD):
            return
        self._last = T_map_base
        self._tilts = [*self._tilts, float(np.arccos(np.clip(T_map_base[2, 2], -1.0, 1.0)))][-STEPS:]
        least = min(self._tilts)
        if len(self._tilts) == STEPS and least > TILTED_RAD:
            self.doubt = (
                f"the robot's z axis is {np.rad2deg(least):.0f} degrees and more off the map's, expected a map frame that is aligned "
                "with gravity and a base frame that is upright: grids and floors are askew"
            )
