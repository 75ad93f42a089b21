# SPDX-License-Identifier: Apache-2.0
"""What the distances of one sensor are, by those that another one measured at the same place.

Distances that differ prove little: of two surfaces one hides the other, glass is seen by one and seen through by the other. But
surfaces that are not one plane are seen in one and the same wrong proportion only if the numbers are no metres. So each kind of
fault makes a prediction of every number, and is told by fitting most of them where metres fit few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.runtime.sight_lines import FLIPS, DepthSight, Sight, SightLines
from occupancy_nn_ros.values import FloatArray

Kind = Literal[
    "metres", "factor", "inverse", "along rays", "focal length", "nothing",
    "mirrored left to right", "flipped upside down", "turned by 180 degrees",
]  # fmt: skip
"""What numbers are: metres, a multiple of them, of their inverse; distances along the rays instead of the optical axis; right, but at the
pixels of a camera of another focal length, or of an image that lies the other way; or in contradiction to what the other sensor sees nearly
everywhere."""

LEAST_PAIRS = 60
"""Fewer places than this that both sensors see tell nothing."""

AGREE_M = 0.06
"""Surfaces this far apart are the same, whatever the distance: noise, and mountings that are known to a few centimetres."""

LEAST_FACTOR = 1.4
"""Numbers that are too large or too small by less are those of a badly calibrated sensor, not of another unit."""

FOCAL_FACTORS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 1.18, 1.25, 1.33, 1.43, 1.54, 1.67, 1.8, 2.0)

FITS, LEADS = 0.6, 0.3
"""A fault fits this share of the places, and this share more of them than metres do."""

VOTES, CLEAR = 30, 0.85
"""Where two explanations differ by more than what agrees, so many places must say which is right, and this share of them the same."""

ONE_PLANE, PLANE_TOLERANCE = 0.8, 0.1
"""Places that lie to this share in one plane tell of no proportion: a table above a floor, a pane before a wall."""

AGREES, CONTRADICTS = 0.6, 0.9
"""Share of the places without anything hidden that must agree for metres; that must contradict for nothing."""

LEAST_SPREAD = 1.3
"""Between near and far places, for their agreement to tell."""

DRAWS = 100


@dataclass(frozen=True)
class Verdict:
    """What numbers are, and by what factor they, or the focal length, are too large."""

    kind: Kind
    factor: float = 1.0


@dataclass(frozen=True)
class _Places:
    """Where two sensors look at the same time.

    Attributes:
        lines: what the one in question measures towards places that the other one saw.
        limits: (M,) by how much the logarithms of right distances may differ.
        is_metres: (M,) where they differ by less.
        scan_normal: (3,) across the plane of all places, if the other one turns in one; None else.
    """

    lines: SightLines
    limits: FloatArray
    is_metres: npt.NDArray[np.bool_]
    scan_normal: FloatArray | None

    @classmethod
    def of(cls, judged: Sight, other: Sight, tolerance: float) -> _Places:
        lines = judged.towards(other.points)
        limits = tolerance + AGREE_M / lines.expected
        metres = np.abs(np.log(lines.measured / lines.expected)) < limits
        return cls(lines, limits, metres, other.scan_normal)

    @property
    def share_metres(self) -> float:
        """Share of them that metres fit."""
        return float(self.is_metres.mean())

    def fit(self, predicted: FloatArray) -> npt.NDArray[np.bool_]:
        """Which of them such numbers (M,) fit; none where all that do are in one plane."""
        fits = np.abs(np.log(self.lines.measured / predicted)) < self.limits
        return fits & (not _is_plane(self.lines.rays[fits], self.scan_normal))


def compare(judged: Sight, other: Sight, tolerance: float) -> Verdict | None:
    """What the numbers of one sensor are if those of another are metres; None where that cannot be told.

    Args:
        judged: the sensor in question.
        other: the one to go by.
        tolerance: part of a distance by which the two may differ.
    """
    places = _Places.of(judged, other, tolerance)
    if len(places.limits) < LEAST_PAIRS:
        return None
    found = _proportion(places)
    if (
        found is None and isinstance(judged, DepthSight) and other.scan_normal is None
    ):  # one line of pixels tells too little
        found = (
            _along_rays(places)
            or _other_focal(judged, other, tolerance, places.share_metres)
            or _other_way(judged, other, tolerance, places.share_metres)
        )
    return found or _agreement(places.lines, other.towards(judged.points), tolerance)


def _proportion(places: _Places) -> Verdict | None:
    """The multiple of the distance or of its inverse that explains what metres do not."""
    best, most = None, max(FITS, places.share_metres + LEADS)
    for verdict, predicted in _proportions(places.lines):
        share = float(places.fit(predicted).mean())
        if share >= most:
            best, most = verdict, share
    return best


def _proportions(lines: SightLines) -> Iterator[tuple[Verdict, FloatArray]]:
    """Multiples of the distance and of its inverse, and what they predict."""
    factor = _center(lines.measured / lines.expected)
    if not 1 / LEAST_FACTOR < factor < LEAST_FACTOR:
        yield Verdict("factor", factor), factor * lines.expected
    product = _center(lines.measured * lines.expected)
    yield Verdict("inverse", product), product / lines.expected


def _center(values: FloatArray) -> float:
    """Where most of some positive values are: the median of what is near to the median, again and again."""
    logs = np.log(values)
    center = float(np.median(logs))
    for width in (0.8, 0.4, 0.2):
        near = logs[np.abs(logs - center) < width]
        center = float(np.median(near)) if len(near) else center
    return float(np.exp(center))


def _along_rays(places: _Places) -> Verdict | None:
    """Whether distances along the rays explain what depth along the axis does not, off the middle of the image."""
    lines = places.lines
    along = np.linalg.norm(lines.rays, axis=1)
    fits = places.fit(along)
    votes = (np.log(along / lines.expected) > places.limits) & (fits | places.is_metres)
    nearer = np.abs(np.log(lines.measured / along)) < np.abs(np.log(lines.measured / lines.expected))
    is_told = votes.sum() >= VOTES and nearer[votes].mean() >= CLEAR and fits.mean() >= FITS
    return Verdict("along rays") if is_told else None


def _other_focal(judged: DepthSight, other: Sight, tolerance: float, share_metres: float) -> Verdict | None:
    """Whether the pixels of a camera with another focal length explain what those of this one do not."""
    best, most = None, max(FITS, share_metres + LEADS)
    for factor in FOCAL_FACTORS:
        places = _Places.of(judged.with_focal(factor), other, tolerance)
        if len(places.limits) < LEAST_PAIRS or places.share_metres < most:
            continue
        share = float(places.fit(places.lines.expected).mean())
        if share >= most:
            best, most = Verdict("focal length", factor), share
    return best


def _other_way(judged: DepthSight, other: Sight, tolerance: float, share_metres: float) -> Verdict | None:
    """Whether the image explains what it does not as it is if it is mirrored or turned over."""
    best, most = None, max(FITS, share_metres + LEADS)
    for flip in FLIPS:
        if flip == "as it is":
            continue
        places = _Places.of(judged.flipped(flip), other, tolerance)
        if len(places.limits) < LEAST_PAIRS or places.share_metres < most:
            continue
        share = float(places.fit(places.lines.expected).mean())
        if share >= most:
            best, most = Verdict(flip), share
    return best


def _agreement(lines: SightLines, back: SightLines, tolerance: float) -> Verdict | None:
    """Whether two sensors see the same, or each what the other one sees through; None if neither clearly."""
    sides = [_sides(part, tolerance) for part in (lines, back)]
    agree, against = (sum(part) for part in zip(*sides, strict=True))
    if agree + against < LEAST_PAIRS:
        return None
    share = agree / (agree + against)
    near, far = np.quantile(lines.expected, (0.1, 0.9))
    if share >= AGREES and far / near > LEAST_SPREAD:
        return Verdict("metres")
    return Verdict("nothing") if share <= 1 - CONTRADICTS else None


def _sides(lines: SightLines, tolerance: float) -> tuple[int, int]:
    """Places where a sensor sees what the other one does, and where it sees through that; hidden ones say nothing."""
    excess = np.log(lines.measured / lines.expected)
    limits = tolerance + AGREE_M / lines.expected
    return int((np.abs(excess) < limits).sum()), int((excess > 2 * limits).sum())


def _is_plane(points: FloatArray, scan_normal: FloatArray | None) -> bool:
    """Whether most of some points (N, 3), seen from the origin, lie in one plane, as far as their distances tell.

    Those of a scanner always lie in that of its rays: one line in it is meant then.
    """
    if len(points) < LEAST_PAIRS // 2:
        return True
    corners = points[np.random.default_rng(0).integers(0, len(points), (DRAWS, 3))]
    across = corners[:, 2] - corners[:, 0] if scan_normal is None else np.broadcast_to(scan_normal, (DRAWS, 3))
    normals = np.cross(corners[:, 1] - corners[:, 0], across)
    offsets = (normals * corners[:, 0]).sum(axis=1)
    usable = np.abs(offsets) > 1e-9
    ratio = points @ (normals[usable] / offsets[usable, None]).T
    return bool((np.abs(ratio - 1) < PLANE_TOLERANCE).mean(axis=0).max(initial=0.0) >= ONE_PLANE)
