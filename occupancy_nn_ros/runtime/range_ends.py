# SPDX-License-Identifier: Apache-2.0
"""Where a range sensor's numbers end: pixels that hold its nearest or farthest number in place of none are unknown.

REP 117 and REP 118 want infinity or NaN there. Simulators and converters write the limit itself: a wall that stays ten metres ahead,
wherever the robot goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from occupancy_nn_ros.geometry.poses import axis_angle
from occupancy_nn_ros.values import Float32Array, FloatArray, PosedCloud, PosedDepth

PLATEAU, LEAST_PIXELS = 0.01, 8
"""So many of the pixels that measured something, and this share of them, hold the same number: the nearest or farthest of all."""

APPROACH_M, TURN_RAD = 0.1, 0.05
"""Surfaces whose number is still the same, to the last bit, after so much motion along the optical axis, or turning of it, are none."""

ACROSS = 3
"""So many pixels of one row, and of one column, hold it: of a level floor one row has one number, wherever the robot goes."""

WHOLE_FROM_M, SATURATED_M = 5.0, 65.0
"""A far plateau at a whole number of metres, or at what 16 bits of millimetres hold, is held back until motion shows what it is."""

HELD_LOOKS = 3
"""After so many looks in a row of which something is held back, that is said."""

SPHERE, SPHERE_WIDTH, LEAST_POINTS = 0.03, 1e-4, 100
"""No surfaces are a sphere around a LiDAR: so many of its points, and this share, that lie as far as the farthest one, to this part."""


@dataclass(frozen=True)
class _Plateau:
    """The number that many pixels hold, and the camera's pose when that was first seen."""

    value: float
    T_map_cam: FloatArray

    def stays(self, value: float, T_map_cam: FloatArray) -> bool:
        """Whether the same number was seen from here as well, and no surface would have kept it."""
        forward = float((T_map_cam[:3, 3] - self.T_map_cam[:3, 3]) @ self.T_map_cam[:3, 2])
        has_moved = abs(forward) >= APPROACH_M or axis_angle(T_map_cam, self.T_map_cam) >= TURN_RAD
        return value == self.value and has_moved


class RangeEnds:
    """Looks at the depth images of one camera in turn.

    Attributes:
        values_m: numbers that were shown to be ends.
        pixels: so many were left out so far.
        is_spoiled: whether pixels of an end were let through before that was known; whoever has used them begins anew.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.values_m: set[float] = set()
        self.pixels = 0
        self.is_spoiled = False
        self._plateaus: dict[str, _Plateau] = {}
        self._let_through: set[float] = set()
        self._held: set[float] = set()
        self._held_looks = 0

    def trim(self, depth: PosedDepth) -> PosedDepth:
        """The next image, with 0 where it holds an end."""
        image = depth.depth_m
        held_back: set[float] = set()
        for side, value in _plateaus(image):
            if value in self.values_m:
                continue
            known = self._plateaus.get(side)
            if known is not None and known.stays(value, depth.T_map_cam):
                self.values_m.add(value)
                self.is_spoiled |= value in self._let_through
            elif known is None or known.value != value:
                self._plateaus[side] = _Plateau(value, depth.T_map_cam)
            if value not in self.values_m and side == "far" and _is_suspect(value):
                held_back.add(value)
            elif value not in self.values_m:
                self._let_through.add(value)
        self._held = held_back and (self._held | held_back)
        self._held_looks = self._held_looks + 1 if held_back else 0
        self.pixels += int(np.isin(image, _as_stored(self.values_m)).sum())
        is_end = np.isin(image, _as_stored(self.values_m | held_back))
        return replace(depth, depth_m=np.where(is_end, np.float32(0), image)) if is_end.any() else depth

    def words(self) -> str:
        """What was found, worded for people; empty for nothing."""
        if self._held_looks >= HELD_LOOKS:
            held = " and ".join(f"{value:.4g} m" for value in sorted(self._held))
            return (
                f"many pixels hold {held}: unknown until the camera moves, which tells a wall from the end of its range"
            )
        if not self.pixels:
            return ""
        ends = " and ".join(f"{value:.4g} m" for value in sorted(self.values_m))
        return (
            f"{self.pixels} pixels so far hold {ends}, wherever the camera is: the end of its range, taken as unknown"
        )


def without_sphere(cloud: PosedCloud) -> tuple[PosedCloud, float]:
    """A sweep without the points that it has where nothing came back, and the range at which they lay; 0 for none."""
    squared = np.einsum("ij,ij->i", cloud.points_m, cloud.points_m)
    farthest = float(squared.max(initial=0.0))
    is_end = squared >= farthest * (1 - 2 * SPHERE_WIDTH)
    count = int(is_end.sum())
    if farthest == 0 or count < max(LEAST_POINTS, SPHERE * len(squared)):
        return cloud, 0.0
    return replace(cloud, points_m=cloud.points_m[~is_end]), float(np.sqrt(farthest))


def _plateaus(depth_m: Float32Array) -> list[tuple[str, float]]:
    """The nearest and the farthest number of an image, each if many pixels hold it."""
    measured = depth_m[depth_m > 0]
    least = max(LEAST_PIXELS, PLATEAU * measured.size)
    if measured.size < LEAST_PIXELS:
        return []
    ends = (("near", measured.min()), ("far", measured.max()))
    found = []
    for side, value in ends:
        is_end = depth_m == value
        is_area = all(int(is_end.sum(axis=axis).max(initial=0)) >= ACROSS for axis in (0, 1))
        if is_end.sum() >= least and is_area:
            found.append((side, float(value)))
    return found


def _is_suspect(value_m: float) -> bool:
    return value_m >= SATURATED_M or (value_m >= WHOLE_FROM_M and abs(value_m - round(value_m)) < 1e-5 * value_m)


def _as_stored(values_m: set[float]) -> Float32Array:
    return np.array(sorted(values_m), dtype=np.float32)
