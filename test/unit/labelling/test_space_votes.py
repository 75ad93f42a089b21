# SPDX-License-Identifier: Apache-2.0
"""What is known of space, and the targets made of it, where both follow from a drawing: walls at known places."""

import numpy as np
import pytest

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.errors import ConfigError, TrainingError
from occupancy_nn_ros.labelling.space_votes import WELL_INSIDE, Rays, SpaceVotes, rays_of, reconcile, states_of
from occupancy_nn_ros.labelling.targets import (
    PinholeView,
    cell_depths,
    draw_points,
    label_cubes,
    visible_points,
)
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED
from occupancy_nn_ros.values import CameraModel, LatticeWindow, PosedCloud, PosedDepth, VoxelState

UNKNOWN, FREE, HIT = VoxelState.UNKNOWN, VoxelState.FREE, VoxelState.OCCUPIED
R_BASE_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
MODEL = CameraModel(64, 48, np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]), "none", np.zeros(0))
WALL_M = 2.05
SECOND = 1_000_000_000


def pose(x=0.0, y=0.0, z=1.0, rotation=R_BASE_OPTICAL):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, (x, y, z)
    return matrix


def wall_scan(stamp_ns, distance=WALL_M):
    """A depth camera at the origin, 1 m up, that looks along x at a wall across."""
    return PosedDepth("eye", stamp_ns, np.full((48, 64), distance, np.float32), MODEL, pose())


def cloud(stamp_ns, origin, ends):
    """A LiDAR somewhere that measures these points."""
    ends = np.asarray(ends, dtype=np.float64) - origin
    return PosedCloud("lidar", stamp_ns, ends.astype(np.float32), pose(*origin, rotation=np.eye(3)))


def patch(x, half=0.3, y=0.0, z=1.0):
    """Points across a square patch at x, some in each voxel of 0.1 m."""
    side = np.arange(-half + 0.0125, half, 0.025)
    v, w = np.meshgrid(side, side)
    return np.stack([np.full(v.size, x), y + v.ravel(), z + w.ravel()], axis=1)


def votes_of(*scans, voxel=0.1):
    votes = SpaceVotes(voxel, MapConfig())
    for scan in scans:
        votes.add(scan, np.eye(4))
    return votes


def state_at(space, *points):
    return [int(s) for s in space.query(np.array(points))[1]]


@pytest.fixture(scope="module")
def walled():
    votes = votes_of(*(wall_scan(n * SECOND) for n in range(3)))
    return votes, votes.settle([wall_scan(3 * SECOND)], np.eye(4))


def test_three_states_before_in_and_behind_a_wall(walled):
    _, space = walled
    depths = np.arange(0.35, 3.0, 0.1)
    states = np.array(state_at(space, *([x, 0.05, 1.05] for x in depths)))
    assert (states[depths < 2.0] == FREE).all()
    assert (states[np.abs(depths - WALL_M) < 0.01] == HIT).all()
    assert (states[depths > 2.1] == UNKNOWN).all()
    # The picture spans 31.5 / 40 to the side: beyond, nothing is known.
    assert state_at(space, [1.0, 0.7, 1.0], [1.0, 0.95, 1.0], [-0.5, 0, 1]) == [FREE, UNKNOWN, UNKNOWN]


def test_what_is_out_of_sight_now_is_known_from_before():
    behind = [2.55, 0.05, 1.05]
    side_view = [cloud(n * SECOND, (4, 0, 1), patch(2.25)) for n in (0, 1, 2)]
    votes = votes_of(*side_view, *(wall_scan(n * SECOND) for n in (3, 4)))
    space = votes.settle([wall_scan(4 * SECOND)], np.eye(4))
    assert state_at(space, behind, [2.25, 0.05, 1.05], [1.0, 0, 1]) == [FREE, HIT, FREE]
    alone = votes_of(*(wall_scan(n * SECOND) for n in range(2)))
    assert state_at(alone.settle([wall_scan(SECOND)], np.eye(4)), behind) == [UNKNOWN]


def test_it_takes_three_slices_of_time_to_know():
    place = [1.0, 0.05, 1.05]
    brief = votes_of(*(wall_scan(n * SECOND // 10) for n in range(9)))
    assert state_at(brief.settle([], np.eye(4)), place) == [UNKNOWN]
    longer = votes_of(*(wall_scan(n * SECOND // 10) for n in range(11)))
    assert state_at(longer.settle([], np.eye(4)), place) == [FREE]


def test_a_surface_that_only_touches_a_voxel_does_not_occupy_it():
    """Hits in the outer eighth of the voxel from 2.0 to 2.1 m, and in its core."""
    for distance, expected in ((2.005, UNKNOWN), (2.02, HIT)):
        space = votes_of().settle([wall_scan(0, distance)], np.eye(4))
        assert state_at(space, [2.05, 0.05, 1.05]) == [expected]


def test_what_passes_through_is_there_at_its_moment_only():
    """A patch stands 1.25 m away in one slice of eight; a keyframe then shows it, one later does not."""
    wall = [cloud(n * SECOND, (0, 0, 1), patch(WALL_M, 1.0)) for n in range(8)]
    visit = cloud(3 * SECOND, (0, 0, 1), patch(1.25, 0.3))
    votes = votes_of(*(visit if n == 3 else scan for n, scan in enumerate(wall)))
    then = votes.settle([visit], np.eye(4))
    assert state_at(then, [1.25, 0.05, 1.05], [0.8, 0.05, 1.05]) == [HIT, FREE]
    # Free at other times, but hidden behind the visitor now, who may be thick; further behind it is free as ever.
    assert state_at(then, [1.45, 0.05, 1.05], [1.95, 0.05, 1.05]) == [UNKNOWN, FREE]
    later = votes.settle([wall[7]], np.eye(4))
    assert state_at(later, [1.25, 0.05, 1.05], [1.45, 0.05, 1.05], [WALL_M, 0.05, 1.05]) == [FREE, FREE, HIT]
    trail = states_of(later)[later.window.index_of(np.array([1.25, 0, 0]))[0]]
    assert (trail == HIT).sum() == 0


def test_a_thing_that_left_for_good_is_not_where_it_was():
    """Seen for four slices, gone for the last; the votes still say occupied, the moment knows better."""
    stood = [cloud(n * SECOND, (0, 0, 1), patch(1.25, 0.3)) for n in range(6)]
    gone = cloud(7 * SECOND, (0, 0, 1), patch(WALL_M, 1.0))
    votes = votes_of(*stood, gone)
    assert state_at(votes.settle([stood[3]], np.eye(4)), [1.25, 0.05, 1.05]) == [HIT]
    assert state_at(votes.settle([gone], np.eye(4)), [1.25, 0.05, 1.05]) == [FREE]


def test_single_voxels_that_differ_are_noise_and_several_are_a_thing():
    votes, moment = np.full((20, 20, 20), FREE, np.int8), np.full((20, 20, 20), UNKNOWN, np.int8)
    moment[10, 10, 10] = HIT
    np.testing.assert_array_equal(reconcile(votes, moment, 0.1), votes)
    moment[10, 10:12, 10:12] = HIT
    state = reconcile(votes, moment, 0.1)
    assert (state == HIT).sum() == 4
    unknown = np.argwhere(state == UNKNOWN)
    np.testing.assert_array_equal(unknown.min(axis=0), [5, 5, 5])
    np.testing.assert_array_equal(unknown.max(axis=0), [15, 16, 16])
    assert (state == UNKNOWN).sum() == 11 * 12 * 12 - 4


def test_places_out_of_reach_are_remembered_until_memory_ends():
    votes = votes_of(*(wall_scan(n * SECOND) for n in range(3)))
    far = pose(x=40.0, rotation=np.eye(3))
    votes.settle([], far)
    assert state_at(votes.settle([], np.eye(4)), [1.0, 0, 1], [WALL_M, 0.05, 1.05]) == [FREE, HIT]
    votes._votes.store.limit_bytes = 1000
    votes.settle([], far)
    with pytest.raises(TrainingError, match=r"covers more space than 2048 MiB hold"):
        votes.add(wall_scan(9 * SECOND), far)


def test_windows_that_do_not_fit_into_memory_are_refused_before_any_is_taken(monkeypatch):
    with pytest.raises(ConfigError, match=r"voxels, expected 1 to"):
        SpaceVotes(0.005, MapConfig())
    monkeypatch.setattr("occupancy_nn_ros.mapping.map_memory._free_bytes", lambda device: 400 << 20)
    with pytest.raises(ConfigError, match=r"needs 453 MiB, 400 MiB are free on cpu"):
        SpaceVotes(0.05, MapConfig())


def slow_label(window, state, point, edge):
    """The rule of ``label_cubes`` for one cube, voxel by voxel."""
    low, high = (point - edge / 2) / window.voxel_size_m, (point + edge / 2) / window.voxel_size_m
    hull = ((point - WELL_INSIDE * edge) / window.voxel_size_m, (point + WELL_INSIDE * edge) / window.voxel_size_m)
    free, occupied = True, False
    ranges = [range(int(np.floor(a)), int(np.ceil(b))) for a, b in zip(low, high, strict=True)]
    for i in ranges[0]:
        for j in ranges[1]:
            for k in ranges[2]:
                cell = np.array([i, j, k])
                at = cell - window.origin
                there = state[tuple(at)] if ((at >= 0) & (at < window.shape)).all() else UNKNOWN
                free &= there == FREE
                core = (cell + 0.5 - WELL_INSIDE, cell + 0.5 + WELL_INSIDE)
                occupied |= there == HIT and bool((core[0] >= hull[0]).all() and (core[1] <= hull[1]).all())
    return OCCUPIED if occupied else 0 if free else IGNORED


@pytest.mark.parametrize("edge", [0.2, 0.3])
def test_labels_of_cubes_follow_the_rule(rng, edge):
    window = LatticeWindow(0.1, (-3, 2, 0), (7, 6, 5))
    state = rng.choice([FREE, HIT, UNKNOWN], window.shape, p=[0.95, 0.03, 0.02]).astype(np.int8)
    points = window.origin_m + rng.uniform(-0.1, 0.9, (600, 3)) * np.array(window.shape) * 0.1
    labels = label_cubes(window, state, points, edge)
    assert {0, OCCUPIED, IGNORED} == set(labels.tolist())
    assert labels.tolist() == [slow_label(window, state, point, edge) for point in points]


def test_a_cube_on_the_lattice_is_its_voxel(rng):
    window = LatticeWindow(0.1, (-3, 2, 0), (7, 6, 5))
    state = rng.choice([FREE, HIT, UNKNOWN], window.shape).astype(np.int8)
    labels = label_cubes(window, state, window.centers_m().reshape(-1, 3).astype(np.float64), 0.1)
    expected = {FREE: 0, HIT: OCCUPIED, UNKNOWN: IGNORED}
    assert labels.tolist() == [expected[VoxelState(s)] for s in state.ravel()]


@pytest.mark.parametrize("edge", [0.1, 0.2])
def test_points_are_labelled_as_the_wall_stands_and_none_lie_behind_it(walled, rng, edge):
    _, space = walled
    points, labels = draw_points(space, rays_of([wall_scan(0)], rng), edge, rng, 4000)
    assert points.shape == (4000, 3) and labels.dtype == np.uint8
    x = points[:, 0]
    occupied, free = labels == OCCUPIED, labels == 0
    assert (np.abs(x[occupied] - WALL_M) <= WELL_INSIDE * edge + 1e-6).all()
    assert (x[free] + edge / 2 <= 2.0 + 1e-3 * edge).all()
    assert occupied.sum() > 400 and free.sum() > 2000 and occupied.sum() + free.sum() == 4000
    near = free & (x > WALL_M - 0.5)
    assert near.sum() > 500


def test_where_nothing_is_known_nothing_is_labelled(rng):
    space = votes_of().settle([], np.eye(4))
    _, labels = draw_points(space, rays_of([], rng), 0.2, rng, 50)
    assert labels.tolist() == [IGNORED] * 50


def view(x=0.0, y=0.0, mask=None):
    return PinholeView(MODEL.K, pose(x, y), np.ones((48, 64), bool) if mask is None else mask)


def test_depth_is_measured_mapped_or_unknown(walled, rng):
    _, space = walled
    measured = cell_depths([view()], space, rays_of([wall_scan(0)], rng))[0]
    assert measured.shape == (12, 16) and measured.dtype == np.float16
    np.testing.assert_allclose(measured.astype(float), WALL_M, atol=2e-3)
    nothing = Rays(np.empty((0, 3)), np.empty((0, 3)))
    mapped = cell_depths([view()], space, nothing)[0].astype(float)
    known = np.isfinite(mapped)
    assert known[2:-2, 2:-2].all()
    np.testing.assert_allclose(mapped[known], WALL_M, atol=0.051)
    # A camera 3 m to the side looks at space that nobody saw; a black corner of a picture shows nothing.
    assert np.isnan(cell_depths([view(y=3.0)], space, nothing)[0]).all()
    mask = np.ones((48, 64), bool)
    mask[:8, :16] = False
    holes = np.isnan(cell_depths([view(mask=mask)], space, rays_of([wall_scan(0)], rng))[0])
    assert holes.sum() == 8 and holes[:2, :4].all()


def test_depth_of_what_the_sensor_sees_but_not_the_camera_is_that_of_what_hides_it(rng):
    """A LiDAR above looks over a slab at the wall behind, which the slab hides from the camera."""
    over = cloud(0, (0, 0, 3), patch(3.05, 0.6))
    slab = [cloud(n * SECOND, (0, 0, 1), patch(1.55, 0.7)) for n in range(3)]
    space = votes_of(*slab).settle([over], np.eye(4))
    depth = cell_depths([view()], space, rays_of([over], rng))[0].astype(float)
    known = np.isfinite(depth)
    assert known[4:8, 6:10].all()
    np.testing.assert_allclose(depth[4:8, 6:10], 1.55, atol=0.051)


def test_bits_tell_which_camera_sees_a_point(walled):
    _, space = walled
    points = np.array([[1.0, 0, 1], [WALL_M, 0.05, 1.05], [2.6, 0, 1], [1.0, 0.9, 1], [-1.0, 0, 1]])
    views = [view(), view(y=0.9), view(x=2.3)]
    assert visible_points(views, space, points, 0.1).tolist() == [0b001, 0b011, 0b100, 0b010, 0b000]
