# SPDX-License-Identifier: Apache-2.0
"""Ray integration in plain torch: the readable twin of ``ray_kernels``, and what runs where these are not compiled.

Every step follows the compiled one in the order of its arithmetic, so that both change the same voxels by the same
amounts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.mapping.ray_kernels import INSIDE
from occupancy_nn_ros.mapping.ray_update import CREDIT_MS, IN_VIEW_MS, RayRule
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import Float32Array, FloatArray

PLANES_AT_ONCE = 1 << 21

SHORTEST_M = 1e-6
"""A ray that is shorter has no direction."""


def depth_points(depth: Float32Array, tangents: Float32Array, pose: FloatArray) -> tuple[FloatArray, int, int]:
    """Measured pixels as points (N, 3) mapped by ``pose``, how many were measured, and how many are not finite."""
    measured = depth > 0
    z = depth[measured].astype(np.float64)
    x, y = tangents[measured, 0] * z, tangents[measured, 1] * z
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(x + y + z)
    points = np.stack([x[finite], y[finite], z[finite]], axis=1)
    return moved(pose, points), int(measured.sum()), int((~finite).sum())


def moved(pose: FloatArray, points: FloatArray) -> FloatArray:
    """Points (N, 3) mapped by a (4, 4) transform."""
    x, y, z = points.T
    with np.errstate(invalid="ignore"):
        rows = [pose[a, 0] * x + pose[a, 1] * y + pose[a, 2] * z + pose[a, 3] for a in range(3)]
    return np.stack(rows, axis=1)


def usable_rays(origins: FloatArray, ends: FloatArray) -> tuple[npt.NDArray[np.bool_], int, int]:
    """Which rays are finite and have a length, how many are not finite, and how many have none."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(ends - origins).sum(axis=1)
    finite = np.isfinite(distance)
    usable = np.asarray(finite & (distance > SHORTEST_M), dtype=np.bool_)
    return usable, int((~finite).sum()), int((finite & ~usable).sum())


def integrate(
    grid: VoxelStorage, origins: FloatArray, ends: FloatArray, graze_share: float, rule: RayRule
) -> tuple[int, int]:
    """Integrate finite rays from (1, 3) or (N, 3) to (N, 3), in voxels of the window; returns voxels hit and passed."""
    empty = torch.zeros(grid.log_odds.numel(), dtype=torch.bool, device=grid.device)
    marks = {name: empty.clone() for name in ("hit", "pass", "graze")}
    rays, hit = _collect(grid, origins, ends, marks)
    lengths = (planes_of(rays)[1]).cumsum(0)
    start = 0
    while start < len(rays):
        done = int(lengths[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(lengths, done + PLANES_AT_ONCE)))
        _walk(grid, rays[start:stop], hit[start:stop], graze_share, marks)
        start = stop
    passed = marks["pass"] & ~marks["hit"]
    grazed = marks["graze"] & ~marks["hit"] & ~passed
    _apply(grid, (marks["hit"], passed, grazed), rule)
    return int(marks["hit"].sum()), int(passed.sum() + grazed.sum())


def _collect(
    grid: VoxelStorage, origins: FloatArray, ends: FloatArray, marks: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Rays (N, 6) end and start in voxels of the window, cut to range and window, and which of them hit."""
    shape = torch.tensor(grid.window.shape, dtype=torch.float64, device=grid.device)
    end = torch.from_numpy(ends).to(grid.device)
    origin = torch.from_numpy(origins).to(grid.device).expand(len(ends), 3)
    way = end - origin
    length = (way[:, 0] * way[:, 0] + way[:, 1] * way[:, 1] + way[:, 2] * way[:, 2]).sqrt()
    reach = grid.config.max_range_m / grid.window.voxel_size_m
    hit = ((end >= 0) & (end < shape)).all(dim=1) & (length <= reach)
    first, last = clip(origin, way, tuple(float(count) for count in grid.window.shape))
    last = torch.where(length > reach, torch.minimum(last, reach / length), last)
    last = torch.where(hit, 1.0, last)
    keep = first < last
    origin, way, end, hit = origin[keep], way[keep], end[keep], hit[keep]
    stop = torch.minimum((origin + last[keep, None] * way).clamp(min=0.0), shape - INSIDE)
    begin = torch.minimum((origin + first[keep, None] * way).clamp(min=0.0), shape - INSIDE)
    stop = torch.where(hit[:, None], end, stop)
    cell = _storage(grid, stop.floor().long())
    marks["hit"][cell[hit]] = True
    marks["pass"][cell[~hit]] = True
    rays = torch.cat([stop, begin], dim=1)
    if len(origins) == 1:
        once = _first_of(cell * 2 + hit)
        rays, hit = rays[once], hit[once]
    return rays, hit


def _first_of(keys: Tensor) -> Tensor:
    """Positions of the first of each distinct key, in order."""
    distinct, group = torch.unique(keys, return_inverse=True)
    first = torch.full((len(distinct),), len(keys), dtype=torch.int64, device=keys.device)
    first.scatter_reduce_(0, group, torch.arange(len(keys), device=keys.device), "amin")
    return first.sort().values


def clip(origin: Tensor, way: Tensor, shape: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Part of each ray inside the window, as first and last t within 0 and 1; empty if first >= last."""
    first = torch.zeros(len(way), dtype=torch.float64, device=way.device)
    last = torch.ones_like(first)
    for axis in range(3):
        flat = way[:, axis] == 0.0
        outside = flat & ((origin[:, axis] < 0.0) | (origin[:, axis] >= shape[axis]))
        step = torch.where(flat, 1.0, way[:, axis])
        low, high = (0.0 - origin[:, axis]) / step, (shape[axis] - origin[:, axis]) / step
        first = torch.where(flat, first, torch.maximum(first, torch.minimum(low, high)))
        last = torch.where(flat, last, torch.minimum(last, torch.maximum(low, high)))
        first, last = torch.where(outside, 1.0, first), torch.where(outside, 0.0, last)
    return first, last


def planes_of(rays: Tensor) -> tuple[Tensor, Tensor]:
    """Longest axis of each ray and how many voxel planes it crosses along it."""
    extent = (rays[:, 3:] - rays[:, :3]).abs()
    x, y, z = extent.unbind(dim=1)
    lead = torch.where((x >= y) & (x >= z), 0, torch.where(y >= z, 1, 2))
    at, to = pick(rays[:, :3], lead).floor(), pick(rays[:, 3:], lead).floor()
    return lead, (to - at).abs().long()


def pick(values: Tensor, axis: Tensor) -> Tensor:
    """Of each row of (N, 3) the value at its axis, (N,)."""
    return values.gather(1, axis[:, None])[:, 0]


def _walk(grid: VoxelStorage, rays: Tensor, hit: Tensor, graze_share: float, marks: dict[str, Tensor]) -> None:
    """Mark the voxels on both sides of each plane that rays cross along their longest axis."""
    lead, planes = planes_of(rays)
    end, begin = rays[:, :3], rays[:, 3:]
    way = pick(begin, lead) - pick(end, lead)
    at = pick(end, lead).floor()
    before = torch.where(way > 0, at + 1 - pick(end, lead), pick(end, lead) - at)
    slope = (begin - end) / way.abs()[:, None]
    grazed = torch.ceil(graze_share * way.abs() - before).clamp(min=0.0).long()
    grazed = torch.where(hit, torch.minimum(grazed, planes), 0)
    ray = torch.repeat_interleave(torch.arange(len(rays), device=rays.device), planes)
    plane = torch.arange(len(ray), device=rays.device) - (planes.cumsum(0) - planes)[ray]
    steps = plane.double()[:, None]
    cell = ((end + before[:, None] * slope)[ray] + steps * slope[ray]).floor().long()
    near = at[ray].long() + torch.where(way > 0, 1, -1)[ray] * plane
    for offset in (0, 1):
        cell.scatter_(1, lead[ray][:, None], (near + torch.where(way > 0, offset, -offset)[ray])[:, None])
        index = _storage(grid, cell)
        graze = plane < grazed[ray]
        marks["pass"][index[~graze]] = True
        marks["graze"][index[graze]] = True


def _storage(grid: VoxelStorage, cells: Tensor) -> Tensor:
    return grid.storage_index(cells + torch.tensor(grid.window.origin, device=cells.device))


def _apply(grid: VoxelStorage, marks: tuple[Tensor, Tensor, Tensor], rule: RayRule) -> None:
    """Update the marked voxels."""
    hit, passed, grazed = marks
    touched = torch.nonzero(hit | passed | grazed)[:, 0]
    hit, passed = hit[touched], passed[touched]
    value, seen = grid.log_odds.view(-1)[touched], grid.seen_ms.view(-1)[touched]
    grid.log_odds.view(-1)[touched] = changed(value, seen, (hit, passed), rule)
    grid.seen_ms.view(-1)[touched] = seen.clamp(min=rule.now_ms)


def changed(value: Tensor, seen: Tensor, marks: tuple[Tensor, Tensor], rule: RayRule) -> Tensor:
    """Log-odds of voxels after a scan.

    Args:
        value: log-odds before.
        seen: when each was last seen, in milliseconds.
        marks: whether a ray ends there, and whether one passes; where neither, one grazes.
        rule: what a mark does.
    """
    hit, passed = marks
    age = rule.now_ms - seen
    fewer = (value + rule.passed).clamp(min=rule.low)
    t = age.clamp(max=CREDIT_MS).float() * (1.0 / rule.clear_ms)
    left = value / (1.0 + t * (1.0 + t * (0.5 + t * (1 / 6))))
    fading = (value > 0) & (seen >= 0) & (age > 0) & (age <= IN_VIEW_MS)
    fewer = torch.where(fading, torch.minimum(fewer, left), fewer)
    little = torch.minimum(value, value.clamp(min=0.0) + rule.passed)
    little = torch.where(value > rule.surface, value, little)
    more = (value + rule.hit).clamp(max=rule.high)
    return torch.where(hit, more, torch.where(passed, fewer, little))
