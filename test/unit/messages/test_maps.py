# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages import decode, maps, names
from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.values import SEMANTIC_CLASSES, GridSlice, LatticeWindow, MapView

STAMP = 1_700_000_000_123_456_789


def map_view(rng, shape=(5, 4, 3), origin=(-7, 12, -1)):
    return MapView(
        STAMP, "odom", LatticeWindow(0.2, origin, shape), np.eye(4),
        rng.integers(-1, 2, shape).astype(np.int8), rng.random(shape, dtype=np.float32),
        rng.integers(0, 7, shape).astype(np.uint8),
    )  # fmt: skip


def voxels(rng, count):
    return maps.OccupiedVoxels(
        rng.normal(size=(count, 3)).astype(np.float32), rng.random(count, dtype=np.float32),
        rng.integers(0, 7, count).astype(np.uint8), rng.integers(0, 256, (count, 3)).astype(np.uint8),
    )  # fmt: skip


def test_occupancy_grid(rng):
    values = rng.choice(np.array([-1, 0, 100], np.int8), (7, 4))
    cdr = maps.encode_occupancy_grid(GridSlice(STAMP, "odom", 0.2, (-1.4, 2.0, 0.5), values))
    message = deserialize(names.OCCUPANCY_GRID, cdr)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == divmod(STAMP, 10**9)
    assert (message.info.map_load_time.sec, message.info.map_load_time.nanosec) == divmod(STAMP, 10**9)
    assert message.header.frame_id == "odom"
    assert (message.info.width, message.info.height) == (7, 4)
    assert message.info.resolution == pytest.approx(0.2)
    origin = message.info.origin
    assert (origin.position.x, origin.position.y, origin.position.z) == (-1.4, 2.0, 0.5)
    assert (origin.orientation.x, origin.orientation.y, origin.orientation.z, origin.orientation.w) == (0, 0, 0, 1)
    for x in range(7):  # row-major, x fastest
        for y in range(4):
            assert message.data[y * 7 + x] == values[x, y]
    assert serialize(message) == cdr


def test_voxel_grid_round_trip(rng):
    view = map_view(rng)
    cdr = maps.encode_voxel_grid(view)
    message = deserialize(names.VOXEL_GRID, cdr)
    assert message.state[(3 * 4 + 2) * 3 + 1] == view.state[3, 2, 1]
    assert message.class_names == list(SEMANTIC_CLASSES)
    assert (message.origin_x, message.origin_y, message.origin_z) == pytest.approx((-1.4, 2.4, -0.2))
    decoded = maps.decode_voxel_grid(cdr)
    assert (decoded.stamp_ns, decoded.frame_id, decoded.window) == (STAMP, "odom", view.window)
    np.testing.assert_array_equal(decoded.state, view.state)
    np.testing.assert_array_equal(decoded.classes, view.classes)
    np.testing.assert_allclose(decoded.probability, view.probability, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(decoded.T_map_base[:3, 3], (-0.9, 2.8, 0.1), atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"size_x": 6}, {"size_z": 2**32 - 1}, {"voxel_size": 0.0}, {"voxel_size": np.nan}, {"voxel_size": np.inf},
        {"voxel_size": 1e-30}, {"voxel_size": -0.2}, {"origin_x": np.nan}, {"origin_z": np.inf}, {"origin_y": 1e300},
        {"state": np.zeros(3, np.int8)},
    ],
)  # fmt: skip
def test_voxel_grids_that_lie_are_refused(rng, changes):
    message = deserialize(names.VOXEL_GRID, maps.encode_voxel_grid(map_view(rng)))
    fields = {name: getattr(message, name) for name in message.__dataclass_fields__ if name != "__msgtype__"}
    with pytest.raises(MessageError, match="voxel grid"):
        maps.decode_voxel_grid(serialize(type(message)(**{**fields, **changes})))


@pytest.mark.parametrize("count", [0, 1, 17])
def test_occupied_cloud(rng, count):
    sent = voxels(rng, count)
    cdr = maps.encode_occupied_cloud(STAMP, "odom", sent)
    message = deserialize(names.POINT_CLOUD, cdr)
    assert [f.name for f in message.fields] == ["x", "y", "z", "probability", "rgb", "class"]
    assert (message.height, message.width, message.point_step, message.row_step) == (1, count, 24, 24 * count)
    assert serialize(message) == cdr
    _, points = decode.decode_point_cloud(cdr)
    np.testing.assert_array_equal(points, sent.points_m)
    rows = message.data.reshape(count, 24)
    np.testing.assert_array_equal(rows[:, 16:19][:, ::-1], sent.colors)  # blue lies lowest
    np.testing.assert_array_equal(rows[:, 20], sent.classes)
    np.testing.assert_array_equal(np.ascontiguousarray(rows[:, 12:16]).view("<f4")[:, 0], sent.probability)


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("frame", ["odom", "map", "a", "", "world_frame"])  # every alignment of what follows
def test_cube_markers(rng, count, frame):
    sent = voxels(rng, count)
    cdr = maps.encode_cube_markers(STAMP, frame, sent, 0.2)
    message = deserialize(names.MARKER_ARRAY, cdr)
    (marker,) = message.markers
    assert (marker.type, marker.action, marker.ns, marker.id) == (6, 0, "occupied_voxels", 0)
    assert (marker.header.frame_id, marker.header.stamp.nanosec) == (frame, STAMP % 10**9)
    assert (marker.scale.x, marker.scale.y, marker.scale.z) == (0.2, 0.2, 0.2)
    assert marker.pose.orientation.w == 1 and marker.color.a == 1
    assert (marker.lifetime.sec, marker.lifetime.nanosec, marker.frame_locked) == (0, 0, False)
    got = np.array([[p.x, p.y, p.z] for p in marker.points]).reshape(-1, 3)
    np.testing.assert_array_equal(got, sent.points_m.astype(np.float64))
    colors = np.array([[c.r, c.g, c.b, c.a] for c in marker.colors]).reshape(-1, 4)
    np.testing.assert_allclose(colors[:, :3], sent.colors / 255, atol=1e-6)
    assert (colors[:, 3] == 1).all()
    assert serialize(message) == cdr


def test_distance_cloud():
    values = np.array([[-1, 0], [100, -1]], np.int8)
    distances = np.array([[9, 1.5], [0.0, 9]], np.float32)
    grid = GridSlice(STAMP, "odom", 0.5, (1.0, 2.0, 0.0), values)
    cdr = maps.encode_distance_cloud(grid, maps.known_centers(grid).astype(np.float32), distances)
    _, points = decode.decode_point_cloud(cdr)
    np.testing.assert_allclose(points, [(1.25, 2.75, 0), (1.75, 2.25, 0)])
    message = deserialize(names.POINT_CLOUD, cdr)
    np.testing.assert_allclose(message.data.view("<f4").reshape(-1, 4)[:, 3], [1.5, 0.0])


def test_occupied_indices(rng):
    view = map_view(rng)
    found = {tuple(row) for row in maps.occupied_indices(view)}
    assert found == {index for index in np.ndindex(view.state.shape) if view.state[index] == 1}


@given(
    st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
)
def test_headers_of_any_stamp_and_frame(stamp, frame):
    writer = CdrWriter()
    writer.header(stamp, frame)
    message = deserialize("std_msgs/msg/Header", writer.bytes())
    assert message.stamp.sec * 10**9 + message.stamp.nanosec == stamp
    assert message.frame_id == frame
    assert serialize(message) == writer.bytes()
