# SPDX-License-Identifier: Apache-2.0
"""The rolling voxel map: fixed memory, however far the robot drives. The only mutable map in the package.

Storage is toroidal: the voxel with lattice index g lives at g modulo the window's size, on each axis, so that moving the window
costs only the voxels that enter. Log-odds fusion follows Moravec and Elfes (1985), with clamps as in OctoMap (Hornung et al. 2013).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.config import Config, MapConfig
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.types import (
    SEMANTIC_CLASSES,
    Float32Array,
    FloatArray,
    LatticeWindow,
    MapView,
    Prediction,
    VoxelState,
)

NEVER = -1
"""Value of ``last seen`` for a voxel that was never observed, or was forgotten."""

MAX_VOXELS = 1 << 30
EVIDENCE_LIMIT = 60.0
Block = tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]


class RollingMap:
    """Occupancy log-odds, class evidence and time last seen of the voxels in a window that follows the robot.

    Not thread-safe: one worker owns it; others get copies by :meth:`view`.
    """

    def __init__(
        self, voxel_size_m: float, shape: tuple[int, int, int], config: MapConfig, *, device: str = "cpu",
        num_classes: int = len(SEMANTIC_CLASSES),
    ) -> None:  # fmt: skip
        """Allocate a map of unknown voxels.

        Raises:
            ConfigError: more voxels than could be meant.
        """
        cells = int(np.prod(shape, dtype=object))
        if min(shape) < 1 or cells > MAX_VOXELS:
            raise ConfigError(f"map window of {shape} has {cells} voxels, expected 1 to {MAX_VOXELS}")
        self.config, self.device = config, torch.device(device)
        self.log_odds = torch.zeros(shape, device=self.device)
        self.seen_ms = torch.full(shape, NEVER, dtype=torch.int32, device=self.device)
        self.class_evidence = torch.zeros((num_classes, *shape), dtype=torch.float16, device=self.device)
        self._window = LatticeWindow(voxel_size_m, (-(shape[0] // 2), -(shape[1] // 2), 0), shape)
        self._epoch_ns: int | None = None
        self._forgotten_ms: int | None = None

    @classmethod
    def from_config(cls, config: Config, device: str = "cpu") -> RollingMap:
        """A map with the configured voxel size and window."""
        edge = config.voxel_size_m
        side = max(1, round(config.map.size_xy_m / edge))
        height = max(1, round((config.map.below_m + config.map.above_m) / edge))
        return cls(edge, (side, side, height), config.map, device=device)

    @property
    def window(self) -> LatticeWindow:
        """Where the map lies now."""
        return self._window

    def move_to(self, T_map_base: FloatArray) -> None:
        """Center the window on the robot in x and y, with its floor ``below_m`` under the base; clears what enters."""
        edge, shape = self._window.voxel_size_m, self._window.shape
        base = np.floor(np.asarray(T_map_base[:3, 3]) / edge).astype(int)
        below = round(self.config.below_m / edge)
        self.move_origin((int(base[0]) - shape[0] // 2, int(base[1]) - shape[1] // 2, int(base[2]) - below))

    def move_origin(self, origin: tuple[int, int, int]) -> None:
        """Put the window's lowest voxel at a lattice index; voxels that stay inside keep their values."""
        old, shape = self._window.origin, self._window.shape
        for axis in range(3):
            shift = origin[axis] - old[axis]
            if shift == 0:
                continue
            count = min(abs(shift), shape[axis])
            start = origin[axis] + shape[axis] - count if shift > 0 else origin[axis]
            for span in _spans(start, count, shape[axis]):
                where = (slice(None),) * axis + (span[0],)
                self._clear(where)
        self._window = LatticeWindow(self._window.voxel_size_m, origin, shape)

    def integrate(self, prediction: Prediction, stamp_ns: int, gain: float = 1.0) -> None:
        """Add a prediction's weighted log-odds where its weight is positive; voxels outside the window are left out."""
        time_ms = self._time_ms(stamp_ns)
        low, high = self.config.log_odds_min, self.config.log_odds_max
        for stored, given in self._overlap(prediction.window):
            weight = prediction.weight[given].to(self.device)
            change = prediction.logit[given].to(self.device) * weight * gain
            self.log_odds[stored] = (self.log_odds[stored] + change).clamp_(low, high)
            known = weight > 0
            self.seen_ms[stored] = torch.where(known, time_ms, self.seen_ms[stored])
            if prediction.class_logits is not None:
                classes = torch.softmax(prediction.class_logits[(slice(None), *given)].to(self.device), dim=0)
                evidence = self.class_evidence[(slice(None), *stored)]
                evidence += (classes * (weight * torch.sigmoid(change))[None]).half()
                evidence.clamp_(max=EVIDENCE_LIMIT)

    def add_evidence(self, linear: Tensor, change: float, stamp_ns: int) -> None:
        """Add a change of log-odds to voxels given once each by storage index (N,) int64, and mark them as seen."""
        flat = self.log_odds.view(-1)
        flat[linear] = (flat[linear] + change).clamp_(self.config.log_odds_min, self.config.log_odds_max)
        self.seen_ms.view(-1)[linear] = self._time_ms(stamp_ns)

    def storage_index(self, cells: Tensor) -> Tensor:
        """Flat storage index (N,) of lattice cells (N, 3) int64 inside the window."""
        x, y, z = self._window.shape
        return (cells[:, 0].remainder(x) * y + cells[:, 1].remainder(y)) * z + cells[:, 2].remainder(z)

    def contains(self, cells: Tensor) -> Tensor:
        """Which lattice cells (N, 3) lie inside the window, (N,) bool."""
        low = torch.tensor(self._window.origin, device=cells.device)
        high = low + torch.tensor(self._window.shape, device=cells.device)
        return ((cells >= low) & (cells < high)).all(dim=1)

    def forget(self, stamp_ns: int) -> None:
        """Let voxels that were not seen again return to unknown, as configured.

        ``linear`` forgets a voxel at once when it is older than ``forget_after_s``; ``exponential`` lets its log-odds decay with
        that time constant and forgets it when they are close to zero.
        """
        model = self.config.forget_model
        if model == "off":
            return
        now = self._time_ms(stamp_ns)
        after_ms = self.config.forget_after_s * 1000
        if model == "linear":
            stale = (self.seen_ms != NEVER) & (now - self.seen_ms > after_ms)
        else:
            elapsed = now - (now if self._forgotten_ms is None else self._forgotten_ms)
            self.log_odds *= float(np.exp(-max(0, elapsed) / after_ms))
            stale = (self.seen_ms != NEVER) & (self.log_odds.abs() < 0.05) & (self.seen_ms < now)
        self._forgotten_ms = now
        self.log_odds.masked_fill_(stale, 0.0)
        self.seen_ms.masked_fill_(stale, NEVER)
        self.class_evidence.masked_fill_(stale[None], 0.0)

    def clear(self) -> None:
        """Forget everything; the window stays where it is."""
        self._clear(())

    def view(self, stamp_ns: int, frame_id: str, T_map_base: FloatArray) -> MapView:
        """A copy in host memory, in window order."""
        shape = self._window.shape
        log_odds = torch.empty(shape)
        seen = torch.empty(shape, dtype=torch.int32)
        classes = torch.empty(shape, dtype=torch.uint8)
        for stored, given in self._overlap(self._window):
            log_odds[given] = self.log_odds[stored].cpu()
            seen[given] = self.seen_ms[stored].cpu()
            evidence = self.class_evidence[(slice(None), *stored)]
            best = evidence.max(dim=0)
            classes[given] = torch.where(best.values > 0, best.indices + 1, 0).to(torch.uint8).cpu()
        probability = torch.sigmoid(log_odds).numpy()
        state = self._states(probability, seen.numpy())
        classes = torch.where(torch.from_numpy(state == VoxelState.OCCUPIED), classes, 0)
        return MapView(stamp_ns, frame_id, self._window, np.array(T_map_base), state, probability, classes.numpy())

    def query(
        self, points_m: npt.ArrayLike, *, mode: Literal["nearest", "trilinear"] = "nearest",
        unknown: Literal["keep", "free", "occupied"] = "keep",
    ) -> tuple[Float32Array, npt.NDArray[np.int8]]:  # fmt: skip
        """Occupied-probability (N,) and state (N,) at map-frame points (N, 3).

        Args:
            points_m: anywhere; what lies outside the window is unknown.
            mode: the voxel that holds the point, or interpolated between voxel centres (over known ones only).
            unknown: report unknown as it is (probability NaN), or as free or occupied.
        """
        points = np.asarray(points_m, dtype=np.float64).reshape(-1, 3)
        scaled = points / self._window.voxel_size_m
        if mode == "nearest":
            probability, known = self._probability_at(np.floor(scaled).astype(np.int64))
        else:
            probability, known = self._interpolate(scaled - 0.5)
        state = self._states(probability, np.where(known, 0, NEVER))
        if unknown != "keep":
            state[~known] = VoxelState.FREE if unknown == "free" else VoxelState.OCCUPIED
            probability = np.where(known, probability, 0.0 if unknown == "free" else 1.0)
        return np.where(known | (unknown != "keep"), probability, np.nan).astype(np.float32), state

    def _probability_at(self, cells: npt.NDArray[np.int64]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        index = torch.from_numpy(cells).to(self.device)
        inside = self.contains(index)
        linear = self.storage_index(torch.where(inside[:, None], index, 0))
        known = inside & (self.seen_ms.view(-1)[linear] != NEVER)
        return torch.sigmoid(self.log_odds.view(-1)[linear]).cpu().numpy().astype(np.float64), known.cpu().numpy()

    def _interpolate(self, scaled: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        low = np.floor(scaled).astype(np.int64)
        fraction = scaled - low
        total, weights = np.zeros(len(low)), np.zeros(len(low))
        for corner in np.ndindex(2, 2, 2):
            probability, known = self._probability_at(low + corner)
            weight = np.where(np.array(corner) == 1, fraction, 1 - fraction).prod(axis=1) * known
            total += weight * probability
            weights += weight
        return total / np.maximum(weights, 1e-12), weights > 1e-9

    def _states(self, probability: npt.NDArray[np.floating], seen: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
        """Known voxels between the two thresholds lean to the side they are closer to, so that a map has no holes."""
        middle = (self.config.occupied_probability + self.config.free_probability) / 2
        state = np.where(probability >= middle, VoxelState.OCCUPIED, VoxelState.FREE).astype(np.int8)
        state[seen == NEVER] = VoxelState.UNKNOWN
        undecided = (probability < self.config.occupied_probability) & (probability > self.config.free_probability)
        state[undecided] = VoxelState.UNKNOWN
        return state

    def _time_ms(self, stamp_ns: int) -> int:
        """Milliseconds since the first data, so that 32 bits last for weeks."""
        if self._epoch_ns is None:
            self._epoch_ns = stamp_ns
        return int(np.clip((stamp_ns - self._epoch_ns) // 1_000_000, 0, 2**31 - 1))

    def _clear(self, where: tuple[slice, ...]) -> None:
        self.log_odds[where] = 0.0
        self.seen_ms[where] = NEVER
        self.class_evidence[(slice(None), *where)] = 0.0

    def _overlap(self, other: LatticeWindow) -> Iterator[Block]:
        """Pairs of slices (into the storage, into ``other``) that cover the part of ``other`` inside the window."""
        if abs(other.voxel_size_m - self._window.voxel_size_m) > 1e-9:
            raise ValueError(f"voxel size is {other.voxel_size_m} m, the map's is {self._window.voxel_size_m} m")
        axes = []
        for axis in range(3):
            size = self._window.shape[axis]
            low = max(other.origin[axis], self._window.origin[axis])
            high = min(other.origin[axis] + other.shape[axis], self._window.origin[axis] + size)
            offset = low - other.origin[axis]
            spans = _spans(low, max(0, high - low), size)
            axes.append([(stored, slice(given.start + offset, given.stop + offset)) for stored, given in spans])
        for x in axes[0]:
            for y in axes[1]:
                for z in axes[2]:
                    yield (x[0], y[0], z[0]), (x[1], y[1], z[1])


def _spans(start: int, count: int, size: int) -> list[tuple[slice, slice]]:
    """The one or two storage slices of ``count`` lattice indices from ``start``, each with its slice of the input."""
    if count <= 0:
        return []
    first = start % size
    head = min(count, size - first)
    spans = [(slice(first, first + head), slice(0, head))]
    if count > head:
        spans.append((slice(0, count - head), slice(head, count)))
    return spans
