# SPDX-License-Identifier: Apache-2.0
"""Every decoder against bytes that are cut off, changed, or lie about their lengths."""

import struct
import tracemalloc
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.errors import CalibrationError, MessageError, TransformError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import decode, images, maps, names, sensors
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.typestore import serialize
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, StampedTransform

POSE = StampedTransform(10**18, "odom", "base", make_transform((1, 2, 3), (0, 0, 0, 1)))
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def _depth_png():
    data = struct.pack("<iff", 0, 1e4, 0.5) + cv2.imencode(".png", np.full((4, 6), 900, np.uint16))[1].tobytes()
    message = sensors.make(
        "sensor_msgs/CompressedImage", header=sensors.header(1, "cam"), format="32FC1; compressedDepth png",
        data=np.frombuffer(data, np.uint8),
    )  # fmt: skip
    return serialize(message)


def _pose_stamped():
    point = sensors.make("geometry_msgs/Point", x=0.0, y=0.0, z=0.0)
    turn = sensors.make("geometry_msgs/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = sensors.make("geometry_msgs/Pose", position=point, orientation=turn)
    return serialize(sensors.make("geometry_msgs/PoseStamped", header=sensors.header(1, "map"), pose=pose))


MESSAGES = {
    "rgb8": (lambda b: images.decode_image(names.IMAGE, b), sensors.encode_image(1, "cam", PIXELS)),
    "bayer": (
        lambda b: images.decode_image(names.IMAGE, b), sensors.encode_image(1, "cam", PIXELS[..., 0], "bayer_rggb8")
    ),
    "16UC1": (
        lambda b: images.decode_depth(names.IMAGE, b),
        sensors.encode_depth_image(1, "cam", np.ones((4, 6), np.float32)),
    ),
    "jpeg": (
        lambda b: images.decode_image(names.COMPRESSED_IMAGE, b), sensors.encode_compressed_image(1, "cam", PIXELS)
    ),
    "compressedDepth": (lambda b: images.decode_depth(names.COMPRESSED_IMAGE, b), _depth_png()),
    "CameraInfo": (
        decode.decode_camera_info,
        sensors.encode_camera_info(1, "cam", CameraModel(64, 48, np.eye(3) * 40, "plumb_bob", np.zeros(5))),
    ),
    "TFMessage": (decode.decode_tf, sensors.encode_tf([POSE, POSE])),
    "Odometry": (decode.decode_odometry, sensors.encode_odometry(POSE)),
    "PoseStamped": (decode.decode_pose_stamped, _pose_stamped()),
    "PointCloud2": (
        decode.decode_point_cloud, sensors.encode_point_cloud(1, "lidar", np.ones((5, 3), np.float32))
    ),
    "VoxelGrid": (
        maps.decode_voxel_grid,
        maps.encode_voxel_grid(
            MapView(
                1, "odom", LatticeWindow(0.2, (0, 0, 0), (3, 2, 2)), np.eye(4), np.zeros((3, 2, 2), np.int8),
                np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.uint8),
            )
        ),
    ),
    "header": (peek_header, sensors.encode_image(1, "cam", PIXELS)),
}  # fmt: skip
REFUSED = (MessageError, CalibrationError, TransformError)
"""Damage may make another message that decodes, but holds no usable numbers."""


@pytest.mark.parametrize("name", MESSAGES)
def test_undamaged_messages_decode(name):
    read, cdr = MESSAGES[name]
    read(cdr)


@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "header"])
def test_cut_off_at_every_byte(name):
    read, cdr = MESSAGES[name]
    for length in range(len(cdr)):
        with pytest.raises(MessageError):
            read(cdr[:length])


def test_header_cut_off_at_every_byte():
    cdr = sensors.encode_image(1, "cam", PIXELS)
    for length in range(20):
        with pytest.raises(MessageError):
            peek_header(cdr[:length])


@pytest.mark.parametrize("lie", [0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("name", MESSAGES)
def test_any_word_may_lie(name, lie):
    """Each aligned 32-bit word in turn, lengths among them, without allocating more than a few megabytes."""
    read, cdr = MESSAGES[name]
    tracemalloc.start()
    try:
        for at in range(4, min(len(cdr) - 3, 400), 4):
            changed = bytearray(cdr)
            struct.pack_into("<I", changed, at, lie)
            with suppress(*REFUSED):
                read(bytes(changed))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_random_damage(name, data):
    read, cdr = MESSAGES[name]
    changed = bytearray(cdr)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(cdr) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(cdr)), st.integers(0, len(cdr))))
    with suppress(*REFUSED):
        read(bytes(changed[:end]))


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=300))
def test_random_bytes(name, tail):
    read, _ = MESSAGES[name]
    for start in (b"", b"\x00\x01\x00\x00", b"\x00\x00\x00\x00"):
        with suppress(*REFUSED):
            read(start + tail)
