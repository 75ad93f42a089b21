# SPDX-License-Identifier: Apache-2.0
"""Zstandard and LZ4 frames, unpacked to no more than is expected of them."""

from __future__ import annotations

import lz4.frame  # type: ignore[import-untyped]
import zstandard

from occupancy_nn_ros.errors import BagError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
STEP_BYTES = 1 << 20


def unpack_zstd(data: bytes, max_bytes: int) -> bytes:
    """The content of one frame.

    Raises:
        BagError: damaged, or larger than allowed, which its header says before anything is allocated.
    """
    try:
        claimed = zstandard.get_frame_parameters(data).content_size
        if claimed not in (0, zstandard.CONTENTSIZE_UNKNOWN) and claimed > max_bytes:
            raise BagError(f"{len(data)} compressed bytes claim to hold {claimed}, expected at most {max_bytes}")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max_bytes)
    except zstandard.ZstdError as error:
        raise BagError(f"{len(data)} bytes do not decompress: {error}") from None


def unpack_lz4(data: bytes, max_bytes: int) -> bytes:
    """The content of one frame.

    Raises:
        BagError: damaged, or larger than allowed.
    """
    decompressor, parts, total = lz4.frame.LZ4FrameDecompressor(), list[bytes](), 0
    try:
        while total <= max_bytes and not decompressor.eof:
            parts.append(decompressor.decompress(b"" if parts else data, max_length=STEP_BYTES))  # which it allocates
            total += len(parts[-1])
            if not parts[-1]:
                break
    except RuntimeError as error:
        raise BagError(f"{len(data)} bytes do not decompress: {error}") from None
    if total > max_bytes:
        raise BagError(f"{len(data)} compressed bytes hold more than {max_bytes}")
    return b"".join(parts)
