# SPDX-License-Identifier: Apache-2.0
"""What a map on a GPU knows, in window order: cut further there, or brought to the host in one download of six bytes a voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.compute.transfers import download
from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.mapping.sight import drop_unseen_on_device
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage, levels_of
from occupancy_nn_ros.values import MapPlace, MapView, VoxelState


@dataclass(frozen=True)
class DeviceMap(MapPlace):
    """The twin of a :class:`~occupancy_nn_ros.values.MapView` on the map's device.

    Attributes:
        state, probability: as there.
        find_classes: gives the classes, before the map changes; they are the most to compute, and grids do without.
        left_out: predicted voxels left out so far because they were not finite, () int64.
        find_colors: gives the colours likewise, None where the map keeps none.
    """

    state: Tensor
    probability: Tensor
    find_classes: Callable[[], Tensor]
    left_out: Tensor
    find_colors: Callable[[], Tensor | None] = lambda: None

    @cached_property
    def classes(self) -> Tensor:
        """As in a view."""
        return self.find_classes()

    @cached_property
    def colors(self) -> Tensor | None:
        """As in a view."""
        return self.find_colors()

    @property
    def voxels(self) -> dict[str, Tensor]:
        """What :func:`view_of` makes a view of."""
        found = {"state": self.state, "probability": self.probability, "classes": self.classes}
        return found if self.colors is None else {**found, "colors": self.colors}

    def view(self) -> MapView:
        """A copy on the host, which waits for it."""
        return view_of(self, download(self.voxels))


def view_of(place: MapPlace, voxels: dict[str, npt.NDArray[Any]]) -> MapView:
    """A view of voxels that were brought to the host."""
    return MapView(place.stamp_ns, place.frame_id, place.window, place.T_map_base, **voxels)


def device_map(storage: VoxelStorage, place: MapPlace, left_out: int | Tensor) -> DeviceMap:
    """Probability, state and class of all voxels of a map on a GPU, without waiting for it."""
    log_odds, seen_ms = (_in_window_order(storage, tensor) for tensor in (storage.log_odds, storage.seen_ms))
    probability, known, config = 1 / (1 + torch.exp(-log_odds)), seen_ms != NEVER, storage.config
    occupied = known & (probability >= config.occupied_probability)
    free = known & (probability <= config.free_probability)
    state = torch.where(occupied, int(VoxelState.OCCUPIED), int(VoxelState.UNKNOWN))
    state = torch.where(free, int(VoxelState.FREE), state).to(torch.int8)
    if config.drop_unseen:
        visited = _in_window_order(storage, storage.visited)
        state = drop_unseen_on_device(state, visited, storage.window.voxel_size_m)
        occupied = state == int(VoxelState.OCCUPIED)
    if not isinstance(left_out, Tensor):
        left_out = torch.full((), left_out, dtype=torch.int64, device=storage.device)
    where = place.stamp_ns, place.frame_id, place.window, place.T_map_base
    finders = partial(_classes, storage, occupied), partial(_colors, storage, occupied)
    return DeviceMap(*where, state, probability.contiguous(), finders[0], left_out, finders[1])


def _classes(storage: VoxelStorage, occupied: Tensor) -> Tensor:
    """Classes (X, Y, Z) uint8 of the occupied voxels, in window order."""
    if not storage.class_evidence.shape[-1]:
        return torch.zeros_like(occupied, dtype=torch.uint8)
    best = storage.class_evidence.max(dim=-1)
    classes = torch.where(best.values > 0, best.indices + 1, 0).to(torch.uint8)
    return torch.where(occupied, _in_window_order(storage, classes), 0)


def _colors(storage: VoxelStorage, occupied: Tensor) -> Tensor | None:
    """Colours (X, Y, Z, 3) uint8 of the occupied voxels, in window order, black elsewhere; None where none are kept."""
    if storage.colors is None:
        return None
    return torch.where(occupied[..., None], _in_window_order(storage, levels_of(storage.colors)), 0)


def _in_window_order(storage: VoxelStorage, tensor: Tensor) -> Tensor:
    window = storage.window
    starts = zip(window.origin, storage.anchor, window.shape, strict=True)
    return torch.roll(tensor, [-((low - anchor) % size) for low, anchor, size in starts], dims=(0, 1, 2))
