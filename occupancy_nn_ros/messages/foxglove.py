# SPDX-License-Identifier: Apache-2.0
"""Coloured voxels as ``foxglove_msgs/VoxelGrid``, which Foxglove shows as cubes."""

from __future__ import annotations

import math

import numpy as np

from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.messages.maps import MAX_COORDINATE_M
from occupancy_nn_ros.messages.names import FOXGLOVE_VOXEL_GRID
from occupancy_nn_ros.messages.typestore import deserialize
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


def decode_foxglove_voxels(cdr: bytes) -> tuple[LatticeWindow, UInt8Array]:
    """Window and cells (X, Y, Z, 4) of a grid that :func:`encode_foxglove_voxels` made.

    Raises:
        MessageError: the bytes do not decode, or are those of another grid.
    """
    message = deserialize(FOXGLOVE_VOXEL_GRID, cdr)
    rows, columns, edge = int(message.row_count), int(message.column_count), round(float(message.cell_size.x), 6)
    corner = np.array([message.pose.position.x, message.pose.position.y, message.pose.position.z])
    fields = tuple(field.name for field in message.fields)
    layer = rows * columns * len(CHANNELS)
    if fields != CHANNELS or not 0 < edge < math.inf or not (np.abs(corner) < MAX_COORDINATE_M).all():
        raise MessageError(f"voxels of {edge} m at {corner.tolist()} with fields {fields}, expected {CHANNELS}")
    if not layer or len(message.data) % layer:
        raise MessageError(f"{len(message.data)} bytes of cells are no layers of {rows} x {columns}")
    slices = len(message.data) // layer
    i, j, k = (int(v) for v in np.round(corner / edge))
    cells = np.asarray(message.data, np.uint8).reshape(slices, rows, columns, len(CHANNELS)).transpose(2, 1, 0, 3)
    return LatticeWindow(edge, (i, j, k), (columns, rows, slices)), cells
