# SPDX-License-Identifier: Apache-2.0
"""Depth images of 16 bits, compressed as runs and differences in variable-length nibbles (RVL, Wilson 2017)."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import ImageError
from occupancy_nn_ros.messages.picture_headers import PictureLimits

MAX_NIBBLES = 6
"""A difference of two 16-bit numbers, or a length of a run, needs no more: 3 bits of it are in each nibble."""


def decode_rvl(data: bytes, limits: PictureLimits) -> npt.NDArray[np.uint16]:
    """Depth (H, W) uint16 of an RVL stream after its width and height, each int32.

    Raises:
        ImageError: a size that is refused, or a stream that does not hold exactly this many pixels.
    """
    if len(data) < 8:
        raise ImageError(f"RVL image of {len(data)} bytes, expected at least its size")
    width, height = struct.unpack_from("<ii", data)
    limits.check(width, height)
    return _fill(_numbers(data[8:]), width * height).reshape(height, width)


def _numbers(data: bytes) -> npt.NDArray[np.int64]:
    """The numbers in a stream of 32-bit words, high nibbles first; the top bit of a nibble says that more follow."""
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    nibbles = (words[:, None] >> shifts & np.uint32(15)).reshape(-1).astype(np.int64)
    last = np.flatnonzero(nibbles < 8)
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    if not len(last) or (last - first).max() >= 2 * MAX_NIBBLES:
        raise ImageError("RVL image holds a number of too many nibbles, expected one of 16 bits")
    nibbles = nibbles[: last[-1] + 1]
    place = np.arange(len(nibbles)) - np.repeat(first, last - first + 1)
    return np.asarray(np.add.reduceat((nibbles & 7) << (3 * place), first))


def _fill(numbers: npt.NDArray[np.int64], pixels: int) -> npt.NDArray[np.uint16]:
    """Runs of zeros and of differences in turn, laid out over the pixels."""
    filled = np.zeros(pixels, bool)
    is_difference = np.zeros(len(numbers), bool)
    at = done = 0
    while done < pixels:
        if at + 1 >= len(numbers):
            raise ImageError(f"RVL image ends after {done} of {pixels} pixels")
        zeros, values = int(numbers[at]), int(numbers[at + 1])
        if zeros + values == 0 or done + zeros + values > pixels or at + 2 + values > len(numbers):
            raise ImageError(f"RVL image holds a run of {zeros} and {values} at pixel {done} of {pixels}")
        filled[done + zeros : done + zeros + values] = True
        is_difference[at + 2 : at + 2 + values] = True
        done, at = done + zeros + values, at + 2 + values
    coded = numbers[is_difference]
    differences = (coded >> 1) ^ -(coded & 1)
    depth = np.zeros(pixels, np.int64)
    depth[filled] = np.cumsum(differences)
    if depth.min(initial=0) < 0 or depth.max(initial=0) > 65535:
        raise ImageError("RVL image holds differences that leave 16 bits")
    return depth.astype(np.uint16)
