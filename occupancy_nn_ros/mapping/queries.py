# SPDX-License-Identifier: Apache-2.0
"""Reading the map at points, along rays and as a box, with the caller's choice of what unknown means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import Float32Array, FloatArray, LatticeWindow, MapView, UInt8Array, VoxelState

Unknown = Literal["keep", "free", "occupied"]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RayHits:
    """Where rays cast in the map end.

    Attributes:
        hit: (N,) bool, whether an occupied voxel stopped the ray.
        distance_m: (N,) float32 to where the ray enters the voxel that stopped it, or its full length.
        voxel: (N, 3) int64 lattice index of the last voxel looked at.
    """

    hit: BoolArray
    distance_m: Float32Array
    voxel: npt.NDArray[np.int64]


def states(probability: npt.NDArray[Any], known: BoolArray, config: MapConfig) -> npt.NDArray[np.int8]:
    """State of voxels: occupied and free by the two thresholds; not observed, or contested between them, is unknown."""
    state = np.full(probability.shape, VoxelState.UNKNOWN, np.int8)
    state[known & (probability >= config.occupied_probability)] = VoxelState.OCCUPIED
    state[known & (probability <= config.free_probability)] = VoxelState.FREE
    return state


def resolve_unknown(state: npt.NDArray[np.int8], unknown: Unknown) -> npt.NDArray[np.int8]:
    """States with unknown ones kept, or called free or occupied."""
    if unknown == "keep":
        return state
    meaning = VoxelState.FREE if unknown == "free" else VoxelState.OCCUPIED
    return np.where(state == VoxelState.UNKNOWN, np.int8(meaning), state)


def query_map(
    grid: VoxelStorage, points_m: npt.ArrayLike, mode: Literal["nearest", "trilinear"], unknown: Unknown
) -> tuple[Float32Array, npt.NDArray[np.int8]]:
    """See :meth:`RollingMap.query`."""
    points = np.asarray(points_m, dtype=np.float64).reshape(-1, 3)
    finite = np.asarray(np.isfinite(points).all(axis=1), dtype=np.bool_)
    scaled = np.where(finite[:, None], points, 0.0) / grid.window.voxel_size_m
    if mode == "nearest":
        probability, known = _probability_at(grid, cells_of(scaled))
    else:
        probability, known = _interpolate(grid, scaled - 0.5)
    known = known & finite
    state = resolve_unknown(states(probability, known, grid.config), unknown)
    if unknown != "keep":
        return np.where(known, probability, 0.0 if unknown == "free" else 1.0).astype(np.float32), state
    return np.where(known, probability, np.nan).astype(np.float32), state


def classes_at_points(grid: VoxelStorage, points_m: npt.ArrayLike) -> UInt8Array:
    """See :meth:`RollingMap.classes_at`."""
    points = np.asarray(points_m, dtype=np.float64).reshape(-1, 3)
    finite = np.asarray(np.isfinite(points).all(axis=1), dtype=np.bool_)
    cells = cells_of(np.where(finite[:, None], points, 0.0) / grid.window.voxel_size_m)
    occupied = finite & (_states_at(grid, cells) == VoxelState.OCCUPIED)
    classes = np.zeros(len(points), np.uint8)
    classes[occupied] = grid.best_classes(torch.from_numpy(cells[occupied]).to(grid.device)).cpu().numpy()
    return classes


def cells_of(scaled: FloatArray) -> npt.NDArray[np.int64]:
    """Lattice indices of finite points in voxels; those too far out for any window are limited to 2^52."""
    return np.floor(np.clip(scaled, -(2.0**52), 2.0**52)).astype(np.int64)


def cast_rays(
    grid: VoxelStorage, origins_m: npt.ArrayLike, directions: npt.ArrayLike, max_m: float, *, unknown: Unknown = "free"
) -> RayHits:
    """Follow rays through the map to the first occupied voxel.

    Args:
        grid: the map; outside its window all is unknown.
        origins_m: (3,) or (N, 3) in the map frame.
        directions: (N, 3), any length but zero.
        max_m: length of the rays.
        unknown: ``free`` to look through unknown voxels, ``occupied`` to stop at them; ``keep`` stops there without a
        hit.

    Raises:
        ValueError: an origin is not finite, or a direction is not finite or zero.
    """
    way = np.asarray(directions, dtype=np.float64).reshape(-1, 3)
    norm = np.linalg.norm(way, axis=1, keepdims=True)
    start = np.broadcast_to(np.asarray(origins_m, dtype=np.float64), way.shape) / grid.window.voxel_size_m
    if not (np.isfinite(norm).all() and (norm > 0).all() and np.isfinite(start).all()):
        raise ValueError("ray origins and directions must be finite, and no direction zero")
    way = way / norm
    edge = grid.window.voxel_size_m
    cell = cells_of(start)
    entered, hit = np.zeros(len(way)), np.zeros(len(way), dtype=bool)
    sign = np.where(way >= 0, 1, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(way == 0, np.inf, np.abs(1.0 / way))
        ahead = np.where(way == 0, np.inf, (cell + (sign > 0) - start) / way)
    going = np.arange(len(way))
    while len(going):
        state = _states_at(grid, cell[going])
        stop = (state == VoxelState.OCCUPIED) | ((state == VoxelState.UNKNOWN) & (unknown != "free"))
        hit[going] = stop & ((state == VoxelState.OCCUPIED) | (unknown == "occupied"))
        axis = np.argmin(ahead[going], axis=1)
        beyond = ahead[going, axis] >= max_m / edge
        entered[going[beyond & ~stop]] = max_m / edge
        keep = ~stop & ~beyond
        going, axis = going[keep], axis[keep]
        entered[going] = ahead[going, axis]
        cell[going, axis] += sign[going, axis]
        ahead[going, axis] += step[going, axis]
    return RayHits(hit, (entered * edge).astype(np.float32), cell)


def crop(view: MapView, low_m: npt.ArrayLike, high_m: npt.ArrayLike) -> MapView:
    """The part of a view whose voxels overlap a box given by its corners in the map frame, as a view of its own.

    Raises:
        ValueError: corners not finite or not in order, or the box misses the window.
    """
    low, high = np.asarray(low_m, dtype=np.float64), np.asarray(high_m, dtype=np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"box is {low.tolist()} to {high.tolist()} m, expected finite corners, the lower first")
    window = view.window
    first = np.maximum(window.index_of(low), 0)
    last = np.minimum(np.ceil(high / window.voxel_size_m - 1e-9).astype(np.int64) - window.origin, window.shape)
    if (first >= last).any():
        raise ValueError(f"box {low.tolist()} to {high.tolist()} m lies outside the map's window")
    part = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    origin = tuple(int(o + a) for o, a in zip(window.origin, first, strict=True))
    size = tuple(int(n) for n in last - first)
    inner = LatticeWindow(window.voxel_size_m, (origin[0], origin[1], origin[2]), (size[0], size[1], size[2]))
    arrays = (view.state[part].copy(), view.probability[part].copy(), view.classes[part].copy())
    return MapView(view.stamp_ns, view.frame_id, inner, view.T_map_base, *arrays)


def occupied_box(view: MapView) -> tuple[FloatArray, FloatArray] | None:
    """Lowest and highest corner (3,) in metres of the box around all occupied voxels, or None without any."""
    cells = np.argwhere(view.state == VoxelState.OCCUPIED)
    if not len(cells):
        return None
    edge, origin = view.window.voxel_size_m, np.asarray(view.window.origin)
    return (cells.min(axis=0) + origin) * edge, (cells.max(axis=0) + origin + 1) * edge


def _states_at(grid: VoxelStorage, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    probability, known = _probability_at(grid, cells)
    return states(probability, known, grid.config)


def _probability_at(grid: VoxelStorage, cells: npt.NDArray[np.int64]) -> tuple[FloatArray, BoolArray]:
    index = torch.from_numpy(cells).to(grid.device)
    inside = grid.contains(index)
    linear = grid.storage_index(torch.where(inside[:, None], index, 0))
    known = inside & (grid.seen_ms.view(-1)[linear] >= 0)
    probability = torch.sigmoid(grid.log_odds.view(-1)[linear])
    return probability.cpu().numpy().astype(np.float64), known.cpu().numpy()


def _interpolate(grid: VoxelStorage, scaled: FloatArray) -> tuple[FloatArray, BoolArray]:
    low = cells_of(scaled)
    fraction = np.clip(scaled - low, 0.0, 1.0)
    total, weights = np.zeros(len(low)), np.zeros(len(low))
    for corner in np.ndindex(2, 2, 2):
        probability, known = _probability_at(grid, low + corner)
        weight = np.where(np.array(corner) == 1, fraction, 1 - fraction).prod(axis=1) * known
        total += weight * probability
        weights += weight
    return total / np.maximum(weights, 1e-12), weights > 1e-9
