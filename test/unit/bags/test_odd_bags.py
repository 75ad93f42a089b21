# SPDX-License-Identifier: Apache-2.0
"""Recordings as they are found: cut off, damaged, split, of other writers, with topics that nobody can read."""

import shutil
import struct

import lz4.frame
import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.scan import scan_bag
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.errors import BagError, OccupancyError
from occupancy_nn_ros.messages import decode, names, sensors
from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.values import StampedTransform

S = 1_000_000_000
IMAGE_DEFINITION = get_typestore(Stores.ROS2_JAZZY).generate_msgdef(names.IMAGE, ros_version=2)[0]


def transform(n):
    pose = np.eye(4)
    pose[0, 3] = n
    return sensors.encode_tf([StampedTransform(n * S, "odom", "base", pose)])


def image(n, rng=None):
    pixels = np.full((24, 32, 3), n, np.uint8) if rng is None else rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return sensors.encode_image(n * S, "cam", pixels)


def write(path, count=40, rng=None, start=1):
    with BagWriter(path) as bag:
        for n in range(start, start + count):
            bag.write("/tf", names.TF_MESSAGE, n * S, transform(n))
            bag.write("/cam/image", names.IMAGE, n * S + 5, image(n, rng))
    return path


def read(path):
    with BagReader(path) as bag:
        scan_bag(bag)
        messages = list(bag.messages())
        return messages, bag.topics, bag.warnings, bag.unreadable


class Mcap:
    """Writes MCAP files as any program may."""

    def __init__(self, path, **options):
        self.file = path.open("wb")
        self.writer = McapWriter(self.file, **options)
        self.channels = {}

    def __enter__(self):
        self.writer.start(profile="", library="another")
        return self

    def __exit__(self, *_):
        self.writer.finish()
        self.file.close()

    def write(
        self, topic, msgtype, stamp_ns, data, *, publish_ns=None, encoding="cdr", schema=("ros2msg", IMAGE_DEFINITION)
    ):
        if topic not in self.channels:
            known = self.writer.register_schema(msgtype, schema[0], schema[1].encode()) if schema else 0
            self.channels[topic] = self.writer.register_channel(topic, encoding, known)
        self.writer.add_message(self.channels[topic], stamp_ns, data, stamp_ns if publish_ns is None else publish_ns)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.999])
def test_a_recording_cut_by_power_loss_is_read_as_far_as_it_goes(tmp_path, keep, rng):
    """All messages up to the last whole chunk, each as it was written, and a word about it."""
    with Mcap(tmp_path / "whole.mcap", chunk_size=20_000) as whole:
        for n in range(60):
            whole.write("/cam/image", names.IMAGE, n * S, image(n))
            whole.write("/tf", names.TF_MESSAGE, n * S, transform(n), schema=("ros2msg", ""))
    complete, topics, warnings, _ = read(tmp_path / "whole.mcap")
    assert (len(complete), warnings) == (120, [])
    data = (tmp_path / "whole.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: int(len(data) * keep)])
    messages, topics, warnings, _ = read(tmp_path / "cut.mcap")
    assert messages == complete[: len(messages)]
    assert len(messages) >= min(118, int(120 * keep) - 40)
    assert sum(info.count for info in topics.values()) == len(messages)
    assert len(warnings) == 1 and "cut off or damaged after" in warnings[0]


def test_a_recording_cut_before_its_first_message_tells_the_tool(tmp_path, rng):
    data = write(tmp_path / "whole.mcap", rng=rng).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[:200])
    with pytest.raises(BagError, match="before its first message") as caught, BagReader(tmp_path / "cut.mcap"):
        pass
    assert "mcap recover" in caught.value.advice


def test_a_damaged_chunk_costs_its_messages(tmp_path):
    with Mcap(tmp_path / "bag.mcap", chunk_size=20_000, compression=CompressionType.NONE) as whole:
        for n in range(60):
            whole.write("/cam/image", names.IMAGE, n * S, image(n))
    data = bytearray((tmp_path / "bag.mcap").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "bag.mcap").write_bytes(data)
    messages, _, warnings, _ = read(tmp_path / "bag.mcap")
    assert 45 <= len(messages) < 60
    assert any("damaged chunk" in text for text in warnings)


@pytest.mark.parametrize("options", [
    {"use_chunking": False}, {"index_types": IndexType.NONE}, {"use_statistics": False},
    {"use_summary_offsets": False, "index_types": IndexType.MESSAGE}, {"compression": CompressionType.LZ4},
], ids=["no chunks", "no index", "no statistics", "no chunk index", "lz4"])  # fmt: skip
def test_files_of_other_writers(tmp_path, options):
    with Mcap(tmp_path / "bag.mcap", chunk_size=5000, **options) as bag:
        for n in range(20):
            bag.write("/cam/image", names.IMAGE, n * S, image(n))
    messages, topics, warnings, _ = read(tmp_path / "bag.mcap")
    assert [m.stamp_ns for m in messages] == [n * S for n in range(20)]
    assert [decode_image(m.msgtype, m.cdr)[1][0, 0, 0] for m in messages] == list(range(20))
    assert (topics["/cam/image"].count, warnings) == (20, [])


def test_topics_that_cannot_be_read_cost_themselves(tmp_path):
    """Service introspection, json, protobuf, and a definition that is none stand beside a camera."""
    with Mcap(tmp_path / "bag.mcap") as bag:
        for n in range(3):
            bag.write("/cam/image", names.IMAGE, n * S, image(n))
            event = "service_msgs/ServiceEventInfo info\nadd/AddTwoInts_Request[<=1] request\n"
            bag.write("/add/_service_event", "add/srv/AddTwoInts_Event", n * S, b"\0\1\0\0", schema=("ros2msg", event))
            bag.write("/odd", "odd/msg/Odd", n * S, b"\0\1\0\0", schema=("ros2msg", "}{ no definition"))
            bag.write("/json", "thing", n * S, b"{}", encoding="json", schema=("jsonschema", "{}"))
            bag.write("/proto", "foxglove.Thing", n * S, b"\x08\x01", encoding="protobuf", schema=("protobuf", "x"))
            bag.write("/none", "", n * S, b"?", encoding="", schema=None)
    messages, topics, warnings, unreadable = read(tmp_path / "bag.mcap")
    assert set(topics) == {"/cam/image", "/add/_service_event", "/odd"}
    assert sum(m.topic == "/cam/image" for m in messages) == 3
    assert set(unreadable) == {"/json", "/proto", "/none"} and warnings == []
    assert unreadable["/proto"] == "is encoded as 'protobuf', expected cdr or ros1"


def ros1_image(n):
    store = get_typestore(Stores.ROS1_NOETIC)
    make = store.types
    header = make["std_msgs/msg/Header"](
        seq=n, stamp=make["builtin_interfaces/msg/Time"](sec=n, nanosec=0), frame_id="cam"
    )
    message = make[names.IMAGE](
        header=header, height=4, width=6, encoding="mono8", is_bigendian=0, step=6, data=np.full(24, n, np.uint8)
    )
    return store.serialize_ros1(message, names.IMAGE)


def test_ros1_data_in_mcap_comes_out_as_cdr(tmp_path):
    definition = get_typestore(Stores.ROS1_NOETIC).generate_msgdef(names.IMAGE)[0]
    with Mcap(tmp_path / "bag.mcap") as bag:
        for n in range(3):
            bag.write(
                "/cam", "sensor_msgs/Image", n * S, ros1_image(n), encoding="ros1", schema=("ros1msg", definition)
            )
    messages, topics, _, unreadable = read(tmp_path / "bag.mcap")
    assert (topics["/cam"].msgtype, unreadable) == (names.IMAGE, {})
    headers, pixels = zip(*(decode_image(m.msgtype, m.cdr) for m in messages), strict=True)
    assert [h.stamp_ns for h in headers] == [0, S, 2 * S]
    assert [p[0, 0, 0] for p in pixels] == [0, 1, 2]


def test_a_ros1_type_without_its_dependency_costs_its_topic(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    with Rosbag1Writer(tmp_path / "old.bag") as writer:
        camera = writer.add_connection("/cam", names.IMAGE, typestore=store)
        odd = writer.add_connection("/odd", "odd_msgs/msg/Odd", msgdef="odd_msgs/Missing inside\n", md5sum="0" * 32)
        for n in range(3):
            writer.write(camera, n * S, ros1_image(n))
            writer.write(odd, n * S, b"\1\2\3\4")
    messages, topics, _, unreadable = read(tmp_path / "old.bag")
    assert set(topics) == {"/cam"} and len(messages) == 3
    assert "cannot be put together" in unreadable["/odd"]


def test_messages_without_times_of_recording_have_those_of_their_headers(tmp_path):
    with Mcap(tmp_path / "bag.mcap") as bag:
        for n in range(5, 10):
            bag.write("/cam/image", names.IMAGE, 0, image(n))
            bag.write("/tf", names.TF_MESSAGE, 0, transform(n), schema=("ros2msg", ""))
    messages, *_ = read(tmp_path / "bag.mcap")
    assert [m.stamp_ns for m in messages] == [n * S for n in range(5, 10) for _ in range(2)]
    with BagReader(tmp_path / "bag.mcap") as bag:
        assert (bag.start_ns, bag.duration_s) == (5 * S, 0.0)


def test_a_time_of_sending_stands_in_for_one_of_recording(tmp_path):
    with Mcap(tmp_path / "bag.mcap") as bag:
        for n in range(3):
            bag.write("/cam/image", names.IMAGE, 0, image(n), publish_ns=(n + 1) * S)
    assert [m.stamp_ns for m in read(tmp_path / "bag.mcap")[0]] == [S, 2 * S, 3 * S]


def split(folder, parts=3):
    folder.mkdir()
    for n in range(parts):
        write(folder.parent / "part.mcap", 4, start=1 + 4 * n).rename(folder / f"drive_{n}.mcap")
    return folder


def test_a_split_bag_is_read_without_metadata(tmp_path):
    messages, topics, warnings, _ = read(split(tmp_path / "drive", parts=12))
    assert (topics["/tf"].count, warnings) == (48, [])
    assert [m.cdr for m in messages if m.topic == "/tf"] == [transform(n) for n in range(1, 49)]


def metadata(folder, **changes):
    """A metadata.yaml as rosbag2 writes it."""
    files = sorted(file.name for file in folder.glob("*.mcap"))
    information = {
        "version": 5, "storage_identifier": "mcap", "relative_file_paths": files, "message_count": 1,
        "duration": {"nanoseconds": 1}, "starting_time": {"nanoseconds_since_epoch": 0}, "topics_with_message_count": [],
        "compression_format": "", "compression_mode": "",
    } | changes  # fmt: skip
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}))
    return folder


@pytest.mark.parametrize("changes", [
    {"storage_identifier": ""}, {"version": 99}, {"compression_mode": "FILE", "compression_format": "fake"},
    {"topics_with_message_count": [{"topic_metadata": {"name": 7, "type": None}}]}, {"duration": "long"},
    {"relative_file_paths": ["/somewhere/else/drive_1.mcap", "../../drive_0.mcap", "drive_2.mcap"]},
], ids=["no storage", "version", "compression", "topics", "duration", "paths"])  # fmt: skip
def test_what_metadata_says_beyond_the_files_does_not_matter(tmp_path, changes):
    messages, _, warnings, _ = read(metadata(split(tmp_path / "drive"), **changes))
    assert (len(messages), warnings) == (24, [])


def test_a_part_that_is_missing_costs_its_time(tmp_path):
    folder = metadata(split(tmp_path / "drive"))
    (folder / "drive_1.mcap").unlink()
    messages, _, warnings, _ = read(folder)
    assert len(messages) == 16
    assert warnings == ["drive_1.mcap is named in metadata.yaml and is not there"]
    (folder / "drive_0.mcap").write_bytes(b"")
    messages, _, warnings, _ = read(folder)
    assert len(messages) == 8 and "drive_0.mcap is left out" in warnings[1]


@pytest.mark.parametrize(
    "text", ["", "rosbag2_bagfile_information: [1", "7", "a: b", "- x", "\0", "rosbag2_bagfile_information: 3"]
)
def test_damaged_metadata_is_done_without(tmp_path, text):
    folder = split(tmp_path / "drive")
    (folder / "metadata.yaml").write_text(text)
    messages, _, warnings, _ = read(folder)
    assert len(messages) == 24
    assert warnings == ["metadata.yaml is damaged: read without it, `ros2 bag reindex` makes it anew"]


def test_mutated_metadata_reads_or_raises_bag_errors(tmp_path, rng):
    folder = metadata(split(tmp_path / "drive", parts=1))
    whole = (folder / "metadata.yaml").read_bytes()
    for _ in range(200):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            changed[at] = int(rng.integers(256))
        (folder / "metadata.yaml").write_bytes(changed)
        try:
            with BagReader(folder) as bag:
                assert all(
                    isinstance(topic, str) and isinstance(info.msgtype, str) for topic, info in bag.topics.items()
                )
        except OccupancyError:
            continue


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
def test_mutated_files_read_or_raise_bag_errors(tmp_path, suffix, rng):
    store = get_typestore(Stores.ROS2_HUMBLE if suffix != ".bag" else Stores.ROS1_NOETIC)
    if suffix == ".mcap":
        whole = write(tmp_path / "whole.mcap", 6).read_bytes()
    elif suffix == ".db3":
        with Rosbag2Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
            connection = writer.add_connection("/tf", names.TF_MESSAGE, typestore=store)
            for n in range(6):
                writer.write(connection, n * S, transform(n))
        whole = next((tmp_path / "bag").glob("*.db3")).read_bytes()
    else:
        with Rosbag1Writer(tmp_path / "old.bag") as writer:
            connection = writer.add_connection("/cam", names.IMAGE, typestore=store)
            for n in range(6):
                writer.write(connection, n * S, ros1_image(n))
        whole = (tmp_path / "old.bag").read_bytes()
    path = tmp_path / f"changed{suffix}"
    for _ in range(120):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            changed[at] = int(rng.integers(256))
        path.write_bytes(changed[: int(rng.integers(len(whole) // 2, len(whole)))])
        try:
            read(path)
        except OccupancyError:
            continue


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("has_metadata", [True, False])
def test_compressed_sqlite_bags(tmp_path, mode, has_metadata):
    writer = Rosbag2Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/tf", names.TF_MESSAGE, typestore=get_typestore(Stores.ROS2_HUMBLE))
        for n in range(4):
            writer.write(connection, n * S, transform(n))
    if not has_metadata:
        (tmp_path / "bag" / "metadata.yaml").unlink()
    assert [m.cdr for m in read(tmp_path / "bag")[0]] == [transform(n) for n in range(4)]


def test_a_journal_beside_a_database_is_told(tmp_path):
    with Rosbag2Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/tf", names.TF_MESSAGE, typestore=get_typestore(Stores.ROS2_HUMBLE))
        writer.write(connection, S, transform(1))
    (tmp_path / "bag" / "bag.db3-wal").write_bytes(b"x" * 100)
    assert "wal_checkpoint" in read(tmp_path / "bag")[2][0]


def test_advice_names_the_tool_for_each_kind_of_damage(tmp_path):
    for name, content, tool in (
        ("x.db3", b"SQLite format 3\0" + bytes(100), "sqlite3"),
        ("x.bag", b"#ROSBAG V2.0\n" + bytes(20), "rosbag reindex"),
        ("x.mcap", b"\x89MCAP0\r\n" + bytes(100), "mcap recover"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BagError) as caught, BagReader(tmp_path / name):
            pass
        assert tool in caught.value.advice, name


def chunk_bomb(compression, data, claimed):
    body = struct.pack("<QQQI", 0, 1, claimed, 0) + struct.pack("<I", len(compression)) + compression
    body += struct.pack("<Q", len(data)) + data
    header = struct.pack("<BQ", 1, 8) + bytes(8)
    return b"\x89MCAP0\r\n" + header + struct.pack("<BQ", 6, len(body)) + body


@pytest.mark.parametrize("claimed", [1 << 20, 1 << 29, 1 << 40])
@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_chunk_does_not_unpack_to_more_than_it_claims(tmp_path, kind, claimed):
    """Half a gigabyte of zeros in a few kilobytes; what it claims is refused, or found to be a lie."""
    import tracemalloc

    zeros = bytes(1 << 24)
    packed = zstandard.compress(zeros) if kind == "zstd" else lz4.frame.compress(zeros)
    (tmp_path / "bomb.mcap").write_bytes(chunk_bomb(kind.encode(), packed, claimed))
    tracemalloc.start()
    try:
        with pytest.raises(BagError, match="before its first message"), BagReader(tmp_path / "bomb.mcap"):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 26


def test_our_own_bags_are_readable_by_humble(tmp_path):
    """Humble knows QoS profiles as text with numbers, up to metadata of version 8; names came with 9."""
    write(tmp_path / "drive", 2)
    information = yaml.safe_load((tmp_path / "drive" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["version"] <= 8
    profiles = [t["topic_metadata"]["offered_qos_profiles"] for t in information["topics_with_message_count"]]
    assert all(isinstance(text, str) for text in profiles)
    for text in profiles:
        (profile,) = yaml.safe_load(text)
        assert {type(profile[key]) for key in ("history", "reliability", "durability", "liveliness")} == {int}


def test_metadata_that_disagrees_about_qos_costs_nothing(tmp_path):
    """rosbag2 rewrites metadata, not files."""
    path = write(tmp_path / "drive", 3)
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(text.replace("depth: 10", "depth: 1"))
    assert len(read(path)[0]) == 6
    shutil.rmtree(path)


def test_messages_of_a_part_of_several_files_come_in_order(tmp_path):
    folder = split(tmp_path / "drive")
    stamps = [m.stamp_ns for m in read(folder)[0]]
    assert stamps == sorted(stamps)
    assert decode.decode_tf(read(folder)[0][0].cdr)[0].stamp_ns == S


def data(path):
    return [(message.topic, message.stamp_ns, message.cdr) for message in read(path)[0]]


@pytest.mark.parametrize("name", ["bag.MCAP", "bag.mcap.active", "bag.bag", "bag.db3", "bag"])
def test_an_mcap_is_read_under_any_name(tmp_path, name):
    """A recorder that is still writing appends to the name, people rename, and some systems write capitals."""
    plain = write(tmp_path / "plain.mcap", 3)
    (tmp_path / name).write_bytes(plain.read_bytes())
    assert data(tmp_path / name) == data(plain) and len(data(plain)) == 6


@pytest.mark.parametrize("suffix", [".zst", ".zstd"])
def test_packed_files_go_by_both_endings(tmp_path, suffix):
    plain = write(tmp_path / "plain.mcap", 3)
    packed = tmp_path / f"packed.mcap{suffix}"
    packed.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    assert data(packed) == data(plain)


def test_the_metadata_stands_for_its_folder(tmp_path):
    folder = write(tmp_path / "bag", 3)
    assert data(folder / "metadata.yaml") == data(folder) and len(data(folder)) == 6


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    (tmp_path / "bag.mcap").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n")
    with pytest.raises(BagError, match="is a pointer of Git LFS") as raised:
        read(tmp_path / "bag.mcap")
    assert "git lfs pull" in raised.value.advice
