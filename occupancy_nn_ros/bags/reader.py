# SPDX-License-Identifier: Apache-2.0
"""Recordings of rosbag2 and ROS 1 as a stream of CDR bytes in time order. What cannot be read costs its topic, not the bag."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from occupancy_nn_ros.bags.folder import files_of, unpacked
from occupancy_nn_ros.bags.mcap_file import McapFile
from occupancy_nn_ros.bags.recorded_file import Channel, Record, RecordedFile
from occupancy_nn_ros.bags.ros1 import Ros1Converter
from occupancy_nn_ros.bags.rosbags_file import RosbagsFile
from occupancy_nn_ros.bags.unpacking import ZSTD_MAGIC, unpack_zstd
from occupancy_nn_ros.errors import BagError, ConfigError, MessageError
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, IMAGE, POINT_CLOUD

SENSOR_DATA = {IMAGE, COMPRESSED_IMAGE, POINT_CLOUD}
AFTERMATH_S = 1.0
"""Transforms are read on for this long after the end of a part: those at its last images may come later."""

MAX_MESSAGE_BYTES = 1 << 28
ENCODINGS = ("cdr", "ros1")
MCAP_MAGIC = b"\x89MCAP0\r\n"
KINDS: dict[str, Callable[[Path], RecordedFile]] = {".mcap": McapFile, ".db3": RosbagsFile, ".bag": RosbagsFile}


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
    """Reads a bag folder, a single .mcap or .db3 file, or a ROS 1 .bag file. A context manager.

    Attributes:
        path: what is read.
        part: what of it.
        unreadable: topics that cannot be read, and why, worded for people; grows while reading.
    """

    def __init__(self, path: Path, part: BagPart | None = None) -> None:
        """Name the bag; nothing is opened yet.

        Args:
            path: folder or file.
            part: sensors speak in this part only; transforms and intrinsics come from all that lies before its end.
        """
        self.path, self.part = Path(path), part or BagPart()
        self.unreadable: dict[str, str] = {}
        self._files: list[RecordedFile] = []
        self._converters: dict[Channel, Ros1Converter] = {}

    def __enter__(self) -> BagReader:
        """Open the bag.

        Raises:
            BagError: missing, empty, or damaged beyond reading; tells what may repair it.
        """
        paths, self._folder_warnings = files_of(self.path)
        with ExitStack() as stack:
            for path in paths:
                self._open(path, stack, is_only=len(paths) == 1)
            self._stack = stack.pop_all()
        channels = [channel for file in self._files for channel in file.channels]
        for channel in channels:
            self._judge(channel)
        readable = [channel for channel in channels if channel.topic not in self.unreadable]
        if not readable:
            self._stack.close()
            why = next((f"{topic} {text}" for topic, text in self.unreadable.items()), "it has no topics")
            raise BagError(f"bag {self.path} is empty, or nothing in it can be read: {why}", advice="record it again")
        self._has_times = max(file.end_ns for file in self._files) > 1
        self._first_ns = self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bag."""
        self._stack.close()

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the bag and was read around, worded for people; grows while reading."""
        return [*self._folder_warnings, *(text for file in self._files for text in dict.fromkeys(file.warnings))]

    @property
    def topics(self) -> dict[str, TopicInfo]:
        """What can be read of the bag, by topic."""
        found: dict[str, TopicInfo] = {}
        for channel in (channel for file in self._files for channel in file.channels):
            if channel.topic not in self.unreadable:
                before = found[channel.topic].count if channel.topic in found else 0
                found[channel.topic] = TopicInfo(channel.msgtype, before + channel.count)
        return found

    @property
    def start_ns(self) -> int:
        """Time of the first message."""
        return self._first_ns

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last message; 0 where the bag holds no times of recording."""
        return max(0, max(file.end_ns for file in self._files) - self._first_ns) * 1e-9

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Messages in order of recording, of all topics or of some.

        Raises:
            BagError: the bag turns out to be damaged on the way.
        """
        for message in self._in_time(topics):
            time_s = (message.stamp_ns - self._first_ns) * 1e-9
            if time_s >= self.part.end_s + AFTERMATH_S:
                break
            if message.msgtype in SENSOR_DATA and not self.part.start_s <= time_s < self.part.end_s:
                continue
            yield message

    def _open(self, path: Path, stack: ExitStack, *, is_only: bool) -> None:
        try:
            file = _opened(path, stack)
        except BagError as error:
            if is_only:
                raise
            self._folder_warnings.append(f"{path.name} is left out: {error}")
            return
        stack.callback(file.close)
        self._files.append(file)

    def _judge(self, channel: Channel) -> None:
        if channel.encoding not in ENCODINGS:
            known = channel.encoding or "unknown"
            self.unreadable[channel.topic] = f"is encoded as '{known}', expected cdr or ros1"
        elif channel.encoding == "ros1" and channel not in self._converters:
            try:
                self._converters[channel] = Ros1Converter(channel)
            except MessageError as error:
                self.unreadable[channel.topic] = str(error)

    def _start(self) -> int:
        if self._has_times:
            return min(file.start_ns for file in self._files if file.end_ns)
        return next((message.stamp_ns for message in self._in_time(None) if message.stamp_ns), 0)

    def _in_time(self, topics: Collection[str] | None) -> Iterator[BagMessage]:
        wanted = [
            [c for c in file.channels if (topics is None or c.topic in topics) and c.topic not in self.unreadable]
            for file in self._files
        ]
        streams = [file.records(channels) for file, channels in zip(self._files, wanted, strict=True) if channels]
        last_ns = 0
        for record in heapq.merge(*streams, key=lambda r: r.stamp_ns):
            cdr = self._cdr(record)
            if cdr is None:
                continue
            last_ns = record.stamp_ns if self._has_times else max(last_ns, _stamp_of(cdr))
            yield BagMessage(record.channel.topic, record.channel.msgtype, last_ns, cdr)

    def _cdr(self, record: Record) -> bytes | None:
        """A message's bytes; None, and its topic is read no more, if they cannot be converted."""
        data = record.data
        try:
            if data[:4] == ZSTD_MAGIC:  # rosbag2 with compression_mode: message
                data = unpack_zstd(data, MAX_MESSAGE_BYTES)
            return self._converters[record.channel].to_cdr(data) if record.channel.encoding == "ros1" else data
        except (MessageError, BagError) as error:
            self.unreadable.setdefault(record.channel.topic, str(error))
            return None


def _opened(path: Path, stack: ExitStack) -> RecordedFile:
    """An open file, read as what it begins with, else as its name says.

    Raises:
        BagError: no bag, or damaged beyond reading.
    """
    try:
        plain = unpacked(path, stack)
        with plain.open("rb") as start:
            is_mcap = start.read(len(MCAP_MAGIC)) == MCAP_MAGIC
    except OSError as error:
        raise BagError(f"cannot read bag {path}: {error.strerror}", advice="check its permissions") from None
    kind = McapFile if is_mcap else KINDS.get(plain.suffix.lower())
    if kind is None:
        raise BagError(f"cannot read bag {path}: expected a folder, .mcap, .db3 or .bag", advice="name a bag")
    return kind(plain)


def _stamp_of(cdr: bytes) -> int:
    """The stamp in a message's header, 0 if it does not begin with one."""
    try:
        return peek_header(cdr).stamp_ns
    except MessageError:
        return 0
