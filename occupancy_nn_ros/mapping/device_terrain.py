# SPDX-License-Identifier: Apache-2.0
"""The ground under a map on a GPU: the twin of ``terrain``, to the bit, without a wait."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.mapping.device_view import DeviceMap
from occupancy_nn_ros.mapping.terrain import GROUND_MARGIN_M, GROUND_SLOPE, MEDIAN_CELLS, NEIGHBOURS, WIDER
from occupancy_nn_ros.values import VoxelState

CELLS_AT_ONCE = 1 << 23
"""Of distances that are held together."""


def ground_height(map_: DeviceMap) -> Tensor:
    """As :func:`~occupancy_nn_ros.mapping.terrain.ground_height`, (X, Y) float64."""
    heights = seen_ground(map_)
    seen = ~heights.isnan()
    around = _neighbourhood(torch.where(seen.any(), filled(heights, seen), 0.0), (MEDIAN_CELLS, MEDIAN_CELLS))
    return torch.where(seen.any(), around.median(dim=-1).values, float(map_.T_map_base[2, 3]))


def seen_ground(map_: DeviceMap) -> Tensor:
    """As :func:`~occupancy_nn_ros.mapping.terrain.seen_ground`, (X, Y) float64, NaN for none."""
    surface = _lowest(map_, under_free=True).nan_to_num(nan=torch.inf)
    beside = _neighbourhood(surface, NEIGHBOURS).amin(dim=-1)
    return _of_filled(_lowest(map_), torch.where(beside.isinf(), torch.nan, beside), map_)


def _of_filled(lowest_m: Tensor, surface_m: Tensor, map_: DeviceMap) -> Tensor:
    """As ``terrain._of_filled``, (X, Y) float64."""
    return torch.where(surface_m - lowest_m > 1.5 * map_.window.voxel_size_m, surface_m, lowest_m)


def _lowest(map_: DeviceMap, *, under_free: bool = False) -> Tensor:
    """As ``terrain._lowest``, (X, Y) float64, NaN for none."""
    tops, count = _tops(map_), map_.window.shape[2]
    near = (tops - float(map_.T_map_base[2, 3])).abs() <= _reach(map_)[..., None]
    possible = (map_.state == int(VoxelState.OCCUPIED)) & near
    if under_free:
        possible &= functional.pad(map_.state[..., 1:] == int(VoxelState.FREE), (0, 1))
    layers = torch.arange(count, device=tops.device)
    lowest = torch.where(possible, layers, count).amin(dim=2)
    return torch.where(lowest < count, tops[lowest.clamp(max=count - 1)], torch.nan)


def drop_offs(map_: DeviceMap, max_step_down_m: float) -> Tensor:
    """As :func:`~occupancy_nn_ros.mapping.terrain.drop_offs`, (X, Y) bool."""
    ground = _of_filled(_lowest(map_), _lowest(map_, under_free=True), map_).nan_to_num(nan=-torch.inf)
    beside, around = (_neighbourhood(ground, size).amax(dim=-1) for size in (NEIGHBOURS, WIDER))
    ends, is_deep = _open_columns(map_, beside, max_step_down_m)
    further, _ = _open_columns(map_, around, max_step_down_m)
    # Beyond the map nothing is open, as in scipy's erosion; its dilation sees no more there either.
    inside = functional.pad(further, (1, 1, 1, 1)).unfold(0, 3, 1).unfold(1, 3, 1).flatten(start_dim=2).all(dim=-1)
    is_wide = _neighbourhood(inside.double(), WIDER).amax(dim=-1) > 0
    return ends & (is_deep | is_wide)


def _open_columns(map_: DeviceMap, level_m: Tensor, max_step_down_m: float) -> tuple[Tensor, Tensor]:
    """As ``terrain._open_columns``, twice (X, Y) bool."""
    edge, known, tops = map_.window.voxel_size_m, level_m.isfinite(), _tops(map_)
    level = torch.where(known, level_m, 0.0)
    depth = level[..., None] - tops
    occupied, limit = map_.state == int(VoxelState.OCCUPIED), max_step_down_m + 0.5 * edge + 1e-6
    has_surface = (occupied & (depth > -1.5 * edge) & (depth < limit)).any(dim=2)
    at_level = ((map_.state == int(VoxelState.FREE)) & (depth.abs() < 0.5 * edge)).any(dim=2)
    deep = occupied & (depth >= limit)
    is_deep = deep.any(dim=2)
    highest = torch.where(deep, tops, -torch.inf).amax(dim=2)
    below = torch.where(is_deep, highest, level - limit)
    is_under_robot = level + below < 2 * float(map_.T_map_base[2, 3]) + edge
    return known & at_level & ~has_surface & is_under_robot, is_deep


def steps_up(map_: DeviceMap, max_step_up_m: float) -> Tensor:
    """As :func:`~occupancy_nn_ros.mapping.terrain.steps_up`, (X, Y) bool."""
    ground = seen_ground(map_)
    lowest = _neighbourhood(ground.nan_to_num(nan=torch.inf), NEIGHBOURS).amin(dim=-1)
    both = ~ground.isnan() & lowest.isfinite()
    rise = torch.where(both, ground - torch.where(lowest.isfinite(), lowest, 0.0), 0.0)
    return rise >= max_step_up_m + map_.window.voxel_size_m - 1e-6


def filled(values: Tensor, seen: Tensor) -> Tensor:
    """Values (X, Y) with those not seen replaced by the nearest that is; of several the one that scipy's transform finds.

    That is the one of the lowest second index, then of the lowest first. Where none is seen, the values mean nothing.
    """
    (count_x, count_y), device = values.shape, values.device
    row, far = torch.arange(count_x, device=device)[:, None], 4 * (count_x + count_y)
    before = torch.where(seen, row, -far).cummax(dim=0).values
    after = torch.where(seen, row, far).flip(0).cummin(dim=0).values.flip(0)
    near = torch.where(row - before <= after - row, before, after)
    squared, column = (near - row) ** 2, torch.arange(count_y, device=device)
    steps = (column[:, None] - column) ** 2
    rows = max(1, CELLS_AT_ONCE // count_y**2)
    parts = [((part[:, None] + steps) * count_y + column).amin(dim=-1) for part in torch.split(squared, rows)]
    nearest = torch.cat(parts).remainder(count_y)
    return values.flatten()[near.gather(1, nearest).clamp(0, count_x - 1) * count_y + nearest]


def _neighbourhood(values: Tensor, size: tuple[int, int]) -> Tensor:
    """The cells around each of (X, Y), itself included, as (X, Y, N); beyond the edge is what lies at it."""
    x, y = size
    padded = functional.pad(values[None, None], (y // 2, y // 2, x // 2, x // 2), mode="replicate")[0, 0]
    return padded.unfold(0, x, 1).unfold(1, y, 1).flatten(start_dim=2)


def _tops(map_: DeviceMap) -> Tensor:
    """Height of the top of each layer of voxels, (Z,) float64."""
    window = map_.window
    layers = torch.arange(window.shape[2], dtype=torch.float64, device=map_.state.device)
    return float(window.origin_m[2]) + (layers + 1) * window.voxel_size_m


def _reach(map_: DeviceMap) -> Tensor:
    """How far from the base's height the ground of each column may lie, (X, Y) float64."""
    window, device = map_.window, map_.state.device
    x, y = (
        (torch.arange(window.shape[axis], dtype=torch.float64, device=device) + 0.5) * window.voxel_size_m
        + float(window.origin_m[axis])
        - float(map_.T_map_base[axis, 3])
        for axis in (0, 1)
    )
    return GROUND_MARGIN_M + GROUND_SLOPE * torch.hypot(x[:, None], y[None, :])
