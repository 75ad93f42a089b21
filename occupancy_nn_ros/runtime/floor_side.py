# SPDX-License-Identifier: Apache-2.0
"""On which side a depth image shows the floor: one that is turned over has it above the camera, which a straight drive tells too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.poses import invert, rotation_angle
from occupancy_nn_ros.runtime.sight_lines import DepthSight, Flip
from occupancy_nn_ros.values import FloatArray, PosedDepth

LEAST_HEIGHT_M = 0.15
"""A camera that is lower above the robot's base does not know the floor."""

DOWNWARD, LEAST_PLACES = -0.2, 40
"""Rays that fall by this much a metre meet the floor; so many have to."""

LEVEL_M, LEVEL_PART = 0.05, 0.03
"""Places lie on one level if their heights differ by no more than this much and this part of their distance."""

LOWEST_M, HIGHEST_M = -0.35, 0.12
"""Heights above the base at which a floor may lie."""

FLOOR, NO_FLOOR, THROUGH = 0.6, 0.1, 0.3
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
    """Looks at the depth images of one camera in turn, until a floor was seen where one can be."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._last: FloatArray | None = None
        self._in_a_row = 0

    def check(self, depth: PosedDepth, T_map_base: FloatArray) -> None:
        """Take the next image.

        Args:
            depth: metres.
            T_map_base: (4, 4) pose of the robot.

        Raises:
            ImplausibleError: its floor lies above the camera.
        """
        is_new = abs(self._in_a_row) < TIMES and self._follow(depth, T_map_base)
        if self._in_a_row <= -TIMES:
            text = "the floor lies above the camera, and below it if the image is flipped upside down or turned by 180 degrees"
            raise ImplausibleError(text, reason="depth is mirrored or turned over", spoils_map=is_new)

    def _follow(self, depth: PosedDepth, T_map_base: FloatArray) -> bool:
        """Look at the floor, if the camera has moved since; whether that has settled that it lies above."""
        T, last = depth.T_map_cam, self._last
        if last is not None and np.linalg.norm(T[:3, 3] - last[:3, 3]) < STEP_M and rotation_angle(last, T) < STEP_RAD:
            return False
        self._last = T
        is_turned = floor_is_above(depth, T_map_base)
        if is_turned is not None:
            self._in_a_row = min(0, self._in_a_row) - 1 if is_turned else max(0, self._in_a_row) + 1
        return self._in_a_row == -TIMES


def floor_is_above(depth: PosedDepth, T_map_base: FloatArray) -> bool | None:
    """Whether an image shows the floor above its camera; None where it shows none.

    It does if the downward rays end on one level near the base's once the image is flipped, do not as it is, and end far below that
    level then, which a real floor would have kept them from.
    """
    if (invert(T_map_base) @ depth.T_map_cam)[2, 3] < LEAST_HEIGHT_M:
        return None
    seen, flipped = _downward(depth, "as it is", T_map_base), _downward(depth, "flipped upside down", T_map_base)
    level_m = _level(seen)
    if level_m is not None and seen.share_on(level_m) >= FLOOR:
        return False
    level_m = _level(flipped)
    if level_m is None or flipped.share_on(level_m) < FLOOR or len(seen.heights_m) < LEAST_PLACES:
        return None
    is_seen_through = seen.share_on(level_m) <= NO_FLOOR and seen.share_below(level_m) >= THROUGH
    return True if is_seen_through else None


def _downward(depth: PosedDepth, flip: Flip, T_map_base: FloatArray) -> _Downward:
    T_base_map = invert(T_map_base)
    camera = (T_base_map @ depth.T_map_cam)[:3, 3]
    points = DepthSight(depth).flipped(flip).points @ T_base_map[:3, :3].T + T_base_map[:3, 3]
    ways = points - camera
    falls = ways[:, 2] < DOWNWARD * np.hypot(ways[:, 0], ways[:, 1])
    return _Downward(points[falls, 2], np.linalg.norm(ways[falls], axis=1))


def _level(places: _Downward) -> float | None:
    """The height near the base's around which most places lie; None where there are too few."""
    near = places.heights_m[(places.heights_m > LOWEST_M) & (places.heights_m < HIGHEST_M)]
    if len(near) < LEAST_PLACES:
        return None
    counts, edges = np.histogram(near, bins=np.arange(LOWEST_M, HIGHEST_M + LEVEL_M, LEVEL_M))
    best = int(np.argmax(counts))
    return float(np.median(near[(near >= edges[best] - LEVEL_M) & (near <= edges[best + 1] + LEVEL_M)]))
