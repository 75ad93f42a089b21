# SPDX-License-Identifier: Apache-2.0
"""map.mcap as other tools read it: by the MCAP library alone, by Foxglove's own schemas, and by Rerun's importer."""

import json
import re
import subprocess
import sys
from collections import Counter
from operator import attrgetter

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.maps import decode_voxel_grid
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, FOXGLOVE_VOXEL_GRID, VOXEL_GRID
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.recorded_snapshots import recorded_snapshots
from occupancy_nn_ros.values import NO_COLOR

NODE = "/occupancy_nn"


@pytest.fixture(scope="module")
def played(small_bag, tiny_model, tmp_path_factory):
    """A map made of two cameras, with a summary."""
    out = tmp_path_factory.mktemp("played")
    options = ["--ply", "--set", "outputs.color_by=camera", "--json"]
    assert main(["play", str(small_bag), "--out", str(out), "--model", str(tiny_model), *options]) == 0
    return out


@pytest.fixture(scope="module")
def read(played):
    """Schemas by topic, and messages by topic as (log time, bytes), read without this package."""
    schemas, messages = {}, {}
    with (played / "map.mcap").open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            assert channel.message_encoding == "cdr"
            schemas[channel.topic] = schema
            messages.setdefault(channel.topic, []).append((message.log_time, message.data))
    return schemas, messages


def test_every_channel_says_what_it_holds(read):
    schemas, _ = read
    assert {schema.encoding for schema in schemas.values()} == {"ros2msg"}
    names = {topic: schema.name for topic, schema in schemas.items()}
    assert names["/tf"] == "tf2_msgs/msg/TFMessage"
    assert names[f"{NODE}/viewer/voxels"] == names[f"{NODE}/viewer/ceiling"] == FOXGLOVE_VOXEL_GRID
    for camera in ("front", "back"):
        assert names[f"{NODE}/viewer/{camera}/image/compressed"] == COMPRESSED_IMAGE
        assert names[f"{NODE}/viewer/{camera}/camera_info"] == "sensor_msgs/msg/CameraInfo"
    text = schemas[f"{NODE}/viewer/voxels"].data.decode()
    for part in (
        "MSG: foxglove_msgs/PackedElementField",
        "MSG: geometry_msgs/Pose",
        "uint32 slice_stride",
        "uint8[] data",
    ):
        assert part in text


def test_keyframes_are_counted_and_dated_alike(played, read):
    _, messages = read
    keyframes = json.loads((played / "summary.json").read_text())["keyframes"]
    counts = Counter({topic: len(found) for topic, found in messages.items()})
    per_keyframe = ["/tf", *(f"{NODE}/viewer/{name}/camera_info" for name in ("front", "back"))]
    assert [counts[topic] for topic in per_keyframe] == [keyframes] * 3
    assert counts[f"{NODE}/viewer/front/image/compressed"] == keyframes
    # Voxels follow the clock of ~/voxel_grid, and end with the final map as it does.
    assert counts[f"{NODE}/viewer/voxels"] == counts[f"{NODE}/voxel_grid"] > 1
    assert [t for t, _ in messages[f"{NODE}/viewer/voxels"]] == [t for t, _ in messages[f"{NODE}/voxel_grid"]]


def test_voxels_are_those_of_the_map(read):
    _, messages = read
    ours = deserialize(VOXEL_GRID, messages[f"{NODE}/voxel_grid"][-1][1])
    state = np.asarray(ours.state).reshape(ours.size_x, ours.size_y, ours.size_z)
    centers = (np.argwhere(state == 1) + 0.5) * ours.voxel_size + (ours.origin_x, ours.origin_y, ours.origin_z)
    shown = []
    for name in ("voxels", "ceiling"):
        grid = deserialize(FOXGLOVE_VOXEL_GRID, messages[f"{NODE}/viewer/{name}"][-1][1])
        cells = np.asarray(grid.data).reshape(-1, grid.row_count, grid.column_count, 4)
        z, y, x = np.nonzero(cells[..., 3] == 255)
        corner = grid.pose.position
        shown.append((np.stack([x, y, z], axis=1) + 0.5) * grid.cell_size.x + (corner.x, corner.y, corner.z))
    assert len(centers) > 10
    np.testing.assert_allclose(*(a[np.lexsort(a.round(3).T)] for a in (np.concatenate(shown), centers)), atol=1e-4)


@pytest.fixture(scope="module")
def by_foxglove(read):
    """The last cubes, read by the definition in the file alone, as a message of Foxglove's own package."""
    schemas = pytest.importorskip(
        "foxglove_schemas_protobuf.VoxelGrid_pb2", reason="Foxglove's schemas are not installed"
    )
    topic = f"{NODE}/viewer/voxels"
    schema, (log_time, cdr) = read[0][topic], read[1][topic][-1]
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(schema.data.decode(), schema.name))
    given, official = store.deserialize_cdr(cdr, schema.name), schemas.VoxelGrid()
    official.timestamp.seconds, official.timestamp.nanos = given.timestamp.sec, given.timestamp.nanosec
    for name in ("frame_id", "row_count", "column_count", "slice_stride", "row_stride", "cell_stride"):
        setattr(official, name, getattr(given, name))
    for part in ("pose.position", "pose.orientation", "cell_size"):
        there, here = (attrgetter(part)(message) for message in (given, official))
        for field in here.DESCRIPTOR.fields:
            setattr(here, field.name, getattr(there, field.name))
    for field in given.fields:
        official.fields.add(name=field.name, offset=field.offset, type=field.type)
    official.data = given.data.tobytes()
    return given, official, log_time


def test_cubes_have_the_fields_of_foxglove_s_own_schema(by_foxglove):
    given, official, _ = by_foxglove
    for message in (official, official.fields[0]):
        names = [field.name for field in message.DESCRIPTOR.fields]  # in the order of their numbers
        ours = given if message is official else given.fields[0]
        assert [name for name in ours.__dataclass_fields__ if not name.startswith("_")] == names
    numeric = official.fields[0].DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name
    assert [(f.name, f.offset, f.type) for f in official.fields] == [
        (name, n, numeric["UINT8"].number) for n, name in enumerate(("red", "green", "blue", "alpha"))
    ]
    # As the schema says where the element at byte i lies: nothing is left over, and nothing overlaps.
    slices = len(official.data) // official.slice_stride
    assert official.slice_stride * slices == len(official.data)
    assert official.row_stride * official.row_count == official.slice_stride
    assert official.cell_stride * official.column_count == official.row_stride and official.cell_stride == 4


def test_rerun_reads_foxglove_s_cubes_where_the_map_has_them(by_foxglove, read, tmp_path):
    """Rerun has a reader of its own for Foxglove's schema; it knows it as protobuf."""
    chunks = pytest.importorskip("rerun.chunk", reason="the Rerun SDK is not installed")
    _, official, log_time = by_foxglove
    files = pytest.importorskip("google.protobuf.descriptor_pb2").FileDescriptorSet()
    for file in needed_by(official.DESCRIPTOR.file):
        file.CopyToProto(files.file.add())
    with (tmp_path / "cubes.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("foxglove.VoxelGrid", "protobuf", files.SerializeToString())
        channel = writer.register_channel("cubes", "protobuf", schema)
        writer.add_message(channel, log_time, official.SerializeToString(), log_time)
        writer.finish()
    batches = [chunk.to_record_batch() for chunk in chunks.McapReader(tmp_path / "cubes.mcap").stream()]
    batch = next(batch for batch in batches if "VoxelGridMap:voxel_indices" in batch.schema.names)
    parts = ("voxel_indices", "colors", "voxel_size", "translation", "quaternion")
    cells, colors, edge, corner, turn = (
        np.array(batch.column(f"VoxelGridMap:{part}")[-1].as_py()).squeeze() for part in parts
    )
    assert turn.tolist() == [0, 0, 0, 1]
    shown = colors & 0xFF == 255  # RGBA, the highest byte first
    ours = deserialize(VOXEL_GRID, read[1][f"{NODE}/voxel_grid"][-1][1])
    state = np.asarray(ours.state).reshape(ours.size_x, ours.size_y, ours.size_z)
    at = (cells[shown] + 0.5) * edge + corner - (ours.origin_x, ours.origin_y, ours.origin_z)
    found = np.floor(at / ours.voxel_size + 1e-6).astype(int)
    assert len(found) > 10 and (state[tuple(found.T)] == 1).all()
    rgba = np.frombuffer(official.data, np.uint8).reshape(-1, 4)
    np.testing.assert_array_equal(
        np.stack([colors >> shift & 0xFF for shift in (24, 16, 8)], axis=1)[shown], rgba[rgba[:, 3] == 255, :3]
    )


def needed_by(file):
    """Files of message definitions that one needs, itself last."""
    found = {}
    for other in file.dependencies:
        found |= {needed.name: needed for needed in needed_by(other)}
    return list({**found, file.name: file}.values())


def test_pictures_and_poses_are_those_of_the_recording(read):
    _, messages = read
    jpeg = deserialize(COMPRESSED_IMAGE, messages[f"{NODE}/viewer/front/image/compressed"][0][1])
    assert jpeg.header.frame_id == "front_optical"
    assert cv2.imdecode(np.asarray(jpeg.data), cv2.IMREAD_COLOR).shape == (120, 160, 3)
    placed = {transform.source_frame: transform for transform in decode_tf(messages["/tf"][0][1])}
    assert set(placed) == {"base_link", "front_optical", "back_optical"}
    mount = np.linalg.inv(placed["base_link"].T_target_source) @ placed["front_optical"].T_target_source
    np.testing.assert_allclose(mount[:3, 3], (0.2, 0, 0.5), atol=1e-9)


def test_surface_is_written_beside_it(played, read):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    header, body = (played / "map.ply").read_bytes().split(b"end_header\n")
    vertices = int(re.search(rb"element vertex (\d+)", header)[1])
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)], count=vertices)
    grid = deserialize(VOXEL_GRID, read[1][f"{NODE}/voxel_grid"][-1][1])
    low = np.array([grid.origin_x, grid.origin_y, grid.origin_z])
    high = low + np.array([grid.size_x, grid.size_y, grid.size_z]) * grid.voxel_size
    assert vertices > 30 and (points["xyz"] > low).all() and (points["xyz"] < high).all()


def test_voxels_have_the_cameras_colours(read):
    """A network with random weights puts most of them where no camera looks."""
    grid = deserialize(FOXGLOVE_VOXEL_GRID, read[1][f"{NODE}/viewer/voxels"][-1][1])
    cells = np.asarray(grid.data).reshape(-1, 4)
    colors = cells[cells[:, 3] == 255, :3]
    assert 5 < (colors != NO_COLOR).any(axis=1).sum() < len(colors)


def test_layout_beside_it_names_its_cameras(played):
    text = (played / "foxglove_layout.json").read_text()
    for camera in ("front", "back"):
        assert f"{NODE}/viewer/{camera}/image/compressed" in text


def test_rerun_shows_pictures_cameras_places_and_voxels(played, tmp_path):
    """Rerun's importer turns the channels into its own archetypes; voxels come as points of the cloud."""
    pytest.importorskip("rerun", reason="the Rerun SDK is not installed")
    rrd, rerun = tmp_path / "map.rrd", [sys.executable, "-m", "rerun"]
    convert = [*rerun, "mcap", "convert", str(played / "map.mcap"), "-o", str(rrd)]
    subprocess.run(convert, check=True, capture_output=True)
    text = subprocess.run([*rerun, "rrd", "print", "-v", str(rrd)], capture_output=True, text=True, check=True).stdout
    columns = {}
    for entity, names in re.findall(r" - (/\S+) - data columns: \[([^\]]*)\]", text):
        columns[entity] = columns.get(entity, "") + names
    for entity, archetype in {
        f"{NODE}/viewer/front/image/compressed": "EncodedImage:blob",
        f"{NODE}/viewer/front/camera_info": "Pinhole:image_from_camera",
        f"{NODE}/depth/front/image": "DepthImage:buffer",
        f"{NODE}/occupied_voxels": "Points3D:positions",
        f"{NODE}/occupancy_grid": "GridMap:data",
        "/tf": "Transform3D:translation",
    }.items():
        assert archetype in columns[entity], entity


def stamp_of(cdr):
    return decode_voxel_grid(cdr).stamp_ns


def test_view_shows_pictures_depth_and_robot_in_their_places(played, read):
    _, messages = read
    shown = list(recorded_snapshots(played / "map.mcap"))
    grids = dict(messages[f"{NODE}/voxel_grid"])  # the last of those of one moment
    assert [snapshot.view.stamp_ns for snapshot in shown] == [
        decode_voxel_grid(cdr).stamp_ns for _, cdr in sorted(grids.items())
    ]
    assert len(shown) > 2 and shown[-1].images == ()  # the map at the end, after all keyframes
    for snapshot in shown[:-1]:
        assert sorted(image.camera for image in snapshot.images) == ["back", "front"]
        assert sorted(depth.camera for depth in snapshot.depths) == ["back", "front"]
        for image in snapshot.images:
            mount = np.linalg.inv(snapshot.view.T_map_base) @ image.T_map_cam
            assert mount[:3, 3] == pytest.approx((0.2 if image.camera == "front" else -0.2, 0, 0.5), abs=1e-9)
            assert image.image.shape == (120, 160, 3) and image.model.K[0, 0] == pytest.approx(110)
    for snapshot in shown:  # colours are those of the cubes for Foxglove
        cdr = dict(messages[f"{NODE}/viewer/voxels"])[
            next(t for t, c in grids.items() if stamp_of(c) == snapshot.view.stamp_ns)
        ]
        cells = np.asarray(deserialize(FOXGLOVE_VOXEL_GRID, cdr).data).reshape(-1, 4)
        occupied = snapshot.view.colors[snapshot.view.state == 1]
        assert sorted(map(tuple, occupied.tolist())) == sorted(map(tuple, cells[cells[:, 3] > 0, :3].tolist()))
    drive = [snapshot.view.T_map_base[0, 3] for snapshot in shown]
    assert drive == sorted(drive) and drive[-1] > drive[0] + 0.2


def test_view_shows_a_recording_of_the_grid_alone(read, tmp_path):
    _, messages = read
    with BagWriter(tmp_path / "grid.mcap") as writer:
        for stamp, cdr in messages[f"{NODE}/voxel_grid"][:2]:
            writer.write("/a/voxel_grid", VOXEL_GRID, stamp, cdr)
        writer.write("/tf", "tf2_msgs/msg/TFMessage", messages["/tf"][0][0], messages["/tf"][0][1])
    shown = list(recorded_snapshots(tmp_path / "grid.mcap"))
    assert [(len(snapshot.images), len(snapshot.depths)) for snapshot in shown] == [(0, 0)] * 2
