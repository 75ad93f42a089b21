# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: every decoder of messages and every reader of files, each with seeds from the project's own encoders.

A target takes bytes and either reads them or raises one of the package's own errors. Anything else is a defect.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.scan import scan_bag
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.config import MapConfig, load_config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.mapping.map_file import load_map, save_map
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.network.checkpoint import load_checkpoint
from occupancy_nn_ros.simulation.assets import FOLDER_VARIABLE, Asset, AssetPart, load_asset, write_asset
from occupancy_nn_ros.simulation.mesh_grid import DistanceGrid
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.training.shards import read_shard, write_shard
from occupancy_nn_ros.values import Prediction

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "helpers"))
from message_samples import MESSAGES  # noqa: E402

MAP_SHAPE = (6, 5, 4)
MAX_FILE_BYTES = 1 << 16
"""A seed longer than this is of no use to a fuzzer."""


@dataclass(frozen=True)
class Target:
    """Something that reads bytes from outside.

    Attributes:
        read: reads them, or raises an :class:`OccupancyError`.
        seeds: makes undamaged inputs.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]

    def survive(self, data: bytes) -> None:
        """Read, and let the package refuse."""
        with suppress(OccupancyError):
            self.read(data)


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz_", dir=memory if memory.is_dir() else None))


def _written(name: str, write: Callable[[Path], object]) -> list[bytes]:
    """The bytes of a file that the project itself wrote."""
    path = _folder() / f"seed_{name}"
    write(path)
    return [path.read_bytes()]


def _from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        path = _folder() / name
        path.write_bytes(data)
        return read(path)

    return run


def _write_bag(path: Path) -> None:
    with BagWriter(path, overwrite=True) as bag:
        for n, (kind, topic) in enumerate(
            (("rgb8", "/cam/image"), ("CameraInfo", "/cam/camera_info"), ("TFMessage", "/tf"))
        ):
            msgtype = {
                "rgb8": "sensor_msgs/msg/Image",
                "CameraInfo": "sensor_msgs/msg/CameraInfo",
                "TFMessage": "tf2_msgs/msg/TFMessage",
            }[kind]
            bag.write(topic, msgtype, n + 1, MESSAGES[kind][1])


def _write_db3(path: Path) -> None:
    """A bag of SQLite, as rosbag2 wrote them before Iron; the fuzzer gets its database alone."""
    store, folder = get_typestore(Stores.ROS2_HUMBLE), path.with_name(f"{path.name}_folder")
    shutil.rmtree(folder, ignore_errors=True)
    with Rosbag2Writer(folder, version=8, storage_plugin=StoragePlugin.SQLITE3) as bag:
        bag.write(bag.add_connection("/tf", "tf2_msgs/msg/TFMessage", typestore=store), 1, MESSAGES["TFMessage"][1])
    shutil.copy(next(folder.glob("*.db3")), path)


def _write_ros1(path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    message = store.types["std_msgs/msg/String"](data="here")
    path.unlink(missing_ok=True)
    with Rosbag1Writer(path) as bag:
        connection = bag.add_connection("/cam", "std_msgs/msg/String", typestore=store)
        bag.write(connection, 1, store.serialize_ros1(message, "std_msgs/msg/String"))


def _read_bag(path: Path) -> int:
    with BagReader(path) as bag:
        scan_bag(bag)
        return sum(len(message.cdr) for message in bag.messages())


def _fresh_bag() -> Path:
    folder = _folder() / "bag"
    shutil.rmtree(folder, ignore_errors=True)
    _write_bag(folder)
    return folder


def _bag_folder(data: bytes) -> int:
    """Read a folder whose metadata is ``data`` and whose storage file is whole."""
    folder = _fresh_bag()
    (folder / "metadata.yaml").write_bytes(data)
    return _read_bag(folder)


def _metadata_seeds() -> list[bytes]:
    return [(_fresh_bag() / "metadata.yaml").read_bytes()]


def _small_map() -> RollingMap:
    return RollingMap(0.5, MAP_SHAPE, MapConfig(), num_classes=2)


def _write_map(path: Path) -> None:
    grid = _small_map()
    logit = torch.linspace(-2, 2, grid.window.size).reshape(MAP_SHAPE)
    grid.integrate(Prediction(grid.window, logit, torch.ones(MAP_SHAPE)), 0)
    save_map(grid, path, "odom")


def _write_checkpoint_header(path: Path) -> None:
    """A model file without weights: the whole one is too long to be damaged well."""
    model = (ROOT / "models" / "nano.safetensors").read_bytes()
    length = int.from_bytes(model[:8], "little")
    header = json.loads(model[8 : 8 + length])
    text = json.dumps({"__metadata__": header["__metadata__"]}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def _write_shard(path: Path) -> None:
    write_shard(path, {"images": np.zeros((1, 1, 8, 8, 3), np.uint8), "labels": np.zeros((1, 4), np.uint8)}, {})


def _write_world(path: Path) -> None:
    path.write_bytes((ROOT / "demo" / "world.json").read_bytes()[:MAX_FILE_BYTES])


def _write_asset(path: Path) -> None:
    grid = DistanceGrid(np.ones((2, 2, 2), np.float32), np.zeros(3), 0.1)
    corners, color = np.zeros((3, 3), np.float32), np.ones(4, np.float32)
    faces, picture = np.zeros((1, 3), np.int32), np.zeros(0, np.uint8)
    part = AssetPart(corners, corners, corners[:, :2], faces, color, 0.5, picture)
    write_asset(path.parent, path.name, Asset((part,), grid))
    path.with_name(f"{path.name}.npz").replace(path)


def _read_asset(path: Path) -> Asset:
    os.environ[FOLDER_VARIABLE] = str(path.parent)
    load_asset.cache_clear()
    return load_asset(path.stem)


TARGETS: dict[str, Target] = {
    **{name: Target(read, lambda cdr=cdr: [cdr]) for name, (read, cdr) in MESSAGES.items()},
    "bag.mcap": Target(_from_file("bag.mcap", _read_bag), lambda: _written("bag.mcap", _write_bag)),
    "bag.db3": Target(_from_file("bag.db3", _read_bag), lambda: _written("bag.db3", _write_db3)),
    "ros1.bag": Target(_from_file("ros1.bag", _read_bag), lambda: _written("ros1.bag", _write_ros1)),
    "bag_metadata": Target(_bag_folder, _metadata_seeds),
    "map_file": Target(_from_file("map", lambda p: load_map(_small_map(), p)), lambda: _written("map", _write_map)),
    "checkpoint": Target(_from_file("model", load_checkpoint), lambda: _written("model", _write_checkpoint_header)),
    "shard": Target(_from_file("shard", read_shard), lambda: _written("shard", _write_shard)),
    "asset": Target(_from_file("asset.npz", _read_asset), lambda: _written("asset", _write_asset)),
    "world": Target(_from_file("world.json", World.load), lambda: _written("world.json", _write_world)),
    "config": Target(
        _from_file("config.yaml", lambda p: load_config([p])), lambda: [(ROOT / "config" / "base.yaml").read_bytes()]
    ),
}
