# SPDX-License-Identifier: Apache-2.0
"""RayIoU (Liu et al. 2024, SparseOcc): does a ray end where, and on what, it should?

A surface that is one voxel off costs a voxel score twice, a thick wall costs it nothing; a ray asks what a distance
sensor would. Rays whose truth hits nothing are left out, as in the original.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import Float32Array, FloatArray, LatticeWindow, UInt8Array

METRES = (1.0, 2.0, 4.0)
"""Thresholds of the original, made for roads and 0.4 m voxels."""

VOXELS = (1.0, 2.0, 4.0)
"""Thresholds in voxels, for rooms."""

ORIGINS = 8
"""Rays start at so many places of a drive."""

UNNAMED = 255
"""Label of what is occupied but of no known class."""

AZIMUTH_DEG = 3
"""Between neighbouring rays of one elevation; the original takes every degree."""


@dataclass(frozen=True)
class RayEnds:
    """Where N rays end.

    Attributes:
        label: (N,) uint8 class id, or ``UNNAMED``, of the first occupied voxel, 0 where the ray leaves the grid.
        distance_m: (N,) float32 from the origin to where the ray enters that voxel.
    """

    label: UInt8Array
    distance_m: Float32Array


@dataclass(frozen=True)
class RayCounts:
    """Rays by class and threshold; add them up, then ask for the ratio.

    Attributes:
        right: (T, C + 1) rays that end on the right class within each threshold; entry 0 of a class axis is not used.
        claimed, true: (C + 1,) rays by class.
    """

    right: npt.NDArray[np.int64]
    claimed: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]

    @classmethod
    def of(cls, claimed: RayEnds, true: RayEnds, thresholds_m: FloatArray, classes: int) -> RayCounts:
        """Compare the ends of the same rays where the truth hits something."""
        hits = true.label > 0
        label, wanted = claimed.label[hits], true.label[hits]
        error = np.abs(claimed.distance_m[hits] - true.distance_m[hits])
        label = np.where(label == UNNAMED, 0, label)
        within = (label == wanted) & (error < thresholds_m[:, None])
        right = np.stack([np.bincount(wanted[row], minlength=classes + 1) for row in within])
        return cls(right, np.bincount(label, minlength=classes + 1), np.bincount(wanted, minlength=classes + 1))

    @classmethod
    def empty(cls, thresholds: int, classes: int) -> RayCounts:
        """No rays."""
        none = np.zeros(classes + 1, np.int64)
        return cls(np.zeros((thresholds, classes + 1), np.int64), none, none)

    def __add__(self, other: RayCounts) -> RayCounts:
        """Sum of both."""
        return RayCounts(self.right + other.right, self.claimed + other.claimed, self.true + other.true)

    @property
    def iou(self) -> FloatArray:
        """For each threshold (T,) the mean over the classes that the truth holds; NaN if it holds none."""
        there = self.true[1:] > 0
        union = (self.claimed + self.true - self.right)[:, 1:][:, there]
        if not there.any():
            return np.full(len(self.right), np.nan)
        return np.asarray((self.right[:, 1:][:, there] / union).mean(axis=1), dtype=np.float64)


@dataclass(frozen=True)
class RayScore:
    """Both kinds of RayIoU at ``METRES`` and then ``VOXELS``: class and distance right, and the distance alone.

    Attributes:
        semantic: with ``classes`` classes.
        geometric: with one class, occupied.
    """

    semantic: RayCounts
    geometric: RayCounts

    @classmethod
    def of(cls, claimed: RayEnds, true: RayEnds, voxel_size_m: float, classes: int) -> RayScore:
        """Compare the ends of the same rays."""
        thresholds = np.array([*METRES, *(voxel_size_m * n for n in VOXELS)])
        semantic = RayCounts.of(claimed, true, thresholds, classes)
        plain = [RayEnds((ends.label > 0).astype(np.uint8), ends.distance_m) for ends in (claimed, true)]
        return cls(semantic, RayCounts.of(plain[0], plain[1], thresholds, 1))

    @classmethod
    def empty(cls, classes: int) -> RayScore:
        """No rays."""
        count = len(METRES) + len(VOXELS)
        return cls(RayCounts.empty(count, classes), RayCounts.empty(count, 1))

    def __add__(self, other: RayScore) -> RayScore:
        """Sum of both."""
        return RayScore(self.semantic + other.semantic, self.geometric + other.geometric)

    def figures(self, prefix: str = "") -> dict[str, float]:
        """``ray_miou_*`` (mean over classes, the original's RayIoU) and ``ray_iou_*`` (distance alone)."""
        names = [*(f"{t:g}m" for t in METRES), *(f"{t:g}vox" for t in VOXELS)]
        both = (("ray_miou", self.semantic.iou), ("ray_iou", self.geometric.iou))
        return {
            f"{prefix}{kind}_{name}": float(value)
            for kind, values in both
            for name, value in zip(names, values, strict=True)
        }


def spinning_rays(azimuth_deg: float = AZIMUTH_DEG) -> FloatArray:
    """Unit directions (39 * 360 / azimuth_deg, 3) of the original's LiDAR: from 45 degrees down to 12 degrees up."""
    down = [-np.arctan(1 / n) for n in range(1, 11)]
    step = down[-1] - down[-2]
    up = down[-1] + step * np.arange(1, int(np.ceil((0.21 - down[-1]) / step)) + 1)
    elevation, azimuth = np.meshgrid([*down, *up], np.deg2rad(np.arange(0.0, 360.0, azimuth_deg)), indexing="ij")
    level = np.cos(elevation)
    directions = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=-1)
    return np.asarray(directions.reshape(-1, 3))


def rays_from(places_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Origins and directions (N, 3) of all rays from ``ORIGINS`` evenly picked places of (P, 3)."""
    picked = places_m[np.unique(np.linspace(0, len(places_m) - 1, ORIGINS).round().astype(int))]
    directions = spinning_rays()
    return np.repeat(picked, len(directions), axis=0), np.tile(directions, (len(picked), 1))


def first_hits(labels: UInt8Array, window: LatticeWindow, origins_m: FloatArray, directions: FloatArray) -> RayEnds:
    """Follow rays through a grid, voxel by voxel (Amanatides and Woo 1987), to the first that is not free.

    Args:
        labels: (X, Y, Z) class ids, 0 for what a ray passes.
        window: where they lie.
        origins_m: (N, 3) in the map frame; a ray that starts outside the window hits nothing.
        directions: (N, 3) unit vectors.
    """
    position = origins_m / window.voxel_size_m - np.asarray(window.origin)
    cell = np.floor(position).astype(np.int64)
    sign = np.where(directions >= 0, 1, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(directions == 0, np.inf, np.abs(1 / directions))
        ahead = np.where(directions == 0, np.inf, (cell + (sign > 0) - position) / directions)
    label, distance = np.zeros(len(cell), np.uint8), np.zeros(len(cell))
    entered, going = np.zeros(len(cell)), np.arange(len(cell))
    while len(going):
        inside = ((cell >= 0) & (cell < labels.shape)).all(axis=1)
        found = np.zeros(len(cell), np.uint8)
        found[inside] = labels[tuple(cell[inside].T)]
        label[going], distance[going] = found, np.where(found > 0, entered, 0)
        keep = inside & (found == 0)
        going, cell, sign, step, ahead = going[keep], cell[keep], sign[keep], step[keep], ahead[keep]
        row, axis = np.arange(len(going)), np.argmin(ahead, axis=1) if len(going) else np.zeros(0, np.int64)
        entered = ahead[row, axis]
        cell[row, axis] += sign[row, axis]
        ahead[row, axis] += step[row, axis]
    return RayEnds(label, (distance * window.voxel_size_m).astype(np.float32))
