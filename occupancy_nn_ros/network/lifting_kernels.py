# SPDX-License-Identifier: Apache-2.0
"""What all views say about points, and the context there, compiled: only views that a point lies in are asked.

Says what :func:`~occupancy_nn_ros.network.lifting.sample_evidence` and :func:`~occupancy_nn_ros.network.volume.sample_volume`
say, without gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from occupancy_nn_ros.compute.compiled import Scalar, reordering_kernel
from occupancy_nn_ros.values import Float32Array

SURFACE, FREE, HIDDEN, COUNT, ODDS, BEST_SURFACE, BEST_FREE, NEARNESS = range(8)
"""Channels of the statistics."""

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


@reordering_kernel
def before(place: Scalar, cells: Scalar) -> Between:
    """The two cells around a place in units of cells, kept inside, and the share of the second."""
    inside = min(max(place, ZERO), np.float32(cells - 1))
    first = int(inside)
    return first, min(first + 1, cells - 1), inside - np.float32(first)


@reordering_kernel
def mix(nearer: Float32Array, edge: Scalar, columns: Between, rows: Between) -> Scalar:
    """Bilinear value of (h, w, D + 1) at an edge between two columns and two rows."""
    (left, right, u), (top, bottom, v) = columns, rows
    upper = nearer[top, left, edge] + u * (nearer[top, right, edge] - nearer[top, left, edge])
    lower = nearer[bottom, left, edge] + u * (nearer[bottom, right, edge] - nearer[bottom, left, edge])
    return upper + v * (lower - upper)


@reordering_kernel
def nearer_than(depth: Scalar, nearer: Float32Array, looks: Looks, columns: Between, rows: Between) -> Scalar:
    """Probability (h, w, D + 1) that the surface lies nearer than a depth."""
    edge = np.log(max(depth, np.float32(1e-3)) / looks.low_m) / looks.log_ratio
    first, second, share = before(np.float32(edge), nearer.shape[2])
    low = mix(nearer, first, columns, rows)
    return low + share * (mix(nearer, second, columns, rows) - low)


@reordering_kernel
def add_features(features: Float32Array, x: Scalar, y: Scalar, weight: Scalar, out: Float32Array) -> None:
    """Add weighted features (h, w, C) at x and y in units of cells to ``out`` (C,); there are none outside."""
    left, top = int(np.floor(x)), int(np.floor(y))
    u, v = x - np.float32(left), y - np.float32(top)
    for row in range(max(top, 0), min(top + 2, features.shape[0])):
        for column in range(max(left, 0), min(left + 2, features.shape[1])):
            share = (v if row > top else ONE - v) * (u if column > left else ONE - u) * weight
            for channel in range(features.shape[2]):
                out[channel] += share * features[row, column, channel]


@reordering_kernel
def ask_view(
    point: Float32Array, reach: Scalar, looks: Looks, view: Scalar, out: Float32Array, visible: Scalar
) -> tuple[Scalar, Scalar]:
    """Add what one view says about a point, seen as ``reach`` deep on each side; returns visibility and weight of its features."""
    T, K, height, width = looks.T_world_cam[view], looks.K[view], looks.nearer.shape[1], looks.nearer.shape[2]
    dx, dy, dz = point[0] - T[0, 3], point[1] - T[1, 3], point[2] - T[2, 3]
    depth = dx * T[0, 2] + dy * T[1, 2] + dz * T[2, 2]
    if not depth > np.float32(0.05):
        return visible, ZERO
    x = (K[0, 0] * (dx * T[0, 0] + dy * T[1, 0] + dz * T[2, 0]) / depth + K[0, 2] + HALF) / looks.size[0]
    y = (K[1, 1] * (dx * T[0, 1] + dy * T[1, 1] + dz * T[2, 1]) / depth + K[1, 2] + HALF) / looks.size[1]
    if not (x > 0 and y > 0 and x < 1 and y < 1):
        return visible, ZERO
    columns, rows = before(np.float32(x * width - HALF), width), before(np.float32(y * height - HALF), height)
    start = nearer_than(np.float32(depth - reach), looks.nearer[view], looks, columns, rows)
    end = nearer_than(np.float32(depth + reach), looks.nearer[view], looks, columns, rows)
    surface, free = max(end - start, ZERO), ONE - end
    out[SURFACE] += surface
    out[FREE] += free
    out[HIDDEN] += start
    out[COUNT] += ONE
    out[ODDS] += np.log((surface + np.float32(0.01)) / (free + np.float32(0.01))) * (ONE - start)
    out[BEST_SURFACE] = max(out[BEST_SURFACE], surface)
    out[BEST_FREE] = max(out[BEST_FREE], free)
    out[NEARNESS] = max(out[NEARNESS], ONE / max(depth, np.float32(0.3)))
    weight = surface + np.float32(0.05)
    if looks.features.shape[3]:
        features = looks.features[view]
        add_features(
            features,
            np.float32(x * features.shape[1] - HALF),
            np.float32(y * features.shape[0] - HALF),
            weight,
            out[8:],
        )
    return max(visible, ONE - start), weight


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
    for n in range(start, stop):
        row = out[n]
        row[:], seen, weights = 0, ZERO, np.float32(1e-3)
        for view in range(len(looks.K)):
            seen, weight = ask_view(points[n], reach[n], looks, view, row, seen)
            weights += weight
        visible[n] = seen
        count = max(row[COUNT], ONE)
        for channel in range(3):
            row[channel] /= count
        row[COUNT] *= np.float32(0.25)
        row[ODDS] *= HALF
        for channel in range(8, len(row)):
            row[channel] /= weights


@reordering_kernel
def look_up(volume: Float32Array, places: Float32Array, out: Float32Array) -> None:
    """Trilinear values (P, C) of a volume (X, Y, Z, C) at places (P, 3) in cells, kept inside, into ``out``."""
    for n in range(len(places)):
        x, x_next, u = before(places[n, 0], volume.shape[0])
        y, y_next, v = before(places[n, 1], volume.shape[1])
        z, z_next, w = before(places[n, 2], volume.shape[2])
        row = out[n]
        row[:] = 0
        for i, a in ((x, ONE - u), (x_next, u)):
            for j, b in ((y, ONE - v), (y_next, v)):
                for k, c in ((z, ONE - w), (z_next, w)):
                    cell, share = volume[i, j, k], a * b * c
                    for channel in range(len(row)):
                        row[channel] += share * cell[channel]
