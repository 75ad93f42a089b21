# SPDX-License-Identifier: Apache-2.0
"""Index arithmetic of toroidal storage, and the check that a map fits into memory before any is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.values import LatticeWindow

NEVER = -1
"""Value of ``last seen`` for a voxel that was never observed, or was forgotten."""

MAX_VOXELS = 1 << 30
Block = tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]


def voxel_bytes(num_classes: int) -> int:
    """Memory that a voxel takes, without its colour."""
    return 10 + 2 * num_classes


def check_memory(shape: tuple[int, int, int], num_classes: int, device: torch.device) -> None:
    """Check that a map can be allocated.

    Raises:
        ConfigError: an empty window, more voxels than could be meant, or more bytes than are free.
    """
    cells = math.prod(int(n) for n in shape)
    if min(shape) < 1 or cells > MAX_VOXELS:
        raise ConfigError(f"map window of {tuple(shape)} has {cells} voxels, expected 1 to {MAX_VOXELS}")
    needed, free = cells * voxel_bytes(num_classes), _free_bytes(device)
    if free is not None and needed > free:
        raise ConfigError(
            f"map window of {tuple(shape)} voxels needs {needed >> 20} MiB, {free >> 20} MiB are free on {device}: "
            "choose a smaller window or larger voxels"
        )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux: the allocation itself will tell
        return None


def spans(start: int, count: int, size: int) -> list[tuple[slice, slice]]:
    """The one or two storage slices of ``count`` lattice indices from ``start``, each with its slice of the input."""
    if count <= 0:
        return []
    first = start % size
    head = min(count, size - first)
    parts = [(slice(first, first + head), slice(0, head))]
    if count > head:
        parts.append((slice(0, count - head), slice(head, count)))
    return parts


def overlap(window: LatticeWindow, other: LatticeWindow, anchor: tuple[int, int, int]) -> Iterator[Block]:
    """Pairs of slices (into the storage of ``window``, into ``other``) that cover the part of ``other`` inside it.

    Args:
        window: place of the map.
        other: any window on the same lattice.
        anchor: lattice index that is stored at (0, 0, 0).

    Raises:
        ValueError: the voxel sizes differ.
    """
    if abs(other.voxel_size_m - window.voxel_size_m) > 1e-9:
        raise ValueError(f"voxel size is {other.voxel_size_m} m, the map's is {window.voxel_size_m} m")
    axes = []
    for axis in range(3):
        size = window.shape[axis]
        low = max(other.origin[axis], window.origin[axis])
        high = min(other.origin[axis] + other.shape[axis], window.origin[axis] + size)
        offset = low - other.origin[axis]
        parts = spans(low - anchor[axis], max(0, high - low), size)
        axes.append([(stored, slice(given.start + offset, given.stop + offset)) for stored, given in parts])
    for x in axes[0]:
        for y in axes[1]:
            for z in axes[2]:
                yield (x[0], y[0], z[0]), (x[1], y[1], z[1])
