# SPDX-License-Identifier: Apache-2.0
"""Whether one map is better than another, by their errors in the same parts of the same pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.values import Float32Array, FloatArray

LEAST_PARTS = 8
"""With fewer parts of pictures in all nothing is said."""

MISSED_WEIGHT = 0.3
"""Of surfaces that the map does not claim, beside the other errors. On a simulated drive this ranks maps of the same predictions, their
log-odds moved by -0.6 to 0.6, as the truth does; with 0 the emptiest wins, with 0.5 and more one that claims too much."""


@dataclass(frozen=True)
class MapErrors:
    """Errors of a map in each part of each picture that it was looked at in, NaN where too little can be compared: the same for all maps.

    Attributes:
        pictures: (P,) mean mismatch of pictures where its rays end, 0 to 1.
        space: (P,) mean share of the way to the depth that views agree on which the map does not let a ray through.
        missed: (P,) share of the cells where views agree on depth whose place the map does not call occupied.
        looks: depth (V, h, w) of the map in the last keyframe's pictures, NaN where rays end in nothing.
    """

    pictures: FloatArray
    space: FloatArray
    missed: FloatArray
    looks: Float32Array


@dataclass(frozen=True)
class Comparison:
    """Errors of two maps in the same parts of the same pictures.

    Attributes:
        before, after: their means over parts.
        parts: how many parts there are.
        standard_error: of the mean difference.
    """

    before: float
    after: float
    parts: int
    standard_error: float

    @classmethod
    def of(cls, before: FloatArray, after: FloatArray) -> Comparison:
        """Compare errors (P,), NaN where there are none."""
        known = np.isfinite(before) & np.isfinite(after)
        count = int(known.sum())
        if count < 2:
            return cls(0.0, 0.0, count, 0.0)
        spread = float(np.std((after - before)[known], ddof=1))
        return cls(float(before[known].mean()), float(after[known].mean()), count, spread / count**0.5)

    @property
    def change(self) -> float:
        """By how much the error grows."""
        return self.after - self.before


@dataclass(frozen=True)
class Verdict:
    """What becomes of the map with other weights.

    Attributes:
        pictures: mismatch of pictures where rays end.
        space: shares of the way to agreed depth that are not free.
        missed: shares of the places of agreed depth that are not occupied.
        keyframes: how many were looked at.
    """

    pictures: Comparison
    space: Comparison
    missed: Comparison
    keyframes: int

    @classmethod
    def of(cls, before: MapErrors, after: MapErrors, keyframes: int) -> Verdict:
        """Compare the maps of two networks."""
        pictures = Comparison.of(before.pictures, after.pictures)
        space = Comparison.of(before.space, after.space)
        return cls(pictures, space, Comparison.of(before.missed, after.missed), keyframes)

    @property
    def change(self) -> float:
        """By how much the weighted sum of the errors grows: what finds surfaces costs some space before edges, and the other way round."""
        return self.pictures.change + self.space.change + MISSED_WEIGHT * self.missed.change

    @property
    def improved(self) -> bool:
        """Whether the sum falls by more than two standard errors."""
        errors = (self.pictures.standard_error, self.space.standard_error, MISSED_WEIGHT * self.missed.standard_error)
        return self.pictures.parts >= LEAST_PARTS and self.change < -2 * math.hypot(*errors)
