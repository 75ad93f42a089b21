# SPDX-License-Identifier: Apache-2.0
"""Rosbag2 (and ROS 1) recordings as a stream of CDR bytes in time order."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from occupancy_nn_ros.errors import BagError, ConfigError
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, IMAGE, POINT_CLOUD

HEADER = "std_msgs/msg/Header"
SENSOR_DATA = {IMAGE, COMPRESSED_IMAGE, POINT_CLOUD}
AFTERMATH_S = 1.0
"""Transforms are read on for this long after the end of a part: those at its last images may come later."""


@dataclass(frozen=True)
class TopicInfo:
    """What a bag holds of one topic: message type and number of messages."""

    msgtype: str
    count: int


@dataclass(frozen=True)
class BagMessage:
    """One recorded message: topic, type, time of recording and CDR bytes."""

    topic: str
    msgtype: str
    stamp_ns: int
    cdr: bytes


@dataclass(frozen=True)
class BagPart:
    """A part of a recording, in seconds from its first message; the end is not in it."""

    start_s: float = 0.0
    end_s: float = math.inf

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ConfigError: negative start, or an end that is not later.
        """
        if not 0 <= self.start_s < self.end_s:
            raise ConfigError(
                f"start is {self.start_s:g} and end {self.end_s:g} s, expected a start of 0 or more and a later end"
            )


class BagReader:
    """Reads a bag folder, a single .mcap or .db3 file, or a ROS 1 .bag file. A context manager."""

    def __init__(self, path: Path, part: BagPart | None = None) -> None:
        """Name the bag; nothing is opened yet.

        Args:
            path: folder or file.
            part: sensors speak in this part only; transforms and intrinsics come from all that lies before its end.
        """
        self.path, self.part = Path(path), part or BagPart()

    def __enter__(self) -> BagReader:
        """Open the bag.

        Raises:
            BagError: missing, empty, truncated or of an unknown format.
        """
        if not self.path.exists():
            raise BagError(f"no bag at {self.path}")
        path = self.path
        if path.is_dir() and not (path / "metadata.yaml").exists():
            files = sorted([*path.glob("*.mcap"), *path.glob("*.db3")])
            if len(files) != 1:
                raise BagError(f"{path} has no metadata.yaml and {len(files)} bag files, expected one")
            path = files[0]
        try:
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
        except Exception as error:  # rosbags lets whatever yaml, sqlite and zstd raise through
            raise BagError(f"cannot read bag {self.path}: {_one_line(error)}") from None
        self._ros1_types = None if self._reader.is2 else _with_ros2_header(self._reader.typestore)
        if not self._reader.connections:
            self._reader.close()
            raise BagError(f"bag {self.path} is empty")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bag."""
        with suppress(AnyReaderError):
            self._reader.close()

    @property
    def topics(self) -> dict[str, TopicInfo]:
        """What is in the bag, by topic."""
        counts: dict[str, TopicInfo] = {}
        for connection in self._reader.connections:
            before = counts[connection.topic].count if connection.topic in counts else 0
            counts[connection.topic] = TopicInfo(_ros2_name(connection.msgtype), before + connection.msgcount)
        return counts

    @property
    def start_ns(self) -> int:
        """Time of the first message."""
        return int(self._reader.start_time)

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last message."""
        return float(self._reader.duration) * 1e-9

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Messages in order of recording, of all topics or of some.

        Raises:
            BagError: the bag turns out to be damaged on the way.
        """
        connections = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not connections:
            return
        try:
            for connection, stamp_ns, raw in self._reader.messages(connections):
                time_s = (stamp_ns - self.start_ns) * 1e-9
                if time_s >= self.part.end_s + AFTERMATH_S:
                    break
                inside = self.part.start_s <= time_s < self.part.end_s
                if not inside and _ros2_name(connection.msgtype) in SENSOR_DATA:
                    continue
                cdr = raw if self._ros1_types is None else self._ros1_types.ros1_to_cdr(raw, connection.msgtype)
                yield BagMessage(connection.topic, _ros2_name(connection.msgtype), stamp_ns, bytes(cdr))
        except GeneratorExit:
            raise
        except Exception as error:
            raise BagError(f"bag {self.path} is damaged: {_one_line(error)}") from None


def _with_ros2_header(store: Typestore) -> Typestore:
    """The types of a ROS 1 bag with the header of ROS 2, which has no sequence number."""
    types = get_typestore(Stores.EMPTY)
    types.register({**store.fielddefs, HEADER: get_typestore(Stores.ROS2_JAZZY).fielddefs[HEADER]})
    return types


def _ros2_name(msgtype: str) -> str:
    return "tf2_msgs/msg/TFMessage" if msgtype == "tf/msg/tfMessage" else msgtype


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
