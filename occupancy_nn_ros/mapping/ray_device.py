# SPDX-License-Identifier: Apache-2.0
"""Rays of one scan on a GPU: the twin of ``ray_reference`` whose shapes do not depend on the data.

Each ray is walked for as many planes as window and range allow, and what is not to be marked is marked in a voxel behind the last
one. So the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.compute.transfers import upload
from occupancy_nn_ros.mapping import ray_reference
from occupancy_nn_ros.mapping.ray_kernels import INSIDE
from occupancy_nn_ros.mapping.ray_update import RayRule
from occupancy_nn_ros.values import FloatArray

if TYPE_CHECKING:
    from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage

HIT, PASS, GRAZE = 4, 2, 1
"""Marks of a voxel, the one that wins first."""

CELLS_AT_ONCE = 1 << 23

Shift = tuple[int, int, int] | Tensor


class Rays(NamedTuple):
    """Rays of one scan in voxels of the window; rows that are not used hold anything finite.

    Attributes:
        origin, end: (N, 3) float64.
        used: (N,) bool.
        share_origin: whether all begin in one place, so that of those that end in the same voxel one is followed.
        shift: storage index of the window's first voxel by axis, three numbers or a tensor (3,).
    """

    origin: Tensor
    end: Tensor
    used: Tensor
    share_origin: bool
    shift: Shift


def storage_shift(grid: VoxelStorage) -> tuple[int, int, int]:
    """Storage index of the window's first voxel by axis."""
    x, y, z = (
        (low - anchor) % size
        for low, anchor, size in zip(grid.window.origin, grid.anchor, grid.window.shape, strict=True)
    )
    return x, y, z


def integrate_pixels(
    grid: VoxelStorage,
    pixels: tuple[Tensor, Tensor],
    pose: FloatArray | Tensor,
    graze_share: float,
    rule: RayRule,
    shift: Shift | None = None,
) -> Tensor:
    """Integrate a depth image; returns the counts of :class:`~occupancy_nn_ros.mapping.ray_statistics.RayStatistics`.

    Args:
        grid: the map, changed in place.
        pixels: depth (N,) float32 metres, of which what is 0, negative or not finite is left out, and x / z and y / z (N, 2) of the
            pixels' rays.
        pose: (4, 4) from the camera's frame into voxels of the window.
        graze_share: of a ray before its end where it grazes.
        rule: what a mark does.
        shift: as :func:`storage_shift`, which is taken if none is given. Pose, shift and the rule's time may be tensors of the
            device, for work that is recorded.
    """
    z, tangents = pixels[0].double(), pixels[1].double()
    x, y = tangents[:, 0] * z, tangents[:, 1] * z
    end, measured = _moved(pose, x, y, z), z > 0
    used = measured & torch.isfinite(x + y + z)
    origin = torch.stack([torch.zeros_like(z) + pose[a, 3] for a in range(3)], dim=1)
    rays = Rays(origin, end, used, True, storage_shift(grid) if shift is None else shift)
    hits, passes = _carve(grid, rays, graze_share, rule)
    return torch.stack([used.sum(), (measured & ~used).sum(), torch.zeros_like(hits), hits, passes])


def integrate_points(
    grid: VoxelStorage, scan: tuple[FloatArray, Tensor], pose: FloatArray, graze_share: float, rule: RayRule
) -> Tensor:
    """Integrate points; returns counts as :func:`integrate_pixels` does.

    Args:
        grid: the map, changed in place.
        scan: where rays begin, (1, 3) or (N, 3) metres in the map's frame, on the host; where they end, (N, 3) on the device.
        pose: (4, 4) from the frame of the ends into the map's.
        graze_share: of a ray before its end where it grazes.
        rule: what a mark does.
    """
    origins, points = scan
    end = _moved(pose, *points.double().unbind(dim=1))
    if len(origins) == 1:
        origin = torch.stack([torch.full_like(end[:, a], float(origins[0, a])) for a in range(3)], dim=1)
    else:
        origin = upload(np.ascontiguousarray(origins), grid.device)
    x, y, z = (end - origin).abs().unbind(dim=1)
    distance = x + y + z
    finite = torch.isfinite(distance)
    used, edge = finite & (distance > ray_reference.SHORTEST_M), grid.window.voxel_size_m
    placed = _in_window(grid, origin / edge), _in_window(grid, end / edge)
    rays = Rays(*placed, used, len(origins) == 1, storage_shift(grid))
    hits, passes = _carve(grid, rays, graze_share, rule)
    return torch.stack([used.sum(), (~finite).sum(), (finite & ~used).sum(), hits, passes])


def _moved(pose: FloatArray | Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.stack([pose[a, 0] * x + pose[a, 1] * y + pose[a, 2] * z + pose[a, 3] for a in range(3)], dim=1)


def _in_window(grid: VoxelStorage, cells: Tensor) -> Tensor:
    return torch.stack([part - low for part, low in zip(cells.unbind(dim=1), grid.window.origin, strict=True)], dim=1)


def _carve(grid: VoxelStorage, rays: Rays, graze_share: float, rule: RayRule) -> tuple[Tensor, Tensor]:
    """Mark the voxels that rays end in and pass, and update them; returns how many they are."""
    rays = rays._replace(
        origin=torch.where(rays.used[:, None], rays.origin, 0.0), end=torch.where(rays.used[:, None], rays.end, 0.0)
    )
    marks = torch.zeros(grid.log_odds.numel() + 1, dtype=torch.uint8, device=grid.device)
    ends, hit, used = _collect(grid, rays, marks)
    _walk(grid, rays._replace(origin=ends[:, 3:], end=ends[:, :3], used=used), hit & used, graze_share, marks)
    return _apply(grid, marks[:-1], rule)


def _index(grid: VoxelStorage, shift: Shift, cells: Sequence[Tensor]) -> Tensor:
    """Storage index (...) int64 of window cells, given by axis; of those outside of the window any number."""
    x, y, z = grid.window.shape
    i, j, k = ((cells[axis] + shift[axis]).remainder(size) for axis, size in enumerate((x, y, z)))
    return (i.long() * y + j) * z + k


def _mark(marks: Tensor, index: Tensor, value: int) -> None:
    """Mark voxels; a mark that wins is to be set later."""
    marks.scatter_(0, index.flatten(), torch.full_like(index.flatten(), value, dtype=torch.uint8))


def _collect(grid: VoxelStorage, rays: Rays, marks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rays (N, 6) end and start cut to range and window, which of them hit, and which are followed."""
    origin, end, used, share_origin, shift = rays
    size_x, size_y, size_z = (float(count) for count in grid.window.shape)
    limits = (size_x, size_y, size_z)
    way = end - origin
    length = (way[:, 0] * way[:, 0] + way[:, 1] * way[:, 1] + way[:, 2] * way[:, 2]).sqrt()
    reach = grid.config.max_range_m / grid.window.voxel_size_m
    inside = torch.stack([(end[:, a] >= 0) & (end[:, a] < limits[a]) for a in range(3)]).all(dim=0)
    hit = inside & (length <= reach) & used
    shape = torch.stack([torch.full_like(length, limit) for limit in limits], dim=1)
    first, last = ray_reference.clip(origin, way, limits)
    last = torch.where(length > reach, torch.minimum(last, reach / length), last)
    last = torch.where(hit, 1.0, last)
    used = used & (first < last)
    stop = torch.minimum((origin + last[:, None] * way).clamp(min=0.0), shape - INSIDE)
    begin = torch.minimum((origin + first[:, None] * way).clamp(min=0.0), shape - INSIDE)
    stop = torch.where(hit[:, None], end, stop)
    index = _index(grid, shift, torch.where(used[:, None], stop, 0.0).floor().long().unbind(dim=1))
    index = torch.where(used, index, grid.log_odds.numel())
    _mark(marks, torch.where(hit, grid.log_odds.numel(), index), PASS)
    _mark(marks, torch.where(hit, index, grid.log_odds.numel()), HIT)
    cut = torch.cat([stop, begin], dim=1)
    if not share_origin:
        return cut, hit, used
    key = index * 2 + hit
    number = torch.arange(len(key), device=key.device, dtype=torch.int32)
    earliest = torch.full((2 * len(marks),), len(key), dtype=torch.int32, device=key.device)
    earliest.scatter_reduce_(0, key, number, "amin")
    return cut, hit, used & (earliest[key] == number)


def _walk(grid: VoxelStorage, rays: Rays, hit: Tensor, graze_share: float, marks: Tensor) -> None:
    """Mark the voxels on both sides of each plane that rays cross along their longest axis; where rays end stays marked so."""
    end, begin, used = rays.end, rays.origin, rays.used
    lead, planes = ray_reference.planes_of(torch.cat([end, begin], dim=1))
    tip, way = ray_reference.pick(end, lead), ray_reference.pick(begin, lead) - ray_reference.pick(end, lead)
    at = tip.floor()
    before = torch.where(way > 0, at + 1 - tip, tip - at)
    slope = (begin - end) / torch.where(way == 0, 1.0, way.abs())[:, None]
    grazed = torch.ceil(graze_share * way.abs() - before).clamp(min=0.0).long()
    grazed = torch.where(hit, torch.minimum(grazed, planes), 0)
    direction, start = torch.where(way > 0, 1, -1), end + before[:, None] * slope
    passed, last = torch.zeros_like(marks), torch.full_like(marks[:1], grid.log_odds.numel(), dtype=torch.int64)
    only_grazed = torch.zeros_like(marks)
    # A ray of so many voxels' length crosses at most one plane more; one serves for rounding.
    most = min(max(grid.window.shape), int(grid.config.max_range_m / grid.window.voxel_size_m) + 2)
    part = max(1, CELLS_AT_ONCE // max(1, len(end)))
    for low in range(0, most, part):
        plane = torch.arange(low, min(low + part, most), device=end.device)[:, None]
        here, grazes = used & (plane < planes), plane < grazed
        cells = [(start[:, axis] + plane.double() * slope[:, axis]).floor().int() for axis in range(3)]
        near = at.long() + direction * plane
        for offset in (0, 1):
            along = (near + torch.where(way > 0, offset, -offset)).int()
            index = _index(
                grid, rays.shift, [torch.where(lead == axis, along, cell) for axis, cell in enumerate(cells)]
            )
            _mark(passed, torch.where(here & ~grazes, index, last), 1)
            _mark(only_grazed, torch.where(here & grazes, index, last), 1)
    marks.copy_(torch.where((marks == 0) & (passed > 0), PASS, marks))
    marks.copy_(torch.where((marks == 0) & (only_grazed > 0), GRAZE, marks))


def _apply(grid: VoxelStorage, marks: Tensor, rule: RayRule) -> tuple[Tensor, Tensor]:
    """Update the marked voxels; returns how many were hit and passed."""
    marks = marks.view(grid.log_odds.shape)
    hit, passed, marked = marks == HIT, marks == PASS, marks > 0
    value, seen = grid.log_odds, grid.seen_ms
    changed = ray_reference.changed(value, seen, (hit, passed), rule)
    grid.log_odds.copy_(torch.where(marked, changed, value))
    grid.seen_ms.copy_(torch.where(marked, seen.clamp(min=rule.now_ms), seen))
    hits = hit.sum()
    return hits, marked.sum() - hits
