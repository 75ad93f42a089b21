# SPDX-License-Identifier: Apache-2.0
"""What topics show: a map, of which what several of them need is computed once, and a camera's predicted depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.config import Config, GridConfig
from occupancy_nn_ros.mapping.costs import cost_slice
from occupancy_nn_ros.mapping.distance_field import distance_field
from occupancy_nn_ros.mapping.moving import Movement, MovementTracker
from occupancy_nn_ros.mapping.slices import LETHAL, band_mask, occupancy_slice, probability_slice
from occupancy_nn_ros.mapping.surface_points import Look, surface_points
from occupancy_nn_ros.messages.maps import OccupiedVoxels, occupied_indices
from occupancy_nn_ros.values import Float32Array, FloatArray, GridSlice, MapPlace, MapView, PosedDepth, UInt8Array
from occupancy_nn_ros.visualization.colors import listed_colors

Need = Literal["view", "looks", "slice_2d", "probability_2d", "costs_2d", "distances_m", "voxels", "voxels_of_markers"]
"""An attribute of :class:`MapSource` that a topic shows."""


class MapSource:
    """A map and the settings by which it is shown.

    Attributes:
        place: where and when the map is.
        config: the settings.
        tracker: what was seen before, to tell what moves.
        looks: what its latest keyframe knows of surfaces.
    """

    def __init__(self, place: MapPlace, config: Config, ready: Mapping[Need, Any] | None = None) -> None:
        """Show a view of the map, or what is ``ready`` of a map that stayed where it is."""
        self.place, self.config, self.tracker = place, config, MovementTracker()
        self.looks: tuple[Look, ...] = ()
        self.__dict__.update({str(name): value for name, value in (ready or {}).items()})

    @property
    def stamp_ns(self) -> int:
        """Time of the newest data in the map."""
        return self.place.stamp_ns

    @cached_property
    def view(self) -> MapView:
        """All voxels.

        Raises:
            TypeError: they stayed where they are, since no topic said that it needs them.
        """
        if not isinstance(self.place, MapView):
            raise TypeError("the map's voxels are not on the host: no topic says that it needs them")
        return self.place

    @cached_property
    def movement(self) -> Movement:
        """What is seen to move, and where it was lately."""
        points = surface_points(self.looks, self.config.map.max_range_m)
        return self.tracker.look(self.view, points, self.config.grid, self.config.outputs.moving_s)

    @cached_property
    def slice_2d(self) -> GridSlice:
        """The height band as a cost map."""
        return occupancy_slice(self.view, self.config.grid)

    @cached_property
    def costs_2d(self) -> GridSlice:
        """The height band's costs by class."""
        return cost_slice(self.view, self.config.grid, self.slice_2d)

    @cached_property
    def probability_2d(self) -> GridSlice:
        """The height band's probabilities."""
        return probability_slice(self.view, self.config.grid)

    @cached_property
    def distances_m(self) -> Float32Array:
        """Distance (X, Y) to the nearest lethal cell of the height band."""
        cells = self.slice_2d
        return distance_field(cells.values == LETHAL, cells.resolution_m, self.config.outputs.max_distance_m)

    @cached_property
    def voxels(self) -> OccupiedVoxels:
        """All occupied voxels."""
        return self._voxels_at(occupied_indices(self.view))

    @cached_property
    def voxels_of_markers(self) -> OccupiedVoxels:
        """Occupied voxels between the heights that markers show."""
        cells = occupied_indices(self.view)
        mask = np.broadcast_to(band_mask(self.view, marker_band(self.config)), self.view.state.shape)
        return self._voxels_at(cells[mask[tuple(cells.T)]])

    def _voxels_at(self, cells: npt.NDArray[np.int64]) -> OccupiedVoxels:
        at, view = tuple(cells.T), self.view
        colors = None if view.colors is None else view.colors[at]
        return shown_voxels(self.place, self.config, cells, (view.probability[at], view.classes[at], colors))


@dataclass(frozen=True)
class DepthSource:
    """A predicted depth image, the header frame of its camera, and where a stereo camera stands in it, if that is another one's."""

    depth: PosedDepth
    frame_id: str
    T_frame_camera: FloatArray | None = None

    @property
    def stamp_ns(self) -> int:
        """When the image was taken that the depth belongs to."""
        return self.depth.stamp_ns


def marker_band(config: Config) -> GridConfig:
    """The heights that markers show: floor and ceiling would hide the room between them."""
    outputs = config.outputs
    return replace(config.grid, min_height_m=outputs.markers_min_height_m, max_height_m=outputs.markers_max_height_m)


def shown_voxels(
    place: MapPlace,
    config: Config,
    cells: npt.NDArray[np.int64],
    known: tuple[Float32Array, UInt8Array, UInt8Array | None],
) -> OccupiedVoxels:
    """Voxels at window indices (N, 3), with probabilities and classes (N,), and the colours (N, 3) of cameras where they are kept."""
    points = (cells + place.window.origin + 0.5) * place.window.voxel_size_m
    probability, classes, seen = known
    colors = listed_colors(place, config.outputs.color_by, cells, (classes, seen))
    return OccupiedVoxels(points, probability, classes, colors)
