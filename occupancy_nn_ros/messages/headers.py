# SPDX-License-Identifier: Apache-2.0
"""Stamp and frame of a message from its first bytes, so that an image nobody needs is never decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from occupancy_nn_ros.errors import MessageError

MAX_FRAME_ID = 1024
STAMP_END = 12
"""The first bytes of a message that starts with a header: what differs between messages that say the same."""

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Header:
    """A ``std_msgs/Header``.

    Attributes:
        stamp_ns: acquisition time.
        frame_id: frame of the data, without a leading slash.
    """

    stamp_ns: int
    frame_id: str


def peek_header(cdr: bytes | memoryview) -> Header:
    """Header of any message that starts with one.

    Raises:
        MessageError: truncated, or with a length that lies.
    """
    if len(cdr) < 16 or cdr[0] != 0 or cdr[1] not in (0, 1):
        raise MessageError(f"{len(cdr)} bytes do not start with a plain CDR header")
    order = "<" if cdr[1] == 1 else ">"
    sec, nanosec, length = struct.unpack_from(f"{order}iII", cdr, 4)
    if nanosec >= SECOND_NS:
        raise MessageError(f"stamp has {nanosec} nanoseconds, expected less than one second")
    if length > MAX_FRAME_ID or 16 + length > len(cdr):
        raise MessageError(f"frame_id claims {length} bytes, message has {len(cdr)}")
    try:
        text = bytes(cdr[16 : 16 + max(0, length - 1)]).decode("utf-8")
    except UnicodeDecodeError:
        raise MessageError("frame_id is not UTF-8") from None
    return Header(sec * SECOND_NS + nanosec, text.lstrip("/"))


def restamp(cdr: bytes, stamp_ns: int) -> bytes:
    """The same message with another stamp, as when a recording is played again.

    Raises:
        MessageError: the message does not start with a header.
    """
    peek_header(cdr)
    order = "<" if cdr[1] == 1 else ">"
    return cdr[:4] + struct.pack(f"{order}iI", *divmod(stamp_ns, SECOND_NS)) + cdr[STAMP_END:]
