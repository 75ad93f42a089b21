# SPDX-License-Identifier: Apache-2.0
"""The plane sweep of one view against all its sources in one compiled pass: project, look up, correlate, merge.

Says what :class:`~occupancy_nn_ros.network.depth.PlaneSweep` and :func:`~occupancy_nn_ros.network.depth.merge_sources`
say, without gradients. What a source does not see is skipped, and nothing lies in memory between the steps.

All tables are flat, and all indices unsigned: numba checks signed ones for being negative, and then nothing is done in
vector units. A few cells take turns with each source, so that what they look up there stays in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.compute.compiled import Scalar, inlined, reordering_kernel
from occupancy_nn_ros.compute.lanes import (
    LANES,
    halves_added,
    larger,
    load,
    minus,
    plus,
    spread,
    store,
    times,
    times_plus,
    total,
)
from occupancy_nn_ros.network.patches import CHANNELS, SIDE
from occupancy_nn_ros.values import Float32Array

MOST_SOURCES = 8
"""Sources that the kernel is compiled for; tables of those that do not exist are stood in for by any other's."""

NEAREST_M = 0.05
"""What lies less deep in a source view than this is not seen by it."""

CELLS = 8
"""That take turns with each source."""

U = np.uint64
ONE, TWO, THREE = U(1), U(2), U(3)
X, Y, Z, LAST = U(0), U(1), U(2), U(3)
EIGHT, ROWS, PATCH, BLOCK = U(LANES), U(SIDE), U(SIDE * LANES), U(CELLS)
NEAREST, EDGE, HALF, ZERO = np.float32(NEAREST_M), np.float32(1), np.float32(0.5), np.float32(0)
QUARTER, SHARE = np.float32(0.25), np.float32(1 / CHANNELS)
IN_A_ROW = np.array([1.0] * SIDE + [0.0] * (LANES - SIDE), np.float32)
"""Which lanes hold a row of a patch."""

Length = tuple[None, ...]
"""A number that is known when a kernel is compiled: that of the entries."""

Corners = tuple[Scalar, Scalar, Scalar, Scalar]
"""Weights of four cells: the upper left, its right neighbour, and the two below."""


class FeatureTables(NamedTuple):
    """Features to be correlated by groups of channels.

    Attributes:
        ours: (h * w * columns * steps * LANES,) of the view. What lies side by side is of different groups, or of two parts of
            LANES / 2 groups.
        theirs: (h * w * columns * steps * LANES,) of each of MOST_SOURCES sources.
        height, width: h and w.
        groups: that there are.
        columns: as many entries as vectors are needed for all groups.
        steps: as many as vectors follow each other in a column.
        parts: as many as parts of the lanes belong to the same groups, 1 or 2.
    """

    ours: Float32Array
    theirs: tuple[Float32Array, ...]
    height: int
    width: int
    groups: int
    columns: Length
    steps: Length
    parts: Length


class PatchTables(NamedTuple):
    """Images whose patches are correlated. The product of a patch without its mean and another one needs no mean of that one.

    Attributes:
        ours: ((H + SIDE) * (W + LANES),) grey levels of the view, SIDE // 2 rows and columns of its border before the first.
        our_scale: (H * W,) what makes its patches of unit length.
        theirs, their_scales: the same of each of MOST_SOURCES sources.
        height, width: H and W.
    """

    ours: Float32Array
    our_scale: Float32Array
    theirs: tuple[Float32Array, ...]
    their_scales: tuple[Float32Array, ...]
    height: int
    width: int


class Sweep(NamedTuple):
    """Where to look.

    Attributes:
        projections: (S, 3, 4) from the view's optical frame to x and y from -1 to 1 in each source, both times the depth there.
        rays: (2, P) x and y of the rays through the view's cells, with z = 1.
        depths_m: (P * D,) cell by cell, or (D,) if they are the same for all cells.
        planes: D.
    """

    projections: Float32Array
    rays: Float32Array
    depths_m: Float32Array
    planes: int


class Places(NamedTuple):
    """Where one source sees the planes of one cell; what lies outside is placed at its border.

    Attributes:
        seen: (D,) whether it does.
        first: (3 * D,) index of the upper left of the four cells around each place: of features, scales, grey levels.
        share: (4 * D,) of the right and lower cells: of features, then of patches.
    """

    seen: npt.NDArray[np.bool_]
    first: npt.NDArray[np.uint32]
    share: Float32Array


class Sums(NamedTuple):
    """What CELLS cells have found so far, plane by plane.

    Attributes:
        total: (CELLS * D * size,) sums over sources, vectors of the features' columns, then one whose first is of the patches.
        best: (CELLS * D * size,) likewise.
        sources: (CELLS * D,) how many see the place.
    """

    total: Float32Array
    best: Float32Array
    sources: Float32Array


@inlined
def cell_before(place: Scalar, cells: Scalar) -> tuple[Scalar, Scalar]:
    """The first of the two cells around a place from -1 to 1, as a float, and the share of the second."""
    x = min(max((place + EDGE) * (HALF * np.float32(cells)) - HALF, ZERO), np.float32(cells - 1))
    first = min(np.floor(x), np.float32(cells - 2))
    return first, x - first


@inlined
def find(
    sweep: Sweep, source: Scalar, cell: Scalar, features: FeatureTables, patches: PatchTables, out: Places
) -> None:
    """Where a source sees a cell's planes. Without a branch, so that vector units do it."""
    P, u, v, planes = sweep.projections, sweep.rays[X, cell], sweep.rays[Y, cell], U(sweep.planes)
    a, x0 = P[source, X, X] * u + P[source, X, Y] * v + P[source, X, Z], P[source, X, LAST]
    b, y0 = P[source, Y, X] * u + P[source, Y, Y] * v + P[source, Y, Z], P[source, Y, LAST]
    c, z0 = P[source, Z, X] * u + P[source, Z, Y] * v + P[source, Z, Z], P[source, Z, LAST]
    start = cell * planes if U(len(sweep.depths_m)) > planes else X
    for plane in range(planes):
        depth = sweep.depths_m[start + plane]
        z = c * depth + z0
        ahead = max(z, NEAREST)
        x, y = (a * depth + x0) / ahead, (b * depth + y0) / ahead
        out.seen[plane] = (z > NEAREST) & (abs(x) < EDGE) & (abs(y) < EDGE)
        (left, right_share), (top, lower_share) = cell_before(x, features.width), cell_before(y, features.height)
        out.first[plane] = np.uint32(top * np.float32(features.width) + left)
        out.share[plane], out.share[planes + plane] = right_share, lower_share
        (left, right_share), (top, lower_share) = cell_before(x, patches.width), cell_before(y, patches.height)
        out.first[planes + plane] = np.uint32(top * np.float32(patches.width) + left)
        out.first[TWO * planes + plane] = np.uint32(top * np.float32(patches.width + LANES) + left)
        out.share[TWO * planes + plane], out.share[THREE * planes + plane] = right_share, lower_share


@inlined
def corner_weights(right_share: Scalar, lower_share: Scalar) -> Corners:
    """Of the four cells around a place."""
    both = right_share * lower_share
    return EDGE - right_share - lower_share + both, right_share - both, lower_share - both, both


@inlined
def add_features(
    tables: FeatureTables, source: Float32Array, cell: Scalar, first: Scalar,
    weights: Corners, row: Scalar, out: Sums,
) -> None:  # fmt: skip
    """Add the products by group of a cell with a source between four cells to ``out`` at ``row``, and keep the best."""
    steps, columns = U(len(tables.steps)), U(len(tables.columns))
    a, b, c, d = spread(weights[0]), spread(weights[1]), spread(weights[2]), spread(weights[3])
    for column in range(columns):
        own, upper = (cell * columns + column) * steps * EIGHT, (first * columns + column) * steps * EIGHT
        right, down = columns * steps * EIGHT, U(tables.width) * columns * steps * EIGHT
        found = spread(ZERO)
        for step in range(steps):
            k = upper + step * EIGHT
            mix = times_plus(b, load(source, k + right), times(a, load(source, k)))
            mix = times_plus(d, load(source, k + down + right), times_plus(c, load(source, k + down), mix))
            found = times_plus(load(tables.ours, own + step * EIGHT), mix, found)
        if len(tables.parts) == 2:
            found = halves_added(found)
        place = row + column * EIGHT
        store(out.total, place, plus(load(out.total, place), found))
        store(out.best, place, larger(load(out.best, place), found))


@inlined
def add_patch(
    own: Float32Array, start: Scalar, grey: Float32Array, first: Scalar, stride: Scalar,
    weights: Corners, row: Scalar, out: Sums,
) -> None:  # fmt: skip
    """Add the product of a patch with four of a source, weighted, whose grey levels begin at ``first``; keep the best."""
    mine, place = load(own, start), first
    left, right = load(grey, place), load(grey, place + ONE)
    a, b = times(mine, left), times(mine, right)
    c, d = spread(ZERO), spread(ZERO)
    for line in range(ONE, ROWS + ONE):
        place += stride
        left, right = load(grey, place), load(grey, place + ONE)
        c, d = times_plus(mine, left, c), times_plus(mine, right, d)
        if line < ROWS:
            mine = load(own, start + line * EIGHT)
            a, b = times_plus(mine, left, a), times_plus(mine, right, b)
    upper = times_plus(spread(weights[1]), b, times(spread(weights[0]), a))
    found = total(times_plus(spread(weights[3]), d, times_plus(spread(weights[2]), c, upper)))
    out.total[row] += found
    out.best[row] = max(out.best[row], found)


@inlined
def scaled(weights: Corners, scale: Float32Array, first: Scalar, width: Scalar) -> Corners:
    """Weights of four patches times what makes them of unit length."""
    return (
        weights[0] * scale[first], weights[1] * scale[first + ONE],
        weights[2] * scale[first + width], weights[3] * scale[first + width + ONE],
    )  # fmt: skip


@inlined
def keep_patch(
    patches: PatchTables, row: Scalar, column: Scalar, ratio: Scalar, out: Float32Array, start: Scalar
) -> None:
    """The mean of the four patches around the centre of a cell of ``ratio`` patches, without its mean, into ``out``."""
    top, left = ratio * row + ratio // TWO - ONE, ratio * column + ratio // TWO - ONE
    width, stride = U(patches.width), U(patches.width) + EIGHT
    first, scale = top * width + left, patches.our_scale
    a, b = spread(QUARTER * scale[first]), spread(QUARTER * scale[first + ONE])
    c, d = spread(QUARTER * scale[first + width]), spread(QUARTER * scale[first + width + ONE])
    valid, summed = load(IN_A_ROW, X), spread(ZERO)
    for line in range(ROWS):
        k = (top + line) * stride + left
        upper = times_plus(b, load(patches.ours, k + ONE), times(a, load(patches.ours, k)))
        lower = times_plus(d, load(patches.ours, k + stride + ONE), times(c, load(patches.ours, k + stride)))
        mixed = times(valid, plus(upper, lower))
        summed = plus(summed, mixed)
        store(out, start + line * EIGHT, mixed)
    mean = times(valid, spread(total(summed) * SHARE))
    for line in range(ROWS):
        store(out, start + line * EIGHT, minus(load(out, start + line * EIGHT), mean))


@inlined
def finish(found: Sums, slot: Scalar, size: Scalar, groups: Scalar, row: Scalar, out: Float32Array) -> None:
    """Write a plane of a cell to ``out`` at ``row``: sums become means; where no source sees the place all are 0."""
    seen_by, start, kinds = found.sources[slot], slot * size, groups + ONE
    share = EDGE / seen_by if seen_by > ZERO else ZERO
    some = EDGE if seen_by > ZERO else ZERO
    for group in range(groups):
        out[row + group] = found.total[start + group] * share
        out[row + kinds + group] = found.best[start + group] * some
    out[row + groups] = found.total[start + size - EIGHT] * share
    out[row + kinds + groups] = found.best[start + size - EIGHT] * some
    out[row + TWO * kinds] = seen_by


@reordering_kernel
def sweep_cells(
    start: Scalar, stop: Scalar, sweep: Sweep, features: FeatureTables, patches: PatchTables, out: Float32Array
) -> None:
    """Sweep cells ``start`` to ``stop`` of one view.

    Args:
        start: first cell of the view.
        stop: the one after the last.
        sweep: where to look.
        features: by groups.
        patches: of the images.
        out: flat (D, P, 2 * M + 1), M = groups + 1, written: mean of each correlation over the sources that see the place, the best,
            that of the patches last, and how many see it.
    """
    cells, planes, width = U(sweep.rays.shape[1]), U(sweep.planes), U(patches.width)
    size, groups = (U(len(features.columns)) + ONE) * EIGHT, U(features.groups)
    ratio = U(patches.width // features.width)
    found = Sums(
        np.empty(BLOCK * planes * size, np.float32), np.empty(BLOCK * planes * size, np.float32),
        np.empty(BLOCK * planes, np.float32),
    )  # fmt: skip
    places = Places(
        np.empty(planes, np.bool_), np.empty(THREE * planes, np.uint32), np.empty(U(4) * planes, np.float32)
    )
    own = np.empty(BLOCK * PATCH, np.float32)
    for begin in range(start, stop, CELLS):
        end = min(begin + CELLS, stop)
        found.total[:], found.best[:], found.sources[:] = ZERO, -EDGE, ZERO
        for index in range(begin, end):
            row, column = divmod(index, features.width)
            keep_patch(patches, U(row), U(column), ratio, own, U(index - begin) * PATCH)
        for source in range(len(sweep.projections)):
            table, grey, scale = features.theirs[source], patches.theirs[source], patches.their_scales[source]
            for index in range(begin, end):
                cell, slot = U(index), U(index - begin)
                find(sweep, U(source), cell, features, patches, places)
                for plane in range(planes):
                    if not places.seen[plane]:
                        continue
                    at = slot * planes + plane
                    weights = corner_weights(places.share[plane], places.share[planes + plane])
                    add_features(features, table, cell, U(places.first[plane]), weights, at * size, found)
                    weights = corner_weights(places.share[TWO * planes + plane], places.share[THREE * planes + plane])
                    weights = scaled(weights, scale, U(places.first[planes + plane]), width)
                    first = U(places.first[TWO * planes + plane])
                    add_patch(own, slot * PATCH, grey, first, width + EIGHT, weights, (at + ONE) * size - EIGHT, found)
                    found.sources[at] += EDGE
        for index in range(begin, end):
            for plane in range(planes):
                place = (plane * cells + U(index)) * (TWO * groups + THREE)
                finish(found, U(index - begin) * planes + plane, size, groups, place, out)
