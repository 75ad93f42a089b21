# SPDX-License-Identifier: Apache-2.0
"""Size of a JPEG, PNG or WebP from its header, so that nothing is decoded that is absurd, cut off or hides its size."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass

from occupancy_nn_ros.errors import ImageError

MAX_SIDE = 32767
MAX_PIXELS = 1 << 25
"""33 megapixels: more than any camera on a robot has; 100 MB as RGB."""

JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frame header, which holds its size."""

JPEG_END = b"\xff\xd9"
MAX_SCANS = 100
"""A progressive JPEG has about ten. Each costs the decoder a pass over the whole picture, however few bytes it has."""


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may measure.

    Attributes:
        max_pixels: width times height.
        sizes: (width, height) that camera_info allows; empty where it is not known.
    """

    max_pixels: int = MAX_PIXELS
    sizes: Collection[tuple[int, int]] = ()

    def check(self, width: int, height: int) -> None:
        """Refuse another size.

        Raises:
            ImageError: too large, or not the size that camera_info tells.
        """
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            raise ImageError(f"image size is {width}x{height}, expected 1 to {MAX_SIDE} on each side")
        if self.sizes and (width, height) not in self.sizes:
            expected = " or ".join(f"{w}x{h}" for w, h in self.sizes)
            raise ImageError(f"image is {width}x{height}, camera_info says {expected}")
        if width * height > self.max_pixels:
            raise ImageError(f"image claims to be {width}x{height}, expected at most {self.max_pixels} pixels")


NO_LIMITS = PictureLimits()


def picture_size(data: bytes, what: str) -> tuple[int, int]:
    """Width and height of a picture that is whole, as far as its headers tell; a JPEG may lack its end mark.

    Raises:
        ImageError: none of the three formats, cut off, animated, or made to keep a decoder busy.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        size = _png_size(data)
    elif data[:2] == b"\xff\xd8":
        if data.count(b"\xff\xda") > MAX_SCANS:
            raise ImageError(f"{what} has more than {MAX_SCANS} scans, which no camera sends")
        size = _jpeg_frame(data)[:2]
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = _webp_size(data)
    else:
        is_video = data[:4] == b"\0\0\0\1" or data[:3] == b"\0\0\1"
        hint = ": a video stream, expected as foxglove_msgs/CompressedVideo or FFMPEGPacket" if is_video else ""
        raise ImageError(f"{what} is neither JPEG nor PNG nor WebP{hint}")
    if min(size) == 0:
        raise ImageError(f"{what} of {len(data)} bytes is cut off or damaged")
    return size


def has_jpeg_end(data: bytes) -> bool:
    """Whether the end mark comes after the frame header: a thumbnail before it has one of its own."""
    return data.find(JPEG_END, _jpeg_frame(data)[2]) >= 0


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG's."""
    return data[:2] == b"\xff\xd8"


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose chunks lie within the data, from the header to the end mark; else (0, 0)."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if (kind == b"IHDR") != (at == 8) or kind == b"acTL" or at + 12 + length > len(data):
            break
        at += 12 + length
    return 0, 0


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Width, height and place of the frame header; zeros if there is none."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height, at
        at += 1 if marker == 0xFF else 2 + length
    return 0, 0, 0


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a still WebP (RFC 9649) whose length is that in its header; else (0, 0)."""
    if len(data) < 30 or struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        return 0, 0
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        is_animated = bool(body[0] & 0x02)
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
        return (0, 0) if is_animated else (width, height)
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0
