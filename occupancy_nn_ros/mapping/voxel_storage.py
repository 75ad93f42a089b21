# SPDX-License-Identifier: Apache-2.0
"""Where the map's numbers lie: tensors in toroidal storage and the window of the lattice that they cover now.

The voxel with lattice index g lives at g modulo the window's size, on each axis, so that moving the window costs only
the voxels that enter.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.map_memory import NEVER, Block, check_memory, overlap
from occupancy_nn_ros.values import LatticeWindow


class VoxelStorage:
    """Occupancy log-odds, class evidence and time last seen of the voxels in a window.

    Attributes:
        config: what the numbers mean: clamps, thresholds, range.
        device: where the tensors are.
        log_odds: (X, Y, Z) float32 storage.
        seen_ms: (X, Y, Z) int32 storage, when a voxel was last observed on the map's clock, ``NEVER`` if not.
        class_evidence: (X, Y, Z, C) int16 storage in steps of ``EVIDENCE_STEP``.
    """

    def __init__(
        self, voxel_size_m: float, shape: tuple[int, int, int], config: MapConfig, device: str, num_classes: int
    ) -> None:
        """Allocate unknown voxels around the lattice's origin.

        Raises:
            ConfigError: more voxels than could be meant, or than fit into the free memory.
        """
        self.config, self.device = config, torch.device(device)
        check_memory(shape, num_classes, self.device)
        # Filled, not only reserved: or every first look at a place would wait for memory from the operating system.
        self.log_odds = torch.full(shape, 0.0, device=self.device)
        self.seen_ms = torch.full(shape, NEVER, dtype=torch.int32, device=self.device)
        self.class_evidence = torch.full((*shape, num_classes), 0, dtype=torch.int16, device=self.device)
        self._window = LatticeWindow(voxel_size_m, (-(shape[0] // 2), -(shape[1] // 2), 0), shape)
        self._anchor_z = 0

    @property
    def window(self) -> LatticeWindow:
        """Where the map lies now."""
        return self._window

    @property
    def anchor(self) -> tuple[int, int, int]:
        """Lattice index that is stored at (0, 0, 0)."""
        return (0, 0, self._anchor_z)

    def storage_index(self, cells: Tensor) -> Tensor:
        """Flat storage index (N,) of lattice cells (N, 3) int64 inside the window."""
        x, y, z = self._window.shape
        columns = cells[:, 0].remainder(x) * y + cells[:, 1].remainder(y)
        return columns * z + (cells[:, 2] - self._anchor_z).remainder(z)

    def contains(self, cells: Tensor) -> Tensor:
        """Which lattice cells (N, 3) lie inside the window, (N,) bool."""
        low = torch.tensor(self._window.origin, device=cells.device)
        high = low + torch.tensor(self._window.shape, device=cells.device)
        return ((cells >= low) & (cells < high)).all(dim=1)

    def overlap(self, other: LatticeWindow) -> Iterator[Block]:
        """Pairs of slices (into the storage, into ``other``) that cover the part of ``other`` inside the window."""
        return overlap(self._window, other, self.anchor)

    def best_classes(self, cells: Tensor) -> Tensor:
        """Class id (N,) int64 with the most evidence at lattice cells (N, 3) int64 inside the window, 0 without any."""
        count = self.class_evidence.shape[-1]
        if not count or not len(cells):
            return torch.zeros(len(cells), dtype=torch.int64, device=cells.device)
        best = self.class_evidence.view(-1, count)[self.storage_index(cells)].max(dim=-1)
        return torch.where(best.values > 0, best.indices + 1, 0)

    def window_tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of log-odds (X, Y, Z), time last seen (X, Y, Z) and class evidence (X, Y, Z, C) in window order."""
        tensors = (self.log_odds, self.seen_ms, self.class_evidence)
        copies = tuple(torch.empty_like(tensor) for tensor in tensors)
        for stored, given in self.overlap(self._window):
            for copy, tensor in zip(copies, tensors, strict=True):
                copy[given] = tensor[stored]
        return copies[0], copies[1], copies[2]

    def clear(self, where: tuple[slice, ...] = ()) -> None:
        """Forget a part of the storage, or everything; the window stays where it is."""
        self.log_odds[where] = 0.0
        self.seen_ms[where] = NEVER
        self.class_evidence[where] = 0
