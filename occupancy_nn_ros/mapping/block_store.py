# SPDX-License-Identifier: Apache-2.0
"""Places that left the map's window, kept in few bytes and given back when the robot returns.

Cubes of voxels on the lattice are quantised and compressed; when their bytes exceed the limit, those that were stored
longest ago are dropped. Times are not kept: what comes back counts as seen at the time of the newest data.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.mapping.voxel_storage import COLOR_STEPS, VoxelStorage
from occupancy_nn_ros.values import LatticeWindow

SIDE = 16
"""Edge of a stored cube in voxels."""

OVERHEAD_BYTES = 200
"""What the dictionary and its key take for each cube, about."""

UNKNOWN = -128
VALUES, CLASSES, COLORS = 0, 1, 2
"""Layers of a cube: log-odds and class; then red, green, blue and whether there is a colour, in maps that keep colours."""

Index = tuple[int, int, int]
Int8Array = npt.NDArray[np.int8]


class BlockStore:
    """Compressed cubes by lattice position, bounded by bytes.

    Attributes:
        dropped: cubes lost so far because the limit was reached.
    """

    def __init__(self, limit_bytes: int, log_odds_max: float) -> None:
        """Start empty; log-odds up to ``log_odds_max`` are kept to within a 127th of it."""
        self.limit_bytes, self.dropped = limit_bytes, 0
        self._scale = 127.0 / log_odds_max
        self._cubes: OrderedDict[Index, bytes] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """Number of cubes."""
        return len(self._cubes)

    @property
    def size_bytes(self) -> int:
        """Memory taken, about."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything."""
        self._cubes.clear()
        self._bytes = 0

    def clear_where(self, low: Index, high: Index, inside: Callable[[LatticeWindow], npt.NDArray[np.bool_]]) -> int:
        """Forget voxels between two lattice indices; returns how many were known.

        Args:
            low: lowest index.
            high: the index after the highest.
            inside: which voxels of a cube to forget, (SIDE, SIDE, SIDE); voxel sizes are not known here.
        """
        first, last = (tuple(v // SIDE for v in low), tuple((v - 1) // SIDE for v in high))
        cleared = 0
        for key in [k for k in self._cubes if all(a <= n <= b for a, n, b in zip(first, k, last, strict=True))]:
            corner = (key[0] * SIDE, key[1] * SIDE, key[2] * SIDE)
            cube = self._take(key)
            known = inside(LatticeWindow(1.0, corner, (SIDE,) * 3)) & (cube[VALUES] != UNKNOWN)
            cleared += int(known.sum())
            cube[VALUES][known] = UNKNOWN
            self._put(key, cube)
        return cleared

    def halve(self) -> int:
        """From now on keep half of what is kept now; returns how many cubes were dropped."""
        before = self.dropped
        self.limit_bytes = self._bytes // 2
        self._keep_limit()
        return self.dropped - before

    def keep_leaving(self, grid: VoxelStorage, origin: Index) -> None:
        """Store what a move of the window to ``origin`` will drop."""
        for box in _outside(grid.window, LatticeWindow(grid.window.voxel_size_m, origin, grid.window.shape)):
            layers = self._read(grid, box)
            if (layers[VALUES] == UNKNOWN).all():
                continue
            for key, inside, given in _cubes_of(box):
                if (layers[VALUES][given] != UNKNOWN).any():
                    cube = self._take(key, len(layers))
                    cube[(slice(None), *inside)] = layers[(slice(None), *given)]
                    self._put(key, cube)

    def restore_entering(self, grid: VoxelStorage, old_origin: Index, now_ms: int) -> None:
        """Give back what is stored of the part of the window that was not in it at ``old_origin``, as seen now."""
        if not self._cubes:
            return
        for box in _outside(grid.window, LatticeWindow(grid.window.voxel_size_m, old_origin, grid.window.shape)):
            for key, inside, given in _cubes_of(box):
                if key in self._cubes:
                    cube = self._take(key, _layers_of(grid))
                    part = tuple(int(box.origin[a] + given[a].start) for a in range(3))
                    self._write(grid, (part[0], part[1], part[2]), cube[(slice(None), *inside)], now_ms)
                    cube[VALUES][inside] = UNKNOWN
                    self._put(key, cube)

    def _read(self, grid: VoxelStorage, box: LatticeWindow) -> Int8Array:
        """Layers (L, X, Y, Z) of a box."""
        layers = _unknown(_layers_of(grid), box.shape)
        for stored, given in grid.overlap(box):
            scaled = (grid.log_odds[stored] * self._scale).round().clamp(-127, 127)
            known = grid.seen_ms[stored] >= 0
            layers[VALUES][given] = torch.where(known, scaled, UNKNOWN).to(torch.int8).cpu().numpy()
            if grid.class_evidence.shape[-1]:
                best = grid.class_evidence[stored].max(dim=-1)
                layers[CLASSES][given] = torch.where(best.values > 0, best.indices + 1, 0).to(torch.int8).cpu().numpy()
            if grid.colors is not None:
                layers[(slice(COLORS, None), *given)] = _packed(grid.colors[stored])
        return layers

    def _write(self, grid: VoxelStorage, origin: Index, cube: Int8Array, now_ms: int) -> None:
        _, x, y, z = cube.shape
        for stored, given in grid.overlap(LatticeWindow(grid.window.voxel_size_m, origin, (x, y, z))):
            part = torch.from_numpy(cube[VALUES][given]).to(grid.device)
            known = part != UNKNOWN
            grid.log_odds[stored] = torch.where(known, part / self._scale, grid.log_odds[stored])
            grid.seen_ms[stored] = torch.where(known, now_ms, grid.seen_ms[stored])
            grid.visited[stored] |= known
            if grid.colors is not None:
                colors = _unpacked(cube[(slice(COLORS, None), *given)]).to(grid.device)
                grid.colors[stored] = torch.where(known[..., None], colors, grid.colors[stored])
            kept = torch.from_numpy(cube[CLASSES][given]).to(grid.device).long()
            count = grid.class_evidence.shape[-1]
            if count and bool((kept > 0).any()):
                # The winner of the past begins with one observation's worth of evidence.
                one_hot = torch.nn.functional.one_hot(kept, count + 1)[..., 1:] * 256
                grid.class_evidence[stored] = one_hot.to(torch.int16)

    def _take(self, key: Index, layers: int = 0) -> Int8Array:
        """Remove a cube and unpack it (L, 16, 16, 16), with so many layers at least; one of unknown voxels if there is none."""
        packed = self._cubes.pop(key, None)
        if packed is None:
            return _unknown(layers, (SIDE, SIDE, SIDE))
        self._bytes -= len(packed) + OVERHEAD_BYTES
        kept = np.frombuffer(zlib.decompress(packed), np.int8).reshape(-1, SIDE, SIDE, SIDE)
        cube = _unknown(max(layers, len(kept)), (SIDE, SIDE, SIDE))
        cube[: len(kept)] = kept  # fewer where colours are kept only since
        return cube

    def _put(self, key: Index, cube: Int8Array) -> None:
        if (cube[VALUES] == UNKNOWN).all():
            return
        packed = zlib.compress(cube.tobytes(), 1)
        self._cubes[key] = packed
        self._bytes += len(packed) + OVERHEAD_BYTES
        self._keep_limit()

    def _keep_limit(self) -> None:
        while self._bytes > self.limit_bytes and self._cubes:
            _, oldest = self._cubes.popitem(last=False)
            self._bytes -= len(oldest) + OVERHEAD_BYTES
            self.dropped += 1


def _layers_of(grid: VoxelStorage) -> int:
    return COLORS if grid.colors is None else COLORS + 4


def _unknown(layers: int, shape: Index) -> Int8Array:
    """Layers of unknown voxels."""
    cube = np.zeros((layers, *shape), np.int8)
    cube[VALUES] = UNKNOWN
    return cube


def _packed(colors: Tensor) -> Int8Array:
    """Stored colours (X, Y, Z, 4) in whole grey levels, as layers (4, X, Y, Z)."""
    levels = (colors[..., :3] + COLOR_STEPS // 2) // COLOR_STEPS
    layers = torch.cat([levels, (colors[..., 3:] > 0).to(torch.int16)], dim=-1).to(torch.uint8)
    return layers.movedim(-1, 0).cpu().numpy().view(np.int8)


def _unpacked(layers: Int8Array) -> Tensor:
    """The colours of layers (4, X, Y, Z) as they are stored (X, Y, Z, 4), after one look."""
    colors = torch.from_numpy(np.ascontiguousarray(layers).view(np.uint8)).movedim(0, -1).to(torch.int16)
    colors[..., :3] *= COLOR_STEPS
    return colors


def _outside(window: LatticeWindow, other: LatticeWindow) -> Iterator[LatticeWindow]:
    """Boxes that cover, without overlap, the part of ``window`` outside ``other``."""
    low, high = list(window.origin), [o + n for o, n in zip(window.origin, window.shape, strict=True)]
    for axis in range(3):
        inner_low = min(max(other.origin[axis], low[axis]), high[axis])
        inner_high = max(min(other.origin[axis] + other.shape[axis], high[axis]), inner_low)
        for start, stop in ((low[axis], inner_low), (inner_high, high[axis])):
            if stop > start:
                first, last = list(low), list(high)
                first[axis], last[axis] = start, stop
                shape = (last[0] - first[0], last[1] - first[1], last[2] - first[2])
                yield LatticeWindow(window.voxel_size_m, (first[0], first[1], first[2]), shape)
        low[axis], high[axis] = inner_low, inner_high


def _cubes_of(box: LatticeWindow) -> Iterator[tuple[Index, tuple[slice, ...], tuple[slice, ...]]]:
    """Cubes that a box touches: their key, the part of the cube, and the part of the box."""
    axes = []
    for start, count in zip(box.origin, box.shape, strict=True):
        parts = []
        for key in range(start // SIDE, (start + count - 1) // SIDE + 1):
            low, high = max(start, key * SIDE), min(start + count, (key + 1) * SIDE)
            parts.append((key, slice(low - key * SIDE, high - key * SIDE), slice(low - start, high - start)))
        axes.append(parts)
    for x in axes[0]:
        for y in axes[1]:
            for z in axes[2]:
                yield (x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2])
