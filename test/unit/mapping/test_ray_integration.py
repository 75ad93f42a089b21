# SPDX-License-Identifier: Apache-2.0
"""Rays into the map: compiled against plain torch voxel for voxel, analytic cases, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.compute import compiled
from occupancy_nn_ros.compute.threads import use_threads
from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping import ray_integration
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth, integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import CameraModel, PosedCloud, PosedDepth, VoxelState

CAMERA = CameraModel(48, 36, np.array([[30.0, 0.0, 23.5], [0.0, 30.0, 17.5], [0.0, 0.0, 1.0]]), "none", np.zeros(0))
LOOK_ALONG_X = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
SECOND = 1_000_000_000


def make_map(shape=(20, 17, 9), edge=0.5, **settings_):
    grid = RollingMap(edge, shape, MapConfig(**settings_), num_classes=0)
    grid.move_origin((-7, -9, -5))
    return grid


def both(monkeypatch, act, **settings_):
    """The same action on a map with compiled kernels and on one with the plain version."""
    maps, results = [], []
    for use in (True, False):
        monkeypatch.setattr(ray_integration, "use_kernels", lambda device, use=use: use and compiled.HAVE_KERNELS)
        grid = make_map(**settings_)
        results.append(act(grid))
        maps.append(grid)
    return maps, results


def assert_same(maps, results):
    assert results[0] == results[1]
    for name in ("log_odds", "seen_ms"):
        assert torch.equal(getattr(maps[0], name), getattr(maps[1], name)), name


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("one_origin", [True, False])
def test_compiled_rays_equal_the_plain_version(monkeypatch, seed, one_origin):
    rng = np.random.default_rng(seed)

    def act(grid):
        out = []
        for scan in range(4):
            ends = rng_ends[scan]
            origins = rng_origins[scan] if not one_origin else rng_origins[scan][:1]
            out.append(integrate_rays(grid, origins, ends, scan * SECOND // 5))
            grid.move_origin((-7 + scan, -9 - 2 * scan, -5 + scan // 2))
        return out

    rng_ends = rng.normal(0, 4.0, (4, 300, 3))
    rng_origins = rng.normal(0, 0.6, (4, 300, 3))
    rng_ends[0, :5] = rng_origins[0, :5]
    rng_ends[1, 7] = np.nan
    rng_ends[2, 8, 1] = np.inf
    maps, results = both(monkeypatch, act, max_range_m=6.0)
    assert_same(maps, results)
    assert sum(r.hits for r in results[0]) > 200


@pytest.mark.parametrize("seed", range(4))
def test_compiled_depth_equals_the_plain_version(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    images = rng.uniform(0.3, 9.0, (3, 36, 48)).astype(np.float32)
    images[:, :3] = 0.0
    images[:, 3, :5] = np.nan
    images[:, 3, 5:9] = np.inf
    pose = LOOK_ALONG_X.copy()
    pose[:3, 3] = rng.uniform(-1, 1, 3)

    def act(grid):
        return [
            integrate_depth(grid, PosedDepth("c", n * SECOND, image, CAMERA, pose)) for n, image in enumerate(images)
        ]

    maps, results = both(monkeypatch, act, max_range_m=7.0)
    assert_same(maps, results)
    assert results[0][0].not_finite == 4


def test_result_does_not_depend_on_the_number_of_threads():
    ends = np.random.default_rng(1).normal(0, 5.0, (6000, 3))
    maps = []
    try:
        for threads in (1, 2, 3):
            use_threads(threads)
            grid = RollingMap(0.2, (90, 90, 90), MapConfig(max_range_m=20.0), num_classes=0)
            grid.move_origin((-45, -45, -45))
            integrate_rays(grid, np.zeros((6000, 3)), ends, 0)
            maps.append(grid.log_odds)
    finally:
        use_threads(0)
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])


def test_one_ray_frees_what_it_passes_and_hits_its_end():
    grid = make_map(max_range_m=50.0)
    stats = integrate_rays(grid, [0.25, 0.25, 0.25], [[5.25, 0.25, 0.25]], 0)
    assert (stats.used, stats.hits, stats.passes) == (1, 1, 10)
    points = np.array([[0.25 + 0.5 * n, 0.25, 0.25] for n in range(12)])
    _, state = grid.query(points)
    assert state.tolist() == [0] * 10 + [1] + [-1]


def test_a_hit_wins_over_passes_of_the_same_scan():
    grid = make_map(max_range_m=50.0)
    integrate_rays(grid, [0.25, 0.25, 0.25], [[5.25, 0.25, 0.25], [2.25, 0.25, 0.25]], 0)
    probability, state = grid.query([[2.25, 0.25, 0.25]])
    assert state[0] == VoxelState.OCCUPIED
    assert probability[0] == pytest.approx(1 / (1 + np.exp(-0.85)), abs=1e-6)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_depth_image_counts_as_much_as_its_weight(weight):
    grid = make_map(max_range_m=50.0)
    image = np.zeros((36, 48), np.float32)
    image[17, 23] = 2.0
    pose = LOOK_ALONG_X.copy()
    pose[:3, 3] = 0.25
    integrate_depth(grid, PosedDepth("c", 0, image, CAMERA, pose), weight)
    probability, _ = grid.query([[2.25, 0.25, 0.25], [1.25, 0.25, 0.25]])
    log_odds = np.log(probability / (1 - probability))
    assert log_odds == pytest.approx([0.85 * weight, -0.4 * weight], abs=1e-5)


def test_range_limit_carves_up_to_it_and_marks_no_hit():
    grid = make_map(max_range_m=2.1)
    stats = integrate_rays(grid, [0.25, 0.25, 0.25], [[5.25, 0.25, 0.25]], 0)
    assert stats.hits == 0
    assert grid.query([[1.25, 0.25, 0.25], [2.25, 0.25, 0.25], [3.25, 0.25, 0.25]])[1].tolist() == [0, 0, -1]


@given(st.integers(0, 2**31), st.floats(0.5, 12.0))
@settings(max_examples=25, deadline=None)
def test_every_hit_is_occupied_and_every_free_voxel_lies_on_a_ray(seed, reach):
    rng = np.random.default_rng(seed)
    grid = make_map(max_range_m=reach)
    origin, ends = rng.uniform(-1, 1, 3), rng.normal(0, 4.0, (40, 3))
    integrate_rays(grid, origin, ends, 0)
    inside = (np.linalg.norm(ends - origin, axis=1) <= reach) & _contained(grid, ends)
    assert (grid.query(ends[inside])[1] == VoxelState.OCCUPIED).all()
    low, high = grid.window.origin_m, grid.window.origin_m + np.array(grid.window.shape) * 0.5
    view = grid.view(0, "map", np.eye(4))
    centers = grid.window.centers_m()[view.state == VoxelState.FREE]
    away = np.full(len(centers), np.inf)
    for end in ends:
        along = np.clip(((centers - origin) @ (end - origin)) / ((end - origin) @ (end - origin)), 0, 1)
        away = np.minimum(away, np.linalg.norm(centers - origin - along[:, None] * (end - origin), axis=1))
    assert (away <= 0.5 * np.sqrt(3) / 2 + 1e-5).all()
    assert (centers > low).all() and (centers < high).all()


def _contained(grid, points):
    cells = grid.window.index_of(points)
    return ((cells >= 0) & (cells < grid.window.shape)).all(axis=1)


def test_bad_rays_are_counted_and_change_nothing():
    grid = make_map(max_range_m=50.0)
    ends = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0.25, 0.25, 0.25], [-np.inf, np.nan, 1.0]])
    stats = integrate_rays(grid, [0.25, 0.25, 0.25], ends, 0)
    assert (stats.used, stats.not_finite, stats.too_short, stats.hits, stats.passes) == (0, 3, 1, 0, 0)
    assert int((grid.seen_ms >= 0).sum()) == 0


def test_rays_wholly_outside_the_window_change_nothing():
    grid = make_map(max_range_m=200.0)
    stats = integrate_rays(grid, [100.0, 100, 100], [[101.0, 100, 100], [100.0, 90, 100]], 0)
    assert (stats.used, stats.hits, stats.passes) == (2, 0, 0)


def test_a_ray_through_the_window_from_outside_carves_it():
    grid = make_map(max_range_m=200.0)
    stats = integrate_rays(grid, [-100.0, 0.25, 0.25], [[100.0, 0.25, 0.25]], 0)
    assert (stats.hits, stats.passes) == (0, 20)


def test_wrong_shapes_are_refused():
    grid = make_map()
    with pytest.raises(ValueError, match="expected"):
        integrate_rays(grid, np.zeros((2, 3)), np.zeros((5, 3)), 0)
    with pytest.raises(ValueError, match="depth image is"):
        integrate_depth(grid, PosedDepth("c", 0, np.zeros((5, 5), np.float32), CAMERA, np.eye(4)))
    with pytest.raises(ValueError, match="not finite"):
        integrate_cloud(grid, PosedCloud("l", 0, np.zeros((1, 3), np.float32), np.full((4, 4), np.nan)))
    assert int((grid.seen_ms >= 0).sum()) == 0


def test_an_empty_cloud_is_no_error():
    stats = integrate_cloud(make_map(), PosedCloud("l", 0, np.zeros((0, 3), np.float32), np.eye(4)))
    assert stats.used == 0


def test_a_known_surface_survives_grazing_rays_and_a_gap_behind_clears_it():
    grid = RollingMap(0.2, (200, 20, 20), MapConfig(max_range_m=60.0), num_classes=0)
    grid.move_origin((0, -10, -5))
    ground = np.array([[12.5 + 0.2 * n, 0.1, -0.05] for n in range(15)])
    for n in range(3):
        integrate_rays(grid, [13.0, 0.1, 3.0], ground, n * SECOND // 10)
    for n in range(3, 30):
        integrate_rays(grid, [0.1, 0.1, 1.2], [[14.1, 0.1, -0.05]], n * SECOND // 10)
    assert (grid.query(ground[:8])[1] == VoxelState.OCCUPIED).all()
    for n in range(30, 45):
        integrate_rays(grid, [0.1, 0.1, -0.05], [[39.0, 0.1, -0.05]], n * SECOND // 10)
    assert (grid.query(ground[:8])[1] == VoxelState.FREE).all()
