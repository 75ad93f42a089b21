# SPDX-License-Identifier: Apache-2.0
"""What views are matched by, laid out for the compiled sweep: what is multiplied together lies side by side.

Says what :class:`~occupancy_nn_ros.network.matching.MatchMaps` says, without gradients. Of patches only the grey levels are kept, and what
makes each of unit length: a twelfth of the memory, which a sweep finds in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.compute.compiled import Scalar, reordering_kernel
from occupancy_nn_ros.compute.lanes import LANES, load, minus, plus, spread, store, times, times_plus
from occupancy_nn_ros.network.patches import CHANNELS, LEAST_CONTRAST, SIDE, grey_levels
from occupancy_nn_ros.values import Float32Array

U = np.uint64
SHARE, FLOOR, ONE = np.float32(1 / CHANNELS), np.float32(CHANNELS * LEAST_CONTRAST**2), np.float32(1)
SHORTEST = np.float32(1e-12)
"""Features that are shorter stay so, as in torch."""


class SweepTables(NamedTuple):
    """What one view is compared by in one sweep.

    Attributes:
        features: (h, w, columns, steps, LANES) of :func:`feature_table`.
        grey: (H / 2 + SIDE, W / 2 + LANES) grey levels of the image at half resolution, its border repeated around it.
        scale: (H / 2, W / 2) what makes the patch around each pixel of unit length.
    """

    features: Tensor
    grey: Tensor
    scale: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows h and columns w."""
        return self.features.shape[0], self.features.shape[1]


class MatchTables(NamedTuple):
    """What one view is matched by: features at stride 8, details at stride 4, and grey levels, as in :class:`SweepTables`."""

    features: Tensor
    details: Tensor
    grey: Tensor
    scale: Tensor

    @property
    def coarse(self) -> SweepTables:
        """For the first sweep."""
        return SweepTables(self.features, self.grey, self.scale)

    @property
    def fine(self) -> SweepTables:
        """For the second."""
        return SweepTables(self.details, self.grey, self.scale)

    def shown(self, features: Tensor, details: Tensor, patches: Tensor) -> MatchTables:
        """Without what is 0 in (1, h, w), (1, 2h, 2w) and (1, 4h, 4w)."""
        at_8, at_4 = (shown[0, ..., None, None, None] for shown in (features, details))
        return MatchTables(self.features * at_8, self.details * at_4, self.grey, self.scale * patches[0])


def parts_of(groups: int) -> int:
    """How many channels of a group a vector holds: it has one of each of LANES groups, two where half the lanes are enough."""
    return 2 if groups <= LANES // 2 else 1


def feature_table(features: Tensor, groups: int) -> Tensor:
    """Features (C, h, w), each group of channels brought to unit length, as (h, w, columns, steps, LANES); 0 in lanes left over."""
    channels, h, w = features.shape
    parts = parts_of(groups)
    columns, steps = -(-groups // LANES), -(-(channels // groups) // parts)
    rows = features.permute(1, 2, 0).contiguous()
    table = torch.zeros(h, w, columns, steps, LANES)
    normalize_groups(rows.numpy().reshape(h * w, channels), groups, parts, table.numpy().reshape(h * w, -1, LANES))
    return table


@reordering_kernel
def normalize_groups(rows: Float32Array, groups: Scalar, parts: Scalar, out: Float32Array) -> None:
    """Bring each group of channels (N, C) to unit length, into ``out`` (N, columns * steps, LANES)."""
    length, lanes = rows.shape[1] // groups, LANES // parts
    steps = -(-length // parts)
    for n in range(len(rows)):
        for group in range(groups):
            first, squares = group * length, np.float32(0)
            for k in range(first, first + length):
                squares += rows[n, k] * rows[n, k]
            scale = ONE / max(np.sqrt(squares), SHORTEST)
            column, lane = divmod(group, LANES)
            for k in range(length):
                step, part = divmod(k, parts)
                out[n, column * steps + step, part * lanes + lane] = rows[n, first + k] * scale


def grey_tables(image: Tensor) -> tuple[Tensor, Tensor]:
    """Grey levels and scales, as in :class:`SweepTables`, of a normalised image (3, H, W), H even and W a multiple of 16."""
    levels = grey_levels(image[None])
    height, width = levels.shape[-2:]
    around = functional.pad(levels, (SIDE // 2,) * 4, mode="replicate")[0, 0]
    grey = functional.pad(around, (0, LANES - SIDE + 1, 0, 1)).contiguous()
    scale = torch.empty(height, width)
    measure_patches(grey.numpy().reshape(-1), U(height), U(width), scale.numpy().reshape(-1))
    return grey, scale


@reordering_kernel
def measure_patches(grey: Float32Array, height: Scalar, width: Scalar, out: Float32Array) -> None:
    """What makes the patch around each pixel of unit length if it has contrast, (height * width,), into ``out``."""
    lanes, side = U(LANES), U(SIDE)
    stride = width + lanes
    for row in range(height):
        for column in range(U(0), width, lanes):
            start, summed, squares = row * stride + column, spread(np.float32(0)), spread(FLOOR)
            for v in range(side):
                for u in range(side):
                    summed = plus(summed, load(grey, start + v * stride + u))
            mean = times(summed, spread(SHARE))
            for v in range(side):
                for u in range(side):
                    off = minus(load(grey, start + v * stride + u), mean)
                    squares = times_plus(off, off, squares)
            store(out, row * width + column, squares)
    for n in range(len(out)):
        out[n] = ONE / np.sqrt(out[n])
