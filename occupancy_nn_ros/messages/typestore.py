# SPDX-License-Identifier: Apache-2.0
"""The message types that the package speaks: ROS 2's own and ours, readable without a ROS installation."""

from __future__ import annotations

from functools import cache
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages.headers import SECOND_NS
from occupancy_nn_ros.messages.names import (
    COMPRESSED_VIDEO,
    FFMPEG_PACKET,
    FOXGLOVE_FIELD,
    FOXGLOVE_VOXEL_GRID,
    OCTOMAP,
)
from occupancy_nn_ros.resources import resource_path

OWN_MESSAGES = ("VoxelGrid", "MapStatus")
VIDEO_MESSAGES = {
    COMPRESSED_VIDEO: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    FFMPEG_PACKET: (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\nbool is_bigendian\nuint8[] data\n"
    ),
}
"""Types of packages that not everybody has, as they are laid out."""

FOREIGN_MESSAGES = {
    OCTOMAP: "std_msgs/Header header\nbool binary\nstring id\nfloat64 resolution\nint8[] data\n",
    FOXGLOVE_FIELD: "string name\nuint32 offset\nuint8 type\n",
    FOXGLOVE_VOXEL_GRID: (
        "builtin_interfaces/Time timestamp\nstring frame_id\ngeometry_msgs/Pose pose\nuint32 row_count\nuint32 column_count\n"
        "geometry_msgs/Vector3 cell_size\nuint32 slice_stride\nuint32 row_stride\nuint32 cell_stride\n"
        "foxglove_msgs/PackedElementField[] fields\nuint8[] data\n"
    ),
}
"""Definitions of messages of other packages that ROS itself does not come with."""


@cache
def typestore() -> Typestore:
    """The one type store, with our messages registered from their definitions."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in OWN_MESSAGES:
        text = resource_path(f"msg/{name}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, f"occupancy_nn_ros/msg/{name}"))
    for msgtype, text in FOREIGN_MESSAGES.items():
        store.register(get_types_from_msg(text, msgtype))
    for name, text in VIDEO_MESSAGES.items():
        store.register(get_types_from_msg(text, name))
    return store


def make(msgtype: str, **fields: Any) -> Any:
    """A message object of a ROS type, given as ``package/Name``."""
    package, name = msgtype.split("/")
    return typestore().types[f"{package}/msg/{name}"](**fields)


def header(stamp_ns: int, frame_id: str) -> Any:
    """A ``std_msgs/Header``."""
    stamp = make("builtin_interfaces/Time", sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)
    return make("std_msgs/Header", stamp=stamp, frame_id=frame_id)


def serialize(message: Any) -> bytes:
    """CDR bytes of a message object of the type store."""
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))


def deserialize(msgtype: str, cdr: bytes | memoryview) -> Any:
    """Message object from CDR bytes; its arrays may view the bytes.

    Raises:
        MessageError: truncated bytes, lengths that lie, or an unknown type.
    """
    try:
        return typestore().deserialize_cdr(cdr, msgtype)
    except KeyError:
        raise MessageError(f"unknown message type {msgtype}") from None
    except Exception as error:  # rosbags checks nothing itself: whatever numpy and struct raise means damaged bytes
        raise MessageError(f"{len(cdr)} bytes do not decode as {msgtype}: {error}") from None
