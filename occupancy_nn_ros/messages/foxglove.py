# SPDX-License-Identifier: Apache-2.0
"""Coloured voxels as ``foxglove_msgs/VoxelGrid``, which Foxglove shows as cubes."""

from __future__ import annotations

from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.values import LatticeWindow, UInt8Array

UINT8 = 1
CHANNELS = ("red", "green", "blue", "alpha")
"""Names by which Foxglove knows that the cells hold colours."""


def encode_foxglove_voxels(stamp_ns: int, frame_id: str, window: LatticeWindow, rgba: UInt8Array) -> bytes:
    """A VoxelGrid of coloured cells.

    Args:
        stamp_ns: time of the newest data.
        frame_id: the map frame.
        window: where the cells lie.
        rgba: (X, Y, Z, 4); cells with alpha 0 are not seen.
    """
    columns, rows, slices = window.shape
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)  # a time and a frame, as in a header
    writer.put("d", *(float(v) for v in window.origin_m), 0.0, 0.0, 0.0, 1.0)
    writer.put("I", rows, columns)
    writer.put("d", *(window.voxel_size_m,) * 3)
    cell = len(CHANNELS)
    writer.put("I", rows * columns * cell, columns * cell, cell)
    writer.put("I", len(CHANNELS))
    for offset, name in enumerate(CHANNELS):
        writer.string(name)
        writer.put("I", offset)
        writer.put("B", UINT8)
    writer.block(slices * rows * columns * cell, rgba.transpose(2, 1, 0, 3), 1)  # x changes fastest
    return writer.bytes()
