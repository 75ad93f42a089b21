# SPDX-License-Identifier: Apache-2.0
"""Depth that several views from different places agree on: the geometric consistency check of multi-view stereo.

A pixel's depth is a point of space. Other views see that point too, and say how far the surface in its direction is: the same
(they agree), further away (they see through the point), or nearer (something hides it, which says nothing). Depth that enough views
agree on is kept, as the mean of what they say (Galliani et al. 2015; Yao et al. 2018 fuse depth in this way).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from occupancy_nn_ros.mapping.ray_integration import pixel_tangents
from occupancy_nn_ros.values import CameraModel, FloatArray, PosedDepth

TOLERANCE = 0.05
"""Depths that differ by at most this part of them agree; what is further away by twice as much is seen through."""

LEAST_VIEWS = 3
"""Other views that must agree."""

LEAST_PARALLAX_RAD = 0.05
"""Rays that meet at a smaller angle, 5 cm at 1 m, come from the same place: they repeat each other's errors."""

NEAR_M = 3.0
"""Cameras further away than this are not asked."""

LEAST_COSINE = 0.34
"""Nor are those that look elsewhere, by more than 70 degrees."""

NEAREST_M = 0.05
MOST_VIEWS = 20
PLACE_M = 0.08
"""Views of one camera that stand closer than this are one place, of which one is asked."""


@dataclass(frozen=True)
class Agreed:
    """What became of a depth image.

    Attributes:
        depth: what views agree on, their mean; 0 elsewhere.
        doubtful: the depth that enough views see through, as on what moves; 0 elsewhere.
    """

    depth: PosedDepth
    doubtful: PosedDepth


def agree(depths: Sequence[PosedDepth]) -> Iterator[Agreed]:
    """Compare each depth image of a recording with those from other places.

    Args:
        depths: pinhole images, 0 or NaN where nothing is known.

    Yields:
        For each of them, in order, what is kept of it.
    """
    views = [_View.of(depth) for depth in depths]
    places = np.array([view.depth.T_map_cam[:3, 3] for view in views]).reshape(-1, 3)
    ways = np.array([view.depth.T_map_cam[:3, 2] for view in views]).reshape(-1, 3)
    tree = cKDTree(places) if len(places) else None
    for index, view in enumerate(views):
        near = np.array([] if tree is None else tree.query_ball_point(places[index], NEAR_M), dtype=np.int64)
        others = choose_views(places[index], places[near], ways[near] @ ways[index])
        yield _compare(view, [views[number] for number in near[others]])


def finer(depth: PosedDepth) -> PosedDepth:
    """A pinhole depth image with twice as many rows and columns: inverse depth between pixels of one surface, exact on planes."""
    model = depth.model
    K = np.diag([2.0, 2.0, 1.0]) @ model.K
    K[:2, 2] += 0.5  # pixel centres lie at integers
    dense = CameraModel(2 * model.width, 2 * model.height, K, "none", np.zeros(0))
    tangents = pixel_tangents(dense).astype(np.float64)
    index, _, seen = _View.of(depth).seen_at(np.column_stack([tangents, np.ones(len(tangents))]))
    image = np.zeros(len(tangents), np.float32)
    image[index] = seen
    return replace(depth, model=dense, depth_m=image.reshape(dense.height, dense.width))


def choose_views(place: FloatArray, places: FloatArray, cosines: FloatArray) -> npt.NDArray[np.int64]:
    """Which views (N,) to ask: from other places, looking about the same way, near and far ones alike.

    Args:
        place: (3,) of the view that asks.
        places: (N, 3) of the others.
        cosines: (N,) of the angles between the directions in which they look and that in which it looks.
    """
    distance = np.linalg.norm(places - place, axis=1)
    usable = np.flatnonzero((cosines > LEAST_COSINE) & (distance > PLACE_M / 4))
    if not len(usable):
        return usable
    cells = np.column_stack(
        [np.floor(places[usable] / PLACE_M), np.floor(np.arccos(cosines[usable].clip(-1, 1)) / 0.4)]
    )
    _, first = np.unique(cells, axis=0, return_index=True)
    chosen = usable[first]
    chosen = chosen[np.argsort(distance[chosen], kind="stable")]
    if len(chosen) <= MOST_VIEWS:
        return chosen
    return chosen[np.unique(np.linspace(0, len(chosen) - 1, MOST_VIEWS).round().astype(np.int64))]


@dataclass(frozen=True)
class _View:
    """A depth image: tangents (N, 2) of its pixels' rays, which of them have depth (M,), and inverse depth (H, W), 0 without any."""

    depth: PosedDepth
    tangents: FloatArray
    known: npt.NDArray[np.int64]
    inverse: FloatArray

    @classmethod
    def of(cls, depth: PosedDepth) -> _View:
        depth_m = np.nan_to_num(depth.depth_m.astype(np.float64))
        inverse = np.where(depth_m > NEAREST_M, 1 / np.maximum(depth_m, NEAREST_M), 0.0)
        tangents = pixel_tangents(depth.model).astype(np.float64)
        return cls(depth, tangents, np.flatnonzero(inverse.reshape(-1) > 0), inverse)

    def points(self, tangents: FloatArray, depth_m: FloatArray) -> FloatArray:
        """Points (N, 3) of the map frame at depths (N,) along rays of tangents (N, 2)."""
        local = np.column_stack([tangents * depth_m[:, None], depth_m])
        pose = self.depth.T_map_cam
        return np.asarray(local @ pose[:3, :3].T + pose[:3, 3])

    def local(self, points: FloatArray) -> FloatArray:
        """Points (N, 3) of the map frame in the optical frame."""
        pose = self.depth.T_map_cam
        return np.asarray((points - pose[:3, 3]) @ pose[:3, :3])

    def seen_at(self, local: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
        """Of points (N, 3) of the optical frame those in whose direction depth is known (M,), tangents (M, 2) and that depth (M,).

        Inverse depth is interpolated between pixels, exactly so on planes; a neighbour that is unknown or of another surface is
        taken for as far as the nearest pixel.
        """
        model, inverse = self.depth.model, self.inverse
        ahead = np.flatnonzero(local[:, 2] > NEAREST_M)
        tangents = local[ahead, :2] / local[ahead, 2:]
        column, row = (tangents[:, a] * model.K[a, a] + model.K[a, 2] for a in (0, 1))
        inside = (column > -0.5) & (column < model.width - 0.5) & (row > -0.5) & (row < model.height - 0.5)
        ahead, tangents, column, row = ahead[inside], tangents[inside], column[inside], row[inside]
        nearest = inverse[np.round(row).astype(np.int64), np.round(column).astype(np.int64)]
        known = nearest > 0
        ahead, tangents, column, row = ahead[known], tangents[known], column[known], row[known]
        nearest, total = nearest[known], np.zeros(int(known.sum()))
        left, top = np.floor(column), np.floor(row)
        for right, below in np.ndindex(2, 2):
            share = np.abs(1 - right - (column - left)) * np.abs(1 - below - (row - top))
            v = np.clip(top + below, 0, model.height - 1).astype(np.int64)
            u = np.clip(left + right, 0, model.width - 1).astype(np.int64)
            near = np.abs(inverse[v, u] / nearest - 1) < 2 * TOLERANCE
            total += share * np.where(near, inverse[v, u], nearest)
        return ahead, tangents, 1 / total


def _compare(view: _View, others: Sequence[_View]) -> Agreed:
    """Keep of a view's depth what enough others agree on, and tell what enough of them see through."""
    depth_m = view.depth.depth_m.reshape(-1)[view.known].astype(np.float64)
    points = view.points(view.tangents[view.known], depth_m)
    agreeing, through, logs = np.zeros(len(points)), np.zeros(len(points)), np.log(depth_m)
    for other in others:
        index, ratio, there = _ask(view, other, points)
        agrees = np.abs(np.log(ratio)) < TOLERANCE
        back = view.local(there[agrees])[:, 2] / depth_m[index[agrees]]
        same = np.abs(np.log(back.clip(1e-3))) < TOLERANCE
        np.add.at(agreeing, index[agrees][same], 1)
        np.add.at(logs, index[agrees][same], np.log(depth_m[index[agrees][same]] * back[same]))
        np.add.at(through, index[ratio > 1 + 2 * TOLERANCE], 1)
    kept = (agreeing >= LEAST_VIEWS) & (agreeing > through)
    mean = np.exp(logs / (1 + agreeing))
    doubtful = ~kept & (through >= LEAST_VIEWS)
    return Agreed(_with(view, kept, mean), _with(view, doubtful, depth_m))


def _ask(view: _View, other: _View, points: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """What another view sees towards points (N, 3).

    Returns:
        Which of them it can tell of (M,), how far the surface is that it sees there as a factor of their depth (M,), and that
        surface (M, 3) in the map frame.
    """
    index, tangents, seen = other.seen_at(local := other.local(points))
    first = points[index] - view.depth.T_map_cam[:3, 3]
    second = points[index] - other.depth.T_map_cam[:3, 3]
    cross = np.linalg.norm(np.cross(first, second), axis=1)
    usable = np.arctan2(cross, (first * second).sum(axis=1)) > LEAST_PARALLAX_RAD
    index, tangents, seen = index[usable], tangents[usable], seen[usable]
    return index, seen / local[index, 2], other.points(tangents, seen)


def _with(view: _View, where: npt.NDArray[np.bool_], depth_m: FloatArray) -> PosedDepth:
    image = np.zeros(view.depth.depth_m.size, np.float32)
    image[view.known[where]] = depth_m[where]
    return replace(view.depth, depth_m=image.reshape(view.depth.depth_m.shape))
