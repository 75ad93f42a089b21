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
from occupancy_nn_ros.values import NO_COLOR, LatticeWindow

COLOR_STEPS = 128
"""A stored colour's steps of one grey level: finer than what one look in ``LOOKS`` changes."""


class VoxelStorage:
    """Occupancy log-odds, class evidence and time last seen of the voxels in a window.

    Attributes:
        config: what the numbers mean: clamps, thresholds, range.
        device: where the tensors are.
        log_odds: (X, Y, Z) float32 storage.
        seen_ms: (X, Y, Z) int32 storage, when a voxel was last observed on the map's clock, ``NEVER`` if not.
        class_evidence: (X, Y, Z, C) int16 storage in steps of ``EVIDENCE_STEP``.
        visited: (X, Y, Z) bool storage, whether a sensor has been near, or what is there came from a file or from memory.
        colors: (X, Y, Z, 4) int16 storage, red, green and blue in steps of a 128th and the number of looks; None where colours
            are not kept.
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
        self.visited = torch.full(shape, False, device=self.device)
        self.colors: Tensor | None = None
        self._window = LatticeWindow(voxel_size_m, (-(shape[0] // 2), -(shape[1] // 2), 0), shape)
        self._anchor_z = 0

    def keep_colors(self) -> None:
        """Keep colours from now on; 8 bytes a voxel.

        Raises:
            ConfigError: they do not fit into the free memory.
        """
        if self.colors is None:
            check_memory(self._window.shape, 0, self.device)
            self.colors = torch.full((*self._window.shape, 4), 0, dtype=torch.int16, device=self.device)

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
        return (
            self.in_window_order(self.log_odds),
            self.in_window_order(self.seen_ms),
            self.in_window_order(self.class_evidence),
        )

    def in_window_order(self, tensor: Tensor) -> Tensor:
        """A copy of a storage tensor (X, Y, Z, ...) whose first voxel is the window's lowest."""
        copy = torch.empty_like(tensor)
        for stored, given in self.overlap(self._window):
            copy[given] = tensor[stored]
        return copy

    def best_colors(self, cells: Tensor) -> Tensor:
        """Colours (N, 3) uint8 at lattice cells (N, 3) int64 inside the window, and ``NO_COLOR`` where no camera looked."""
        if self.colors is None or not len(cells):
            return torch.tensor(NO_COLOR, dtype=torch.uint8, device=cells.device).expand(len(cells), 3)
        return levels_of(self.colors.view(-1, 4)[self.storage_index(cells)])

    def clear(self, where: tuple[slice, ...] = ()) -> None:
        """Forget a part of the storage, or everything; the window stays where it is."""
        self.log_odds[where] = 0.0
        self.seen_ms[where] = NEVER
        self.class_evidence[where] = 0
        self.visited[where] = False
        if self.colors is not None:
            self.colors[where] = 0


def levels_of(colors: Tensor) -> Tensor:
    """Stored colours (..., 4) as grey levels (..., 3) uint8, ``NO_COLOR`` where no camera looked."""
    levels = ((colors[..., :3] + COLOR_STEPS // 2) // COLOR_STEPS).to(torch.uint8)
    none = [
        torch.full_like(levels[..., 0], level) for level in NO_COLOR
    ]  # no copy from the host, which a GPU would wait for
    return torch.where(colors[..., 3:] > 0, levels, torch.stack(none, dim=-1))
