# SPDX-License-Identifier: Apache-2.0
"""Grids and voxel lists cut from a map on a GPU: the twin of ``slices`` and ``costs``, to the bit, without a wait."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.costs import class_table
from occupancy_nn_ros.mapping.device_terrain import drop_offs, ground_height, steps_up
from occupancy_nn_ros.mapping.device_view import DeviceMap
from occupancy_nn_ros.mapping.distance_field import squared_distances_on_device
from occupancy_nn_ros.mapping.slices import FREE, LETHAL, UNKNOWN, band
from occupancy_nn_ros.values import VoxelState


def band_mask(map_: DeviceMap, grid: GridConfig) -> Tensor:
    """As :func:`~occupancy_nn_ros.mapping.slices.band_mask`: (1, 1, Z) above the base or (X, Y, Z) above the ground, bool."""
    device, edge = map_.state.device, map_.window.voxel_size_m
    layers = torch.arange(map_.window.shape[2], dtype=torch.float64, device=device)
    if grid.reference == "base":
        part = band(map_, grid)
        inside: Tensor = (layers >= part.start) & (layers < part.stop)
        return inside[None, None]
    height = (layers + 0.5) * edge + float(map_.window.origin_m[2]) - ground_height(map_)[..., None]
    top = max(grid.max_height_m, grid.min_height_m + edge)
    return (height >= grid.min_height_m - 1e-6) & (height < top - 1e-6)


def occupancy_values(map_: DeviceMap, grid: GridConfig) -> Tensor:
    """Values (X, Y) int8 of :func:`~occupancy_nn_ros.mapping.slices.occupancy_slice`."""
    mask = band_mask(map_, grid)
    needed = mask.sum(dim=2).clamp(max=grid.min_known_voxels)
    free = ((map_.state == int(VoxelState.FREE)) & mask).sum(dim=2)
    occupied = ((map_.state == int(VoxelState.OCCUPIED)) & mask).any(dim=2)
    if grid.max_step_down_m > 0:
        occupied = occupied | drop_offs(map_, grid.max_step_down_m)
    if grid.max_step_up_m > 0:
        occupied = occupied | steps_up(map_, grid.max_step_up_m)
    known = torch.where((free >= needed) & (needed > 0), FREE, UNKNOWN)
    return torch.where(occupied, LETHAL, known).to(torch.int8)


def probability_values(map_: DeviceMap, grid: GridConfig) -> Tensor:
    """Values (X, Y) int8 of :func:`~occupancy_nn_ros.mapping.slices.probability_slice`."""
    layers = band(map_, grid)
    known = map_.state[:, :, layers] != int(VoxelState.UNKNOWN)
    percent = torch.where(known, (map_.probability[:, :, layers] * 100).round(), float(UNKNOWN))
    nothing = torch.full_like(map_.probability[:, :, :1], float(UNKNOWN))
    return torch.cat([nothing, percent], dim=2).amax(dim=2).to(torch.int8)


def cost_values(map_: DeviceMap, grid: GridConfig, base: Tensor) -> Tensor:
    """Values (X, Y) int8 of :func:`~occupancy_nn_ros.mapping.costs.cost_slice`; ``base`` are the :func:`occupancy_values`."""
    costs, margins = class_table(grid.class_costs, float(LETHAL)), class_table(grid.class_margins_m, 0.0)
    occupied = (map_.state == int(VoxelState.OCCUPIED)) & band_mask(map_, grid)
    classes = torch.where(map_.classes < len(costs), map_.classes, 0)
    cells = [(occupied & (classes == index)).any(dim=2) for index in range(len(costs))]
    by_class = torch.full_like(base, -1, dtype=torch.float64)
    for there, cost in zip(cells, costs, strict=True):
        by_class = torch.where(there, by_class.clamp(min=float(cost)), by_class)
    values = torch.where(base == LETHAL, torch.where(occupied.any(dim=2), by_class, float(LETHAL)), base.double())
    for there, cost, margin_m in zip(cells, costs, margins, strict=True):
        if margin_m > 0:
            edge = map_.window.voxel_size_m
            squared = squared_distances_on_device(there, math.ceil(margin_m / edge) + 1)
            near = squared.double().sqrt() * edge <= margin_m + 1e-6
            values = torch.where(near, values.clamp(min=float(cost)), values)
    return values.round().to(torch.int8)


def occupied_voxels(map_: DeviceMap, mask: Tensor | None, most: int) -> dict[str, Tensor]:
    """The occupied voxels in a mask, in the order of their indices, as lists of a fixed length.

    Args:
        map_: the map.
        mask: bool, as :func:`band_mask` gives it; None for all voxels.
        most: length of the lists; of what is more only the count is told.

    Returns:
        ``count`` () int64, and of the voxels ``index`` (most,) int32 into the flat window, ``probability`` and ``classes`` (most,).
        Entries from the count on mean nothing.
    """
    wanted = map_.state == int(VoxelState.OCCUPIED)
    wanted = (wanted if mask is None else wanted & mask).flatten()
    place = wanted.cumsum(dim=0) - 1
    place = torch.where(wanted, place.clamp(max=most), most)
    number = torch.arange(len(wanted), dtype=torch.int32, device=wanted.device)
    index = torch.zeros(most + 1, dtype=torch.int32, device=wanted.device).scatter_(0, place, number)[:most]
    chosen = index.long()
    return {
        "count": wanted.sum(),
        "index": index,
        "probability": map_.probability.flatten()[chosen],
        "classes": map_.classes.flatten()[chosen],
    }
