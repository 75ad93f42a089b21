# SPDX-License-Identifier: Apache-2.0
"""What the marks of a scan do to the map: hits win over passes, and what is seen free instead decays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.compute.compiled import kernel
from occupancy_nn_ros.mapping.marks import BLOCK, BLOCK_CELLS, HIT, PASS, Marks
from occupancy_nn_ros.values import Float32Array, UInt8Array

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
        place = (x, y, z, block * BLOCK_CELLS)
        hit, passed, fading = _update_block(marks.cells, log_odds, seen_ms, place, rule)
        if fading:
            _fade_block(marks.cells, log_odds, seen_ms, place, rule)
        hits, passes = hits + hit, passes + passed
    return hits, passes


@kernel
def _update_block(
    cells: UInt8Array, log_odds: Float32Array, seen_ms: npt.NDArray[np.int32], place: tuple[int, int, int, int],
    rule: RayRule,
) -> tuple[int, int, bool]:  # fmt: skip
    """Update a block but for passes through occupied voxels, whose marks stay; returns hits, passes, and if any stay.

    Almost without branches, which would be guessed wrong too often.
    """
    x, y, z, first = place
    size_x, size_y, size_z = log_odds.shape
    zero, now = np.float32(0.0), np.int32(rule.now_ms)
    more, fewer, surface = np.float32(rule.hit), np.float32(rule.passed), np.float32(rule.surface)
    low, high = np.float32(rule.low), np.float32(rule.high)
    hits, passes, fading = 0, 0, False
    for i in range(x, min(x + BLOCK, size_x)):
        for j in range(y, min(y + BLOCK, size_y)):
            at = first + ((i - x) * BLOCK + (j - y)) * BLOCK - z
            for k in range(z, min(z + BLOCK, size_z)):
                mark = cells[at + k]
                if mark == 0:
                    continue
                value, seen = log_odds[i, j, k], seen_ms[i, j, k]
                hit, ends = (mark & HIT) != 0, (mark & (HIT | PASS)) != 0
                fade = (value > zero) & ends & (not hit)
                raised, lowered = min(value + more, high), max(value + fewer, low)
                grazed = value if value > surface else min(value, max(value, zero) + fewer)
                result = raised if hit else (lowered if ends else grazed)
                log_odds[i, j, k] = value if fade else result
                seen_ms[i, j, k] = seen if (seen > now) | fade else now
                cells[at + k] = mark if fade else np.uint8(0)
                fading |= fade
                hits += hit
                passes += not hit
    return hits, passes, fading


@kernel
def _fade_block(
    cells: UInt8Array, log_odds: Float32Array, seen_ms: npt.NDArray[np.int32], place: tuple[int, int, int, int],
    rule: RayRule,
) -> None:  # fmt: skip
    """Passes through occupied voxels: the longer one was in view without a hit, the faster it goes."""
    x, y, z, first = place
    size_x, size_y, size_z = log_odds.shape
    one, half, sixth, pace = np.float32(1.0), np.float32(0.5), np.float32(1 / 6), np.float32(1.0 / rule.clear_ms)
    for i in range(x, min(x + BLOCK, size_x)):
        for j in range(y, min(y + BLOCK, size_y)):
            at = first + ((i - x) * BLOCK + (j - y)) * BLOCK - z
            for k in range(z, min(z + BLOCK, size_z)):
                if cells[at + k] == 0:
                    continue
                cells[at + k] = 0
                value, seen = log_odds[i, j, k], seen_ms[i, j, k]
                age = rule.now_ms - seen
                result = max(value + np.float32(rule.passed), np.float32(rule.low))
                if seen >= 0 and 0 < age <= IN_VIEW_MS:
                    t = np.float32(min(age, CREDIT_MS)) * pace
                    result = min(result, value / (one + t * (one + t * (half + t * sixth))))
                log_odds[i, j, k] = result
                seen_ms[i, j, k] = max(seen, rule.now_ms)
