# SPDX-License-Identifier: Apache-2.0
"""Scratch memory of one scan: what became of each voxel, before anything enters the map.

Marks lie in blocks of 4 x 4 x 4 voxels, one cache line each, and a flag tells which blocks hold any: a ray crosses few
lines, and only flagged blocks are visited afterwards. Only this module knows that layout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import UInt8Array

GRAZE, PASS, HIT, MISSED_END = 1, 2, 4, 8
"""Bits of a mark: a ray passed just before its end; passed; ended on a surface; was cut off here by range or window."""

BLOCK_BITS = 2
BLOCK = 1 << BLOCK_BITS
BLOCK_CELLS = BLOCK**3


class Marks(NamedTuple):
    """The marks and how to address them; a plain tuple of arrays so that compiled kernels take it.

    Attributes:
        cells: (blocks * 64,) uint8 marks.
        flags: (blocks,) uint8, not 0 where a block holds marks.
        along_x, along_y, along_z: for each window index, its share of the index into ``cells``; the three add up.
    """

    cells: UInt8Array
    flags: UInt8Array
    along_x: npt.NDArray[np.int32]
    along_y: npt.NDArray[np.int32]
    along_z: npt.NDArray[np.int32]


def block_counts(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Blocks along each axis of a window."""
    return (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK), -(-shape[2] // BLOCK))


def make_marks(shape: tuple[int, int, int]) -> Marks:
    """Empty marks for a window whose storage begins at its lowest voxel."""
    x, y, z = block_counts(shape)
    # Filled, not only reserved, so that the first scans do not wait for memory from the operating system.
    cells, flags = np.full(x * y * z * BLOCK_CELLS, 0, np.uint8), np.full(x * y * z, 0, np.uint8)
    return place_marks(Marks(cells, flags, *(np.zeros(n, np.int32) for n in shape)), shape, (0, 0, 0))


def place_marks(marks: Marks, shape: tuple[int, int, int], start: tuple[int, int, int]) -> Marks:
    """The same memory, addressed for a window whose lowest voxel is stored at ``start``."""
    _, blocks_y, blocks_z = block_counts(shape)
    strides = ((blocks_y * blocks_z * BLOCK_CELLS, BLOCK * BLOCK), (blocks_z * BLOCK_CELLS, BLOCK), (BLOCK_CELLS, 1))
    tables = []
    for axis in range(3):
        stored = (np.arange(shape[axis]) + start[axis]) % shape[axis]
        outer, inner = strides[axis]
        tables.append(((stored >> BLOCK_BITS) * outer + (stored & (BLOCK - 1)) * inner).astype(np.int32))
    return Marks(marks.cells, marks.flags, *tables)
