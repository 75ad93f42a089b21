# SPDX-License-Identifier: Apache-2.0
"""A prediction into a map on a GPU: voxels are gathered, updated and put back, in one piece wherever the window lies."""

from __future__ import annotations

import torch
from torch import Tensor

from occupancy_nn_ros.mapping.dense_kernels import DenseRule
from occupancy_nn_ros.mapping.dense_update import add_class_evidence_reference, add_prediction_reference
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import LatticeWindow


def add_on_device(
    storage: VoxelStorage, window: LatticeWindow, given: tuple[Tensor, Tensor, Tensor | None], rule: DenseRule
) -> Tensor:
    """Add a prediction's log-odds and class evidence where they lie inside the map's window.

    Args:
        storage: the map, changed in place.
        window: the prediction's, on the map's lattice.
        given: its log-odds and weights (X, Y, Z), and class logits (C, X, Y, Z) or None, float32.
        rule: gain, clamps and times.

    Returns:
        Voxels left out because their log-odds or weight was not finite, () int64.

    Raises:
        ValueError: another voxel size.
    """
    if next(iter(storage.overlap(window)), None) is None:
        return torch.zeros((), dtype=torch.int64, device=storage.device)
    low = [max(a, b) for a, b in zip(window.origin, storage.window.origin, strict=True)]
    high = [min(a + n, b + m) for a, n, b, m in zip(window.origin, window.shape, storage.window.origin,
                                                    storage.window.shape, strict=True)]  # fmt: skip
    part = tuple(slice(a - first, b - first) for a, b, first in zip(low, high, window.origin, strict=True))
    logit, weight, classes = given[0][part], given[1][part], given[2]
    index = _storage_index(storage, low, logit.shape)
    log_odds, seen_ms = (tensor.view(-1)[index] for tensor in (storage.log_odds, storage.seen_ms))
    left_out = add_prediction_reference((log_odds, seen_ms), (logit, weight), rule)
    where = index.flatten()
    storage.log_odds.view(-1).index_copy_(0, where, log_odds.flatten())
    storage.seen_ms.view(-1).index_copy_(0, where, seen_ms.flatten())
    if classes is not None and storage.class_evidence.shape[-1]:
        rows = storage.class_evidence.view(-1, storage.class_evidence.shape[-1])
        evidence = rows[index]
        add_class_evidence_reference(evidence, (logit, weight, classes[(slice(None), *part)]), rule.gain)
        rows.index_copy_(0, where, evidence.flatten(end_dim=2))
    return left_out


def _storage_index(storage: VoxelStorage, low: list[int], shape: torch.Size) -> Tensor:
    """Flat storage index (X, Y, Z) of a box of lattice cells inside the window."""
    _, y, z = storage.window.shape
    i, j, k = (
        (torch.arange(count, device=storage.device) + (first - anchor) % size).remainder(size)
        for count, first, anchor, size in zip(shape, low, storage.anchor, storage.window.shape, strict=True)
    )
    return (i[:, None, None] * y + j[:, None]) * z + k
