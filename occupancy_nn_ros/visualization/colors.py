# SPDX-License-Identifier: Apache-2.0
"""Colours of voxels, the same in RViz and in pictures."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import FloatArray, MapPlace, MapView, UInt8Array

ColorBy = Literal["height", "class", "camera"]
"""What the colour of a voxel says."""

CLASS_COLORS = np.array(
    [
        (150, 150, 150),  # no class known
        (168, 143, 110),  # ground
        (120, 140, 170),  # structure
        (230, 160, 60),  # object
        (70, 120, 220),  # vehicle
        (220, 60, 80),  # person
        (90, 170, 80),  # vegetation
    ],
    dtype=np.uint8,
)
HEIGHT_BELOW_M, HEIGHT_ABOVE_M = 0.2, 2.4
"""Height range of the colour scale relative to the robot's base."""

DEPTH_SPAN_M = (0.4, 12.0)
"""Depths from the red to the blue end of the colour scale, logarithmic."""

_TURBO = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]


def class_colors(classes: npt.NDArray[np.integer]) -> UInt8Array:
    """RGB (N, 3) of class ids (N,)."""
    return np.asarray(CLASS_COLORS[np.clip(classes, 0, len(CLASS_COLORS) - 1)], dtype=np.uint8)


def height_colors(z_m: npt.NDArray[np.floating], place: MapPlace) -> UInt8Array:
    """RGB (N, 3) of heights (N,) in the map frame, from blue at the robot's feet to red above its head."""
    base = float(place.T_map_base[2, 3])
    fraction = (z_m - base + HEIGHT_BELOW_M) / (HEIGHT_BELOW_M + HEIGHT_ABOVE_M)
    index = (np.clip(fraction, 0, 1) * 225 + 15).astype(np.uint8)
    return np.asarray(_TURBO[index], dtype=np.uint8)


def voxel_colors(view: MapView, cells: npt.NDArray[np.int64], color_by: ColorBy) -> UInt8Array:
    """RGB (N, 3) of the voxels at window indices (N, 3)."""
    at = tuple(cells.T)
    return listed_colors(view, color_by, cells, (view.classes[at], None if view.colors is None else view.colors[at]))


def listed_colors(
    place: MapPlace, color_by: ColorBy, cells: npt.NDArray[np.int64], known: tuple[UInt8Array, UInt8Array | None]
) -> UInt8Array:
    """The same from what is known of these voxels: classes (N,), and colours (N, 3); by height where the map keeps none."""
    classes, seen = known
    if color_by == "camera" and seen is not None:
        return np.asarray(seen, dtype=np.uint8)
    if color_by == "class":
        return class_colors(classes)
    return height_colors((cells[:, 2] + place.window.origin[2] + 0.5) * place.window.voxel_size_m, place)


def surface_colors(view: MapView, vertices_m: FloatArray, color_by: ColorBy) -> UInt8Array:
    """RGB (V, 3) of the vertices (V, 3) of a surface in the map frame: each has that of the occupied voxel that it bounds."""
    if color_by == "height":
        return height_colors(vertices_m[:, 2], view)
    # A vertex lies on a line between the centres of two voxels, of which the more probable one is occupied.
    at = vertices_m / view.window.voxel_size_m - view.window.origin - 0.5
    ends = [
        np.clip(end.astype(np.int64), 0, np.array(view.state.shape) - 1)
        for end in (np.floor(at + 1e-6), np.ceil(at - 1e-6))
    ]
    likely = [view.probability[tuple(end.T)] for end in ends]
    return voxel_colors(view, np.where((likely[1] > likely[0])[:, None], ends[1], ends[0]), color_by)


def depth_colors(depth_m: npt.NDArray[np.floating]) -> UInt8Array:
    """RGB (..., 3) of depths (...), from red (near) to blue (far); 0 is as far as can be, NaN is black."""
    low, high = np.log(DEPTH_SPAN_M)
    far = np.where(depth_m > 0, depth_m, DEPTH_SPAN_M[1])
    fraction = np.clip((np.log(np.maximum(far, 1e-3)) - low) / (high - low), 0, 1)
    colors = _TURBO[255 - (fraction * 255).astype(np.uint8)]
    return np.where(np.isnan(depth_m)[..., None], 0, colors).astype(np.uint8)
