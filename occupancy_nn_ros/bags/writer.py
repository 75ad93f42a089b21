# SPDX-License-Identifier: Apache-2.0
"""Writes rosbag2 recordings (MCAP) from CDR bytes, ready for ``ros2 bag play``."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import TypesysError

from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.messages.typestore import typestore


class BagWriter:
    """Writes a bag. A context manager; the bag appears under its name only when it is complete.

    A path that ends in ``.mcap`` gives that single file, any other path a bag folder with its metadata.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Name the bag to write; refuses an existing one unless asked to overwrite."""
        self.path, self.overwrite = Path(path), overwrite
        self._connections: dict[tuple[str, str], Connection] = {}

    def __enter__(self) -> BagWriter:
        """Open the bag.

        Raises:
            BagError: the folder exists already, or cannot be made.
        """
        if self.path.exists() and not self.overwrite:
            raise BagError(f"{self.path} exists already")
        self._work = self.path.with_name(f".{self.path.name}.partial")
        self._folder = self._work / self.path.stem
        try:
            if self._work.exists():
                shutil.rmtree(self._work)
            self._work.mkdir(parents=True)
            # The newest version that Humble plays: it wants the QoS policies as numbers.
            self._writer = Writer(self._folder, version=8, storage_plugin=StoragePlugin.MCAP)
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise BagError(f"cannot write bag {self.path}: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the bag and put it in place; after an error leave what was there before.

        Raises:
            BagError: the bag cannot be finished, as on a full disk.
        """
        try:
            self._writer.close()
            if kind is None:
                self._put_in_place()
        except (OSError, WriterError) as failure:
            if kind is None:
                raise BagError(f"cannot finish bag {self.path}: {failure}") from None
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _put_in_place(self) -> None:
        if self.path.is_dir():
            shutil.rmtree(self.path)
        if self.path.suffix == ".mcap":
            (self._folder / f"{self.path.stem}.mcap").replace(self.path)
        else:
            self._folder.rename(self.path)

    def write(self, topic: str, msgtype: str, stamp_ns: int, cdr: bytes, *, is_latched: bool = False) -> None:
        """Append a message.

        Args:
            topic: its full name.
            msgtype: its type.
            stamp_ns: when it was sent.
            cdr: its bytes.
            is_latched: whether the topic is offered so that late joiners get the last message; static transforms always are.

        Raises:
            BagError: a type without a known definition, or a disk that takes no more.
        """
        key = (topic, msgtype)
        try:
            if key not in self._connections:
                self._connections[key] = self._writer.add_connection(
                    topic,
                    msgtype,
                    typestore=typestore(),
                    offered_qos_profiles=[_qos(is_latched or topic.endswith("/tf_static"))],
                )
            self._writer.write(self._connections[key], stamp_ns, cdr)
        except (OSError, WriterError, TypesysError) as error:
            raise BagError(f"cannot write {msgtype} on {topic} to bag {self.path}: {error}") from None


def _qos(is_latched: bool) -> Qos:
    durability = QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE
    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST, 1 if is_latched else 10, QosReliability.RELIABLE, durability,
        forever, forever, QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
