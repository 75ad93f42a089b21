# SPDX-License-Identifier: Apache-2.0
"""A writer of plain CDR (little endian), for arrays of structs that must go out as one block from numpy."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt


class CdrWriter:
    """Appends CDR primitives with their alignment, counted from the end of the four-byte encapsulation header."""

    def __init__(self) -> None:
        """Start a little-endian message."""
        self._buffer = bytearray(b"\x00\x01\x00\x00")

    def _align(self, size: int) -> None:
        self._buffer += b"\x00" * (-(len(self._buffer) - 4) % size)

    def put(self, code: str, *values: float) -> None:
        """Append numbers of one struct format code, such as ``I`` or ``d``."""
        size = struct.calcsize(f"<{code}")
        self._align(size)
        self._buffer += struct.pack(f"<{len(values)}{code}", *values)

    def string(self, text: str) -> None:
        """Append a string with its terminating zero."""
        data = text.encode("utf-8") + b"\x00"
        self.put("I", len(data))
        self._buffer += data

    def block(self, count: int, array: npt.NDArray[np.generic], alignment: int) -> None:
        """Append a sequence of ``count`` structs whose fields lie one after another in ``array``."""
        self.put("I", count)
        if count:
            self._align(alignment)
            self._buffer += np.ascontiguousarray(array).tobytes()

    def header(self, stamp_ns: int, frame_id: str) -> None:
        """Append a ``std_msgs/Header``."""
        self.put("i", stamp_ns // 1_000_000_000)
        self.put("I", stamp_ns % 1_000_000_000)
        self.string(frame_id)

    def bytes(self) -> bytes:
        """The message."""
        return bytes(self._buffer)
