# SPDX-License-Identifier: Apache-2.0
"""The plane sweep of one view against all its sources in one compiled pass: project, look up, correlate, merge.

Says what :class:`~occupancy_nn_ros.network.depth.PlaneSweep` and :func:`~occupancy_nn_ros.network.depth.merge_sources`
say, without gradients. What a source does not see is skipped, and nothing lies in memory between the steps.

All tables are flat, and all indices unsigned: numba checks signed ones for being negative, and then nothing is done in
vector units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from occupancy_nn_ros.compute.compiled import Scalar, inlined, reordering_kernel
from occupancy_nn_ros.values import Float32Array

MOST_SOURCES = 8
"""Sources that the kernel is compiled for; tables of those that do not exist are stood in for by any other's."""

NEAREST_M = 0.05
"""What lies less deep in a source view than this is not seen by it."""

U = np.uint64
ONE, TWO = U(1), U(2)
X, Y, Z, LAST = U(0), U(1), U(2), U(3)
NEAREST, EDGE, HALF, ZERO = np.float32(NEAREST_M), np.float32(1), np.float32(0.5), np.float32(0)

Length = tuple[None, ...]
"""A number that is known when a kernel is compiled: that of the entries."""


class Maps(NamedTuple):
    """One kind of maps to be correlated.

    Attributes:
        ours: (P * C,) of the view, C channels of each of its cells, group after group.
        theirs: (H * W * C,) likewise, of each of MOST_SOURCES sources.
        height, width: H and W.
        groups: of channels.
        length: as many entries as a group has channels.
    """

    ours: Float32Array
    theirs: tuple[Float32Array, ...]
    height: int
    width: int
    groups: int
    length: Length


class Sweep(NamedTuple):
    """Where to look.

    Attributes:
        projections: (S, 3, 4) from the view's optical frame to x and y from -1 to 1 in each source, both times the depth there.
        rays: (2, P) x and y of the rays through the view's cells, with z = 1.
        depths_m: (D, P), or (D, 1) if they are the same for all cells.
    """

    projections: Float32Array
    rays: Float32Array
    depths_m: Float32Array


@inlined
def cell_before(place: Scalar, cells: Scalar) -> tuple[Scalar, Scalar]:
    """Index of the first of the two cells around a place from -1 to 1, and the share of the second."""
    x = min(max((place + EDGE) * (HALF * np.float32(cells)) - HALF, ZERO), np.float32(cells - 1))
    first = min(int(x), cells - 2)
    return first, x - np.float32(first)


@inlined
def direction(projections: Float32Array, source: Scalar, u: Scalar, v: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """What each metre of depth along the ray (u, v, 1) adds in a source."""
    return (
        projections[source, X, X] * u + projections[source, X, Y] * v + projections[source, X, Z],
        projections[source, Y, X] * u + projections[source, Y, Y] * v + projections[source, Y, Z],
        projections[source, Z, X] * u + projections[source, Z, Y] * v + projections[source, Z, Z],
    )


@inlined
def origin(projections: Float32Array, source: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Where the view itself is in a source."""
    return projections[source, X, LAST], projections[source, Y, LAST], projections[source, Z, LAST]


@inlined
def add_correlations(
    maps: Maps,
    source: Float32Array,
    cell: Scalar,
    place: tuple[Scalar, Scalar],
    row: Scalar,
    kinds: Scalar,
    out: Float32Array,
) -> None:
    """Add the products by group with a source looked up at a place to ``out`` at ``row``, and keep the best ``kinds`` further."""
    length, width = U(len(maps.length)), U(maps.width)
    channels = U(maps.groups) * length
    left, right_share = cell_before(place[0], maps.width)
    top, bottom_share = cell_before(place[1], maps.height)
    d = right_share * bottom_share
    a, b, c = EDGE - right_share - bottom_share + d, right_share - d, bottom_share - d
    first = (U(top) * width + U(left)) * channels
    second, third = first + channels, first + width * channels
    fourth = third + channels
    own = cell * channels
    for group in range(U(maps.groups)):
        total = ZERO
        for n in range(length):
            k = group * length + n
            mix = a * source[first + k] + b * source[second + k] + c * source[third + k] + d * source[fourth + k]
            total += maps.ours[own + k] * mix
        out[row + group] += total
        out[row + kinds + group] = max(out[row + kinds + group], total)


@inlined
def finish(row: Scalar, kinds: Scalar, out: Float32Array) -> None:
    """Sums become means; where no source sees the place all are 0."""
    count = out[row + TWO * kinds]
    for kind in range(kinds):
        if count == ZERO:
            out[row + kinds + kind] = ZERO
        else:
            out[row + kind] /= count


@reordering_kernel
def sweep_cells(start: Scalar, stop: Scalar, sweep: Sweep, features: Maps, patches: Maps, out: Float32Array) -> None:
    """Sweep cells ``start`` to ``stop`` of one view.

    Args:
        start: first cell of the view.
        stop: the one after the last.
        sweep: where to look.
        features: by groups.
        patches: in one group.
        out: flat (D, P, 2 * M + 1), M = groups + 1, written: mean of each correlation over the sources that see the place, the best,
            that of the patches last, and how many see it.
    """
    cells, planes, many = U(sweep.rays.shape[1]), U(len(sweep.depths_m)), sweep.depths_m.shape[1] > 1
    kinds = U(features.groups) + ONE
    size = TWO * kinds + ONE
    for index in range(start, stop):
        cell = U(index)
        for plane in range(planes):
            row = (plane * cells + cell) * size
            for kind in range(kinds):
                out[row + kind], out[row + kinds + kind] = ZERO, -EDGE
            out[row + TWO * kinds] = ZERO
        for source in range(len(sweep.projections)):
            a, b, c = direction(sweep.projections, U(source), sweep.rays[0, cell], sweep.rays[1, cell])
            x0, y0, z0 = origin(sweep.projections, U(source))
            table, patch_table = features.theirs[source], patches.theirs[source]
            for plane in range(planes):
                depth = sweep.depths_m[plane, cell if many else X]
                z = c * depth + z0
                if not z > NEAREST:
                    continue
                x, y = (a * depth + x0) / z, (b * depth + y0) / z
                if not (abs(x) < EDGE and abs(y) < EDGE):
                    continue
                row = (plane * cells + cell) * size
                add_correlations(features, table, cell, (x, y), row, kinds, out)
                add_correlations(patches, patch_table, cell, (x, y), row + kinds - ONE, kinds, out)
                out[row + TWO * kinds] += EDGE
        for plane in range(planes):
            finish((plane * cells + cell) * size, kinds, out)
