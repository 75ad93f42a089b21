# SPDX-License-Identifier: Apache-2.0
"""What cv_bridge and sensor_msgs_py read and this package's own decoders do not."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.serialization import deserialize_message

from occupancy_nn_ros.errors import ImageError, LayoutError
from occupancy_nn_ros.messages.names import IMAGE, POINT_CLOUD
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.runtime.decoding import FurtherDecoders
from occupancy_nn_ros.values import Float32Array, UInt8Array

COLOR_CHANNELS = (3, 4)


def installed_decoders() -> FurtherDecoders:
    """Those of the libraries that are installed; each is imported with the first message that needs it."""
    has_bridge, has_clouds = (find_spec(name) is not None for name in ("cv_bridge", "sensor_msgs_py"))
    return FurtherDecoders(
        image=read_image if has_bridge else None,
        depth=read_depth if has_bridge else None,
        cloud=read_cloud if has_clouds else None,
        names=("cv_bridge",) * has_bridge + ("sensor_msgs_py",) * has_clouds,
    )


def read_image(cdr: bytes) -> UInt8Array:
    """RGB (H, W, 3) of an Image: colours by cv_bridge's own table, else an OpenCV matrix in OpenCV's order, BGR.

    Whole numbers span the range of their type, floats 0 to 1, as OpenCV shows them.

    Raises:
        ImageError: cv_bridge cannot read it, or it is no picture.
    """
    message = deserialize_message(cdr, interface_class(IMAGE))
    try:
        return np.ascontiguousarray(_bridged(message, "rgb8"), dtype=np.uint8)
    except ImageError as error:
        if "not a color format" not in str(error):
            raise
    matrix = _bridged(message, "passthrough")
    kind, channels = matrix.dtype.kind, 1 if matrix.ndim == 2 else matrix.shape[2]
    if kind not in "uf" or channels not in (1, *COLOR_CHANNELS):
        raise ImageError(f"{message.encoding} is no picture, expected 1, 3 or 4 channels of unsigned numbers or floats")
    top = 1.0 if kind == "f" else float(np.iinfo(matrix.dtype).max)
    if kind == "f" and not (np.isfinite(matrix).all() and matrix.min() >= 0 and matrix.max() <= 1):
        raise ImageError(f"{message.encoding} image spans {matrix.min():g} to {matrix.max():g}, expected 0 to 1")
    scaled = np.round(matrix * (255.0 / top)).astype(np.uint8)
    if channels == 1:
        return np.repeat(scaled.reshape(*scaled.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(scaled[..., 2::-1])


def read_depth(cdr: bytes) -> npt.NDArray[Any]:
    """The one channel (H, W) of an Image, as it is stored.

    Raises:
        ImageError: cv_bridge cannot read it, or it has more channels.
    """
    message = deserialize_message(cdr, interface_class(IMAGE))
    matrix = _bridged(message, "passthrough")
    if matrix.ndim != 2:
        raise ImageError(f"{message.encoding} has {matrix.shape[2]} channels, expected a depth image of one")
    return matrix


def read_cloud(cdr: bytes) -> Float32Array:
    """Finite points (N, 3) of a PointCloud2, read point by point without regard to its rows.

    Raises:
        LayoutError: sensor_msgs_py cannot read it.
    """
    from sensor_msgs_py.point_cloud2 import read_points

    try:
        found = read_points(deserialize_message(cdr, interface_class(POINT_CLOUD)), field_names=["x", "y", "z"])
    except Exception as error:  # assertions, and what numpy raises for bytes that do not fit
        raise LayoutError(f"sensor_msgs_py cannot read the cloud: {error}") from None
    with np.errstate(over="ignore"):
        points = np.stack([found[name].reshape(-1) for name in ("x", "y", "z")], axis=1).astype(np.float32)
    return points[np.isfinite(points).all(axis=1)]


def _bridged(message: Any, encoding: str) -> npt.NDArray[Any]:
    try:
        from cv_bridge import CvBridge

        return np.asarray(CvBridge().imgmsg_to_cv2(message, encoding))
    except Exception as error:  # its own error, one of OpenCV or numpy, or a build for another numpy
        raise ImageError(f"cv_bridge cannot read {message.encoding}: {error}") from None
