# SPDX-License-Identifier: Apache-2.0
"""One small undamaged message of each kind that comes in, with what reads it: for tests of damage and for fuzzing."""

import struct

import cv2
import numpy as np

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import decode, foxglove, images, maps, names, sensors, video
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.typestore import header, make, serialize
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, StampedTransform

POSE = StampedTransform(10**18, "odom", "base", make_transform((1, 2, 3), (0, 0, 0, 1)))
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def _depth_png():
    data = struct.pack("<iff", 0, 1e4, 0.5) + cv2.imencode(".png", np.full((4, 6), 900, np.uint16))[1].tobytes()
    message = make(
        "sensor_msgs/CompressedImage", header=header(1, "cam"), format="32FC1; compressedDepth png",
        data=np.frombuffer(data, np.uint8),
    )  # fmt: skip
    return serialize(message)


def rvl_nibbles(depth):
    """The encoder of the paper, number by number: runs of zeros and of zigzag differences, three bits to a nibble."""
    flat, numbers, at, last = depth.reshape(-1).tolist(), [], 0, 0
    while at < len(flat):
        begin = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        numbers.append(at - begin)
        begin = at
        while at < len(flat) and flat[at] != 0:
            at += 1
        numbers.append(at - begin)
        for value in flat[begin:at]:
            numbers.append((value - last) << 1 ^ (value - last) >> 63)
            last = value
    nibbles = []
    for number in numbers:
        while number > 7:
            nibbles.append(number & 7 | 8)
            number >>= 3
        nibbles.append(number)
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<ii{len(words)}I", depth.shape[1], depth.shape[0], *words)


def _compressed(data, form):
    message = make(
        "sensor_msgs/CompressedImage", header=header(1, "cam"), format=form, data=np.frombuffer(data, np.uint8)
    )
    return serialize(message)


def _video():
    """A picture of MJPEG in a CompressedVideo message."""
    jpeg = cv2.imencode(".jpg", PIXELS)[1].reshape(-1)
    stamp = make("builtin_interfaces/Time", sec=0, nanosec=1)
    return serialize(make("foxglove_msgs/CompressedVideo", timestamp=stamp, frame_id="cam", data=jpeg, format="mjpeg"))


def _pose_stamped():
    point = make("geometry_msgs/Point", x=0.0, y=0.0, z=0.0)
    turn = make("geometry_msgs/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = make("geometry_msgs/Pose", position=point, orientation=turn)
    return serialize(make("geometry_msgs/PoseStamped", header=header(1, "map"), pose=pose))


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
    "webp": (
        lambda b: images.decode_image(names.COMPRESSED_IMAGE, b),
        _compressed(cv2.imencode(".webp", PIXELS)[1].tobytes(), "webp"),
    ),
    "rvl": (
        lambda b: images.decode_depth(names.COMPRESSED_IMAGE, b),
        _compressed(bytes(12) + rvl_nibbles(np.array([[0, 900, 901], [1200, 0, 0]])), "16UC1; compressedDepth rvl"),
    ),
    "CompressedVideo": (lambda b: video.read_packet(names.COMPRESSED_VIDEO, b), _video()),
    "CameraInfo": (
        decode.decode_camera_info,
        sensors.encode_camera_info(1, "cam", CameraModel(64, 48, np.eye(3) * 40, "plumb_bob", np.zeros(5))),
    ),
    "TFMessage": (decode.decode_tf, sensors.encode_tf([POSE, POSE])),
    "Odometry": (lambda b: decode.decode_pose(names.ODOMETRY, b), sensors.encode_odometry(POSE)),
    "PoseStamped": (lambda b: decode.decode_pose(names.POSE_STAMPED, b), _pose_stamped()),
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
    "foxglove VoxelGrid": (
        foxglove.decode_foxglove_voxels,
        foxglove.encode_foxglove_voxels(1, "odom", LatticeWindow(0.2, (0, 0, 0), (3, 2, 2)), np.ones((3, 2, 2, 4), np.uint8)),
    ),
    "header": (peek_header, sensors.encode_image(1, "cam", PIXELS)),
}  # fmt: skip
