# SPDX-License-Identifier: Apache-2.0
"""Settings that leave no map together, though each is in its range."""

from __future__ import annotations

import math

from occupancy_nn_ros.errors import ConfigError

LEAST_VOXELS = 4
"""Along the edge of a map that shows anything."""


def check_window(voxel_size_m: float, size_xy_m: float, height_m: float) -> None:
    """Check that a map's window holds voxels.

    Raises:
        ConfigError: it is hardly larger than one.
    """
    if size_xy_m < LEAST_VOXELS * voxel_size_m or height_m < voxel_size_m:
        raise ConfigError(
            f"voxel_size_m is {voxel_size_m:g}, for a map of {size_xy_m:g} m by {height_m:g} m in height, expected {LEAST_VOXELS} voxels "
            "along its edge at least, and one in height"
        )


def check_band(prefix: str, band_m: tuple[float, float], window_m: tuple[float, float]) -> None:
    """Check that a band of heights lies within the map's window, in part at least.

    Args:
        prefix: of the names of the two settings.
        band_m: the lowest and the highest of it.
        window_m: the same of what the map reaches.

    Raises:
        ConfigError: it does not: nothing would ever be in it.
    """
    if band_m[0] >= window_m[1] or band_m[1] <= window_m[0]:
        raise ConfigError(
            f"{prefix}min_height_m is {band_m[0]:g} and {prefix}max_height_m is {band_m[1]:g}, expected a band within the map, from "
            f"{window_m[0]:g} to {window_m[1]:g} m (map.below_m, map.above_m)"
        )


def check_reachable(name: str, probability: float, limit_name: str, limit: float) -> None:
    """Check that a voxel's clamped log-odds can come to a probability.

    Args:
        name: of the setting of the probability.
        probability: what they have to come to.
        limit_name: of the setting of the clamp.
        limit: where they are clamped, above 0 for what is occupied, below for what is free.

    Raises:
        ConfigError: they cannot: no voxel would ever be occupied, or free.
    """
    needed = math.log(probability / (1 - probability))
    if abs(needed) > abs(limit):
        what = "occupied" if limit > 0 else "free"
        raise ConfigError(
            f"{name} is {probability:g} and {limit_name} is {limit:g}, where a voxel ends at {1 / (1 + math.exp(-limit)):.3g}: nothing "
            f"would ever be {what}, expected {'more than' if limit > 0 else 'less than'} {needed:.3g} there"
        )
