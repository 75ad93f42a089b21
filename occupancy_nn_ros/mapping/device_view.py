# SPDX-License-Identifier: Apache-2.0
"""What a map on a GPU knows, in window order: cut further there, or brought to the host in one download of six bytes a voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.compute.transfers import download
from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.values import FloatArray, MapPlace, MapView, VoxelState

if TYPE_CHECKING:
    from occupancy_nn_ros.mapping.rolling_map import RollingMap


@dataclass(frozen=True)
class DeviceMap(MapPlace):
    """The twin of a :class:`~occupancy_nn_ros.values.MapView` on the map's device.

    Attributes:
        state, probability, classes: as there; they change with the map.
        left_out: predicted voxels left out so far because they were not finite, () int64.
    """

    state: Tensor
    probability: Tensor
    classes: Tensor
    left_out: Tensor

    @property
    def voxels(self) -> dict[str, Tensor]:
        """What :func:`view_of` makes a view of."""
        return {"state": self.state, "probability": self.probability, "classes": self.classes}

    def view(self) -> MapView:
        """A copy on the host, which waits for it."""
        return view_of(self, download(self.voxels))


def view_of(place: MapPlace, voxels: dict[str, np.ndarray]) -> MapView:
    """A view of voxels that were brought to the host."""
    return MapView(place.stamp_ns, place.frame_id, place.window, place.T_map_base, **voxels)


def device_map(grid: RollingMap, stamp_ns: int, frame_id: str, T_map_base: FloatArray) -> DeviceMap:
    """Probability, state and class of all voxels of a map on a GPU, without waiting for it."""
    log_odds, seen_ms, evidence = (
        _in_window_order(grid, tensor) for tensor in (grid.log_odds, grid.seen_ms, grid.class_evidence)
    )
    probability, known, config = 1 / (1 + torch.exp(-log_odds)), seen_ms != NEVER, grid.config
    occupied = known & (probability >= config.occupied_probability)
    free = known & (probability <= config.free_probability)
    state = torch.where(occupied, int(VoxelState.OCCUPIED), int(VoxelState.UNKNOWN))
    state = torch.where(free, int(VoxelState.FREE), state).to(torch.int8)
    classes = torch.zeros_like(state, dtype=torch.uint8)
    if evidence.shape[-1]:
        best = evidence.max(dim=-1)
        classes = torch.where(occupied & (best.values > 0), best.indices + 1, 0).to(torch.uint8)
    left_out = grid.left_out
    if not isinstance(left_out, Tensor):
        left_out = torch.full((), left_out, dtype=torch.int64, device=grid.device)
    return DeviceMap(
        stamp_ns, frame_id, grid.window, np.array(T_map_base), state, probability.contiguous(), classes, left_out
    )


def _in_window_order(grid: RollingMap, tensor: Tensor) -> Tensor:
    window = grid.window
    starts = zip(window.origin, grid.anchor, window.shape, strict=True)
    return torch.roll(tensor, [-((low - anchor) % size) for low, anchor, size in starts], dims=(0, 1, 2))
