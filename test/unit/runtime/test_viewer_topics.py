# SPDX-License-Identifier: Apache-2.0
"""What viewers find in a recorded map: each thing once, in its place, at its time."""

import json
from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.geometry.cameras import project, resized
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_tf
from occupancy_nn_ros.messages.foxglove import decode_foxglove_voxels
from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, FOXGLOVE_VOXEL_GRID
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.resources import resource_path
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.runtime.viewer_topics import ViewerTopics, voxel_messages
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedImage, VoxelState
from occupancy_nn_ros.visualization.colors import CLASS_COLORS
from occupancy_nn_ros.visualization.foxglove_layout import TEMPLATE, foxglove_layout
from occupancy_nn_ros.visualization.snapshot import Snapshot

STAMP, EDGE = 1_700_000_000_250_000_000, 0.5
MODEL = CameraModel(1920, 1080, np.array([[1000.0, 0, 959.5], [0, 1000, 539.5], [0, 0, 1]]), "plumb_bob", np.zeros(5))


def place(x, y, z):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def view_of(cells, stamp_ns=STAMP):
    shape, origin = (6, 5, 8), (-3, 2, -1)
    state, classes = np.full(shape, VoxelState.FREE, np.int8), np.zeros(shape, np.uint8)
    for cell, label in cells.items():
        state[cell], classes[cell] = VoxelState.OCCUPIED, label
    window = LatticeWindow(EDGE, origin, shape)
    return MapView(stamp_ns, "odom", window, place(0, 0, 0.2), state, state * 1.0, classes)


def seen_voxels(cdr):
    """Centres and colours of the cells of a voxel grid that are seen, by the rules of its message."""
    message = deserialize(FOXGLOVE_VOXEL_GRID, cdr)
    assert serialize(message) == cdr
    assert [(field.name, field.offset, field.type) for field in message.fields] == [
        ("red", 0, 1), ("green", 1, 1), ("blue", 2, 1), ("alpha", 3, 1),
    ]  # fmt: skip
    corner = message.pose.position
    found = {}
    for at in range(0, len(message.data), message.cell_stride):
        z, rest = divmod(at, message.slice_stride)
        y, rest = divmod(rest, message.row_stride)
        assert y < message.row_count and rest // message.cell_stride < message.column_count
        if message.data[at + 3]:
            steps = np.array([rest // message.cell_stride, y, z]) + 0.5
            center = steps * message.cell_size.x + (corner.x, corner.y, corner.z)
            found[tuple(center.tolist())] = tuple(message.data[at : at + 4].tolist())
    return found


def test_voxels_stand_where_they_are_in_their_colours():
    """The robot's base is at 0.2 m: what is above 2.0 m hangs over it."""
    messages = voxel_messages(view_of({(1, 2, 3): 5, (5, 0, 0): 1, (0, 4, 6): 2}), "class")
    assert [message.topic for message in messages] == ["viewer/voxels", "viewer/ceiling"]
    person, ground, structure = ((*CLASS_COLORS[label].tolist(), 255) for label in (5, 1, 2))
    assert seen_voxels(messages[0].cdr) == {(-0.75, 2.25, 1.25): person, (1.25, 1.25, -0.25): ground}
    assert seen_voxels(messages[1].cdr) == {(-1.25, 3.25, 2.75): structure}
    grid = deserialize(FOXGLOVE_VOXEL_GRID, messages[0].cdr)
    assert (grid.timestamp.sec * 10**9 + grid.timestamp.nanosec, grid.frame_id) == (STAMP, "odom")


def test_cubes_are_read_back_and_what_is_none_is_refused():
    voxels, _ = voxel_messages(view_of({(1, 2, 3): 5, (5, 0, 0): 1}), "class")
    window, rgba = decode_foxglove_voxels(voxels.cdr)
    assert (window.voxel_size_m, window.origin, window.shape) == (EDGE, (-2, 2, -1), (5, 3, 4))
    assert rgba[0, 2, 3].tolist() == [*CLASS_COLORS[5].tolist(), 255] and int((rgba[..., 3] > 0).sum()) == 2
    message = deserialize(FOXGLOVE_VOXEL_GRID, voxels.cdr)
    for field, value in (("row_count", 0), ("column_count", 7), ("fields", message.fields[:3])):
        with pytest.raises(MessageError):
            decode_foxglove_voxels(serialize(replace(message, **{field: value})))


def test_a_map_without_occupied_voxels_shows_none():
    assert [seen_voxels(message.cdr) for message in voxel_messages(view_of({}), "height")] == [{}, {}]


def sensor(name, kind="image"):
    return SensorStream(name, f"/{name}/image", "sensor_msgs/msg/Image", kind=kind)


def keyframe(stamp_ns=STAMP):
    """Two cameras, of which one's picture came 0.1 s earlier, and a LiDAR that sits in the robot's own frame."""
    frames = (
        RawFrame(sensor("front"), stamp_ns, "eye_1", b"", MODEL, place(1, 0, 0)),
        RawFrame(sensor("2nd"), stamp_ns - 100_000_000, "eye_2", b"", MODEL, place(2, 0, 0)),
        RawFrame(sensor("lidar", "cloud"), stamp_ns, "body", b"", None, place(9, 9, 9)),
    )
    picture = np.zeros((1080, 1920, 3), np.uint8)
    picture[:, 960:] = 255, 0, 0
    images = tuple(PosedImage(f.sensor.name, f.stamp_ns, picture, MODEL, f.T_map_sensor) for f in frames[:2])
    return RawKeyframe(stamp_ns, place(0, 0, 0.2), frames), images


def test_robot_and_sensors_are_placed_at_their_own_stamps():
    topics, (raw, images) = ViewerTopics(Config()), keyframe()
    topics.offer(Snapshot(images, (), view_of({})))
    (tf,) = [message for message in topics.messages(raw, "body") if message.topic == "/tf"]
    found = {t.source_frame: (t.target_frame, t.stamp_ns, t.T_target_source[0, 3]) for t in decode_tf(tf.cdr)}
    assert found == {
        "body": ("odom", STAMP, 0.0), "eye_1": ("odom", STAMP, 1.0), "eye_2": ("odom", STAMP - 100_000_000, 2.0),
    }  # fmt: skip


def test_pictures_are_small_and_their_calibration_fits_them():
    topics, (raw, images) = ViewerTopics(Config()), keyframe()
    topics.offer(Snapshot(images, (), view_of({})))
    messages = {message.topic: message for message in topics.messages(raw, "body")}
    header, rgb = decode_image(COMPRESSED_IMAGE, messages["viewer/_2nd/image/compressed"].cdr)
    assert (header.frame_id, header.stamp_ns, rgb.shape) == ("eye_2", STAMP - 100_000_000, (540, 960, 3))
    assert np.abs(rgb[100, 700].astype(int) - (255, 0, 0)).max() < 8
    header, model = decode_camera_info(messages["viewer/_2nd/camera_info"].cdr)
    assert (header.frame_id, model.width, model.height) == ("eye_2", 960, 540)
    pixel, _ = project(model, np.array([[0.3, -0.2, 2.0]]))
    assert (pixel[0] + 0.5) * 2 - 0.5 == pytest.approx(project(MODEL, np.array([[0.3, -0.2, 2.0]]))[0][0])


def test_intrinsics_follow_an_image_that_is_scaled():
    """A point at the border between two pixels of the large image stays at the border between two of the small one."""
    small = resized(MODEL, 640, 540)
    border = np.array([[(479.5 + 0.5 - 960) / 1000, (539.5 - 539.5) / 1000, 1.0]])
    assert project(MODEL, border)[0][0] == pytest.approx((479.5, 539.5))
    assert project(small, border)[0][0] == pytest.approx((480 / 3 - 0.5, 269.5))


def test_voxels_go_out_once_in_a_period_and_after_a_jump_back():
    topics = ViewerTopics(load_config([], ["outputs.voxels_period_s=0.5"]))
    shown = []
    for offset_ms in (0, 300, 499, 500, 900, -1000):
        raw, images = keyframe(STAMP + offset_ms * 1_000_000)
        topics.offer(Snapshot(images, (), view_of({}, raw.stamp_ns)))
        shown.append(any(m.topic == "viewer/voxels" for m in topics.messages(raw, "body")))
    assert shown == [True, False, False, True, False, True]


def test_a_keyframe_that_was_dropped_leaves_nothing():
    topics, (raw, images) = ViewerTopics(Config()), keyframe()
    assert topics.messages(raw, "body") == []
    topics.offer(Snapshot(images, (), view_of({})))
    assert topics.messages(raw, "body") and topics.messages(raw, "body") == []


def panels_of(layout):
    return [layout] if isinstance(layout, str) else [*panels_of(layout["first"]), *panels_of(layout["second"])]


@pytest.mark.parametrize("cameras", range(7))
def test_layout_has_a_panel_for_each_camera(cameras):
    topics = [(f"/n/{n}/image", f"/n/{n}/info") for n in range(cameras)]
    layout = json.loads(foxglove_layout(topics, "body"))
    panels = layout["configById"]
    assert sorted(panels_of(layout["layout"])) == sorted(panels)
    shown = [panel["imageMode"] for name, panel in panels.items() if name.startswith("Image!")]
    assert [(mode["imageTopic"], mode["calibrationTopic"]) for mode in shown] == topics
    assert {panel["followTf"] for name, panel in panels.items() if name.startswith("3D!")} == {"body"}


def test_the_layout_in_config_shows_topics_that_there_are():
    from occupancy_nn_ros.runtime.outputs import OUTPUTS
    from occupancy_nn_ros.runtime.viewer_topics import picture_topics

    layout = json.loads(resource_path(TEMPLATE).read_text())
    written = {"viewer/voxels", "viewer/ceiling", *(topic.name for topic in OUTPUTS)}
    names = {name for key, panel in layout["configById"].items() if key[0] == "3" for name in panel["topics"]}
    assert names <= {f"/occupancy_nn/{name}" for name in written}
    mode = layout["configById"]["Image!camera"]["imageMode"]
    assert (mode["imageTopic"], mode["calibrationTopic"]) == tuple(
        f"/occupancy_nn/{name}" for name in picture_topics("front")
    )
    assert sorted(panels_of(layout["layout"])) == sorted(layout["configById"])
