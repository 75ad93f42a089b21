# SPDX-License-Identifier: Apache-2.0
"""Pixels of CompressedImage messages, as image_transport's plugins and drivers write them."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import ImageError
from occupancy_nn_ros.messages.bit_depth import to_8_bits
from occupancy_nn_ros.messages.picture_headers import JPEG_END, PictureLimits, has_jpeg_end, is_jpeg, picture_size
from occupancy_nn_ros.messages.rvl import decode_rvl
from occupancy_nn_ros.values import UInt8Array

BAYER_TO_RGB = {
    # OpenCV names a Bayer pattern by its second row's second and third pixel, ROS by its first row.
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
# A camera_info holds for the pixels as they lie in the file, whatever way up EXIF wants them shown.
AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION
DEPTH_HEADER = 12
"""Bytes before a compressedDepth picture: int32 format, then the float32 parameters A and B of quantised inverse depth."""

FILLERS = (b"", b"\x5a\xa5\x33" * 400)
"""What follows the last scan of a JPEG does not change its pixels; where a scan is cut off, it does."""


def decompress_color(message: Any, limits: PictureLimits) -> UInt8Array:
    """RGB (H, W, 3) uint8 of a JPEG, PNG or WebP, by the encoding that ``format`` tells.

    Raises:
        ImageError: no colour picture, or one that is refused or does not decompress.
    """
    encoding, _, compression = (part.strip() for part in message.format.partition(";"))
    if "compresseddepth" in compression.lower() or "compresseddepth" in encoding.lower():
        raise ImageError(f"format is '{message.format}', expected a colour picture")
    pattern = BAYER_TO_RGB.get(encoding[:10].lower())
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if pattern is None else cv2.IMREAD_UNCHANGED
    picture = _decompress(message, 0, flags, limits)
    if picture.dtype == np.uint16:
        picture = to_8_bits(picture)
    if pattern is not None and picture.ndim == 2:
        return _converted(picture, pattern)
    if picture.ndim == 2 or picture.shape[2] == 1:
        return _converted(picture, cv2.COLOR_GRAY2RGB)
    if compression.startswith(("jpeg compressed rgb", "png compressed rgb")):
        return np.ascontiguousarray(picture[..., :3])  # written in this order by a library that takes it for BGR
    return _converted(np.ascontiguousarray(picture[..., :3]), cv2.COLOR_BGR2RGB)


def decompress_depth(message: Any, limits: PictureLimits) -> npt.NDArray[Any]:
    """Depth (H, W): uint16 in the sensor's unit, or float32 in metres where it was quantised as inverse depth.

    Raises:
        ImageError: no depth picture, or one that is refused or does not decompress.
    """
    what = f"'{message.format}' image"
    if "compresseddepth" not in message.format.lower():
        picture = _decompress(message, 0, cv2.IMREAD_UNCHANGED, limits)
    elif len(message.data) <= DEPTH_HEADER:
        raise ImageError(f"{what} has {len(message.data)} bytes, expected a {DEPTH_HEADER}-byte header and a picture")
    elif "rvl" in message.format.lower():
        picture = decode_rvl(np.asarray(message.data[DEPTH_HEADER:], dtype=np.uint8).tobytes(), limits)
    else:
        picture = _decompress(message, DEPTH_HEADER, cv2.IMREAD_UNCHANGED, limits)
    if picture.ndim != 2 or picture.dtype != np.uint16:
        raise ImageError(f"{what} holds {picture.dtype} {picture.shape}, expected one channel of 16 bits")
    if "32FC1" in message.format and "compresseddepth" in message.format.lower():
        return _from_inverse_depth(message, picture)
    return picture


def _from_inverse_depth(message: Any, picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    a, b = struct.unpack_from("<ff", np.asarray(message.data[:DEPTH_HEADER], dtype=np.uint8).tobytes(), 4)
    inverse = picture.astype(np.float32) - np.float32(b)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where((picture > 0) & (inverse > 0), np.float32(a) / inverse, 0).astype(np.float32)


def _decompress(message: Any, offset: int, flags: int, limits: PictureLimits) -> npt.NDArray[Any]:
    what = f"'{message.format}' image"
    data = np.asarray(message.data[offset:], dtype=np.uint8).tobytes()
    if not data:
        raise ImageError(f"{what} is empty")
    limits.check(*picture_size(data, what))
    if not is_jpeg(data) or has_jpeg_end(data):
        return _decode(data, flags, what)
    # Some cameras leave the end mark out. A decoder fills what is missing with grey and says nothing.
    one, other = (_decode(data + filler + JPEG_END, flags, what) for filler in FILLERS)
    if not np.array_equal(one, other):
        raise ImageError(f"{what} of {len(data)} bytes is cut off")
    return one


def _decode(data: bytes, flags: int, what: str) -> npt.NDArray[Any]:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags | AS_STORED)
    except (cv2.error, MemoryError):
        picture = None
    if picture is None:
        raise ImageError(f"{what} of {len(data)} bytes does not decompress")
    return np.asarray(picture)


def _converted(picture: npt.NDArray[Any], conversion: int) -> UInt8Array:
    try:
        return np.asarray(cv2.cvtColor(picture, conversion), dtype=np.uint8)
    except cv2.error as error:
        raise ImageError(f"picture of shape {picture.shape} cannot be converted: {error}") from None
