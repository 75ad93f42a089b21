# SPDX-License-Identifier: Apache-2.0
"""A 2D grid of costs: what an obstacle is decides how much it costs to pass, and how far to stay away from it."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.slices import LETHAL, band_mask, grid_slice
from occupancy_nn_ros.setting_texts import class_values
from occupancy_nn_ros.values import SEMANTIC_CLASSES, FloatArray, GridSlice, MapView, UInt8Array, VoxelState


def cost_slice(view: MapView, grid: GridConfig, base: GridSlice) -> GridSlice:
    """Costs from 0 (free) to 100 (lethal), -1 where nothing is known.

    A cell costs as much as the dearest class of its occupied voxels in the band (``grid.class_costs``, 100 where none is given);
    the cells within ``grid.class_margins_m`` of a class cost at least as much as it does. Ground that steps too far is lethal.

    Args:
        view: the map.
        grid: costs and margins of classes, and the height band.
        base: the map's :func:`~occupancy_nn_ros.mapping.slices.occupancy_slice` by the same settings.
    """
    costs, margins = class_table(grid.class_costs, float(LETHAL)), class_table(grid.class_margins_m, 0.0)
    occupied = (view.state == VoxelState.OCCUPIED) & band_mask(view, grid)
    by_class = np.where(occupied, costs[_known_class(view.classes)], -1.0).max(axis=2)
    # Lethal without an occupied voxel in the band: the ground steps.
    cost = np.where(base.values == LETHAL, np.where(occupied.any(axis=2), by_class, LETHAL), base.values)
    for index in np.flatnonzero(margins > 0):
        cells = (occupied & (_known_class(view.classes) == index)).any(axis=2)
        if cells.any():
            near = distance_transform_edt(~cells) * base.resolution_m <= margins[index] + 1e-6
            cost = np.where(near, np.maximum(cost, costs[index]), cost)
    return grid_slice(view, np.round(cost).astype(np.int8))


def class_table(entries: str, default: float) -> FloatArray:
    """Value of each class id, 0 (none known) included, from a setting such as ``vegetation=30, object=90``."""
    table = np.full(len(SEMANTIC_CLASSES) + 1, default)
    for name, value in class_values(entries).items():
        table[SEMANTIC_CLASSES.index(name) + 1] = value
    return table


def _known_class(classes: UInt8Array) -> UInt8Array:
    """Class ids with those of a model of other classes as 0."""
    return np.where(classes <= len(SEMANTIC_CLASSES), classes, 0).astype(np.uint8)
