# SPDX-License-Identifier: Apache-2.0
"""MCAP files of any writer and profile; one that was cut off, as by power loss, is read as far as it goes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

from mcap.data_stream import ReadDataStream
from mcap.reader import SeekingReader
from mcap.records import Channel as McapChannel
from mcap.records import Chunk, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from occupancy_nn_ros.bags.recorded_file import Channel, Record, ros2_name
from occupancy_nn_ros.bags.unpacking import unpack_lz4, unpack_zstd
from occupancy_nn_ros.errors import BagError

MAGIC = b"\x89MCAP0\r\n"
OPCODE_AND_LENGTH = 9
MAX_CHUNK_BYTES = 1 << 30
"""Writers make chunks of some megabytes. More than this, unpacked, is a bomb."""

DEFINITIONS = {"ros1msg": "ros1", "ros2msg": "cdr", "ros2idl": "cdr", "omgidl": "cdr"}
"""Encodings of definitions, and what messages with such definitions are encoded as where the channel does not say."""


class _Bounded:
    """A file that is never asked for more than it has, whatever a damaged length says."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@dataclass(frozen=True)
class _ChunkPlace:
    """Where a chunk lies, and the times and channels in it (None: not known)."""

    start_ns: int
    offset: int
    channels: frozenset[int] | None


@dataclass
class _Contents:
    """What a pass over a file, or its index, tells."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, McapChannel] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    chunks: list[_ChunkPlace] = field(default_factory=list)
    times: tuple[int, int] | None = None
    is_loose: bool = False

    def add(self, record: object) -> None:
        """Take note of a schema, a channel or a message."""
        if isinstance(record, Schema):
            self.schemas[record.id] = record
        elif isinstance(record, McapChannel):
            self.channels[record.id] = record
        elif isinstance(record, Message):
            self.counts[record.channel_id] += 1
            stamp = _time_of(record)
            self.times = (min(stamp, self.times[0]), max(stamp, self.times[1])) if self.times else (stamp, stamp)


class McapFile:
    """An open MCAP file; see :class:`~occupancy_nn_ros.bags.recorded_file.RecordedFile`."""

    def __init__(self, path: Path) -> None:
        """Open it and find out what it holds: from its index, or else by reading it.

        Raises:
            BagError: it is no MCAP file, or holds no message that can be read.
        """
        self.path, self.warnings = path, list[str]()
        self._size = path.stat().st_size
        self._file = path.open("rb")
        try:
            if self._file.read(len(MAGIC)) != MAGIC:
                raise BagError(f"{path} is no MCAP file", advice="look at what wrote it")
            contents = self._index() or self._scan()
        except BaseException:
            self._file.close()
            raise
        self._contents = contents
        self._by_id = {key: self._channel(key) for key in contents.channels}
        self.channels = list(self._by_id.values())
        self.start_ns, self.end_ns = contents.times or (0, 0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def records(self, channels: Collection[Channel]) -> Iterator[Record]:
        """Messages of some channels in order of time; chunks that are damaged are left out, with a warning."""
        wanted = {key for key, channel in self._by_id.items() if channel in channels}
        if self._contents.is_loose:
            yield from self._loose_records(wanted)
            return
        waiting: list[tuple[int, int, int, Message]] = []
        for place in sorted(self._contents.chunks, key=lambda c: (c.start_ns, c.offset)):
            if place.channels is not None and not place.channels & wanted:
                continue
            while waiting and waiting[0][0] < place.start_ns:
                yield self._record(heapq.heappop(waiting)[3])
            for n, message in enumerate(self._messages(place)):
                if message.channel_id in wanted:
                    heapq.heappush(waiting, (_time_of(message), place.offset, n, message))
        while waiting:
            yield self._record(heapq.heappop(waiting)[3])

    def _index(self) -> _Contents | None:
        """What the summary at the end of the file tells; None if there is none, or it is damaged."""
        self._file.seek(0)
        try:
            summary = SeekingReader(self._bounded(), record_size_limit=self._size).get_summary()
        except Exception:  # the library lets whatever struct and Unicode raise through
            return None
        if summary is None or summary.statistics is None or not summary.chunk_indexes:
            return None
        known = summary.statistics.channel_message_counts
        chunks = [
            _ChunkPlace(c.message_start_time, c.chunk_start_offset, frozenset(c.message_index_offsets) or None)
            for c in summary.chunk_indexes
        ]
        times = (summary.statistics.message_start_time, summary.statistics.message_end_time)
        if not times[1]:
            return None  # the times of sending may tell more
        if not set(known) <= set(summary.channels) or any(c.offset >= self._size for c in chunks):
            return None
        return _Contents(summary.schemas, summary.channels, Counter(known), chunks, times)

    def _scan(self) -> _Contents:
        """What can be read from the beginning on."""
        contents = _Contents()
        self._file.seek(0)
        reader = StreamReader(self._bounded(), emit_chunks=True, record_size_limit=self._size)
        is_whole, after = False, len(MAGIC)
        try:
            for record in reader.records:
                if isinstance(record, Chunk):
                    self._scan_chunk(contents, record, after)
                else:
                    contents.is_loose |= isinstance(record, Message)
                    contents.add(record)
                after = self._file.tell()
            is_whole = True
        except Exception as error:  # cut off or damaged here
            problem = error
        if not sum(contents.counts.values()) and not is_whole:
            raise BagError(f"{self.path} ends, or is damaged, before its first message", advice=MCAP_ADVICE) from None
        if not is_whole:
            lasts = (contents.times[1] - contents.times[0]) * 1e-9 if contents.times else 0.0
            self.warnings.append(
                f"{self.path.name} is cut off or damaged after {lasts:.1f} s ({_one_line(problem)}): read as far as it goes"
            )
        return contents

    def _scan_chunk(self, contents: _Contents, chunk: Chunk, offset: int) -> None:
        inner = _Contents()
        for record in _unpacked(chunk):
            inner.add(record)
            contents.add(record)
        if inner.times:
            contents.chunks.append(_ChunkPlace(inner.times[0], offset, frozenset(inner.counts)))

    def _messages(self, place: _ChunkPlace) -> list[Message]:
        self._file.seek(place.offset + OPCODE_AND_LENGTH)
        try:
            chunk = Chunk.read(ReadDataStream(self._bounded()))
            return [record for record in _unpacked(chunk) if isinstance(record, Message)]
        except Exception as error:  # whatever the library, zstd and lz4 raise
            self.warnings.append(f"{self.path.name} has a damaged chunk at byte {place.offset}: {_one_line(error)}")
            return []

    def _loose_records(self, wanted: set[int]) -> Iterator[Record]:
        """Messages outside of chunks, in the order of the file."""
        self._file.seek(0)
        try:
            for record in StreamReader(self._bounded(), record_size_limit=self._size).records:
                if isinstance(record, Message) and record.channel_id in wanted:
                    yield self._record(record)
        except GeneratorExit:
            raise
        except Exception:  # told when the file was opened
            return

    def _bounded(self) -> BinaryIO:
        return cast("BinaryIO", _Bounded(self._file, self._size))

    def _record(self, message: Message) -> Record:
        return Record(self._by_id[message.channel_id], _time_of(message), message.data)

    def _channel(self, key: int) -> Channel:
        channel = self._contents.channels[key]
        schema = self._contents.schemas.get(channel.schema_id)
        encoding = channel.message_encoding or (DEFINITIONS.get(schema.encoding, schema.encoding) if schema else "")
        definition = schema.data.decode("utf-8", "replace") if schema and encoding == "ros1" else ""
        return Channel(
            channel.topic, ros2_name(schema.name if schema else ""), encoding, self._contents.counts[key], definition
        )


MCAP_ADVICE = "repair it with `mcap recover` (https://mcap.dev/guides/cli), or record it again"


def _time_of(message: Message) -> int:
    """When it was recorded, or sent, where a converter left the first out."""
    return message.log_time or message.publish_time


def _unpacked(chunk: Chunk) -> list[object]:
    """The records in a chunk, unpacked to no more than it says, and that is not too much."""
    if chunk.uncompressed_size > MAX_CHUNK_BYTES:
        raise BagError(f"chunk of {chunk.uncompressed_size} bytes, expected at most {MAX_CHUNK_BYTES}")
    data = chunk.data
    if chunk.compression == "zstd":
        data = unpack_zstd(data, chunk.uncompressed_size)
    elif chunk.compression == "lz4":
        data = unpack_lz4(data, chunk.uncompressed_size)
    if len(data) != chunk.uncompressed_size:
        raise BagError(f"chunk holds {len(data)} bytes, expected {chunk.uncompressed_size}")
    return list(breakup_chunk(replace(chunk, compression="", data=data), validate_crc=True))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
