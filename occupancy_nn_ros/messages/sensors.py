# SPDX-License-Identifier: Apache-2.0
"""Sensor data to CDR bytes, as the simulator and the tests record it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from occupancy_nn_ros.geometry.poses import quaternion
from occupancy_nn_ros.messages.maps import FLOAT32, encode_cloud
from occupancy_nn_ros.messages.typestore import header, make, serialize
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, StampedTransform, UInt8Array


def encode_image(stamp_ns: int, frame_id: str, pixels: np.ndarray, encoding: str = "rgb8") -> bytes:
    """A raw Image from (H, W) or (H, W, C) pixels, without row padding."""
    rows = np.ascontiguousarray(pixels)
    data = rows.view(np.uint8).reshape(-1)
    return serialize(
        make(
            "sensor_msgs/Image", header=header(stamp_ns, frame_id), height=rows.shape[0], width=rows.shape[1],
            encoding=encoding, is_bigendian=0, step=data.size // rows.shape[0], data=data,
        )
    )  # fmt: skip


def encode_compressed_image(stamp_ns: int, frame_id: str, rgb: UInt8Array, quality: int = 90) -> bytes:
    """A jpeg CompressedImage from (H, W, 3) RGB."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"image of shape {rgb.shape} cannot be encoded as jpeg")
    message = make(
        "sensor_msgs/CompressedImage",
        header=header(stamp_ns, frame_id),
        format="jpeg",
        data=np.asarray(data).reshape(-1),
    )
    return serialize(message)


def encode_depth_image(stamp_ns: int, frame_id: str, depth_m: Float32Array) -> bytes:
    """A 16UC1 Image in millimetres from (H, W) metres; what does not fit becomes 0."""
    millimetres = np.where((depth_m > 0) & (depth_m < 65.5), depth_m * 1000, 0)
    return encode_image(stamp_ns, frame_id, np.round(millimetres).astype(np.uint16), "16UC1")


def encode_camera_info(
    stamp_ns: int, frame_id: str, model: CameraModel, T_frame_camera: FloatArray | None = None
) -> bytes:
    """A CameraInfo of an unrectified camera, which may stand in the frame of its stereo pair's first one (x and y hold)."""
    projection, place = np.zeros((3, 4)), np.eye(4) if T_frame_camera is None else T_frame_camera
    projection[:, :3] = model.K
    projection[:2, 3] = -model.K[0, 0] * place[0, 3], -model.K[1, 1] * place[1, 3]
    roi = make("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    distortion = "plumb_bob" if model.distortion_model == "none" else model.distortion_model
    return serialize(
        make(
            "sensor_msgs/CameraInfo", header=header(stamp_ns, frame_id), height=model.height, width=model.width,
            distortion_model=distortion, d=model.D if model.D.size else np.zeros(5), k=model.K.reshape(-1),
            r=place[:3, :3].reshape(-1), p=projection.reshape(-1), binning_x=0, binning_y=0, roi=roi,
        )
    )  # fmt: skip


def encode_tf(transforms: Sequence[StampedTransform]) -> bytes:
    """A TFMessage."""
    items = [
        make(
            "geometry_msgs/TransformStamped", header=header(t.stamp_ns, t.target_frame), child_frame_id=t.source_frame,
            transform=make(
                "geometry_msgs/Transform", translation=_vector(t.T_target_source), rotation=_rotation(t.T_target_source)
            ),
        )
        for t in transforms
    ]  # fmt: skip
    return serialize(make("tf2_msgs/TFMessage", transforms=items))


def encode_odometry(transform: StampedTransform) -> bytes:
    """An Odometry message with a pose and no velocity."""
    matrix, zero = transform.T_target_source, np.zeros(36)
    x, y, z = (float(v) for v in matrix[:3, 3])
    pose = make(
        "geometry_msgs/Pose", position=make("geometry_msgs/Point", x=x, y=y, z=z), orientation=_rotation(matrix)
    )
    still = make("geometry_msgs/Vector3", x=0.0, y=0.0, z=0.0)
    twist = make(
        "geometry_msgs/TwistWithCovariance",
        twist=make("geometry_msgs/Twist", linear=still, angular=still),
        covariance=zero,
    )
    return serialize(
        make(
            "nav_msgs/Odometry", header=header(transform.stamp_ns, transform.target_frame),
            child_frame_id=transform.source_frame, twist=twist,
            pose=make("geometry_msgs/PoseWithCovariance", pose=pose, covariance=zero),
        )
    )  # fmt: skip


def encode_point_cloud(stamp_ns: int, frame_id: str, points_m: Float32Array) -> bytes:
    """A PointCloud2 with fields x y z from (N, 3)."""
    layout = [("x", 0, FLOAT32), ("y", 4, FLOAT32), ("z", 8, FLOAT32)]
    return encode_cloud(stamp_ns, frame_id, np.ascontiguousarray(points_m, dtype="<f4"), len(points_m), layout)


def _vector(matrix: FloatArray) -> Any:
    x, y, z = (float(v) for v in matrix[:3, 3])
    return make("geometry_msgs/Vector3", x=x, y=y, z=z)


def _rotation(matrix: FloatArray) -> Any:
    x, y, z, w = (float(v) for v in quaternion(matrix))
    return make("geometry_msgs/Quaternion", x=x, y=y, z=z, w=w)
