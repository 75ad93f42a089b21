# SPDX-License-Identifier: Apache-2.0
"""Depth images and LiDAR sweeps into the map: rays carve free space, their ends mark hits, and a hit wins over passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.geometry.cameras import project, unproject
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.types import FloatArray, PosedCloud, PosedDepth

RAYS_AT_ONCE = 16384


@dataclass(frozen=True)
class RayStatistics:
    """What became of the rays: used, not finite, of no length, and voxels hit and passed."""

    used: int
    not_finite: int
    too_short: int
    hits: int
    passes: int


def integrate_depth(grid: RollingMap, depth: PosedDepth) -> RayStatistics:
    """Integrate a depth image.

    Hits come from every measured pixel. Passes are found the other way round: each voxel of the window is projected into the
    image and is free if the surface there lies clearly behind it, which visits no voxel twice.
    """
    edge, reach = grid.window.voxel_size_m, grid.config.max_range_m
    v, u = np.nonzero(np.isfinite(depth.depth_m) & (depth.depth_m > 0))
    z = depth.depth_m[v, u].astype(np.float64)
    tangents = unproject(depth.model, np.stack([u, v], axis=1))
    points = np.concatenate([tangents * z[:, None], z[:, None]], axis=1)
    distance = np.linalg.norm(points, axis=1)
    valid = np.isfinite(distance)
    near = valid & (distance <= reach)
    surface = points[near] @ depth.T_map_cam[:3, :3].T + depth.T_map_cam[:3, 3]
    hits = _unique_cells(grid, _cells(surface, edge))
    passes = _looked_through(grid, depth)
    passes[hits] = False
    passed = torch.nonzero(passes)[:, 0]
    grid.add_evidence(passed, grid.config.pass_log_odds, depth.stamp_ns)
    grid.add_evidence(hits, grid.config.hit_log_odds, depth.stamp_ns)
    return RayStatistics(int(near.sum()), int((~valid).sum()), 0, len(hits), len(passed))


def integrate_cloud(grid: RollingMap, cloud: PosedCloud) -> RayStatistics:
    """Integrate a LiDAR sweep seen from one place."""
    ends = cloud.points_m.astype(np.float64) @ cloud.T_map_sensor[:3, :3].T + cloud.T_map_sensor[:3, 3]
    return integrate_rays(grid, cloud.T_map_sensor[:3, 3], ends, cloud.stamp_ns)


def integrate_rays(grid: RollingMap, origins_m: npt.ArrayLike, ends_m: npt.ArrayLike, stamp_ns: int) -> RayStatistics:
    """Integrate rays of one scan.

    Args:
        grid: the map, changed in place.
        origins_m: (3,) or (N, 3) in the map frame.
        ends_m: (N, 3); a ray longer than ``max_range_m`` carves up to there and marks no hit.
        stamp_ns: time of the scan.
    """
    ends = np.asarray(ends_m, dtype=np.float64).reshape(-1, 3)
    origins = np.broadcast_to(np.asarray(origins_m, dtype=np.float64), ends.shape)
    finite = np.isfinite(ends).all(axis=1) & np.isfinite(origins).all(axis=1)
    length = np.linalg.norm(np.where(finite[:, None], ends - origins, 0), axis=1)
    use = finite & (length > 1e-6)
    origins, ends, length = origins[use], ends[use], length[use]
    edge, reach = grid.window.voxel_size_m, grid.config.max_range_m
    hits = _unique_cells(grid, _cells(ends[length <= reach], edge))
    passes = torch.zeros(grid.log_odds.numel(), dtype=torch.bool, device=grid.device)
    for start in range(0, len(ends), RAYS_AT_ONCE):
        part = slice(start, start + RAYS_AT_ONCE)
        _mark_passed(grid, passes, origins[part], ends[part], np.minimum(length[part], reach) / length[part])
    passes[hits] = False
    passed = torch.nonzero(passes)[:, 0]
    grid.add_evidence(passed, grid.config.pass_log_odds, stamp_ns)
    grid.add_evidence(hits, grid.config.hit_log_odds, stamp_ns)
    return RayStatistics(int(use.sum()), int((~finite).sum()), int((finite & ~use).sum()), len(hits), len(passed))


def _cells(points: FloatArray, edge: float) -> Tensor:
    return torch.from_numpy(np.floor(points / edge).astype(np.int64))


def _unique_cells(grid: RollingMap, cells: Tensor) -> Tensor:
    """Storage indices of the distinct cells inside the window."""
    cells = cells.to(grid.device)
    return torch.unique(grid.storage_index(cells[grid.contains(cells)]))


def _mark_passed(grid: RollingMap, passes: Tensor, origins: FloatArray, ends: FloatArray, fraction: FloatArray) -> None:
    """Mark the voxels along rays at half-voxel steps, leaving out the last voxel of each."""
    edge = grid.window.voxel_size_m
    start = torch.from_numpy(np.ascontiguousarray(origins)).to(grid.device)
    way = torch.from_numpy((ends - origins) * fraction[:, None]).to(grid.device)
    length = way.norm(dim=1)
    last = torch.floor((start + way) / edge).long()
    steps = torch.ceil(length / (edge / 2)).long()
    order = torch.argsort(steps)
    start, way, last, steps = start[order], way[order], last[order], steps[order]
    for step in range(int(steps[-1]) if len(steps) else 0):
        first = int(torch.searchsorted(steps, step, right=True))
        at = start[first:] + way[first:] * (step / steps[first:])[:, None]
        cells = torch.floor(at / edge).long()
        keep = grid.contains(cells) & (cells != last[first:]).any(dim=1)
        passes[grid.storage_index(cells[keep])] = True


def _looked_through(grid: RollingMap, depth: PosedDepth) -> Tensor:
    """Which voxels, by storage index, lie clearly in front of the surface that the image shows behind them."""
    window, reach = grid.window, grid.config.max_range_m
    camera = depth.T_map_cam[:3, 3]
    low = np.maximum(np.floor((camera - reach) / window.voxel_size_m).astype(int), window.origin)
    high = np.minimum(np.ceil((camera + reach) / window.voxel_size_m).astype(int), np.add(window.origin, window.shape))
    passes = torch.zeros(grid.log_odds.numel(), dtype=torch.bool, device=grid.device)
    if (high <= low).any():
        return passes
    axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    local = ((cells + 0.5) * window.voxel_size_m - camera) @ depth.T_map_cam[:3, :3]
    front = np.flatnonzero((local[:, 2] > 0.05) & (np.einsum("ij,ij->i", local, local) < reach * reach))
    pixels, inside = project(depth.model, local[front])
    front, pixels = front[inside], np.round(pixels[inside]).astype(int)
    h, w = depth.depth_m.shape
    measured = depth.depth_m[pixels[:, 1].clip(0, h - 1), pixels[:, 0].clip(0, w - 1)]
    free = front[np.isfinite(measured) & (measured > local[front, 2] + 0.87 * window.voxel_size_m)]
    passes[grid.storage_index(torch.from_numpy(cells[free]).to(grid.device))] = True
    return passes
