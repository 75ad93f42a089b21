# SPDX-License-Identifier: Apache-2.0
"""Maps to CDR bytes: occupancy grids, voxel grids, clouds and markers of occupied voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.messages.headers import SECOND_NS
from occupancy_nn_ros.messages.names import VOXEL_GRID
from occupancy_nn_ros.messages.typestore import deserialize, serialize, typestore
from occupancy_nn_ros.values import (
    SEMANTIC_CLASSES,
    Float32Array,
    FloatArray,
    GridSlice,
    LatticeWindow,
    MapView,
    UInt8Array,
    VoxelState,
)

CUBE_LIST, TRIANGLE_LIST, ADD = 6, 11, 0
FLOAT32, UINT8, UINT32 = 7, 2, 6
MAX_COORDINATE_M = 1e9


@dataclass(frozen=True)
class OccupiedVoxels:
    """The occupied voxels of a map.

    Attributes:
        points_m: (N, 3) centres, float64 in the map frame, float32 in a frame near them.
        probability: (N,) float32.
        classes: (N,) uint8.
        colors: (N, 3) uint8 RGB.
    """

    points_m: FloatArray | Float32Array
    probability: Float32Array
    classes: UInt8Array
    colors: UInt8Array


def occupied_indices(view: MapView) -> np.ndarray:
    """Window indices (N, 3) of the occupied voxels."""
    return np.argwhere(view.state == VoxelState.OCCUPIED)


def encode_occupancy_grid(grid: GridSlice) -> bytes:
    """A ``nav_msgs/OccupancyGrid``; its origin is the corner of cell (0, 0) without rotation, as Nav2 needs it."""
    writer = CdrWriter()
    writer.header(grid.stamp_ns, grid.frame_id)
    writer.put("i", grid.stamp_ns // SECOND_NS)
    writer.put("I", grid.stamp_ns % SECOND_NS)
    writer.put("f", grid.resolution_m)
    writer.put("I", *grid.values.shape)
    writer.put("d", *grid.origin_m, 0.0, 0.0, 0.0, 1.0)
    writer.block(grid.values.size, grid.values.T.astype(np.int8), 1)
    return writer.bytes()


def encode_voxel_grid(view: MapView) -> bytes:
    """Our ``VoxelGrid``: state, probability and class of the whole window."""
    message_type = typestore().types[VOXEL_GRID]
    header_type, time_type = typestore().types["std_msgs/msg/Header"], typestore().types["builtin_interfaces/msg/Time"]
    x, y, z = (float(v) for v in view.window.origin_m)
    message = message_type(
        header=header_type(
            stamp=time_type(sec=view.stamp_ns // SECOND_NS, nanosec=view.stamp_ns % SECOND_NS), frame_id=view.frame_id
        ),
        voxel_size=view.window.voxel_size_m,
        origin_x=x,
        origin_y=y,
        origin_z=z,
        size_x=view.window.shape[0],
        size_y=view.window.shape[1],
        size_z=view.window.shape[2],
        state=view.state.reshape(-1),
        probability=np.round(view.probability.reshape(-1) * 255).astype(np.uint8),
        class_id=view.classes.reshape(-1),
        class_names=list(SEMANTIC_CLASSES),
    )
    return serialize(message)


def decode_voxel_grid(cdr: bytes) -> MapView:
    """The map of a ``VoxelGrid`` message; the robot's pose is not part of it and comes back as the window's centre.

    Raises:
        MessageError: the bytes do not decode, or sizes do not fit.
    """
    message = deserialize(VOXEL_GRID, cdr)
    shape = (int(message.size_x), int(message.size_y), int(message.size_z))
    size = round(float(message.voxel_size), 6)
    corner = np.array([message.origin_x, message.origin_y, message.origin_z])
    fits = all(len(a) == math.prod(shape) for a in (message.state, message.probability, message.class_id))
    if not fits or not 0 < size < math.inf or not (np.abs(corner) < MAX_COORDINATE_M).all():
        states = len(message.state)
        raise MessageError(f"voxel grid of {shape} at {corner.tolist()} with {states} states and voxel size {size}")
    i, j, k = (int(v) for v in np.round(corner / size))
    pose = np.eye(4)
    pose[:3, 3] = corner + np.array(shape) * size / 2
    stamp = message.header.stamp
    return MapView(
        stamp_ns=stamp.sec * SECOND_NS + stamp.nanosec,
        frame_id=message.header.frame_id,
        window=LatticeWindow(size, (i, j, k), shape),
        T_map_base=pose,
        state=np.asarray(message.state, dtype=np.int8).reshape(shape),
        probability=np.asarray(message.probability, dtype=np.float32).reshape(shape) / np.float32(255),
        classes=np.asarray(message.class_id, dtype=np.uint8).reshape(shape),
    )


def encode_occupied_cloud(stamp_ns: int, frame_id: str, voxels: OccupiedVoxels) -> bytes:
    """A PointCloud2 with fields x y z probability class rgb; rgb is packed as RViz expects it."""
    layout = [
        ("x", 0, FLOAT32),
        ("y", 4, FLOAT32),
        ("z", 8, FLOAT32),
        ("probability", 12, FLOAT32),
        ("rgb", 16, FLOAT32),
        ("class", 20, UINT8),
    ]
    points = np.zeros(len(voxels.points_m), dtype={
        "names": ["xyz", "probability", "rgb", "class"], "formats": ["3<f4", "<f4", "<u4", "u1"],
        "offsets": [0, 12, 16, 20], "itemsize": 24,
    })  # fmt: skip
    points["xyz"], points["probability"], points["class"] = voxels.points_m, voxels.probability, voxels.classes
    r, g, b = (voxels.colors[:, n].astype(np.uint32) for n in range(3))
    points["rgb"] = r << 16 | g << 8 | b
    return encode_cloud(stamp_ns, frame_id, points.view(np.uint8), len(points), layout)


def encode_distance_cloud(grid: GridSlice, points_m: Float32Array, distances_m: Float32Array) -> bytes:
    """A PointCloud2 with fields x y z intensity: distance in metres at the centres of the known cells of a slice.

    Args:
        grid: stamp and frame of the header.
        points_m: (N, 3) centres of its known cells, in the order of :func:`known_centers`, in the frame of the header.
        distances_m: (X, Y) distances.
    """
    known = np.argwhere(grid.values >= 0)
    points = np.zeros((len(known), 4), "<f4")
    points[:, :3] = points_m
    points[:, 3] = distances_m[known[:, 0], known[:, 1]]
    layout = [("x", 0, FLOAT32), ("y", 4, FLOAT32), ("z", 8, FLOAT32), ("intensity", 12, FLOAT32)]
    return encode_cloud(grid.stamp_ns, grid.frame_id, points, len(points), layout)


def known_centers(grid: GridSlice) -> FloatArray:
    """Centres (N, 3) float64 of the known cells of a slice, at its height."""
    known = np.argwhere(grid.values >= 0)
    centers = np.full((len(known), 3), grid.origin_m[2])
    centers[:, :2] = (known + 0.5) * grid.resolution_m + np.array(grid.origin_m[:2])
    return centers


def encode_cloud(
    stamp_ns: int, frame_id: str, data: np.ndarray, count: int, layout: list[tuple[str, int, int]]
) -> bytes:
    """A dense, unordered PointCloud2 from raw bytes; layout lists (name, offset, datatype) of each field."""
    step = data.nbytes // count if count else max(offset for _, offset, _ in layout) + 4
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.put("I", 1, count)
    writer.put("I", len(layout))
    for name, offset, datatype in layout:
        writer.string(name)
        writer.put("I", offset)
        writer.put("B", datatype)
        writer.put("I", 1)
    writer.put("B", 0)
    writer.put("I", step, step * count)
    writer.block(data.nbytes, data, 1)
    writer.put("B", 1)
    return writer.bytes()


def encode_cube_markers(stamp_ns: int, frame_id: str, voxels: OccupiedVoxels, edge_m: float) -> bytes:
    """A MarkerArray with one CUBE_LIST, which replaces the one before it in RViz."""
    marker = ("occupied_voxels", CUBE_LIST, edge_m)
    return _encode_marker(stamp_ns, frame_id, marker, voxels.points_m, voxels.colors)


def encode_mesh_marker(stamp_ns: int, frame_id: str, corners_m: FloatArray | Float32Array, colors: UInt8Array) -> bytes:
    """A MarkerArray with one TRIANGLE_LIST; corners (3 T, 3) and their colours (3 T, 3), three for each triangle."""
    return _encode_marker(stamp_ns, frame_id, ("surface", TRIANGLE_LIST, 1.0), corners_m, colors)


def _encode_marker(
    stamp_ns: int,
    frame_id: str,
    marker: tuple[str, int, float],
    points_m: FloatArray | Float32Array,
    colors_rgb: UInt8Array,
) -> bytes:
    """A MarkerArray with one marker of a name, a type and a scale.

    Points and colours go out as one block each, however many there are.
    """
    count, (name, kind, scale) = len(points_m), marker
    writer = CdrWriter()
    writer.put("I", 1)
    writer.header(stamp_ns, frame_id)
    writer.string(name)
    writer.put("i", 0, kind, ADD)
    writer.put("d", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    writer.put("d", scale, scale, scale)
    writer.put("f", 1.0, 1.0, 1.0, 1.0)
    writer.put("i", 0)
    writer.put("I", 0)
    writer.put("B", 0)
    writer.block(count, points_m.astype("<f8"), 8)
    colors = np.ones((count, 4), "<f4")
    np.multiply(colors_rgb, np.float32(1 / 255), out=colors[:, :3], casting="unsafe")
    writer.block(count, colors, 4)
    writer.string("")  # texture_resource
    writer.header(0, "")  # texture
    writer.string("")
    writer.put("I", 0)
    writer.put("I", 0)  # uv_coordinates
    writer.string("")  # text
    writer.string("")  # mesh_resource
    writer.string("")  # mesh_file
    writer.put("I", 0)
    writer.put("B", 0)
    return writer.bytes()
