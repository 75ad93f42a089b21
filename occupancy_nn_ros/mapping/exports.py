# SPDX-License-Identifier: Apache-2.0
"""A map for other programs: OctoMap's binary tree (.bt) and a point cloud of the occupied voxels (.ply)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import MapFileError
from occupancy_nn_ros.mapping.atomic_file import replace_file
from occupancy_nn_ros.values import MapView, VoxelState

TREE_DEPTH = 16
"""Levels of every OctoMap tree; it spans 2^16 voxels around the origin on each axis."""

NODE_FREE, NODE_OCCUPIED, NODE_INNER = 1, 2, 3
"""Two bits of each child in a .bt file; 0 is unknown."""

Codes = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.int64]


def save_bt(view: MapView, path: Path) -> None:
    """Write free and occupied voxels as an OctoMap binary tree, equal neighbours merged as OctoMap does.

    Raises:
        MapFileError: the window reaches further than 32768 voxels from the origin, or the file cannot be written.
    """
    data, nodes = octree(view)
    header = (
        "# Octomap OcTree binary file\n# (feel free to add / change comments, but leave the first line as it is!)\n#\n"
        f"id OcTree\nsize {nodes}\nres {view.window.voxel_size_m:.12g}\ndata\n"
    )
    replace_file(path, (header.encode("ascii"), data))


def octree(view: MapView) -> tuple[bytes, int]:
    """The nodes of an OctoMap tree as its binary form has them, and how many there are.

    Raises:
        MapFileError: the window reaches further than 32768 voxels from the origin.
    """
    known = np.argwhere(view.state != VoxelState.UNKNOWN)
    keys = known + np.asarray(view.window.origin) + (1 << (TREE_DEPTH - 1))
    if len(keys) and (keys.min() < 0 or keys.max() >= 1 << TREE_DEPTH):
        raise MapFileError(
            f"voxels {keys.min(axis=0)} to {keys.max(axis=0)}: an OctoMap ends 32768 voxels from the origin of its frame"
        )
    occupied = view.state[tuple(known.T)] == VoxelState.OCCUPIED
    return _tree(_interleave(keys), np.where(occupied, NODE_OCCUPIED, NODE_FREE))


def save_ply(view: MapView, path: Path) -> None:
    """Write the centres of the occupied voxels with probability, class and, where the map keeps them, colours as a binary PLY cloud.

    Raises:
        MapFileError: the file cannot be written.
    """
    cells = np.argwhere(view.state == VoxelState.OCCUPIED)
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("probability", "<f4"), ("class_id", "u1")]
    channels = ("red", "green", "blue") if view.colors is not None else ()
    points = np.empty(len(cells), np.dtype([*fields, *((name, "u1") for name in channels)]))
    centers = (cells + np.asarray(view.window.origin) + 0.5) * view.window.voxel_size_m
    for axis, name in enumerate("xyz"):
        points[name] = centers[:, axis]
    points["probability"] = view.probability[tuple(cells.T)]
    points["class_id"] = view.classes[tuple(cells.T)]
    for n, name in enumerate(channels):
        points[name] = view.colors[(*cells.T, n)]  # type: ignore[index]
    properties = "".join(f"property float {name}\n" for name in ("x", "y", "z", "probability"))
    properties += "".join(f"property uchar {name}\n" for name in ("class_id", *channels))
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment frame {view.frame_id}\nelement vertex {len(cells)}\n"
        f"{properties}end_header\n"
    )
    replace_file(path, (header.encode("utf-8"), points.tobytes()))


def _interleave(keys: Codes) -> Codes:
    """Path of each key (N, 3) from the root: three bits for each level, x lowest, as OctoMap counts children."""
    code = np.zeros(len(keys), np.int64)
    for level in range(TREE_DEPTH):
        for axis in range(3):
            code |= ((keys[:, axis] >> level) & 1) << (3 * level + axis)
    return code


def _tree(codes: Codes, kinds: Kinds) -> tuple[bytes, int]:
    """The nodes of a tree in depth-first order, 16 bits for each that has children, and how many nodes there are."""
    order = np.argsort(codes)
    codes, kinds = codes[order], kinds[order]
    starts, levels, words, nodes = [], [], [], len(codes)
    for level in range(TREE_DEPTH - 1, -1, -1):
        parents, first, count = np.unique(codes >> 3, return_index=True, return_counts=True)
        word = np.zeros(len(parents), np.int64)
        if len(parents):
            word = np.bitwise_or.reduceat(kinds << (2 * (codes & 7)), first)
        # Eight equal leaves become one; the root always has children, or a reader finds nothing.
        leaf = kinds[first]
        merged = (count == 8) & (word == leaf * 0x5555) & (leaf != NODE_INNER) & (level > 0)
        starts.append(parents[~merged] << (3 * (TREE_DEPTH - level)))
        levels.append(np.full(int((~merged).sum()), level))
        words.append(word[~merged])
        nodes += len(parents) - 8 * int(merged.sum())
        codes, kinds = parents, np.where(merged, leaf, NODE_INNER)
    # Sorted by where their space begins, the larger first, nodes stand in depth-first order.
    order = np.lexsort((np.concatenate(levels), np.concatenate(starts)))
    return np.concatenate(words)[order].astype("<u2").tobytes(), nodes
