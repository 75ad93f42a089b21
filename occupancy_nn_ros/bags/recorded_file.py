# SPDX-License-Identifier: Apache-2.0
"""What every file of a recording offers, whatever its format."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Channel:
    """One stream of messages in one file.

    Attributes:
        topic, msgtype: as in ROS 2 (``package/msg/Name``).
        encoding: ``cdr``, ``ros1``, or what cannot be read here (``json``, ``protobuf``, ...).
        count: number of messages.
        definition: text of the type's definition, needed for ``ros1``.
    """

    topic: str
    msgtype: str
    encoding: str = "cdr"
    count: int = 0
    definition: str = ""


@dataclass(frozen=True)
class Record:
    """One recorded message: its channel, time of recording and bytes as stored."""

    channel: Channel
    stamp_ns: int
    data: bytes


class RecordedFile(Protocol):
    """An open file of a recording.

    Attributes:
        channels: its streams.
        start_ns, end_ns: times of its first and last message.
        warnings: what is wrong with it and was read around, worded for people.
    """

    channels: list[Channel]
    start_ns: int
    end_ns: int
    warnings: list[str]

    def records(self, channels: Collection[Channel]) -> Iterator[Record]:
        """Messages of some channels in order of time.

        Raises:
            BagError: the file turns out to be damaged.
        """

    def close(self) -> None:
        """Close the file."""


def ros2_name(msgtype: str) -> str:
    """A type's name with its middle part, which ROS 1 leaves out; tf's old message is tf2's."""
    parts = msgtype.split("/")
    name = f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else msgtype
    return "tf2_msgs/msg/TFMessage" if name == "tf/msg/tfMessage" else name
