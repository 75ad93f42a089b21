# SPDX-License-Identifier: Apache-2.0
"""Colours of voxels, the same in RViz and in pictures."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import MapPlace, UInt8Array

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


def depth_colors(depth_m: npt.NDArray[np.floating]) -> UInt8Array:
    """RGB (..., 3) of depths (...), from red (near) to blue (far); 0 is as far as can be, NaN is black."""
    low, high = np.log(DEPTH_SPAN_M)
    far = np.where(depth_m > 0, depth_m, DEPTH_SPAN_M[1])
    fraction = np.clip((np.log(np.maximum(far, 1e-3)) - low) / (high - low), 0, 1)
    colors = _TURBO[255 - (fraction * 255).astype(np.uint8)]
    return np.where(np.isnan(depth_m)[..., None], 0, colors).astype(np.uint8)
