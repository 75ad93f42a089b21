# SPDX-License-Identifier: Apache-2.0
"""Pictures of compressed video: packets that need those before them, back to one that stands by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from occupancy_nn_ros.errors import ImageError
from occupancy_nn_ros.messages.names import COMPRESSED_VIDEO
from occupancy_nn_ros.messages.picture_headers import NO_LIMITS, PictureLimits
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import UInt8Array

CODECS = {"264": "h264", "avc": "h264", "265": "hevc", "hevc": "hevc", "av1": "av1", "vp9": "vp9", "mjpeg": "mjpeg"}
"""Parts of what publishers call a codec (``libx264``, ``h264_nvenc``, ``hevc``), and its name."""

STARTS = {"h264": {5, 7}, "hevc": {16, 17, 18, 19, 20, 21, 32, 33, 34}}
"""Kinds of units (NAL) of a packet that decoding can begin with: parameter sets and pictures that need no other."""

KEY_FLAG = 1


@dataclass(frozen=True)
class VideoPacket:
    """One packet.

    Attributes:
        codec: name of the codec.
        data: its bytes.
        is_start: whether decoding can begin with it.
    """

    codec: str
    data: bytes
    is_start: bool


def read_packet(msgtype: str, cdr: bytes | memoryview) -> VideoPacket:
    """The packet in a CompressedVideo or FFMPEGPacket message.

    Raises:
        MessageError: the bytes do not decode.
        ImageError: a codec that is not known.
    """
    message = deserialize(msgtype, cdr)
    told = str(message.format if msgtype == COMPRESSED_VIDEO else message.encoding)
    name = told.partition(";")[0].lower()
    codec = next((codec for part, codec in CODECS.items() if part in name), None)
    if codec is None:
        raise ImageError(f"video is encoded as '{told}', expected one of {', '.join(dict.fromkeys(CODECS.values()))}")
    data = np.asarray(message.data, dtype=np.uint8).tobytes()
    is_key = bool(getattr(message, "flags", 0) & KEY_FLAG)
    return VideoPacket(codec, data, is_key or codec == "mjpeg" or _has_start(codec, data))


def decode_video(
    msgtype: str, cdr: bytes, earlier: Sequence[bytes] | None, limits: PictureLimits = NO_LIMITS
) -> UInt8Array:
    """RGB (H, W, 3) uint8 of a packet.

    Args:
        msgtype: type of the messages.
        cdr: the message with the packet.
        earlier: the messages before it from the last on that decoding can begin with; None if there was none yet.
        limits: sizes that are allowed.

    Raises:
        MessageError: the bytes do not decode.
        ImageError: nothing to begin with, no PyAV, a codec that is not known, a size that is refused, damaged packets.
    """
    packets = [read_packet(msgtype, item) for item in (*(earlier or ()), cdr)]
    if earlier is None or not packets[0].is_start:
        raise ImageError(f"{packets[-1].codec} video has brought no key frame yet, expected one to begin with")
    try:
        import av
    except ImportError:
        raise ImageError(
            f"decoding {packets[-1].codec} video needs PyAV: pip install 'occupancy_nn_ros[video]'"
        ) from None
    picture = _decode(av, packets, limits)
    if picture is None:
        raise ImageError(f"{packets[-1].codec} packet of {len(packets[-1].data)} bytes does not decode to a picture")
    return picture


def _decode(av: Any, packets: Sequence[VideoPacket], limits: PictureLimits) -> UInt8Array | None:
    """The picture of the last packet."""
    decoder = av.CodecContext.create(packets[-1].codec, "r")
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(limits.max_pixels), "flags": "low_delay"}
    frames = []
    try:
        for number, packet in enumerate(packets):
            unit = av.Packet(packet.data)
            unit.pts = unit.dts = number
            frames = [frame for frame in decoder.decode(unit) if frame.pts == len(packets) - 1]
        frames = frames or [frame for frame in decoder.decode(None) if frame.pts == len(packets) - 1]
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise ImageError(f"{packets[-1].codec} video does not decode: {error}") from None
    if not frames:
        return None
    limits.check(frames[0].width, frames[0].height)
    return np.ascontiguousarray(frames[0].to_ndarray(format="rgb24"), dtype=np.uint8)


def _has_start(codec: str, data: bytes) -> bool:
    """Whether one of the packet's units is of a kind that decoding can begin with (Annex B of H.264 and H.265)."""
    kinds, at = STARTS.get(codec, set()), data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        head = data[at + 3]
        if (head >> 1 & 0x3F if codec == "hevc" else head & 0x1F) in kinds:
            return True
        at = data.find(b"\0\0\1", at + 3)
    return False
