# SPDX-License-Identifier: Apache-2.0
"""What stands where the map is sure that nothing does: who walks into free space is marked before evidence has outweighed all of it.

A map of a still world, as log-odds are, takes a second and more to believe that a place which it saw free a hundred times is not. That
doubt is right beside walls and furniture, into which predictions reach a little with each look, and wrong amid free space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.mapping.ray_update import CREDIT_MS
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import FloatArray, LatticeWindow, Prediction

LEAST_LOG_ODDS = -1.0
"""What is less likely than about a quarter is not called occupied. A network that has seen somebody in two pictures says no more."""

NEAR_M = 3.0
"""Only this far from the robot along x and y: what a network says from further away is worth little."""

AMID_M = 0.4
"""So far around, along x and y, everything must be free: with 0.2 m twice as many cells more are marked wrongly."""

DOUBT_S = 0.12
"""Time constant with which free space that is called occupied decays; half of it marks hardly sooner, and more wrongly."""


def doubt_free_space(grid: VoxelStorage, prediction: Prediction, base_m: FloatArray, now_ms: int) -> None:
    """Let voxels decay that the map calls free, as their surroundings, and a prediction calls occupied; before it is added.

    Args:
        grid: the map; its log-odds are changed in place.
        prediction: the network's answer.
        base_m: (3,) the robot's place in the map frame.
        now_ms: time of the prediction on the map's clock.
    """
    part = _near(prediction.window, base_m)
    if part is None:
        return
    logit, weight = (values[part].to(grid.device, torch.float32) for values in (prediction.logit, prediction.weight))
    is_said = (logit > LEAST_LOG_ODDS) & (weight > 0) & torch.isfinite(logit * weight)
    if grid.device.type == "cpu" and not bool(is_said.any()):
        return
    (i, j, k), (x, y, z) = prediction.window.origin, logit.shape
    window = LatticeWindow(grid.window.voxel_size_m, (i + part[0].start, j + part[1].start, k), (x, y, z))
    doubt = torch.where(is_said & _is_amid_free(grid, window), weight * torch.sigmoid(logit) / (DOUBT_S * 1000), 0.0)
    for stored, given in grid.overlap(window):
        values, age_ms = grid.log_odds[stored], (now_ms - grid.seen_ms[stored]).clamp(0, CREDIT_MS)
        grid.log_odds[stored] = values / torch.exp(doubt[given] * age_ms)


def _near(window: LatticeWindow, base_m: FloatArray) -> tuple[slice, slice, slice] | None:
    """The part of a window around the robot, None where there is none."""
    low, high = (np.floor((base_m[:2] + reach) / window.voxel_size_m).astype(np.int64) for reach in (-NEAR_M, NEAR_M))
    origin, shape = np.array(window.origin[:2]), np.array(window.shape[:2])
    first, last = np.maximum(low - origin, 0), np.minimum(high + 1 - origin, shape)
    if (last <= first).any() or not window.shape[2]:
        return None
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])), slice(0, window.shape[2])


def _is_amid_free(grid: VoxelStorage, window: LatticeWindow) -> Tensor:
    """Voxels (X, Y, Z) of a window around which all is free in their layer; what lies outside of the map is not."""
    reach = max(1, round(AMID_M / window.voxel_size_m))
    (i, j, k), (x, y, z) = window.origin, window.shape
    around = LatticeWindow(window.voxel_size_m, (i - reach, j - reach, k), (x + 2 * reach, y + 2 * reach, z))
    values = torch.zeros(around.shape, dtype=torch.float32, device=grid.device)
    for stored, given in grid.overlap(around):
        values[given] = grid.log_odds[stored]
    blocked = (values >= 0).to(torch.int16)
    for axis, size in ((0, x), (1, y)):  # sums over 2 * reach + 1 voxels, as differences of running sums
        sums = torch.cat([torch.zeros_like(blocked.narrow(axis, 0, 1)), blocked.cumsum(axis, dtype=torch.int16)], axis)
        blocked = sums.narrow(axis, 2 * reach + 1, size) - sums.narrow(axis, 0, size)
    return blocked == 0
