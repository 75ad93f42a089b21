# SPDX-License-Identifier: Apache-2.0
"""CDR bytes of camera_info, transforms, odometry, poses and point clouds to core types."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import CalibrationError, LayoutError, MessageError, TransformError
from occupancy_nn_ros.geometry.cameras import lens_of
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.headers import SECOND_NS, Header, peek_header
from occupancy_nn_ros.messages.names import (
    CAMERA_INFO,
    ODOMETRY,
    POINT_CLOUD,
    POSE_STAMPED,
    TF_MESSAGE,
    TRANSFORM_STAMPED,
)
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, StampedTransform

POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
MAX_POINTS = 20_000_000


def decode_camera_info(cdr: bytes | memoryview, *, is_rectified: bool = False) -> tuple[Header, CameraModel]:
    """Intrinsics with binning and region of interest applied; for rectified pictures those of P, without distortion.

    Raises:
        MessageError: the bytes do not decode.
        CalibrationError: a region of interest outside the image, a matrix of the wrong size, or rectified pictures of a lens
            with distortion whose P is all zero.
    """
    header, message = peek_header(cdr), deserialize(CAMERA_INFO, cdr)
    lens = lens_of(message.distortion_model, message.d)
    K = _rectified_matrix(message, lens[1]) if is_rectified else np.asarray(message.k, dtype=np.float64)
    if K.size != 9:
        raise CalibrationError(f"K has {K.size} numbers, expected 9")
    K = K.reshape(3, 3).copy()
    width, height = int(message.width), int(message.height)
    roi = message.roi
    if roi.width and roi.height:
        if roi.x_offset + roi.width > width or roi.y_offset + roi.height > height:
            raise CalibrationError(f"region of interest {roi.width}x{roi.height} does not fit into {width}x{height}")
        K[0, 2] -= roi.x_offset
        K[1, 2] -= roi.y_offset
        width, height = int(roi.width), int(roi.height)
    binning = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    K[0] /= binning[0]
    K[1] /= binning[1]
    name, D = ("none", np.zeros(0)) if is_rectified else lens
    return header, CameraModel(width // binning[0], height // binning[1], K, name, D, binning)


def _rectified_matrix(message: Any, D: FloatArray) -> FloatArray:
    """The left part of P, or K where P was left empty and nothing had to be rectified."""
    P = np.asarray(message.p, dtype=np.float64)
    if P.any() or not np.any(message.k):
        return P.reshape(3, 4)[:, :3].reshape(-1)
    if D.any():
        raise CalibrationError(
            f"P is all zero and D is {D.tolist()}, expected the P of the rectified pictures, or the topic of those not rectified"
        )
    return np.asarray(message.k, dtype=np.float64)


def decode_stereo_place(cdr: bytes | memoryview, *, is_rectified: bool = False) -> FloatArray:
    """``T_rig_camera`` (4, 4): where a camera stands in the rectified frame of its stereo pair's first one.

    By ``sensor_msgs/CameraInfo`` R turns rays of the camera into that frame, unless its pictures are rectified already, and P holds
    ``-fx * x`` and ``-fy * y`` of its place. The identity for a camera that is alone, or not calibrated for stereo.

    Raises:
        MessageError: the bytes do not decode.
    """
    message = deserialize(CAMERA_INFO, cdr)
    P, R = (np.asarray(values, dtype=np.float64) for values in (message.p, message.r))
    place = np.eye(4)
    if P.size == 12 and np.isfinite(P).all() and P[0] > 0 and P[5] > 0:
        place[:2, 3] = -P[3] / P[0], -P[7] / P[5]
    if not is_rectified and R.size == 9 and np.allclose(R.reshape(3, 3) @ R.reshape(3, 3).T, np.eye(3), atol=1e-3):
        place[:3, :3] = Rotation.from_matrix(R.reshape(3, 3)).as_matrix()
    return place


def decode_tf(cdr: bytes | memoryview, unusable: list[TransformError] | None = None) -> list[StampedTransform]:
    """Transforms of a TFMessage.

    Args:
        cdr: the message.
        unusable: takes the error of each transform that cannot be used, in place of raising the first.

    Raises:
        MessageError: the bytes do not decode.
        TransformError: a transform holds NaN or a rotation of zero length; names its frames.
    """
    found = []
    for item in deserialize(TF_MESSAGE, cdr).transforms:
        try:
            found.append(decode_transform(item))
        except TransformError as error:
            if unusable is None:
                raise
            unusable.append(error)
    return found


def decode_transform(message: Any) -> StampedTransform:
    """A TransformStamped, of this package's types or of rclpy's.

    Raises:
        TransformError: NaN or a rotation of zero length.
    """
    return _stamped(message, message.child_frame_id, message.transform)


def decode_pose(msgtype: str, cdr: bytes | memoryview) -> StampedTransform:
    """The pose of one of ``POSE_TYPES`` as the transform to its frame, from its child frame or from one without a name.

    Raises:
        MessageError: the bytes do not decode.
        TransformError: NaN or a rotation of zero length.
    """
    message = deserialize(msgtype, cdr)
    if msgtype == TRANSFORM_STAMPED:
        return decode_transform(message)
    pose = message.pose if msgtype == POSE_STAMPED else message.pose.pose
    return _stamped(message, message.child_frame_id if msgtype == ODOMETRY else "", pose)


def decode_point_cloud(cdr: bytes | memoryview) -> tuple[Header, Float32Array]:
    """Finite points (N, 3) float32 of a PointCloud2 in the sensor's frame, whatever its field layout.

    Raises:
        LayoutError: x y z are missing, or sizes do not fit the data.
        MessageError: the bytes do not decode, or are more points than any sensor has.
    """
    header, message = peek_header(cdr), deserialize(POINT_CLOUD, cdr)
    width, height, step, row = (int(v) for v in (message.width, message.height, message.point_step, message.row_step))
    if width * height == 0:
        return header, np.zeros((0, 3), np.float32)
    if width * height > MAX_POINTS:
        raise MessageError(f"cloud of {width}x{height} points, expected at most {MAX_POINTS}")
    if step == 0 or row < width * step or message.data.size < row * (height - 1) + width * step:
        raise LayoutError(
            f"cloud of {width}x{height} points, steps {step} and {row}, does not fit {message.data.size} bytes"
        )
    order = ">" if message.is_bigendian else "<"
    data = np.asarray(message.data)
    columns = [_column(message, data, name, order) for name in ("x", "y", "z")]
    with np.errstate(over="ignore"):  # what no float32 holds becomes infinite and goes with the rest
        points = np.stack(columns, axis=1).astype(np.float32)
    return header, points[np.isfinite(points).all(axis=1)]


def _column(message: Any, data: npt.NDArray[np.uint8], name: str, order: str) -> npt.NDArray[Any]:
    field = next((f for f in message.fields if f.name == name), None)
    if field is None:
        raise LayoutError(f"cloud has fields {[f.name for f in message.fields]}, expected x, y, z")
    if field.datatype not in POINT_TYPES:
        raise LayoutError(f"field {name} has datatype {field.datatype}, expected 1 to 8")
    dtype = np.dtype(order + POINT_TYPES[field.datatype])
    if field.offset + dtype.itemsize > message.point_step:
        raise LayoutError(f"field {name} at offset {field.offset} does not fit a point of {message.point_step} bytes")
    strides = (int(message.row_step), int(message.point_step))
    shape = (int(message.height), int(message.width))
    return np.ndarray(shape, dtype, np.ascontiguousarray(data), int(field.offset), strides).reshape(-1)


def _stamped(message: Any, child: str, pose: Any) -> StampedTransform:
    translation = pose.translation if hasattr(pose, "translation") else pose.position
    rotation = pose.rotation if hasattr(pose, "rotation") else pose.orientation
    parent, child = message.header.frame_id.lstrip("/"), child.lstrip("/")
    try:
        matrix = make_transform(
            (translation.x, translation.y, translation.z), (rotation.x, rotation.y, rotation.z, rotation.w)
        )
    except TransformError as error:
        raise TransformError(f"transform from '{child or 'pose'}' to '{parent}': {error}") from None
    stamp = message.header.stamp
    return StampedTransform(stamp.sec * SECOND_NS + stamp.nanosec, parent, child, matrix)
