# SPDX-License-Identifier: Apache-2.0
"""Pixels of image messages: every common encoding to RGB or to depth in metres."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import ImageError
from occupancy_nn_ros.messages.headers import Header, peek_header
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import Float32Array, UInt8Array

MAX_SIDE = 32767
MAX_PIXELS = 1 << 26
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frame header, which holds its size."""

COLOR_ENCODINGS: dict[str, tuple[int, int | None]] = {
    # encoding: (bytes per pixel, OpenCV conversion to RGB)
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names a Bayer pattern by its second row's second and third pixel, ROS by its first row.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}
SIXTEEN_BIT = {f"{name[:-1]}16": name for name in COLOR_ENCODINGS if name.endswith("8")}
"""Encodings with two bytes a channel, and the ones of one byte that they become, scaled as cv_bridge scales them."""

DEPTH_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}


def decode_image(msgtype: str, cdr: bytes | memoryview) -> tuple[Header, UInt8Array]:
    """RGB pixels (H, W, 3) uint8 of an Image or CompressedImage message.

    Raises:
        MessageError: the bytes do not decode.
        ImageError: unknown encoding, zero size, too few bytes, or a picture that does not decompress.
    """
    header, message = peek_header(cdr), deserialize(msgtype, cdr)
    if msgtype == COMPRESSED_IMAGE:
        return header, _decompress_color(message)
    encoding = SIXTEEN_BIT.get(message.encoding, message.encoding)
    if encoding not in COLOR_ENCODINGS:
        known = ", ".join((*COLOR_ENCODINGS, *SIXTEEN_BIT))
        raise ImageError(f"encoding is '{message.encoding}', expected one of {known}")
    pixel_bytes, conversion = COLOR_ENCODINGS[encoding]
    rows = _rows(message, pixel_bytes) if encoding == message.encoding else _rows_to_8_bit(message, pixel_bytes)
    pixels = rows.reshape(message.height, message.width, pixel_bytes) if pixel_bytes > 1 else rows
    if conversion is None:
        return header, np.ascontiguousarray(pixels)
    try:
        return header, np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), dtype=np.uint8)
    except cv2.error as error:
        raise ImageError(
            f"{message.encoding} image of {message.width}x{message.height} cannot be converted: {error}"
        ) from None


def decode_depth(msgtype: str, cdr: bytes | memoryview) -> tuple[Header, Float32Array]:
    """Depth (H, W) float32 in metres of a 16UC1 (millimetres), 32FC1 (metres) or compressedDepth message; 0 = nothing.

    Raises:
        MessageError: the bytes do not decode.
        ImageError: not a depth encoding, zero size, too few bytes, or data that does not decompress.
    """
    header, message = peek_header(cdr), deserialize(msgtype, cdr)
    if msgtype == COMPRESSED_IMAGE:
        return header, _clean(_decompress_depth(message))
    if message.encoding not in DEPTH_TYPES:
        raise ImageError(f"encoding is '{message.encoding}', expected a depth image: {', '.join(DEPTH_TYPES)}")
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(order + DEPTH_TYPES[message.encoding])
    rows = np.ascontiguousarray(_rows(message, dtype.itemsize))
    return header, _clean(rows.view(dtype).reshape(message.height, message.width))


def peek_encoding(msgtype: str, cdr: bytes | memoryview) -> str:
    """Encoding of an Image, or format of a CompressedImage.

    Raises:
        MessageError: the bytes do not decode.
    """
    message = deserialize(msgtype, cdr)
    return str(message.format if msgtype == COMPRESSED_IMAGE else message.encoding)


def _rows(message: Any, pixel_bytes: int) -> UInt8Array:
    """Pixel bytes (H, W * pixel_bytes) without row padding."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageError(f"image size is {width}x{height}, expected 1 to {MAX_SIDE} on each side")
    if step < width * pixel_bytes:
        raise ImageError(
            f"step is {step}, expected at least {width * pixel_bytes} for {width} {message.encoding} pixels"
        )
    data = np.asarray(message.data, dtype=np.uint8)
    needed = step * (height - 1) + width * pixel_bytes
    if data.size < needed:
        raise ImageError(f"image has {data.size} bytes, expected {needed} for {width}x{height} with step {step}")
    return np.ndarray((height, width * pixel_bytes), np.uint8, np.ascontiguousarray(data), 0, (step, 1))


def _rows_to_8_bit(message: Any, channels: int) -> UInt8Array:
    """Bytes (H, W * channels) of an image of two bytes a channel."""
    rows = np.ascontiguousarray(_rows(message, 2 * channels)).view(">u2" if message.is_bigendian else "<u2")
    return np.asarray(cv2.convertScaleAbs(rows.astype(np.uint16), alpha=255 / 65535), dtype=np.uint8)


def _clean(raw: npt.NDArray[Any]) -> Float32Array:
    """Metres with 0 for everything that is no measurement."""
    depth = raw.astype(np.float32)
    if raw.dtype.kind == "u":
        depth *= np.float32(0.001)
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    return depth


def _decompress(data: npt.NDArray[np.uint8], flags: int, what: str) -> npt.NDArray[Any]:
    if data.size == 0:
        raise ImageError(f"{what} is empty")
    _check_picture_size(data.tobytes(), what)
    try:
        picture = cv2.imdecode(data, flags)
    except cv2.error:
        picture = None
    if picture is None:
        raise ImageError(f"{what} of {data.size} bytes does not decompress")
    return np.asarray(picture)


def _check_picture_size(data: bytes, what: str) -> None:
    """Refuse a picture whose header claims an absurd size, or hides it, before anything is allocated."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = _png_size(data)
        is_whole = width > 0
    elif data[:2] == b"\xff\xd8":
        width, height = _jpeg_size(data)
        is_whole = b"\xff\xd9" in data  # libjpeg would fill what is missing with grey
    else:
        raise ImageError(f"{what} is neither PNG nor JPEG")
    if not is_whole or min(width, height) == 0:
        raise ImageError(f"{what} of {len(data)} bytes is cut off or damaged")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(f"{what} claims to be {width}x{height}, expected at most {MAX_PIXELS} pixels")


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose chunks lie within the data, from the header to the end mark; else (0, 0)."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if (kind == b"IHDR") != (at == 8) or at + 12 + length > len(data):
            break
        at += 12 + length
    return 0, 0


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from the frame header; (0, 0) if there is none."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + length
    return 0, 0


def _decompress_color(message: Any) -> UInt8Array:
    if "compressedDepth" in message.format:
        raise ImageError(f"format is '{message.format}', expected a colour picture")
    picture = _decompress(np.asarray(message.data, dtype=np.uint8), cv2.IMREAD_COLOR, f"'{message.format}' image")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decompress_depth(message: Any) -> npt.NDArray[Any]:
    data = np.asarray(message.data, dtype=np.uint8)
    what = f"'{message.format}' image"
    if "compressedDepth" not in message.format:
        picture = _decompress(data, cv2.IMREAD_UNCHANGED, what)
    else:
        # compressed_depth_image_transport puts 12 bytes before the PNG: int32 format, float32 depth parameters A, B.
        if data.size < 13:
            raise ImageError(f"{what} has {data.size} bytes, expected a 12-byte header and a PNG")
        picture = _decompress(data[12:], cv2.IMREAD_UNCHANGED, what)
        if "32FC1" in message.format and picture.ndim == 2 and picture.dtype == np.uint16:
            a, b = struct.unpack_from("<ff", data.tobytes()[:12], 4)
            inverse = picture.astype(np.float32) - np.float32(b)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where((picture > 0) & (inverse > 0), np.float32(a) / inverse, 0).astype(np.float32)
    if picture.ndim != 2 or picture.dtype != np.uint16:
        raise ImageError(f"{what} holds {picture.dtype} {picture.shape}, expected one channel of 16 bits")
    return picture
