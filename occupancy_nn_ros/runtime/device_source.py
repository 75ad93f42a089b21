# SPDX-License-Identifier: Apache-2.0
"""What topics show of a map on a GPU, cut there and brought to the host in one download."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from occupancy_nn_ros.compute.transfers import download
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.device_slices import (
    band_mask,
    cost_values,
    occupancy_values,
    occupied_voxels,
    probability_values,
)
from occupancy_nn_ros.mapping.device_view import DeviceMap, view_of
from occupancy_nn_ros.mapping.distance_field import distance_field_on_device
from occupancy_nn_ros.mapping.slices import LETHAL, grid_slice
from occupancy_nn_ros.messages.maps import OccupiedVoxels
from occupancy_nn_ros.runtime.map_source import MapSource, Need, marker_band, shown_voxels

FEWEST_VOXELS = 1 << 14
"""Lists of occupied voxels have room for so many at least."""

Arrays = dict[str, npt.NDArray[Any]]


class DeviceCutter:
    """Cuts maps on a GPU.

    Lists of voxels have a fixed length there, twice what was needed last. Where that is too short, which is known once it has been
    brought, a second download follows.

    Attributes:
        left_out: predicted voxels that were left out so far because they were not finite, as of the last download.
    """

    def __init__(self) -> None:
        """Nothing was cut yet."""
        self.left_out = 0
        self._room: dict[Need, int] = {}

    def cut(
        self, map_: DeviceMap, config: Config, needs: Collection[Need], depths: Sequence[DeviceDepth] = ()
    ) -> MapSource:
        """What is needed of a map, on the host; depth images come along.

        Args:
            map_: the map.
            config: how it is shown.
            needs: by the topics that are due.
            depths: images of the same device, brought where they are.
        """
        voxels: list[Need] = [name for name in ("voxels", "voxels_of_markers") if name in needs]
        pieces = self._pieces(map_, config, needs)
        for name in voxels:
            pieces |= self._listed(map_, config, name)
        pieces |= {f"depth {n}": depth.pixels for n, depth in enumerate(depths)}
        arrays = download({"left_out": map_.left_out, **pieces})
        again = [name for name in voxels if not self._fits(name, arrays)]
        if again:
            arrays |= download(
                {key: piece for name in again for key, piece in self._listed(map_, config, name).items()}
            )
        self.left_out = int(arrays["left_out"])
        for n, depth in enumerate(depths):
            depth.bring(arrays[f"depth {n}"])
        return MapSource(map_, config, _ready(map_, config, needs, arrays))

    def _pieces(self, map_: DeviceMap, config: Config, needs: Collection[Need]) -> dict[str, Tensor]:
        pieces: dict[str, Tensor] = {}
        if not {"slice_2d", "distances_m", "costs_2d"}.isdisjoint(needs):
            pieces["slice_2d"] = occupancy_values(map_, config.grid)
        if "distances_m" in needs:
            occupied = pieces["slice_2d"] == LETHAL
            limit_m = config.outputs.max_distance_m
            pieces["distances_m"] = distance_field_on_device(occupied, map_.window.voxel_size_m, limit_m)
        if "costs_2d" in needs:
            pieces["costs_2d"] = cost_values(map_, config.grid, pieces["slice_2d"])
        if "probability_2d" in needs:
            pieces["probability_2d"] = probability_values(map_, config.grid)
        return pieces | (map_.voxels if "view" in needs else {})

    def _listed(self, map_: DeviceMap, config: Config, name: Need) -> dict[str, Tensor]:
        mask = band_mask(map_, marker_band(config)) if name == "voxels_of_markers" else None
        most = min(self._room.get(name, FEWEST_VOXELS), math.prod(map_.window.shape))
        found = occupied_voxels(map_, mask, most)
        if map_.colors is not None and config.outputs.color_by == "camera":
            found["colors"] = map_.colors.view(-1, 3)[found["index"].long()]
        return {f"{name} {key}": piece for key, piece in found.items()}

    def _fits(self, name: Need, arrays: Arrays) -> bool:
        """Whether a list was long enough; makes room for twice as many voxels the next time."""
        count = int(arrays[f"{name} count"])
        self._room[name] = max(FEWEST_VOXELS, 1 << (2 * count - 1).bit_length())
        return count <= len(arrays[f"{name} index"])


def _ready(map_: DeviceMap, config: Config, needs: Collection[Need], arrays: Arrays) -> dict[Need, Any]:
    """What was brought, as attributes of a :class:`MapSource`."""
    ready: dict[Need, Any] = {}
    for name in needs:
        if name == "view":
            ready[name] = view_of(map_, {key: arrays[key] for key in map_.voxels})
        elif name == "distances_m":
            ready[name] = arrays[name]
        elif name in ("voxels", "voxels_of_markers"):
            ready[name] = _voxels(
                map_, config, {key: arrays[f"{name} {key}"] for key in _LISTS if f"{name} {key}" in arrays}
            )
        else:
            ready[name] = grid_slice(map_, arrays[name])
    return ready


_LISTS = ("count", "index", "probability", "classes", "colors")
"""Colours are there only in a map that keeps them."""


def _voxels(map_: DeviceMap, config: Config, lists: Arrays) -> OccupiedVoxels:
    found = {key: values[: int(lists["count"])] for key, values in lists.items() if key != "count"}
    cells = np.stack(np.unravel_index(found["index"].astype(np.int64), map_.window.shape), axis=1)
    return shown_voxels(map_, config, cells, (found["probability"], found["classes"], found.get("colors")))
