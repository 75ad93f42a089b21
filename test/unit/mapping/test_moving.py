# SPDX-License-Identifier: Apache-2.0
"""What moves through a map, and how fast: boxes of voxels whose way is known."""

import numpy as np
import pytest

from occupancy_nn_ros.config import GridConfig, load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.moving import MovementTracker
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.names import POINT_CLOUD
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.values import LatticeWindow, MapView, VoxelState

EDGE, SHAPE = 0.2, (60, 60, 12)
SECOND = 1_000_000_000
GRID = GridConfig()


def room(time_s, boxes, robot=(0.0, 0.0), unknown=False):
    """Free space with a wall, and boxes (x, y, half) from the floor to 1.6 m."""
    base = make_transform((*robot, 0.0), (0, 0, 0, 1))
    origin = tuple(int(np.floor(c / EDGE)) - n // 2 for c, n in zip(robot, SHAPE, strict=False))
    window = LatticeWindow(EDGE, (*origin, -2), SHAPE)
    state = np.full(SHAPE, VoxelState.UNKNOWN if unknown else VoxelState.FREE, np.int8)
    x, y, z = np.moveaxis(window.centers_m(), -1, 0)
    state[(y > 4.0) & (y < 4.4)] = VoxelState.OCCUPIED
    for bx, by, half in boxes:
        state[(np.abs(x - bx) < half) & (np.abs(y - by) < half) & (z > 0) & (z < 1.6)] = VoxelState.OCCUPIED
    return MapView(
        round(time_s * SECOND), "map", window, base, state, np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    )


def walk(way, seconds=4.0, rate_hz=4.0, **options):
    """The last look at boxes whose places are ``way(time)``."""
    tracker = MovementTracker()
    for time_s in np.arange(0, seconds, 1 / rate_hz):
        movement = tracker.look(room(time_s, way(time_s), **options), GRID, 2.0)
    return movement, time_s


@pytest.mark.parametrize(("vx", "vy"), [(0.5, 0.0), (1.2, 0.0), (-0.6, 0.6)])
def test_a_walker_is_found_with_its_velocity(vx, vy):
    movement, time_s = walk(lambda t: [(-2 + vx * t if vx > 0 else 2 + vx * t, -2 + vy * t, 0.3)])
    (cluster,) = movement.clusters
    place = np.array([-2 + vx * time_s if vx > 0 else 2 + vx * time_s, -2 + vy * time_s])
    assert np.linalg.norm(cluster.points_m[:, :2] - place, axis=1).min() < 0.3
    error = np.linalg.norm(cluster.velocity_m_s - (vx, vy))
    assert error < 0.15 and 0 < cluster.std_m_s < 0.3
    assert len(movement.vanished_m) > 0


def test_what_stands_and_what_comes_into_view_does_not_move():
    movement, _ = walk(lambda t: [(1.0, 1.0, 0.4)])
    assert movement.clusters == () and len(movement.vanished_m) == 0
    tracker = MovementTracker()
    tracker.look(room(0, [], unknown=True), GRID, 2.0)  # nothing was seen to be free
    seen = tracker.look(room(0.3, [(1.0, 1.0, 0.4)]), GRID, 2.0)
    assert seen.clusters == ()


def test_a_robot_that_drives_moves_nothing():
    tracker = MovementTracker()
    for n in range(12):
        movement = tracker.look(room(0.3 * n, [(1.0, 1.0, 0.4)], robot=(0.23 * n, 0.0)), GRID, 2.0)
        assert movement.clusters == () and len(movement.vanished_m) == 0


def test_who_stops_is_no_longer_shown_and_who_goes_has_vanished():
    still, _ = walk(lambda t: [(min(-2 + t, -1.0), 0.0, 0.3)], seconds=5.0)
    assert still.clusters == ()
    gone, _ = walk(lambda t: [(0.0, 0.0, 0.3)] if t < 2 else [], seconds=2.6)
    assert gone.clusters == () and len(gone.vanished_m) > 20


def test_two_who_pass_each_other_keep_their_tracks():
    tracker = MovementTracker()
    tracks = []
    for t in np.arange(0, 4, 0.25):
        movement = tracker.look(room(t, [(-2 + t, -1.0, 0.3), (2 - t, 1.0, 0.3)]), GRID, 2.0)
        tracks.append({c.track: float(c.velocity_m_s[0]) for c in movement.clusters})
    assert len(set().union(*tracks)) == 2 and len(tracks[-1]) == 2
    assert sorted(np.sign(list(tracks[-1].values()))) == [-1, 1]


def test_one_look_gives_no_velocity_and_time_that_turns_back_begins_anew():
    tracker = MovementTracker()
    tracker.look(room(10, []), GRID, 2.0)
    first = tracker.look(room(10.3, [(1.0, 1.0, 0.3)]), GRID, 2.0)
    assert np.isnan(first.clusters[0].velocity_m_s).all() and np.isnan(first.clusters[0].std_m_s)
    assert tracker.look(room(3.0, [(2.0, 1.0, 0.3)]), GRID, 2.0).clusters == ()


def test_small_and_flat_changes_are_noise():
    movement, _ = walk(lambda t: [(1.0, 1.0, 0.11)] if int(4 * t) % 2 else [])
    assert all(len(cluster.points_m) >= 4 for cluster in movement.clusters)
    tracker = MovementTracker()
    tracker.look(room(0, []), GRID, 2.0)
    view = room(0.3, [])
    view.state[10:20, 10:20, 4] = VoxelState.OCCUPIED
    assert tracker.look(view, GRID, 2.0).clusters == ()


def test_the_cloud_holds_velocity_doubt_track_and_change():
    (topic,) = (topic for topic in OUTPUTS if topic.name == "moving")
    assert topic.msgtype == POINT_CLOUD and topic.is_optional and not topic.is_latched
    tracker, config = MovementTracker(), load_config()
    for t in np.arange(0, 3, 0.25):
        source = MapSource(room(t, [(-1.5 + 0.8 * t, 0.0, 0.3)]), config)
        source.tracker = tracker
        cdr = topic.encode(source)
    message = deserialize(POINT_CLOUD, cdr)
    assert [f.name for f in message.fields] == ["x", "y", "z", "vx", "vy", "vz", "std", "track", "change"]
    formats = ["<f4"] * 7 + ["<u4", "i1"]
    kind = {
        "names": [f.name for f in message.fields],
        "formats": formats,
        "offsets": [f.offset for f in message.fields],
    }
    points = np.frombuffer(message.data.tobytes(), np.dtype({**kind, "itemsize": message.point_step}))
    appeared = points[points["change"] == 1]
    assert len(appeared) > 10 and (points["change"] == -1).sum() > 10
    np.testing.assert_allclose(appeared["vx"], 0.8, atol=0.15)
    assert (appeared["vz"] == 0).all() and len(set(appeared["track"])) == 1 and (appeared["std"] > 0).all()
    assert decode_point_cloud(cdr)[1].shape == (len(points), 3)
    fresh = deserialize(POINT_CLOUD, topic.encode(MapSource(room(0, [(1.0, 0.0, 0.3)]), config)))
    assert fresh.width == 0
