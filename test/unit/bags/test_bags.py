# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.errors import BagError, ConfigError, OccupancyError
from occupancy_nn_ros.messages import decode, images, maps, names, sensors
from occupancy_nn_ros.values import LatticeWindow, MapView, StampedTransform

S = 1_000_000_000
TF = "tf2_msgs/msg/TFMessage"


def transform(n):
    pose = np.eye(4)
    pose[0, 3] = n
    return sensors.encode_tf([StampedTransform(n * S, "odom", "base", pose)])


def write(path, count=5, **options):
    """``count`` images and transforms, a second apart."""
    with BagWriter(path, **options) as bag:
        for n in range(count):
            bag.write("/tf", TF, n * S, transform(n))
            pixels = np.full((4, 6, 3), n, np.uint8)
            bag.write("/cam/image", names.IMAGE, n * S + 5, sensors.encode_image(n * S, "cam", pixels))
    return path


@pytest.mark.parametrize("name", ["drive", "drive.mcap"])
def test_round_trip(tmp_path, name):
    path = write(tmp_path / name)
    assert path.is_dir() == (name == "drive")
    with BagReader(path) as bag:
        assert {t: (i.msgtype, i.count) for t, i in bag.topics.items()} == {
            "/tf": (TF, 5), "/cam/image": (names.IMAGE, 5),
        }  # fmt: skip
        assert bag.start_ns == 0
        assert bag.duration_s == pytest.approx(4.0, abs=1e-6)
        messages = list(bag.messages())
        only = list(bag.messages(["/tf"]))
        assert list(bag.messages(["/nothing"])) == []
    assert [m.stamp_ns for m in messages] == sorted(m.stamp_ns for m in messages)
    assert [m.cdr for m in only] == [transform(n) for n in range(5)]
    assert [m.topic for m in messages[:2]] == ["/tf", "/cam/image"]
    _, picture = images.decode_image(messages[7].msgtype, messages[7].cdr)
    assert (picture == 3).all()
    assert list(tmp_path.iterdir()) == [path]


def test_in_a_part_sensors_speak_and_transforms_come_from_the_beginning_on(tmp_path):
    path = write(tmp_path / "drive", count=10)
    with BagReader(path, BagPart(3.0, 6.0)) as bag:
        messages = list(bag.messages())
    assert [m.stamp_ns // S for m in messages if m.topic == "/cam/image"] == [3, 4, 5]
    assert [m.stamp_ns // S for m in messages if m.topic == "/tf"] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5), (float("nan"), 5)])
def test_a_part_that_is_none(start, end):
    with pytest.raises(ConfigError, match="expected a start of 0 or more and a later end"):
        BagPart(start, end)


def test_messages_come_in_order_of_recording_whatever_the_order_of_writing(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for n in (4, 0, 3, 1, 2):
            bag.write("/tf", TF, n * S, transform(n))
    with BagReader(tmp_path / "bag") as bag:
        assert [m.cdr for m in bag.messages()] == [transform(n) for n in range(5)]


def test_our_own_types_carry_their_definition(tmp_path):
    """A reader that knows nothing of us can decode them, and so can we."""
    view = MapView(
        S, "odom", LatticeWindow(0.2, (1, 2, 3), (2, 2, 2)), np.eye(4), np.ones((2, 2, 2), np.int8),
        np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), np.uint8),
    )  # fmt: skip
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/voxel_grid", names.VOXEL_GRID, S, maps.encode_voxel_grid(view), is_latched=True)
    with AnyReader([tmp_path / "bag"]) as reader:
        ((connection, _, raw),) = reader.messages()
        assert reader.deserialize(raw, connection.msgtype).size_x == 2
        assert connection.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
    with BagReader(tmp_path / "bag") as bag:
        (message,) = bag.messages()
    assert maps.decode_voxel_grid(message.cdr).window == view.window


@pytest.mark.parametrize("name", ["drive", "drive.mcap"])
def test_an_error_while_writing_leaves_no_bag(tmp_path, name):
    with pytest.raises(RuntimeError, match="stop"), BagWriter(tmp_path / name) as bag:
        bag.write("/tf", TF, 0, transform(0))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["drive", "drive.mcap"])
def test_an_error_while_overwriting_leaves_the_old_bag(tmp_path, name):
    path = write(tmp_path / name, 3)
    with pytest.raises(RuntimeError, match="stop"), BagWriter(path, overwrite=True) as bag:
        bag.write("/tf", TF, 0, transform(0))
        raise RuntimeError("stop")
    with BagReader(path) as bag:
        assert bag.topics["/tf"].count == 3
    write(path, 2, overwrite=True)
    with BagReader(path) as bag:
        assert bag.topics["/tf"].count == 2
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_bag_is_not_overwritten_unasked(tmp_path):
    path = write(tmp_path / "bag")
    with pytest.raises(BagError, match="exists already"), BagWriter(path):
        pass


def test_what_an_interrupted_run_left_is_replaced(tmp_path):
    leftover = tmp_path / ".bag.partial"
    leftover.mkdir()
    (leftover / "junk").write_text("x")
    write(tmp_path / "bag")
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BagError, match="cannot write bag"), BagWriter(tmp_path / "file" / "bag"):
        pass


def test_a_bag_that_cannot_be_put_in_place(tmp_path):
    (tmp_path / "bag").write_text("a file")
    with pytest.raises(BagError, match="cannot finish bag"), BagWriter(tmp_path / "bag", overwrite=True) as bag:
        bag.write("/tf", TF, 0, transform(0))
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


def test_a_message_of_unknown_type_is_refused(tmp_path):
    with pytest.raises(OccupancyError, match="my_msgs/msg/Nonsense"), BagWriter(tmp_path / "bag") as bag:
        bag.write("/x", "my_msgs/msg/Nonsense", 0, b"\x00\x01\x00\x00")
    assert list(tmp_path.iterdir()) == []


def test_a_bag_without_messages_is_empty(tmp_path):
    with BagWriter(tmp_path / "bag"):
        pass
    with pytest.raises(BagError, match="empty"), BagReader(tmp_path / "bag"):
        pass


def test_missing_bags(tmp_path):
    with pytest.raises(BagError, match="no bag at"), BagReader(tmp_path / "none"):
        pass
    with pytest.raises(BagError, match=r"no metadata\.yaml and 0 bag files"), BagReader(tmp_path):
        pass
    for name in ("a.mcap", "b.mcap"):
        write(tmp_path / name, 1)
    with pytest.raises(BagError, match="2 bag files"), BagReader(tmp_path):
        pass


@pytest.mark.parametrize("name", ["x.mcap", "x.db3", "x.bag", "x.txt"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x89MCAP0\r\n" + bytes(100), b"SQLite format 3\0" + bytes(100)])
def test_files_that_are_no_bags(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagError) as caught, BagReader(tmp_path / name) as bag:
        list(bag.messages())
    assert "\n" not in str(caught.value)


def test_damaged_bytes_in_the_middle_raise_bag_errors_or_change_a_message(tmp_path, rng):
    whole = write(tmp_path / "whole.mcap", 10).read_bytes()
    for n in range(40):
        changed = bytearray(whole)
        at = int(rng.integers(len(whole)))
        changed[at : at + 4] = rng.bytes(4)
        path = tmp_path / f"{n}.mcap"
        path.write_bytes(changed)
        try:
            with BagReader(path) as bag:
                for message in bag.messages(["/tf"]):
                    decode.decode_tf(message.cdr)
        except OccupancyError:
            continue


def test_a_folder_without_metadata_but_one_file(tmp_path):
    path = write(tmp_path / "bag")
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert bag.topics["/tf"].count == 5


def test_sqlite_bags(tmp_path):
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Rosbag2Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/tf", TF, typestore=store)
        for n in range(3):
            writer.write(connection, n * S, transform(n))
    with BagReader(tmp_path / "bag") as bag:
        assert [m.cdr for m in bag.messages()] == [transform(n) for n in range(3)]
    shutil.move(next((tmp_path / "bag").glob("*.db3")), tmp_path / "single.db3")
    with BagReader(tmp_path / "single.db3") as bag:
        assert bag.topics["/tf"].count == 3


def test_ros1_bags_come_out_as_cdr(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    kind = "geometry_msgs/msg/PoseStamped"
    make = {name.split("/")[-1]: cls for name, cls in store.types.items()}
    header = make["Header"](seq=3, stamp=store.types["builtin_interfaces/msg/Time"](sec=7, nanosec=9), frame_id="map")
    pose = make["Pose"](
        position=make["Point"](x=1.0, y=2.0, z=3.0), orientation=make["Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    )
    raw = store.serialize_ros1(make["PoseStamped"](header=header, pose=pose), kind)
    with Rosbag1Writer(tmp_path / "old.bag") as writer:
        writer.write(writer.add_connection("/pose", kind, typestore=store), 7 * S, raw)
    with BagReader(tmp_path / "old.bag") as bag:
        (message,) = bag.messages()
    read = decode.decode_pose(kind, message.cdr)
    assert (read.stamp_ns, read.target_frame, read.source_frame) == (7 * S + 9, "map", "")
    np.testing.assert_array_equal(read.T_target_source[:3, 3], (1, 2, 3))


def test_what_is_written_plays_on_humble(tmp_path):
    """By the rules of its metadata_io.cpp: QoS profiles are a text of YAML, and every policy in it is a number."""
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/tf_static", names.TF_MESSAGE, 1_000, sensors.encode_tf([]))
    text = (tmp_path / "bag" / "metadata.yaml").read_text(encoding="utf-8")
    info = yaml.safe_load(text)["rosbag2_bagfile_information"]
    assert info["version"] < 9
    assert isinstance(info["compression_format"], str) and isinstance(info["compression_mode"], str)
    (topic,) = info["topics_with_message_count"]
    profiles = topic["topic_metadata"]["offered_qos_profiles"]
    assert isinstance(profiles, str)
    (profile,) = yaml.safe_load(profiles)
    policies = ("history", "depth", "reliability", "durability", "liveliness")
    assert [profile[name] for name in policies] == [1, 1, 1, 1, 1]  # keep last, 1, reliable, transient local, automatic
    assert profile["deadline"].keys() == {"sec", "nsec"}
