# SPDX-License-Identifier: Apache-2.0
"""Training targets at a keyframe, made of what is known of the space around it: points with labels, depth, visibility."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from occupancy_nn_ros.labelling.space_votes import REACH_M, WELL_INSIDE, Mask, Rays, States, states_of
from occupancy_nn_ros.mapping.queries import cast_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.training.shards import DEPTH_STRIDE, IGNORED, OCCUPIED, POINTS
from occupancy_nn_ros.values import FloatArray, LatticeWindow, UInt8Array, VoxelState

SLANT = 0.1
"""Share by which the depth of a slanted surface may differ between neighbouring feature cells."""

HITS, BEFORE, ALONG = 0.2, 0.2, 0.225
"""Shares of points at hits, shortly before them, and anywhere along rays; the others lie in any known voxels."""


def draw_points(
    space: RollingMap, rays: Rays, edge_m: float, rng: np.random.Generator, count: int = POINTS
) -> tuple[FloatArray, UInt8Array]:
    """Points to supervise (``count``, 3) in the map frame, and labels of the cubes of an edge around them.

    Unknown space is not drawn from; where too little is known, the rest of the labels is ``IGNORED``.
    """
    window, state = space.window, states_of(space)
    parts = [_at_hits(window, state, rays, edge_m, rng, round(HITS * count))]
    for share, places in ((BEFORE, _before_ends(rays, rng, 2 * count)), (ALONG, _along(rays, rng, 2 * count))):
        free = places[label_cubes(window, state, places, edge_m) == 0][: round(share * count)]
        parts.append((free, np.zeros(len(free), np.uint8)))
    rest = count - sum(len(labels) for _, labels in parts)
    parts.append(_in_known_voxels(window, state, edge_m, rng, rest))
    points, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    missing = count - len(labels)
    points = np.concatenate([points, np.broadcast_to(window.origin_m, (missing, 3))])
    return points, np.concatenate([labels, np.full(missing, IGNORED, np.uint8)])


Drawn = tuple[FloatArray, UInt8Array]


def _at_hits(
    window: LatticeWindow, state: States, rays: Rays, edge_m: float, rng: np.random.Generator, count: int
) -> Drawn:
    """Cubes that hold a hit somewhere inside, as many from each hit voxel; hits that the map does not confirm are noise."""
    cells = window.index_of(rays.ends)
    inside = np.flatnonzero(((cells >= 0) & (cells < window.shape)).all(axis=1))
    good = inside[state[tuple(cells[inside].T)] == VoxelState.OCCUPIED]
    if not len(good):
        return np.empty((0, 3)), np.empty(0, np.uint8)
    voxel = np.ravel_multi_index(tuple(cells[good].T), window.shape)
    good = good[np.argsort(voxel, kind="stable")]
    _, first, number = np.unique(np.sort(voxel), return_index=True, return_counts=True)
    chosen = rng.integers(len(first), size=count)
    ends = rays.ends[good[first[chosen] + rng.integers(number[chosen])]]
    return ends + rng.uniform(-WELL_INSIDE, WELL_INSIDE, ends.shape) * edge_m, np.full(count, OCCUPIED, np.uint8)


def _before_ends(rays: Rays, rng: np.random.Generator, count: int) -> FloatArray:
    """Places on rays close to where they end."""
    if not len(rays.ends):
        return np.empty((0, 3))
    chosen = rng.integers(len(rays.ends), size=count)
    way = rays.origins[chosen] - rays.ends[chosen]
    back = np.abs(rng.normal(0, 1, count)) * rng.choice([0.06, 0.2, 0.5], count)
    share = np.minimum(back / np.linalg.norm(way, axis=1).clip(1e-6), 1.0)[:, None]
    return np.asarray(rays.ends[chosen] + share * way)


def _along(rays: Rays, rng: np.random.Generator, count: int) -> FloatArray:
    """Places anywhere on rays."""
    if not len(rays.ends):
        return np.empty((0, 3))
    chosen = rng.integers(len(rays.ends), size=count)
    share = rng.uniform(0.05, 1.0, (count, 1))
    return rays.origins[chosen] + share * (rays.ends[chosen] - rays.origins[chosen])


def _in_known_voxels(
    window: LatticeWindow, state: States, edge_m: float, rng: np.random.Generator, count: int
) -> Drawn:
    """Cubes around known voxels, each voxel well inside its cube."""
    known = np.flatnonzero(state != VoxelState.UNKNOWN)
    chosen = rng.choice(known, 2 * count) if len(known) else known
    cells = np.stack(np.unravel_index(chosen, window.shape), axis=1)
    points = window.origin_m + (cells + 0.5) * window.voxel_size_m
    points += rng.uniform(-WELL_INSIDE, WELL_INSIDE, points.shape) * (edge_m - window.voxel_size_m)
    labels = label_cubes(window, state, points, edge_m)
    keep = np.flatnonzero(labels != IGNORED)[:count]
    return points[keep], labels[keep]


def label_cubes(window: LatticeWindow, state: States, points_m: FloatArray, edge_m: float) -> UInt8Array:
    """Labels (N,) of cubes of an edge around points (N, 3).

    ``OCCUPIED`` where an occupied voxel lies inside, its core well inside; 0 where all voxels that it touches are free;
    else ``IGNORED``: an occupied voxel that is cut by the cube's border may hold its matter beyond.
    """
    size = edge_m / window.voxel_size_m
    low = (points_m - edge_m / 2) / window.voxel_size_m - window.origin
    high = low + size
    first, stop = np.floor(low + 1e-3).astype(np.int64), np.ceil(high - 1e-3).astype(np.int64)
    spare = (0.5 - WELL_INSIDE) * (size - 1) - 1e-3  # cores end before their voxels do, by as much of a voxel
    free, occupied = np.ones(len(points_m), bool), np.zeros(len(points_m), bool)
    most = math.ceil(edge_m / window.voxel_size_m - 1e-3) + 1
    for offset in np.ndindex(most, most, most):
        cell = first + np.array(offset)
        touched = (cell < stop).all(axis=1)
        inside = touched & ((cell >= 0) & (cell < window.shape)).all(axis=1)
        there = np.full(len(points_m), VoxelState.UNKNOWN, np.int8)
        there[inside] = state[tuple(cell[inside].T)]
        free &= ~touched | (there == VoxelState.FREE)
        whole = ((cell >= low + spare) & (cell + 1 <= high - spare)).all(axis=1)
        occupied |= whole & (there == VoxelState.OCCUPIED)
    return np.where(occupied, OCCUPIED, np.where(free, 0, IGNORED)).astype(np.uint8)


@dataclass(frozen=True)
class PinholeView:
    """A rectified camera at a keyframe: K (3, 3), T_map_cam (4, 4), and where it has pixels (H, W) bool."""

    K: FloatArray
    T_map_cam: FloatArray
    mask: Mask

    def look(self, points_m: FloatArray) -> tuple[FloatArray, FloatArray, Mask]:
        """Pixels (N, 2) and depth (N,) of map-frame points (N, 3), and which of them fall on the camera's picture."""
        local = (points_m - self.T_map_cam[:3, 3]) @ self.T_map_cam[:3, :3]
        depth = local[:, 2]
        safe = np.where(depth > 0.05, depth, 1.0)[:, None]
        pixels = local[:, :2] / safe * (self.K[0, 0], self.K[1, 1]) + (self.K[0, 2], self.K[1, 2])
        height, width = self.mask.shape
        nearest = np.round(np.clip(pixels, -1e6, 1e6)).astype(np.int64)
        seen = (depth > 0.05) & ((nearest >= 0) & (nearest < (width, height))).all(axis=1)
        seen[seen] = self.mask[nearest[seen, 1], nearest[seen, 0]]
        return pixels, depth, seen

    def ways(self, pixels: FloatArray) -> FloatArray:
        """Directions (N, 3) in the map frame of the rays through pixels (N, 2), one long along the optical axis."""
        tangents = (pixels - self.K[:2, 2]) / (self.K[0, 0], self.K[1, 1])
        local = np.concatenate([tangents, np.ones((len(tangents), 1))], axis=1)
        return np.asarray(local @ self.T_map_cam[:3, :3].T)


def cell_depths(views: list[PinholeView], space: RollingMap, rays: Rays) -> npt.NDArray[np.float16]:
    """Depth at the centres of cells of ``DEPTH_STRIDE`` pixels of views of one size, (V, H / 4, W / 4), NaN where it is not known.

    Measured where rays ended close to the cell's centre, unless the map says that a surface hides those ends from the
    camera; else what the map says, if anything.
    """
    rows, columns = views[0].mask.shape[0] // DEPTH_STRIDE, views[0].mask.shape[1] // DEPTH_STRIDE
    measured = np.stack([_measured_depths(view, rays, rows, columns) for view in views])
    mapped = _mapped_depths(views, space, rows, columns)
    trusted = ~np.isnan(measured) & ~(measured > mapped + 2 * space.window.voxel_size_m)
    half = DEPTH_STRIDE // 2
    pictured = np.stack([view.mask[half::DEPTH_STRIDE, half::DEPTH_STRIDE] for view in views])
    return np.where(pictured, np.where(trusted, measured, mapped), np.nan).astype(np.float16)


def _measured_depths(view: PinholeView, rays: Rays, rows: int, columns: int) -> FloatArray:
    """Mean depth (rows, columns) of the nearest surface that rays ended on close to a cell's centre, NaN without any."""
    pixels, depth, seen = view.look(rays.ends)
    pixels, depth = pixels[seen], depth[seen]
    cell = np.floor((pixels + 0.5) / DEPTH_STRIDE).astype(np.int64)
    offset = pixels - cell * DEPTH_STRIDE - (DEPTH_STRIDE - 1) / 2
    central = (np.abs(offset) <= DEPTH_STRIDE / 4).all(axis=1)
    index, depth = cell[central, 1] * columns + cell[central, 0], depth[central]
    nearest = np.full(rows * columns, np.inf)
    np.minimum.at(nearest, index, depth)
    front = depth <= nearest[index] * (1 + SLANT)
    number = np.bincount(index[front], minlength=rows * columns)
    total = np.bincount(index[front], depth[front], minlength=rows * columns)
    mean = total / np.maximum(number, 1)
    return np.where(number > 0, mean, np.nan).reshape(rows, columns)


def _mapped_depths(views: list[PinholeView], space: RollingMap, rows: int, columns: int) -> FloatArray:
    """Depth (V, rows, columns) of the first occupied voxel behind free ones only, NaN if there is none.

    And NaN where the cells around say something else: voxels are larger than what is in them, and hide what lies beside.
    """
    v, u = np.divmod(np.arange(rows * columns), columns)
    pixel = np.stack([u, v], axis=1) * DEPTH_STRIDE + (DEPTH_STRIDE - 1) / 2
    ways = np.stack([view.ways(pixel) for view in views])
    origins = np.broadcast_to(np.stack([view.T_map_cam[:3, 3] for view in views])[:, None], ways.shape)
    hits = cast_rays(space, origins.reshape(-1, 3), ways.reshape(-1, 3), 2 * REACH_M, unknown="keep")
    # The surface lies somewhere in the voxel, in the middle on average.
    edge = space.window.voxel_size_m
    depth = (hits.distance_m + edge / 2) / np.linalg.norm(ways, axis=2).reshape(-1)
    depth = np.where(hits.hit, depth, np.inf).reshape(len(views), rows, columns)
    furthest = maximum_filter(depth, (1, 3, 3), mode="nearest")
    agreed = np.isfinite(furthest) & (furthest <= depth * (1 + SLANT) + 2 * edge)
    return np.where(agreed, depth, np.nan)


def visible_points(views: list[PinholeView], space: RollingMap, points_m: FloatArray, edge_m: float) -> UInt8Array:
    """Which views see points (N, 3): bit v for view v where no occupied voxel lies before the point's cube, (N,) uint8."""
    looks = [np.flatnonzero(view.look(points_m)[2]) for view in views]
    index, bit = np.concatenate(looks), np.repeat(np.arange(len(views)), [len(look) for look in looks])
    bits = np.zeros(len(points_m), np.uint8)
    if len(index):
        origins = np.stack([view.T_map_cam[:3, 3] for view in views])[bit]
        ways = points_m[index] - origins
        distance = np.linalg.norm(ways, axis=1)
        hits = cast_rays(space, origins, ways, float(distance.max()))
        clear = ~hits.hit | (hits.distance_m >= distance - 1.5 * edge_m)
        np.bitwise_or.at(bits, index[clear], (1 << bit[clear]).astype(np.uint8))
    return bits
