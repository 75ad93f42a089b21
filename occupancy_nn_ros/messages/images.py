# SPDX-License-Identifier: Apache-2.0
"""Pixels of image messages: every common encoding to RGB or to depth in metres."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import ImageError, UnknownEncodingError
from occupancy_nn_ros.messages.bit_depth import to_8_bits
from occupancy_nn_ros.messages.compressed import BAYER_TO_RGB, decompress_color, decompress_depth
from occupancy_nn_ros.messages.headers import Header, peek_header
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, COMPRESSED_VIDEO, IMAGE
from occupancy_nn_ros.messages.picture_headers import NO_LIMITS, PictureLimits
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import Float32Array, UInt8Array

COLOR_ENCODINGS: dict[str, tuple[int, int | None]] = {
    # encoding: (bytes per pixel, OpenCV conversion to RGB)
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    **{f"{pattern}8": (1, conversion) for pattern, conversion in BAYER_TO_RGB.items()},
}
PLANAR_ENCODINGS = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "i420": cv2.COLOR_YUV2RGB_I420,
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}
"""Encodings with all of Y first and U and V at half the resolution behind it: three bytes for two pixels."""

SIXTEEN_BIT = {f"{name[:-1]}16": name for name in COLOR_ENCODINGS if name.endswith("8")}
"""Encodings with two bytes a channel, and the ones of one byte that they become."""

SAME = {
    "rgb": "rgb8", "bgr": "bgr8", "rgba": "rgba8", "bgra": "bgra8", "mono": "mono8", "gray8": "mono8", "grey8": "mono8", "y8": "mono8",
    "8uc1": "8UC1", "8uc3": "8UC3", "8uc4": "8UC4", "yuyv422": "yuyv", "yuy2": "yuyv", "uyvy422": "uyvy", "y16": "mono16",
    "gray16": "mono16", "yuv420p": "i420", "yuv420": "i420",
}  # fmt: skip
"""What drivers call encodings, in lower case, and their names in ROS."""

DEPTH_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}


def decode_image(msgtype: str, cdr: bytes | memoryview, limits: PictureLimits = NO_LIMITS) -> tuple[Header, UInt8Array]:
    """RGB pixels (H, W, 3) uint8 of an Image or CompressedImage message.

    Raises:
        MessageError: the bytes do not decode.
        UnknownEncodingError: none of those known.
        ImageError: a size that is refused, too few bytes, or a picture that does not decompress.
    """
    header, message = peek_header(cdr), deserialize(msgtype, cdr)
    if msgtype == COMPRESSED_IMAGE:
        return header, decompress_color(message, limits)
    limits.check(int(message.width), int(message.height))
    named = message.encoding.strip().lower()
    named = SAME.get(named, named)
    if named in PLANAR_ENCODINGS:
        return header, _to_rgb(_planes(message), PLANAR_ENCODINGS[named], message)
    encoding = SIXTEEN_BIT.get(named, named)
    if encoding not in COLOR_ENCODINGS:
        known = ", ".join((*COLOR_ENCODINGS, *PLANAR_ENCODINGS, *SIXTEEN_BIT))
        raise UnknownEncodingError(f"encoding is '{message.encoding}', expected one of {known}")
    pixel_bytes, conversion = COLOR_ENCODINGS[encoding]
    rows = _rows(message, pixel_bytes) if encoding == named else _rows_to_8_bit(message, pixel_bytes)
    pixels = rows.reshape(message.height, message.width, pixel_bytes) if pixel_bytes > 1 else rows
    if conversion is None:
        return header, np.ascontiguousarray(pixels)
    return header, _to_rgb(pixels, conversion, message)


def decode_depth(
    msgtype: str, cdr: bytes | memoryview, limits: PictureLimits = NO_LIMITS, unit_m: float = 0.0
) -> tuple[Header, Float32Array]:
    """Depth (H, W) float32 in metres of a 16UC1, 32FC1 or compressedDepth message; 0 = nothing.

    Args:
        msgtype: type of the message.
        cdr: its bytes.
        limits: sizes that are allowed.
        unit_m: metres of one unit of what is stored; 0: millimetres in whole numbers, metres in others (REP 118).

    Raises:
        MessageError: the bytes do not decode.
        UnknownEncodingError: none of the depth encodings.
        ImageError: a size that is refused, too few bytes, or data that does not decompress.
    """
    header, message = peek_header(cdr), deserialize(msgtype, cdr)
    if msgtype == COMPRESSED_IMAGE:
        return header, to_metres(decompress_depth(message, limits), unit_m)
    limits.check(int(message.width), int(message.height))
    if message.encoding not in DEPTH_TYPES:
        raise UnknownEncodingError(
            f"encoding is '{message.encoding}', expected a depth image: {', '.join(DEPTH_TYPES)}"
        )
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(order + DEPTH_TYPES[message.encoding])
    rows = np.ascontiguousarray(_rows(message, dtype.itemsize))
    return header, to_metres(rows.view(dtype).reshape(message.height, message.width), unit_m)


def _to_rgb(pixels: UInt8Array, conversion: int, message: Any) -> UInt8Array:
    try:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), dtype=np.uint8)
    except cv2.error as error:
        raise ImageError(
            f"{message.encoding} image of {message.width}x{message.height} cannot be converted: {error}"
        ) from None


def peek_encoding(msgtype: str, cdr: bytes | memoryview) -> str:
    """Encoding of an Image, or format of a compressed one or of a video.

    Raises:
        MessageError: the bytes do not decode.
    """
    message = deserialize(msgtype, cdr)
    return str(message.format if msgtype in (COMPRESSED_IMAGE, COMPRESSED_VIDEO) else message.encoding)


def unit_by_encoding(msgtype: str, cdr: bytes | memoryview) -> float:
    """Metres of one unit of a depth image if its encoding is to be believed (REP 118); 1 for what is no image."""
    is_whole = msgtype in (IMAGE, COMPRESSED_IMAGE) and "F" not in peek_encoding(msgtype, cdr).upper().split(";")[0]
    return 0.001 if is_whole else 1.0


def _rows(message: Any, pixel_bytes: int) -> UInt8Array:
    """Pixel bytes (H, W * pixel_bytes) without row padding."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    if step in (0, width) and len(message.data) == height * width * pixel_bytes:
        step = width * pixel_bytes  # left empty, or counted in pixels
    if step < width * pixel_bytes:
        raise ImageError(
            f"step is {step}, expected at least {width * pixel_bytes} for {width} {message.encoding} pixels"
        )
    data = np.asarray(message.data, dtype=np.uint8)
    needed = step * (height - 1) + width * pixel_bytes
    if data.size < needed:
        raise ImageError(f"image has {data.size} bytes, expected {needed} for {width}x{height} with step {step}")
    return np.ndarray((height, width * pixel_bytes), np.uint8, np.ascontiguousarray(data), 0, (step, 1))


def _planes(message: Any) -> UInt8Array:
    """Y above U and V, (H * 3 / 2, W), as OpenCV takes them."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    if width % 2 or height % 2:
        raise ImageError(f"{message.encoding} image is {width}x{height}, expected even numbers")
    data, lines = np.asarray(message.data, dtype=np.uint8), height * 3 // 2
    step = max(step, width)  # some drivers give one and a half times the width, and mean the width
    if data.size < step * (lines - 1) + width and data.size == width * lines:
        step = width
    if data.size < step * (lines - 1) + width:
        raise ImageError(
            f"image has {data.size} bytes, expected {step * lines} for {width}x{height} {message.encoding}"
        )
    return np.ndarray((lines, width), np.uint8, np.ascontiguousarray(data), 0, (step, 1))


def _rows_to_8_bit(message: Any, channels: int) -> UInt8Array:
    """Bytes (H, W * channels) of an image of two bytes a channel."""
    rows = np.ascontiguousarray(_rows(message, 2 * channels)).view(">u2" if message.is_bigendian else "<u2")
    return to_8_bits(rows)


def to_metres(raw: npt.NDArray[Any], unit_m: float) -> Float32Array:
    """Depth as it is stored to metres, with 0 for everything that is no measurement; see :func:`decode_depth`."""
    depth = raw.astype(np.float32)
    if raw.dtype.kind == "u":
        depth[raw == np.iinfo(raw.dtype).max] = 0  # what drivers write where the sensor was saturated or saw nothing
    if unit_m or raw.dtype.kind in "iu":
        depth *= np.float32(unit_m or 0.001)
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    return depth
