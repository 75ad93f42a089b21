# SPDX-License-Identifier: Apache-2.0
"""What a map on a GPU knows, cut there and brought to the host in one download of six bytes a voxel."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import Float32Array, UInt8Array, VoxelState


def download(storage: VoxelStorage) -> tuple[Float32Array, npt.NDArray[np.int8], UInt8Array]:
    """Occupied-probability, state and class of all voxels in window order, (X, Y, Z) each, on the host."""
    shape = storage.window.shape
    count = math.prod(shape)
    content: npt.NDArray[np.uint8] = _packed(storage).cpu().numpy()
    probability = content[: 4 * count].view(np.float32).reshape(shape)
    state, classes = content[4 * count : 5 * count].view(np.int8), content[5 * count :]
    return probability, state.reshape(shape), classes.reshape(shape)


def _packed(storage: VoxelStorage) -> Tensor:
    """The bytes of all three, one after the other."""
    log_odds, seen_ms, evidence = (
        _in_window_order(storage, tensor) for tensor in (storage.log_odds, storage.seen_ms, storage.class_evidence)
    )
    probability, known, config = 1 / (1 + torch.exp(-log_odds)), seen_ms != NEVER, storage.config
    occupied = known & (probability >= config.occupied_probability)
    free = known & (probability <= config.free_probability)
    state = torch.where(occupied, int(VoxelState.OCCUPIED), int(VoxelState.UNKNOWN))
    state = torch.where(free, int(VoxelState.FREE), state).to(torch.int8)
    classes = torch.zeros_like(state, dtype=torch.uint8)
    if evidence.shape[-1]:
        best = evidence.max(dim=-1)
        classes = torch.where(occupied & (best.values > 0), best.indices + 1, 0).to(torch.uint8)
    parts = (probability.contiguous(), state, classes)
    return torch.cat([part.view(torch.uint8).flatten() for part in parts])


def _in_window_order(storage: VoxelStorage, tensor: Tensor) -> Tensor:
    window = storage.window
    starts = zip(window.origin, storage.anchor, window.shape, strict=True)
    return torch.roll(tensor, [-((low - anchor) % size) for low, anchor, size in starts], dims=(0, 1, 2))
