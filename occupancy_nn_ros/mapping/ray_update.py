# SPDX-License-Identifier: Apache-2.0
"""What the marks of a scan do to the map: hits win over passes, and what is seen free instead decays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.mapping.compiled import kernel
from occupancy_nn_ros.mapping.marks import BLOCK, BLOCK_CELLS, HIT, PASS, Marks
from occupancy_nn_ros.types import Float32Array

IN_VIEW_MS = 2000
"""A voxel seen again within this time counts as in view all along; it decays by exp(-t), as four terms of a series."""

CREDIT_MS = 500
"""One look counts for this long at most: where looks are rare, it takes two of them to clear a voxel."""


class RayRule(NamedTuple):
    """How marks change log-odds.

    Attributes:
        hit, passed: added where rays end and where they pass.
        low, high: clamps.
        surface: voxels above this are a known surface, which rays that end just behind do not carve.
        clear_ms: time constant with which an occupied voxel in view decays while rays pass it.
        now_ms: time of the scan.
    """

    hit: float
    passed: float
    low: float
    high: float
    surface: float
    clear_ms: float
    now_ms: int


@kernel
def updated(mark: int, value: float, age_ms: int, rule: RayRule) -> float:
    """Log-odds after a mark, of a voxel that was last seen ``age_ms`` ago (negative: never)."""
    if mark & HIT:
        return min(value + rule.hit, rule.high)
    if mark & PASS:
        result = max(value + rule.passed, rule.low)
        if value > 0.0 and 0 < age_ms <= IN_VIEW_MS:
            t = min(age_ms, CREDIT_MS) / rule.clear_ms
            result = min(result, value / (1.0 + t * (1.0 + t * (0.5 + t / 6.0))))
        return result
    if value > rule.surface:
        return value
    return min(value, max(value, 0.0) + rule.passed)


@kernel
def apply_marks(
    start: int, stop: int, marks: Marks, log_odds: Float32Array, seen_ms: npt.NDArray[np.int32], rule: RayRule
) -> tuple[int, int]:
    """Update the voxels of blocks ``start`` to ``stop`` and clear their marks; returns voxels hit and voxels passed.

    Args:
        start: first of the blocks to process.
        stop: the one after the last.
        marks: cleared.
        log_odds: (X, Y, Z) storage, changed in place.
        seen_ms: (X, Y, Z) likewise.
        rule: what a mark does.
    """
    _, size_y, size_z = log_odds.shape
    blocks_y, blocks_z = (size_y + BLOCK - 1) // BLOCK, (size_z + BLOCK - 1) // BLOCK
    hits, passes = 0, 0
    for block in range(start, stop):
        if marks.flags[block] == 0:
            continue
        marks.flags[block] = 0
        x, y, z = block // (blocks_y * blocks_z) * BLOCK, block // blocks_z % blocks_y * BLOCK, block % blocks_z * BLOCK
        for column in range(BLOCK * BLOCK):
            i, j, first = x + column // BLOCK, y + column % BLOCK, block * BLOCK_CELLS + column * BLOCK
            for k in range(z, min(z + BLOCK, size_z)):
                mark = marks.cells[first + k - z]
                if mark == 0:
                    continue
                marks.cells[first + k - z] = 0
                seen = seen_ms[i, j, k]
                log_odds[i, j, k] = updated(mark, log_odds[i, j, k], rule.now_ms - seen if seen >= 0 else -1, rule)
                seen_ms[i, j, k] = max(seen, rule.now_ms)
                hits += (mark & HIT) // HIT
                passes += 1 - (mark & HIT) // HIT
    return hits, passes
