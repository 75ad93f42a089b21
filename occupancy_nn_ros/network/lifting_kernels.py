# SPDX-License-Identifier: Apache-2.0
"""What all views say about points, and the context there, compiled: only views that a point lies in are asked.

Says what :func:`~occupancy_nn_ros.network.lifting.sample_evidence` and :func:`~occupancy_nn_ros.network.volume.sample_volume`
say, without gradients. All indices are unsigned, and no part of an array is taken by itself: numba would count who uses it, from two
threads at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from occupancy_nn_ros.compute.compiled import Scalar, inlined, reordering_kernel
from occupancy_nn_ros.values import Float32Array

SURFACE, FREE, HIDDEN, COUNT, ODDS, BEST_SURFACE, BEST_FREE, NEARNESS = (np.uint64(n) for n in range(8))
"""Channels of the statistics."""

U = np.uint64
X, Y, Z, W = U(0), U(1), U(2), U(3)
FIRST = U(8)
"""The first channel after them."""

NEAREST = np.float32(0.05)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


Between = tuple[Scalar, Scalar, Scalar]


class Looks(NamedTuple):
    """What V views know.

    Attributes:
        K: (V, 3, 3) at the size of the images.
        T_world_cam: (V, 4, 4).
        nearer: (V, h, w, D + 1) cumulative depth.
        size: width and height of the images.
        low_m: nearest edge of the depth intervals.
        log_ratio: of one edge to the one before.
        features: (V, h', w', C) to be merged, C may be 0.
    """

    K: Float32Array
    T_world_cam: Float32Array
    nearer: Float32Array
    size: tuple[Scalar, Scalar]
    low_m: Scalar
    log_ratio: Scalar
    features: Float32Array


@inlined
def before(place: Scalar, cells: Scalar) -> Between:
    """The two cells around a place in units of cells, kept inside, and the share of the second."""
    inside = min(max(place, ZERO), np.float32(cells - 1))
    first = U(inside)
    return first, min(first + U(1), U(cells - 1)), inside - np.float32(first)


@inlined
def mix(looks: Looks, view: Scalar, edge: Scalar, columns: Between, rows: Between) -> Scalar:
    """Bilinear value of a view's cumulative depth at an edge between two columns and two rows."""
    (left, right, u), (top, bottom, v), nearer = columns, rows, looks.nearer
    a, b = nearer[view, top, left, edge], nearer[view, top, right, edge]
    c, d = nearer[view, bottom, left, edge], nearer[view, bottom, right, edge]
    upper, lower = a + u * (b - a), c + u * (d - c)
    return upper + v * (lower - upper)


@inlined
def nearer_than(depth: Scalar, looks: Looks, view: Scalar, columns: Between, rows: Between) -> Scalar:
    """Probability that the surface of a view lies nearer than a depth."""
    edge = np.log(max(depth, np.float32(1e-3)) / looks.low_m) / looks.log_ratio
    first, second, share = before(np.float32(edge), looks.nearer.shape[3])
    low = mix(looks, view, first, columns, rows)
    return low + share * (mix(looks, view, second, columns, rows) - low)


@inlined
def add_features(
    looks: Looks, view: Scalar, place: tuple[Scalar, Scalar], weight: Scalar, out: Float32Array, n: Scalar
) -> None:
    """Add a view's weighted features at a place from 0 to 1 to those in ``out`` (P, 8 + C) at ``n``; there are none outside."""
    features = looks.features
    height, width = features.shape[1], features.shape[2]
    x, y = np.float32(place[0] * width - HALF), np.float32(place[1] * height - HALF)
    left, top = int(np.floor(x)), int(np.floor(y))
    u, v = x - np.float32(left), y - np.float32(top)
    for row in range(max(top, 0), min(top + 2, height)):
        for column in range(max(left, 0), min(left + 2, width)):
            share = (v if row > top else ONE - v) * (u if column > left else ONE - u) * weight
            for channel in range(U(features.shape[3])):
                out[n, FIRST + channel] += share * features[view, U(row), U(column), channel]


@inlined
def ask_view(
    point: tuple[Scalar, Scalar, Scalar], reach: Scalar, looks: Looks, view: Scalar, out: Float32Array, n: Scalar
) -> tuple[Scalar, Scalar]:
    """Add what one view says about a point, seen as ``reach`` deep on each side; returns visibility and weight of its features."""
    T, K, height, width = looks.T_world_cam, looks.K, looks.nearer.shape[1], looks.nearer.shape[2]
    x, y, z = point[0] - T[view, X, W], point[1] - T[view, Y, W], point[2] - T[view, Z, W]
    depth = x * T[view, X, Z] + y * T[view, Y, Z] + z * T[view, Z, Z]
    right = K[view, X, X] * (x * T[view, X, X] + y * T[view, Y, X] + z * T[view, Z, X])
    down = K[view, Y, Y] * (x * T[view, X, Y] + y * T[view, Y, Y] + z * T[view, Z, Y])
    ahead = max(depth, NEAREST)
    u, v = (right / ahead + K[view, X, Z] + HALF) / looks.size[0], (down / ahead + K[view, Y, Z] + HALF) / looks.size[1]
    if not (depth > NEAREST and u > 0 and v > 0 and u < 1 and v < 1):
        return ZERO, ZERO
    columns, rows = before(np.float32(u * width - HALF), width), before(np.float32(v * height - HALF), height)
    start = nearer_than(np.float32(depth - reach), looks, view, columns, rows)
    end = nearer_than(np.float32(depth + reach), looks, view, columns, rows)
    surface, free = max(end - start, ZERO), ONE - end
    out[n, SURFACE] += surface
    out[n, FREE] += free
    out[n, HIDDEN] += start
    out[n, COUNT] += ONE
    out[n, ODDS] += np.log((surface + np.float32(0.01)) / (free + np.float32(0.01))) * (ONE - start)
    out[n, BEST_SURFACE] = max(out[n, BEST_SURFACE], surface)
    out[n, BEST_FREE] = max(out[n, BEST_FREE], free)
    out[n, NEARNESS] = max(out[n, NEARNESS], ONE / max(depth, np.float32(0.3)))
    weight = surface + np.float32(0.05)
    if looks.features.shape[3]:
        add_features(looks, view, (u, v), weight, out, n)
    return ONE - start, weight


@reordering_kernel
def ask_views(
    start: int, stop: int, points: Float32Array, reach: Float32Array, looks: Looks, out: Float32Array,
    visible: Float32Array,
) -> None:  # fmt: skip
    """Ask all views about points ``start`` to ``stop``.

    Args:
        start: the first of the points.
        stop: the one after the last.
        points: (P, 3) in the views' world frame.
        reach: (P,) half the depth of the cube at each.
        looks: the views.
        out: (P, 8 + C) written: the statistics, then the merged features.
        visible: (P,) written.
    """
    channels = U(out.shape[1])
    for index in range(start, stop):
        n = U(index)
        point, seen, weights = (points[n, X], points[n, Y], points[n, Z]), ZERO, np.float32(1e-3)
        for channel in range(channels):
            out[n, channel] = ZERO
        for view in range(len(looks.K)):
            shown, weight = ask_view(point, reach[n], looks, U(view), out, n)
            seen = max(seen, shown)
            weights += weight
        visible[n] = seen
        count = max(out[n, COUNT], ONE)
        for channel in range(U(3)):
            out[n, channel] /= count
        out[n, COUNT] *= np.float32(0.25)
        out[n, ODDS] *= HALF
        for channel in range(FIRST, channels):
            out[n, channel] /= weights


@reordering_kernel
def look_up(volume: Float32Array, places: Float32Array, out: Float32Array) -> None:
    """Trilinear values (P, C) of a volume (X, Y, Z, C) at places (P, 3) in cells, kept inside, into ``out``."""
    channels = U(volume.shape[3])
    for index in range(len(places)):
        n = U(index)
        x, x_next, u = before(places[n, X], volume.shape[0])
        y, y_next, v = before(places[n, Y], volume.shape[1])
        z, z_next, w = before(places[n, Z], volume.shape[2])
        for channel in range(channels):
            out[n, channel] = ZERO
        for i, a in ((x, ONE - u), (x_next, u)):
            for j, b in ((y, ONE - v), (y_next, v)):
                for k, c in ((z, ONE - w), (z_next, w)):
                    share = a * b * c
                    for channel in range(channels):
                        out[n, channel] += share * volume[i, j, k, channel]
