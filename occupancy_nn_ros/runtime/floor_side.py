# SPDX-License-Identifier: Apache-2.0
"""On which side a sensor sees the floor: one that is turned over has it above itself, which a straight drive tells too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.poses import has_moved, invert
from occupancy_nn_ros.runtime.sight_lines import LEAST_RANGE_M, CloudSight, DepthSight
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth

LEAST_HEIGHT_M = 0.15
"""A camera that is lower above the robot's base does not know the floor."""

DOWNWARD, LEAST_PLACES = -0.2, 40
"""Rays that fall by this much a metre meet the floor; so many have to."""

LEVEL_M, LEVEL_PART = 0.05, 0.03
"""Places lie on one level if their heights differ by no more than this much and this part of their distance."""

LOWEST_M, HIGHEST_M = -0.35, 0.12
"""Heights above the base at which a floor may lie."""

FLOOR, NO_FLOOR, THROUGH = 0.6, 0.25, 0.3
"""Shares of the downward places: so many on one level are a floor; no more are none; so many deep below it are seen through it."""

STEP_M, STEP_RAD = 0.2, 0.2
"""Images are looked at after this much motion."""

TIMES = 3
"""So many images in a row must say the same."""


@dataclass(frozen=True)
class _Downward:
    """What the downward rays of an image met: heights above the base (N,), and how far from the camera (N,)."""

    heights_m: FloatArray
    ranges_m: FloatArray

    def share_on(self, level_m: float) -> float:
        """Share of the places that lie on a level."""
        if not len(self.heights_m):
            return 0.0
        return float((np.abs(self.heights_m - level_m) < LEVEL_M + LEVEL_PART * self.ranges_m).mean())

    def share_below(self, level_m: float) -> float:
        """Share of the places that lie below a level, and not on it."""
        if not len(self.heights_m):
            return 0.0
        return float((self.heights_m < level_m - 2 * (LEVEL_M + LEVEL_PART * self.ranges_m)).mean())


class FloorSide:
    """Looks at the depth images of one camera, or the sweeps of a LiDAR, in turn, until a floor was seen where one can be."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._last: FloatArray | None = None
        self._in_a_row = 0

    def check(self, scan: PosedDepth | PosedCloud, T_map_base: FloatArray) -> None:
        """Take the next image or sweep.

        Args:
            scan: metres.
            T_map_base: (4, 4) pose of the robot.

        Raises:
            ImplausibleError: its floor lies above the sensor.
        """
        is_new = abs(self._in_a_row) < TIMES and self._follow(scan, T_map_base)
        if self._in_a_row > -TIMES:
            return
        if isinstance(scan, PosedCloud):
            text = "the floor lies above the sensor, and below it if that is turned over: is it mounted upside down, and its frame not?"
            raise ImplausibleError(text, reason="cloud is turned over", spoils_map=is_new)
        text = (
            "the floor lies above the camera, and below it if the image is flipped upside down or turned by 180 degrees"
        )
        raise ImplausibleError(text, reason="depth is mirrored or turned over", spoils_map=is_new)

    def _follow(self, scan: PosedDepth | PosedCloud, T_map_base: FloatArray) -> bool:
        """Look at the floor, if the sensor has moved since; whether that has settled that it lies above."""
        T, last = _pose(scan), self._last
        if last is not None and not has_moved(last, T, STEP_M, STEP_RAD):
            return False
        self._last = T
        is_turned = floor_is_above(scan, T_map_base)
        if is_turned is not None:
            self._in_a_row = min(0, self._in_a_row) - 1 if is_turned else max(0, self._in_a_row) + 1
        return self._in_a_row == -TIMES


def floor_is_above(scan: PosedDepth | PosedCloud, T_map_base: FloatArray) -> bool | None:
    """Whether an image or sweep shows the floor above its sensor; None where it shows none.

    It does if the downward rays end on one level near the base's once it is flipped, do not as it is, and end far below that level
    then, which a real floor would have kept them from.
    """
    T_base_sensor = invert(T_map_base) @ _pose(scan)
    if T_base_sensor[2, 3] < LEAST_HEIGHT_M:
        return None
    seen, flipped = (_downward(ways, float(T_base_sensor[2, 3])) for ways in _ways(scan, T_map_base))
    level_m = _level(seen)
    if level_m is not None and seen.share_on(level_m) >= FLOOR:
        return False
    level_m = _level(flipped)
    if level_m is None or flipped.share_on(level_m) < FLOOR or len(seen.heights_m) < LEAST_PLACES:
        return None
    is_seen_through = seen.share_on(level_m) <= NO_FLOOR and seen.share_below(level_m) >= THROUGH
    return True if is_seen_through else None


def _pose(scan: PosedDepth | PosedCloud) -> FloatArray:
    return scan.T_map_sensor if isinstance(scan, PosedCloud) else scan.T_map_cam


def _ways(scan: PosedDepth | PosedCloud, T_map_base: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From the sensor to what it measured, (N, 3) along the base's axes: as it is, and flipped."""
    if isinstance(scan, PosedCloud):
        ways = (CloudSight(scan).points - scan.T_map_sensor[:3, 3]) @ T_map_base[:3, :3]
        return ways, ways * (1, 1, -1)
    sights = DepthSight(scan), DepthSight(scan).flipped("flipped upside down")
    seen, flipped = ((sight.points - scan.T_map_cam[:3, 3]) @ T_map_base[:3, :3] for sight in sights)
    return seen, flipped


def _downward(ways: FloatArray, height_m: float) -> _Downward:
    """What falls of the ways from a sensor at a height above the base."""
    ranges = np.linalg.norm(ways, axis=1)
    falls = (ways[:, 2] < DOWNWARD * np.hypot(ways[:, 0], ways[:, 1])) & (ranges > LEAST_RANGE_M)
    return _Downward(height_m + ways[falls, 2], ranges[falls])


def _level(places: _Downward) -> float | None:
    """The height near the base's around which most places lie; None where there are too few."""
    near = places.heights_m[(places.heights_m > LOWEST_M) & (places.heights_m < HIGHEST_M)]
    if len(near) < LEAST_PLACES:
        return None
    counts, edges = np.histogram(near, bins=np.arange(LOWEST_M, HIGHEST_M + LEVEL_M, LEVEL_M))
    best = int(np.argmax(counts))
    return float(np.median(near[(near >= edges[best] - LEVEL_M) & (near <= edges[best + 1] + LEVEL_M)]))
