# SPDX-License-Identifier: Apache-2.0
"""Grids and voxel lists cut from a map on a GPU: the twin of ``slices``, to the bit, without a wait."""

from __future__ import annotations

import torch
from torch import Tensor

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.device_terrain import drop_offs, ground_height, steps_up
from occupancy_nn_ros.mapping.device_view import DeviceMap
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
