# SPDX-License-Identifier: Apache-2.0
"""What moves through a map, and how fast: bodies whose way is known."""

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import GridConfig, load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.moving import MovementTracker
from occupancy_nn_ros.mapping.surface_points import surface_points
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.names import POINT_CLOUD
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedCloud, PosedDepth, Prediction, VoxelState

EDGE, SHAPE = 0.2, (60, 60, 12)
SECOND = 1_000_000_000
GRID = GridConfig()


def room(time_s, standing=(), robot=(0.0, 0.0), unknown=False):
    """Free space with a wall, and boxes (x, y, half) that the map knows."""
    base = make_transform((*robot, 0.0), (0, 0, 0, 1))
    origin = tuple(int(np.floor(c / EDGE)) - n // 2 for c, n in zip(robot, SHAPE, strict=False))
    window = LatticeWindow(EDGE, (*origin, -2), SHAPE)
    state = np.full(SHAPE, VoxelState.UNKNOWN if unknown else VoxelState.FREE, np.int8)
    x, y, z = np.moveaxis(window.centers_m(), -1, 0)
    state[(y > 4.0) & (y < 4.4)] = VoxelState.OCCUPIED
    for bx, by, half in standing:
        state[(np.abs(x - bx) < half) & (np.abs(y - by) < half) & (z > 0) & (z < 1.6)] = VoxelState.OCCUPIED
    return MapView(
        round(time_s * SECOND), "map", window, base, state, np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    )


def body(x, y, half=0.2, height=1.6):
    """Points on the four sides of a box from the floor up."""
    steps, heights = np.arange(-half, half + 1e-6, 0.05), np.arange(0.05, height, 0.05)
    ring = [(s, side * half) for s in steps for side in (-1, 1)] + [(side * half, s) for s in steps for side in (-1, 1)]
    return np.array([(x + a, y + b, z) for a, b in ring for z in heights])


def wall():
    return np.array([(x, 4.02, z) for x in np.arange(-4, 4, 0.1) for z in np.arange(0.05, 2, 0.1)])


def walk(way, seconds=4.0, rate_hz=4.0, **options):
    """The last look at bodies whose places (x, y) are ``way(time)``, in a map that they do not enter."""
    tracker = MovementTracker()
    for time_s in np.arange(0, seconds, 1 / rate_hz):
        points = np.concatenate([wall(), *(body(*place) for place in way(time_s))])
        movement = tracker.look(room(time_s, **options), points, GRID, 2.0)
    return movement, time_s


@pytest.mark.parametrize(("vx", "vy"), [(0.5, 0.0), (1.2, 0.0), (-0.6, 0.6)])
def test_a_walker_is_found_with_its_velocity(vx, vy):
    movement, time_s = walk(lambda t: [(-2 * np.sign(vx) + vx * t, -2 + vy * t)])
    (cluster,) = movement.clusters
    place = np.array([-2 * np.sign(vx) + vx * time_s, -2 + vy * time_s])
    assert np.linalg.norm(cluster.points_m[:, :2].mean(axis=0) - place) < 0.15
    error = np.linalg.norm(cluster.velocity_m_s - (vx, vy))
    assert error < 0.15 and 0 < cluster.std_m_s < 0.3
    assert len(movement.vanished_m) > 0


def test_what_the_map_knows_and_what_comes_into_view_does_not_move():
    known, _ = walk(lambda t: [(1.0, 1.0)], standing=[(1.0, 1.0, 0.3)])
    assert known.clusters == () and len(known.vanished_m) == 0
    tracker = MovementTracker()
    for n in range(4):  # nothing was seen to be free
        assert tracker.look(room(0.3 * n, unknown=True), body(1.0, 1.0), GRID, 2.0).clusters == ()
    for n in range(4, 6):  # it is free, but has not been for long
        assert tracker.look(room(0.05 * n + 1), body(1.0, 1.0), GRID, 2.0).clusters == ()


def test_walls_that_are_seen_a_voxel_off_do_not_move():
    tracker = MovementTracker()
    for n in range(12):
        movement = tracker.look(room(0.3 * n), wall() - (0, 0.17 * (n % 2), 0), GRID, 2.0)
    assert movement.clusters == ()


def test_a_robot_that_drives_moves_nothing():
    tracker = MovementTracker()
    for n in range(12):
        view = room(0.3 * n, [(1.0, 1.0, 0.3)], robot=(0.23 * n, 0.0))
        movement = tracker.look(view, np.concatenate([wall(), body(1.0, 1.0)]), GRID, 2.0)
        assert movement.clusters == () and len(movement.vanished_m) == 0


def test_who_leaves_has_vanished():
    gone, _ = walk(lambda t: [(0.0, 0.0)] if t < 2 else [], seconds=2.6)
    assert gone.clusters == () and len(gone.vanished_m) > 20
    long_gone, _ = walk(lambda t: [(0.0, 0.0)] if t < 2 else [], seconds=6.0)
    assert len(long_gone.vanished_m) == 0


def test_two_who_pass_each_other_keep_their_tracks():
    tracker = MovementTracker()
    tracks = []
    for t in np.arange(0, 4, 0.25):
        movement = tracker.look(room(t), np.concatenate([body(-2 + t, -1.0), body(2 - t, 1.0)]), GRID, 2.0)
        tracks.append({c.track: float(c.velocity_m_s[0]) for c in movement.clusters})
    assert len(set().union(*tracks)) == 2 and len(tracks[-1]) == 2
    assert sorted(np.sign(list(tracks[-1].values()))) == [-1, 1]


def test_one_look_gives_no_velocity_and_time_that_turns_back_begins_anew():
    tracker = MovementTracker()
    for t in (10.0, 10.4):
        tracker.look(room(t), wall(), GRID, 2.0)
    first = tracker.look(room(10.8), body(1.0, 1.0), GRID, 2.0)
    assert np.isnan(first.clusters[0].velocity_m_s).all() and np.isnan(first.clusters[0].std_m_s)
    assert tracker.look(room(3.0), body(2.0, 1.0), GRID, 2.0).clusters == ()


def test_low_and_large_things_are_noise():
    for points in (body(1.0, 1.0, height=0.35), body(0.0, 0.0, half=1.6)):
        tracker = MovementTracker()
        for t in (0.0, 0.4):
            tracker.look(room(t), wall(), GRID, 2.0)
        assert tracker.look(room(0.8), points, GRID, 2.0).clusters == ()


def test_points_of_depth_images_and_sweeps_lie_where_they_should(rng):
    pose = make_transform((1, 2, 0.5), (-0.5, 0.5, -0.5, 0.5))
    depth = rng.uniform(0.5, 12, (30, 40)).astype(np.float32)
    depth[3] = 0
    model = CameraModel(40, 30, [[40.0, 0, 19.5], [0, 40, 14.5], [0, 0, 1]])
    points = surface_points([PosedDepth("front", 1, depth, model, pose)], 8.0)
    v, u = np.mgrid[0:30, 0:40]
    rays = np.stack([(u - 19.5) / 40, (v - 14.5) / 40, np.ones(u.shape)], -1) * depth[..., None]
    near = (depth > 0) & (np.linalg.norm(rays, axis=-1) <= 8.0)
    np.testing.assert_allclose(points, rays[near] @ pose[:3, :3].T + pose[:3, 3], atol=1e-5)
    sweep = rng.normal(0, 3, (50_000, 3)).astype(np.float32)
    some = surface_points([PosedCloud("top", 1, sweep, np.eye(4))], 100.0)
    assert 10_000 < len(some) <= 20_000
    assert surface_points([], 8.0).shape == (0, 3)


def test_predicted_voxels_count_where_somebody_sees_them():
    window = LatticeWindow(0.5, (2, -3, 0), (3, 1, 1))
    logit, visible, weight = (
        torch.tensor(v).view(3, 1, 1) for v in ([-0.6, -0.8, 2.0], [0.9, 0.9, 0.4], [1.0, 1.0, 1.0])
    )
    prediction = Prediction(window, logit, weight, visible=visible)
    np.testing.assert_allclose(surface_points([prediction], 8.0), [[1.25, -1.25, 0.25]])
    hidden = Prediction(window, logit, weight * 0, visible=visible)  # in the robot's body
    assert len(surface_points([hidden], 8.0)) == 0


def test_the_cloud_holds_velocity_doubt_track_and_change():
    (topic,) = (topic for topic in OUTPUTS if topic.name == "moving")
    assert topic.msgtype == POINT_CLOUD and topic.is_optional and not topic.is_latched
    tracker, config = MovementTracker(), load_config()
    for t in np.arange(0, 3, 0.25):
        source = MapSource(room(t), config)
        points = body(-1.5 + 0.8 * t, 0.0).astype(np.float32)
        source.tracker, source.looks = tracker, (PosedCloud("top", 1, points, np.eye(4)),)
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
    fresh = deserialize(POINT_CLOUD, topic.encode(MapSource(room(0), config)))
    assert fresh.width == 0
