# SPDX-License-Identifier: Apache-2.0
"""What an evaluation adds up over all drives, and the figures made of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from occupancy_nn_ros.evaluation.depth_scores import DepthErrors
from occupancy_nn_ros.evaluation.metrics import (
    ClassCounts,
    Counts,
    Mask,
    NearCounts,
    Reliability,
    around_cell,
    count,
)
from occupancy_nn_ros.evaluation.ray_iou import RayScore
from occupancy_nn_ros.values import SEMANTIC_CLASSES, FloatArray

CLASSES = len(SEMANTIC_CLASSES)
BANDS_M = ((0.0, 3.0), (3.0, 8.0))
"""Horizontal distances from the robot between which probabilities are judged."""

GRID_RANGES_M = (3.0, 8.0)
"""Distances from the robot within which the 2D grid is judged."""


def band_names() -> tuple[str, ...]:
    """``0_3m`` and so on."""
    return tuple(f"{low:g}_{high:g}m" for low, high in BANDS_M)


@dataclass
class Calibrations:
    """Reliability of the probabilities of one kind of voxels: all of them, and by distance."""

    all: Reliability = field(default_factory=Reliability.empty)
    by_band: list[Reliability] = field(default_factory=lambda: [Reliability.empty() for _ in BANDS_M])

    def __add__(self, other: Calibrations) -> Calibrations:
        return Calibrations(self.all + other.all, [a + b for a, b in zip(self.by_band, other.by_band, strict=True)])

    def figures(self, kind: str) -> dict[str, float]:
        """``ece_*`` and ``brier_*``, NaN where there are no such voxels."""
        named = [(kind, self.all), *zip((f"{kind}_{band}" for band in band_names()), self.by_band, strict=True)]
        return {
            f"{what}_{name}": getattr(one, what) if one.number.any() else float("nan")
            for what in ("ece", "brier")
            for name, one in named
        }


@dataclass
class ChangeTimes:
    """How fast a map follows what appears and what leaves.

    Attributes:
        mark_s: for each trial the seconds until the 2D grid shows what has appeared, infinite if it never did.
        clear_s: for each trial that showed it, the seconds until the grid is free again where it stood.
    """

    mark_s: list[float] = field(default_factory=list)
    clear_s: list[float] = field(default_factory=list)

    def __add__(self, other: ChangeTimes) -> ChangeTimes:
        return ChangeTimes(self.mark_s + other.mark_s, self.clear_s + other.clear_s)

    def figures(self, suffix: str = "") -> dict[str, float]:
        """Medians, infinite where most trials failed and NaN without any, and shares of the trials that succeeded."""
        result = {}
        for name, done, times in (("mark", "marked", self.mark_s), ("clear", "cleared", self.clear_s)):
            result[f"time_to_{name}_s{suffix}"] = _median(times)
            result[f"{done}_share{suffix}"] = float(np.isfinite(times).mean()) if times else float("nan")
        return result


@dataclass
class GridScore:
    """Cells of the 2D grid by distance from the robot: as they are, and with a tolerance of one cell.

    Attributes:
        exact: counts within each of ``GRID_RANGES_M``.
        tolerant: the same, where an obstacle is found if the grid marks it or a cell around it, and a marked cell is a
            phantom if neither it nor a cell around it holds anything solid.
    """

    exact: list[Counts] = field(default_factory=lambda: [Counts() for _ in GRID_RANGES_M])
    tolerant: list[Counts] = field(default_factory=lambda: [Counts() for _ in GRID_RANGES_M])

    def add(self, lethal: Mask, obstacle: Mask, empty: Mask, solid: Mask, distance_m: FloatArray) -> None:
        """Add one grid; all are (X, Y).

        Args:
            lethal: cells that the grid marks.
            obstacle: cells that it should mark.
            empty: cells that it should not mark; what is neither is not judged.
            solid: cells that hold anything solid at all.
            distance_m: from the robot.
        """
        nearby = np.where(obstacle, around_cell(lethal), lethal & ~around_cell(solid))
        for index, range_m in enumerate(GRID_RANGES_M):
            judged = (obstacle | empty) & (distance_m <= range_m)
            self.exact[index] += count(lethal, obstacle, judged)
            self.tolerant[index] += count(nearby, obstacle, judged)

    def __add__(self, other: GridScore) -> GridScore:
        exact = [a + b for a, b in zip(self.exact, other.exact, strict=True)]
        return GridScore(exact, [a + b for a, b in zip(self.tolerant, other.tolerant, strict=True)])

    def figures(self, suffix: str = "") -> dict[str, float]:
        """Rates of obstacles missed and of empty cells marked."""
        result = {}
        for tolerance, counts in (("", self.exact), ("_tolerant", self.tolerant)):
            for range_m, cells in zip(GRID_RANGES_M, counts, strict=True):
                result[f"missed_obstacle_rate_{range_m:g}m{tolerance}{suffix}"] = 1 - cells.recall
                result[f"phantom_obstacle_rate_{range_m:g}m{tolerance}{suffix}"] = _phantom(cells)
        return result


@dataclass
class Tally:
    """Sums over all drives.

    Attributes:
        single, fused, ceiling: voxels of single predictions, of the final map, and of the final map from perfect depth.
        depth: depth that the network is sure of.
        unseen_free, unseen_free_ceiling: voxels near the robot that no camera of the drive saw, and which of them the final map
            calls free; the same of the map from perfect depth.
        single_near, fused_near: the same with a tolerance of one voxel.
        single_classes, fused_classes: classes of the voxels claimed.
        single_rays, fused_rays: rays through the voxels claimed.
        has_classes: whether anything judged names classes.
        grid, grid_ceiling: cells of the 2D grid, and of the one from perfect depth.
        visible, inferred: probabilities of the voxels that the network says it sees, and of those it does not.
        by_class: whether the class of a voxel that is found and seen is right.
        changes, changes_ceiling: reaction of the map, and of the one from perfect depth.
    """

    single: Counts = field(default_factory=Counts)
    fused: Counts = field(default_factory=Counts)
    ceiling: Counts = field(default_factory=Counts)
    depth: DepthErrors = field(default_factory=DepthErrors.empty)
    unseen_free: Counts = field(default_factory=Counts)
    unseen_free_ceiling: Counts = field(default_factory=Counts)
    single_near: NearCounts = field(default_factory=NearCounts)
    fused_near: NearCounts = field(default_factory=NearCounts)
    single_classes: ClassCounts = field(default_factory=lambda: ClassCounts.empty(CLASSES))
    fused_classes: ClassCounts = field(default_factory=lambda: ClassCounts.empty(CLASSES))
    single_rays: RayScore = field(default_factory=lambda: RayScore.empty(CLASSES))
    fused_rays: RayScore = field(default_factory=lambda: RayScore.empty(CLASSES))
    has_classes: bool = False
    grid: GridScore = field(default_factory=GridScore)
    grid_ceiling: GridScore = field(default_factory=GridScore)
    visible: Calibrations = field(default_factory=Calibrations)
    inferred: Calibrations = field(default_factory=Calibrations)
    by_class: Counts = field(default_factory=Counts)
    changes: ChangeTimes = field(default_factory=ChangeTimes)
    changes_ceiling: ChangeTimes = field(default_factory=ChangeTimes)

    def __add__(self, other: Tally) -> Tally:
        names = [one.name for one in fields(self) if one.name != "has_classes"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Tally(**sums, has_classes=self.has_classes or other.has_classes)

    def figures(self) -> dict[str, Any]:
        """Plain values for tables and JSON; NaN where nothing was judged, or no classes are named."""
        figures = {
            "iou": self.single.iou, "mcc": self.single.mcc,
            "precision": self.single.precision, "recall": self.single.recall,
            "f_score": self.single_near.f_score, "miou": self.single_classes.miou,
            "fused_iou": self.fused.iou, "fused_mcc": self.fused.mcc,
            "fused_precision": self.fused.precision, "fused_recall": self.fused.recall,
            "fused_f_score": self.fused_near.f_score, "fused_miou": self.fused_classes.miou,
            "fused_iou_ceiling": self.ceiling.iou, "fused_mcc_ceiling": self.ceiling.mcc,
            "unseen_free_share": self.unseen_free.claimed, "unseen_free_right": self.unseen_free.precision,
            "unseen_free_share_ceiling": self.unseen_free_ceiling.claimed,
            **self.depth.figures(), **self.single_rays.figures(), **self.fused_rays.figures("fused_"),
            **self.grid.figures(), **self.grid_ceiling.figures("_ceiling"),
            **self.visible.figures("visible"), **self.inferred.figures("inferred"),
            "class_accuracy": self.by_class.recall,
            **self.changes.figures(), **self.changes_ceiling.figures("_ceiling"),
        }  # fmt: skip
        if self.has_classes:
            return figures
        semantic = ("miou", "ray_miou", "class_accuracy")
        return {key: float("nan") if any(s in key for s in semantic) else value for key, value in figures.items()}


def _median(times: list[float]) -> float:
    """Median (the upper one of an even number) of seconds, some infinite; NaN without any."""
    return sorted(times)[len(times) // 2] if times else float("nan")


def _phantom(counts: Counts) -> float:
    """Share of the empty cells that the grid marks as obstacles."""
    return counts.fp / max(1, counts.fp + counts.tn)
