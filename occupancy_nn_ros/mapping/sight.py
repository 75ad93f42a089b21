# SPDX-License-Identifier: Apache-2.0
"""What can have been seen: free space that is joined with where sensors have been, and the surfaces beside it.

A camera sees along free space. Predictions leak through walls all the same, a little from many places, and it adds up: free fans
and pieces of floor where nobody ever looked. Walls that the map knows cut them off.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import label
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.values import VoxelState

ROUNDS = 16
"""On a GPU a way from a sensor may go straight along each axis, to and fro, so many times: far more than rooms ask for."""

BESIDE_M = 0.8
"""Surfaces stay within this distance, along each axis, of free space that can have been seen. Behind it a map holds what the network
believes of the inside of things."""

LEAST_SHARE = 0.5
"""Where less than this share of the free space is joined with the sensors, something hides the way, such as a blind zone around a
camera: nothing is dropped then."""

Int8Array = npt.NDArray[np.int8]
BoolArray = npt.NDArray[np.bool_]


def drop_unseen(state: Int8Array, visited: BoolArray, voxel_size_m: float) -> Int8Array:
    """States (X, Y, Z) of voxels, unknown where no sensor can have seen them.

    Args:
        state: of each voxel, values of :class:`~occupancy_nn_ros.values.VoxelState`.
        visited: (X, Y, Z) the voxels around places where a sensor has been.
        voxel_size_m: their edge.
    """
    free, occupied = state == VoxelState.FREE, state == VoxelState.OCCUPIED
    start = visited & ~occupied
    regions, count = label(free | start)
    joined = np.zeros(count + 1, np.bool_)
    joined[regions[start]] = True
    reached = joined[regions] & free
    if np.count_nonzero(reached) < max(1, LEAST_SHARE * np.count_nonzero(free)):
        return state
    beside = _widened(reached, _beside(voxel_size_m))
    return np.where((free & ~reached) | (occupied & ~beside), np.int8(VoxelState.UNKNOWN), state)


def drop_unseen_on_device(state: Tensor, visited: Tensor, voxel_size_m: float) -> Tensor:
    """The same on a GPU, to the bit where no way is longer than ``ROUNDS``, without waiting for it."""
    free, occupied = state == int(VoxelState.FREE), state == int(VoxelState.OCCUPIED)
    reached = visited & ~occupied
    passable = free | reached
    blocked = [_last_along(~passable, axis, flip) for axis in range(3) for flip in (False, True)]
    for _ in range(ROUNDS):
        for number, last in enumerate(blocked):
            reached = _last_along(reached, number // 2, bool(number % 2)) > last
    reached = reached & free
    n = _beside(voxel_size_m)
    wide = functional.max_pool3d(reached[None].float(), 2 * n + 1, stride=1, padding=n)[0] > 0
    drop = (free & ~reached) | (occupied & ~wide)
    enough = reached.sum() >= (LEAST_SHARE * free.sum()).clamp(min=1)
    return torch.where(drop & enough, int(VoxelState.UNKNOWN), state).to(torch.int8)


def _beside(voxel_size_m: float) -> int:
    """``BESIDE_M`` in voxels."""
    return math.ceil(BESIDE_M / voxel_size_m - 1e-9)


def _last_along(mask: Tensor, axis: int, flip: bool) -> Tensor:
    """How far along an axis, or against it, the last voxel of a mask so far is, -1 before the first; int32."""
    count = mask.shape[axis]
    steps = torch.arange(count, dtype=torch.int32, device=mask.device).view([-1 if a == axis else 1 for a in range(3)])
    ordered = mask.flip(axis) if flip else mask
    last = torch.where(ordered, steps, -1).cummax(dim=axis).values
    return last.flip(axis) if flip else last


def _widened(mask: BoolArray, voxels: int) -> BoolArray:
    """A mask and all that lies so many voxels away along each axis, at most."""
    wide = mask
    for axis in range(3):
        reach = 0
        while reach < voxels:
            step = min(reach + 1, voxels - reach)
            ahead, behind = _shifted(axis, slice(step, None)), _shifted(axis, slice(None, -step))
            wider = wide.copy()
            wider[ahead] |= wide[behind]
            wider[behind] |= wide[ahead]
            wide, reach = wider, reach + step
    return wide


def _shifted(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)
