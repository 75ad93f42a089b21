# SPDX-License-Identifier: Apache-2.0
"""SQLite files of rosbag2 and ROS 1's .bag files, through rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from occupancy_nn_ros.bags.recorded_file import Channel, Record, ros2_name
from occupancy_nn_ros.errors import BagError

SQLITE_ADVICE = "repair it with `sqlite3 OLD.db3 .recover | sqlite3 NEW.db3`, then `ros2 bag reindex`"
ROS1_ADVICE = "repair it with ROS 1's `rosbag reindex`, or record it again"


class RosbagsFile:
    """An open .db3 or .bag file; see :class:`~occupancy_nn_ros.bags.recorded_file.RecordedFile`."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            BagError: it is of another kind, or damaged.
        """
        self.path, self.warnings = path, list[str]()
        self._is_ros1 = path.suffix == ".bag"
        self._advice = ROS1_ADVICE if self._is_ros1 else SQLITE_ADVICE
        try:
            self._reader: Any = Ros1Reader(path) if self._is_ros1 else Ros2Reader(path)
            self._reader.open()
            self._connections = [(connection, self._channel(connection)) for connection in self._reader.connections]
            self.start_ns, self.end_ns = int(self._reader.start_time), int(self._reader.end_time)
        except Exception as error:  # rosbags lets whatever sqlite, struct and its own asserts raise through
            with suppress(Exception):
                self._reader.close()
            raise BagError(f"cannot read {path}: {_one_line(error)}", advice=self._advice) from None
        self.channels = [channel for _, channel in self._connections]
        journal = path.with_name(f"{path.name}-wal")
        if journal.exists() and journal.stat().st_size:
            self.warnings.append(
                f"{journal.name} holds messages that are not read: `sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'` adds them"
            )

    def close(self) -> None:
        """Close the file."""
        with suppress(Exception):
            self._reader.close()

    def records(self, channels: Collection[Channel]) -> Iterator[Record]:
        """Messages of some channels in order of time.

        Raises:
            BagError: the file turns out to be damaged.
        """
        wanted = {id(connection): channel for connection, channel in self._connections if channel in channels}
        connections = [connection for connection, _ in self._connections if id(connection) in wanted]
        if not connections:
            return
        by_key = {(c.id, c.topic): wanted[id(c)] for c in connections}
        try:
            for connection, stamp_ns, data in self._reader.messages(connections):
                yield Record(by_key[connection.id, connection.topic], int(stamp_ns), bytes(data))
        except GeneratorExit:
            raise
        except Exception as error:
            raise BagError(f"{self.path} is damaged: {_one_line(error)}", advice=self._advice) from None

    def _channel(self, connection: Any) -> Channel:
        encoding = "ros1" if self._is_ros1 else connection.ext.serialization_format
        definition = connection.msgdef.data if self._is_ros1 else ""
        values = (connection.topic, connection.msgtype, encoding, definition)
        if not all(isinstance(value, str) for value in values):
            raise BagError(f"topic and type are {connection.topic!r} and {connection.msgtype!r}, expected text")
        return Channel(
            connection.topic, ros2_name(connection.msgtype), encoding, int(connection.msgcount), cast("str", definition)
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
