# SPDX-License-Identifier: Apache-2.0
"""How well a prediction or a map agrees with the truth. Counts are summed over everything judged, then divided.

The inside of solids, occupied voxels that no free voxel borders by a face, is ignored everywhere: no sensor can see it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, generate_binary_structure

from occupancy_nn_ros.values import MapView, VoxelState

Mask = npt.NDArray[np.bool_]
FACE_NEIGHBOURS = generate_binary_structure(3, 1)
ALL_NEIGHBOURS = generate_binary_structure(3, 3)
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Counts:
    """True and false positives and negatives of a yes-or-no question; add them up, then ask for the ratios.

    A ratio whose denominator is zero is 0, but for ``iou``, which is 1 where there was nothing to find and nothing was
    found.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Sum of both."""
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def iou(self) -> float:
        """Intersection over union of the positives."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else 1.0

    @property
    def precision(self) -> float:
        """Share of the claimed positives that are right."""
        return self.tp / max(1, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the true positives that were found."""
        return self.tp / max(1, self.tp + self.fn)

    @property
    def claimed(self) -> float:
        """Share of everything judged that is claimed to be positive."""
        return (self.tp + self.fp) / max(1, self.tp + self.fp + self.fn + self.tn)

    @property
    def mcc(self) -> float:
        """Matthews correlation, -1 to 1; 0 for any answer that does not depend on the question."""
        product = (
            float(self.tp + self.fp) * float(self.tp + self.fn) * float(self.tn + self.fp) * float(self.tn + self.fn)
        )
        return (float(self.tp) * self.tn - float(self.fp) * self.fn) / product**0.5 if product > 0 else 0.0

    def text(self) -> str:
        """One line for people."""
        return f"IoU {self.iou:.3f}, MCC {self.mcc:.3f}, precision {self.precision:.3f}, recall {self.recall:.3f}"


def count(claimed: Mask, true: Mask, judged: Mask) -> Counts:
    """Compare two answers where they are judged; all of one shape."""
    claimed, true = claimed[judged], true[judged]
    tp, positives, claims = int((claimed & true).sum()), int(true.sum()), int(claimed.sum())
    return Counts(tp, claims - tp, positives - tp, claimed.size - claims - positives + tp)


@dataclass(frozen=True)
class ClassCounts:
    """What was claimed and what was true of each class; add them up, then ask for the mean.

    Attributes:
        right, claimed, true: (C + 1,) voxels by class id; entry 0, which stands for free or no class, is not used.
    """

    right: npt.NDArray[np.int64]
    claimed: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]

    @classmethod
    def of(cls, claimed: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8], judged: Mask, classes: int) -> ClassCounts:
        """Compare class ids, 0 for free or no class, where they are judged; all of one shape."""
        claimed, true = claimed[judged], true[judged]
        parts = (np.bincount(ids, minlength=classes + 1) for ids in (true[claimed == true], claimed, true))
        return cls(*(part.astype(np.int64) for part in parts))

    @classmethod
    def empty(cls, classes: int) -> ClassCounts:
        """No voxels."""
        return cls(*np.zeros((3, classes + 1), np.int64))

    def __add__(self, other: ClassCounts) -> ClassCounts:
        """Sum of both."""
        return ClassCounts(self.right + other.right, self.claimed + other.claimed, self.true + other.true)

    @property
    def miou(self) -> float:
        """Mean intersection over union of the classes that the truth holds, free left out; NaN if it holds none."""
        there = self.true[1:] > 0
        union = (self.claimed + self.true - self.right)[1:][there]
        return float((self.right[1:][there] / union).mean()) if there.any() else float("nan")


@dataclass(frozen=True)
class NearCounts:
    """Occupied voxels that have a counterpart within one voxel along each axis; add them up, then ask for the ratios.

    Attributes:
        right: claimed voxels with a true one among the 27 around and including them.
        claimed: judged voxels claimed.
        found: true voxels with a claimed one among those 27.
        true: judged voxels that are occupied.
    """

    right: int = 0
    claimed: int = 0
    found: int = 0
    true: int = 0

    def __add__(self, other: NearCounts) -> NearCounts:
        """Sum of both."""
        return NearCounts(
            self.right + other.right, self.claimed + other.claimed, self.found + other.found, self.true + other.true
        )

    @property
    def f_score(self) -> float:
        """Harmonic mean of ``right / claimed`` and ``found / true``; 1 where nothing was to find and none claimed."""
        if self.claimed + self.true == 0:
            return 1.0
        precision, recall = self.right / max(1, self.claimed), self.found / max(1, self.true)
        return 2 * precision * recall / max(precision + recall, 1e-12)


def count_near(claimed: Mask, true: Mask, judged: Mask) -> NearCounts:
    """Compare occupied voxels (X, Y, Z) with a tolerance of one voxel.

    What is not judged is no claim and nothing to find, but it counts as a counterpart: a wall claimed one voxel too deep,
    inside the solid, is found.
    """
    claims, truths = claimed & judged, true & judged
    right, found = claims & with_border(true), truths & with_border(claimed)
    return NearCounts(int(right.sum()), int(claims.sum()), int(found.sum()), int(truths.sum()))


def interior(occupied: Mask) -> Mask:
    """Occupied voxels (X, Y, Z) that no free voxel borders by a face; what lies outside the grid counts as occupied."""
    return np.asarray(occupied & ~binary_dilation(~occupied, FACE_NEIGHBOURS))


def with_border(seen: Mask) -> Mask:
    """Voxels seen, and the up to 26 around each."""
    return np.asarray(binary_dilation(seen, ALL_NEIGHBOURS))


def around_cell(cells: Mask) -> Mask:
    """Cells (X, Y), and the up to 8 around each."""
    return np.asarray(binary_dilation(cells, ALL_NEIGHBOURS[1]))


def score_map(view: MapView, truth: MapView, judged: Mask | None = None) -> Counts:
    """Compare a fused map with the true map of the same window.

    Args:
        view: the map; what it does not know counts as not occupied.
        truth: every voxel known.
        judged: (X, Y, Z) which voxels count; by default those that the map knows and those around them.
    """
    occupied = truth.state == VoxelState.OCCUPIED
    if judged is None:
        judged = with_border(view.state != VoxelState.UNKNOWN)
    return count(view.state == VoxelState.OCCUPIED, occupied, judged & ~interior(occupied))


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities against frequencies, in equal bins; add them up, then ask for the error.

    Attributes:
        number, probability, occupied: (B,) sums over the voxels of each bin.
        squared_error: sum of squared differences between probability and truth.
    """

    number: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]
    occupied: npt.NDArray[np.float64]
    squared_error: float

    @classmethod
    def of(cls, probability: npt.NDArray[np.floating], true: Mask, judged: Mask) -> Reliability:
        """Bin the judged voxels."""
        p, y = probability[judged].astype(np.float64), true[judged].astype(np.float64)
        index = np.clip((p * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
        sums = [np.bincount(index, weights, CALIBRATION_BINS).astype(np.float64) for weights in (np.ones_like(p), p, y)]
        return cls(sums[0], sums[1], sums[2], float(((p - y) ** 2).sum()))

    @classmethod
    def empty(cls) -> Reliability:
        """No voxels."""
        zero = np.zeros(CALIBRATION_BINS)
        return cls(zero, zero, zero, 0.0)

    def __add__(self, other: Reliability) -> Reliability:
        """Sum of both."""
        return Reliability(
            self.number + other.number, self.probability + other.probability, self.occupied + other.occupied,
            self.squared_error + other.squared_error,
        )  # fmt: skip

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over voxels of |frequency - probability| of their bin."""
        return float(np.abs(self.occupied - self.probability).sum() / max(1.0, self.number.sum()))

    @property
    def brier(self) -> float:
        """Mean squared difference between probability and truth."""
        return self.squared_error / max(1.0, float(self.number.sum()))
