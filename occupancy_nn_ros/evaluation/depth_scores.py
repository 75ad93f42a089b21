# SPDX-License-Identifier: Apache-2.0
"""How right the depth is that the network is sure of, where a depth image tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.geometry.depth_lookup import look_up_depth, measured_points
from occupancy_nn_ros.values import PosedDepth

BIN = 0.001
BINS = 1000
RIGHT_WITHIN = 0.1
NEAREST_M = 0.05


@dataclass(frozen=True)
class DepthErrors:
    """Relative errors of predicted depth; add them up, then ask for the figures.

    Attributes:
        pixels: of the predicted depth images, whether they hold a depth or not.
        sure: those that do.
        errors: (BINS,) judged pixels by relative error in steps of ``BIN``; the last also holds all that is larger.
    """

    pixels: int
    sure: int
    errors: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> DepthErrors:
        """No pixels."""
        return cls(0, 0, np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, predicted: PosedDepth, measured: Iterable[PosedDepth]) -> DepthErrors:
        """Compare a predicted depth image with measured ones.

        Args:
            predicted: depth where the network is sure, 0 elsewhere.
            measured: of the same moment; infinite where nothing is hit, 0 or NaN where that is not known.
        """
        points = measured_points(predicted)
        errors = np.zeros(BINS, np.int64)
        for depth in measured:
            found = look_up_depth(depth, points, NEAREST_M)
            known = found.measured_m > 0
            error = np.abs(found.local_m[known, 2] / found.measured_m[known] - 1)
            errors += np.bincount((error / BIN).astype(int).clip(max=BINS - 1), minlength=BINS)
        return cls(predicted.depth_m.size, len(points), errors)

    def __add__(self, other: DepthErrors) -> DepthErrors:
        """Sum of both."""
        return DepthErrors(self.pixels + other.pixels, self.sure + other.sure, self.errors + other.errors)

    def figures(self) -> dict[str, float]:
        """Share of pixels with a depth, and its median error and share within 10 % of what is measured; NaN without any."""
        judged = self.errors.sum()
        if judged == 0:
            return dict.fromkeys(("depth_sure_share", "depth_median_error", "depth_within_10_percent"), float("nan"))
        share = self.errors.cumsum() / judged
        return {
            "depth_sure_share": self.sure / self.pixels,
            "depth_median_error": (np.searchsorted(share, 0.5) + 0.5) * BIN,
            "depth_within_10_percent": float(share[round(RIGHT_WITHIN / BIN) - 1]),
        }
