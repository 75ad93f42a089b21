# SPDX-License-Identifier: Apache-2.0
"""Keeps the packets of video that later ones need, back to the last two that decoding can begin with."""

from __future__ import annotations

from collections import deque

from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages.names import VIDEO_TYPES
from occupancy_nn_ros.messages.video import read_packet
from occupancy_nn_ros.runtime.discovery import SensorStream

GROUPS = 3
"""Frames wait for transforms and partners: those of the groups before may still be wanted."""

MAX_GROUP_BYTES = 64 << 20


class VideoLog:
    """The packets of each sensor that sends video, in groups that begin with a key frame."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self._groups: dict[str, deque[list[bytes]]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, sensor: SensorStream, cdr: bytes) -> None:
        """Take a message; of sensors that send pictures nothing is kept.

        Raises:
            MessageError: it does not decode.
        """
        if sensor.msgtype not in VIDEO_TYPES:
            return
        groups = self._groups.setdefault(sensor.name, deque(maxlen=GROUPS))
        if read_packet(sensor.msgtype, cdr).is_start:
            groups.append([])
            self._sizes[sensor.name] = 0
        if not groups:
            return
        self._sizes[sensor.name] += len(cdr)
        if self._sizes[sensor.name] > MAX_GROUP_BYTES:
            groups.clear()
            raise MessageError(f"no key frame in {MAX_GROUP_BYTES} bytes of video, expected one every few seconds")
        groups[-1].append(cdr)

    def before(self, sensor: SensorStream, cdr: bytes) -> tuple[bytes, ...] | None:
        """What a message needs before it; empty for pictures and key frames, None if it is not known."""
        if sensor.msgtype not in VIDEO_TYPES:
            return ()
        for group in reversed(self._groups.get(sensor.name, ())):
            for place in range(len(group) - 1, -1, -1):
                if group[place] is cdr:
                    return tuple(group[:place])
        return None
