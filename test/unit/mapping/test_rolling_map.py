# SPDX-License-Identifier: Apache-2.0
"""The rolling map against a slow dictionary, over random walks; dense updates; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.compute import compiled
from occupancy_nn_ros.config import Config, MapConfig
from occupancy_nn_ros.errors import ConfigError, TransformError
from occupancy_nn_ros.mapping import dense_update
from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import LatticeWindow, Prediction, VoxelState

SHAPE = (9, 7, 5)
SECOND = 1_000_000_000


def pose(x, y, z):
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def prediction(rng, window, classes=0):
    logit = torch.from_numpy(rng.normal(0, 3, window.shape).astype(np.float32))
    weight = torch.from_numpy(np.clip(rng.normal(0.2, 0.5, window.shape), 0, 1).astype(np.float32))
    extra = torch.from_numpy(rng.normal(0, 1, (classes, *window.shape)).astype(np.float32)) if classes else None
    return Prediction(window, logit, weight, extra)


class DictionaryMap:
    """What the map should do, written for clarity: a dictionary from lattice index to log-odds and time."""

    def __init__(self, grid):
        self.config, self.edge, self.shape = grid.config, grid.window.voxel_size_m, grid.window.shape
        self.origin, self.voxels = grid.window.origin, {}

    def move_origin(self, origin):
        self.origin = origin
        self.voxels = {cell: value for cell, value in self.voxels.items() if self.inside(cell)}

    def inside(self, cell):
        return all(o <= c < o + n for c, o, n in zip(cell, self.origin, self.shape, strict=True))

    def integrate(self, given, now):
        for local in np.ndindex(given.window.shape):
            cell = tuple(int(a + b) for a, b in zip(local, given.window.origin, strict=True))
            weight, logit = np.float32(given.weight[local]), np.float32(given.logit[local])
            if weight <= 0 or not self.inside(cell):
                continue
            value, seen = self.voxels.get(cell, (np.float32(0), None))
            total = np.clip(value + logit * weight, self.config.log_odds_min, self.config.log_odds_max)
            if seen is not None and value > 0 and logit * weight < 0 and 0 < now - seen <= 2000:
                t = np.float32(min(now - seen, 500)) * weight / np.float32(self.config.clear_in_view_s * 1000)
                total = min(total, value / (1 + t + t * t / 2 + t * t * t / 6))
            self.voxels[cell] = (np.float32(total), max(now, seen or 0))

    def forget(self, now, last):
        after = self.config.forget_after_s * 1000
        for cell, (value, seen) in list(self.voxels.items()):
            if seen > last or seen >= now:
                continue
            if self.config.forget_model == "linear":
                size, least = abs(value) - 4.0 * (now - last) / after, 0.0
            else:
                size, least = abs(value) * np.exp(-(now - last) / after), 0.05
            if size <= least:
                del self.voxels[cell]
            else:
                self.voxels[cell] = (np.float32(np.copysign(size, value)), seen)

    def assert_equal(self, grid):
        log_odds, seen, _ = grid.window_tensors()
        known = {tuple(int(v) for v in np.add(c, grid.window.origin)) for c in np.argwhere(seen.numpy() != NEVER)}
        assert known == set(self.voxels)
        for cell, (value, time) in self.voxels.items():
            local = tuple(np.subtract(cell, grid.window.origin))
            assert float(log_odds[local]) == pytest.approx(value, abs=2e-4)
            assert int(seen[local]) == time


@given(st.integers(0, 2**31), st.sampled_from(["off", "linear", "exponential"]))
@settings(max_examples=15, deadline=None)
def test_random_walks_equal_the_dictionary(seed, model):
    rng = np.random.default_rng(seed)
    grid = RollingMap(0.5, SHAPE, MapConfig(forget_model=model, forget_after_s=3.0), num_classes=0)
    twin, now, last = DictionaryMap(grid), 0, 0
    for _ in range(12):
        origin = tuple(int(v) for v in np.add(grid.window.origin, rng.integers(-4, 5, 3)))
        grid.move_origin(origin)
        twin.move_origin(origin)
        low = tuple(int(v) for v in np.add(origin, rng.integers(-3, 4, 3)))
        given_ = prediction(rng, LatticeWindow(0.5, low, tuple(int(v) for v in rng.integers(1, 9, 3))))
        grid.integrate(given_, 5 * SECOND + now * 1_000_000)
        twin.integrate(given_, now)
        if rng.random() < 0.5:
            grid.forget(5 * SECOND + now * 1_000_000)
            if model != "off" and now > last:
                twin.forget(now, last)
            last = now
        twin.assert_equal(grid)
        now += int(rng.integers(1, 900))


@given(st.tuples(*[st.integers(-30, 30)] * 3), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_rolling_there_and_back_keeps_what_stayed_inside(shift, seed):
    grid = RollingMap(0.5, SHAPE, MapConfig(), num_classes=2)
    grid.integrate(prediction(np.random.default_rng(seed), grid.window, 2), 0)
    before = [tensor.clone() for tensor in grid.window_tensors()]
    origin = grid.window.origin
    grid.move_origin(tuple(int(v) for v in np.add(origin, shift)))
    grid.move_origin(origin)
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    stayed = torch.from_numpy(((cells - shift >= 0) & (cells - shift < SHAPE)).all(-1))
    for old, new, empty in zip(before, grid.window_tensors(), (0.0, NEVER, 0), strict=True):
        assert torch.equal(new[stayed], old[stayed])
        assert bool((new[~stayed] == empty).all())


@pytest.mark.parametrize("shape", [(8, 6, 5), (8, 6, 3), (3, 9, 5)])
def test_compiled_dense_update_equals_the_plain_version(monkeypatch, shape):
    maps = []
    for use in (True, False):
        monkeypatch.setattr(dense_update, "use_kernels", lambda device, use=use: use and compiled.HAVE_KERNELS)
        rng = np.random.default_rng(4)
        grid = RollingMap(0.5, (8, 6, 5), MapConfig(forget_model="exponential", forget_after_s=1.0), num_classes=3)
        for n in range(8):
            grid.move_origin((n, -n, n // 3))
            given_ = prediction(rng, LatticeWindow(0.5, (n, -n, n // 3), shape), 3)
            given_.logit[1, 1, 1], given_.weight[0, 0, 0] = torch.nan, torch.inf
            grid.integrate(given_, n * SECOND // 3, gain=0.7)
            grid.forget(n * SECOND // 3)
        assert int(grid.left_out) == 16
        maps.append(grid)
    assert torch.allclose(maps[0].log_odds, maps[1].log_odds, atol=1e-5)
    assert torch.equal(maps[0].seen_ms, maps[1].seen_ms)
    difference = (maps[0].class_evidence.int() - maps[1].class_evidence.int()).abs()
    assert int(difference.max()) <= 1
    assert int(maps[0].class_evidence.max()) > 100
    assert bool(torch.isfinite(maps[0].log_odds).all())


def test_unknown_stays_unknown_and_log_odds_stay_clamped():
    grid = RollingMap(0.5, SHAPE, MapConfig())
    weight = torch.zeros(SHAPE)
    weight[2, 3, 1] = 1.0
    for n in range(30):
        grid.integrate(Prediction(grid.window, torch.full(SHAPE, 9.0), weight), n * SECOND)
    view = grid.view(0, "map", np.eye(4))
    assert int((view.state == VoxelState.UNKNOWN).sum()) == np.prod(SHAPE) - 1
    assert float(grid.log_odds.max()) == 4.0
    grid.integrate(Prediction(grid.window, torch.full(SHAPE, -500.0), weight), 31 * SECOND)
    assert float(grid.log_odds.min()) == -3.0


def test_contested_voxels_are_unknown_to_readers_and_thresholds_are_inclusive():
    grid = RollingMap(0.5, (4, 1, 1), MapConfig(occupied_probability=0.75, free_probability=0.25))
    grid.integrate(Prediction(grid.window, torch.tensor([1.2, 1.0, -1.0, -1.2]).view(4, 1, 1), torch.ones(4, 1, 1)), 0)
    assert grid.view(0, "map", np.eye(4)).state.reshape(-1).tolist() == [1, -1, -1, 0]


def test_classes_go_to_occupied_voxels_only():
    grid = RollingMap(0.5, (2, 1, 1), MapConfig(), num_classes=3)
    logits = torch.zeros((3, 2, 1, 1))
    logits[1] = 4.0
    grid.integrate(Prediction(grid.window, torch.tensor([3.0, -3.0]).view(2, 1, 1), torch.ones(2, 1, 1), logits), 0)
    assert grid.view(0, "map", np.eye(4)).classes.reshape(-1).tolist() == [2, 0]


def test_the_window_is_centered_on_the_robot():
    grid = RollingMap.from_config(Config(voxel_size_m=0.2))
    grid.move_to(pose(10.05, -3.0, 0.5))
    low, high = grid.window.origin_m, grid.window.origin_m + np.array(grid.window.shape) * 0.2
    assert grid.window.shape == (120, 120, 20)
    np.testing.assert_allclose((low + high)[:2] / 2, [10.0, -3.0], atol=0.2)
    np.testing.assert_allclose(low[2], 0.5 - 1.2, atol=0.2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_pose_is_refused_and_changes_nothing(bad):
    grid = RollingMap(0.5, SHAPE, MapConfig())
    grid.integrate(Prediction(grid.window, torch.ones(SHAPE), torch.ones(SHAPE)), 0)
    before, window = grid.log_odds.clone(), grid.window
    with pytest.raises(TransformError, match="robot position"):
        grid.move_to(pose(bad, 0.0, 0.0))
    assert torch.equal(grid.log_odds, before) and grid.window == window


@pytest.mark.parametrize("shape", [(0, 5, 5), (2000, 2000, 2000), (-1, -1, 4)])
def test_impossible_windows_are_refused(shape):
    with pytest.raises(ConfigError, match="expected 1 to"):
        RollingMap(0.1, shape, MapConfig())


def test_a_window_larger_than_memory_is_refused_before_allocation(monkeypatch):
    monkeypatch.setattr("occupancy_nn_ros.mapping.map_memory._free_bytes", lambda device: 1 << 20)
    with pytest.raises(ConfigError, match="are free on cpu"):
        RollingMap(0.1, (100, 100, 100), MapConfig())


def test_another_voxel_size_is_refused():
    grid = RollingMap(0.5, SHAPE, MapConfig())
    with pytest.raises(ValueError, match="voxel size is"):
        grid.integrate(Prediction(LatticeWindow(0.4, (0, 0, 0), SHAPE), torch.ones(SHAPE), torch.ones(SHAPE)), 0)


def test_memory_does_not_grow_over_ten_kilometres():
    grid = RollingMap(0.5, (40, 40, 8), MapConfig(max_range_m=10.0, remember_mib=1))
    ones = torch.ones((40, 40, 8))
    addresses = {grid.log_odds.data_ptr(), grid.seen_ms.data_ptr(), grid.class_evidence.data_ptr()}
    for n in range(500):
        grid.move_to(pose(20.0 * n, 3.0 * np.sin(n), 0.0))
        grid.integrate(Prediction(grid.window, ones, ones), n * SECOND)
        assert grid.store.size_bytes <= 1 << 20
    assert grid.store.dropped > 0
    assert addresses == {grid.log_odds.data_ptr(), grid.seen_ms.data_ptr(), grid.class_evidence.data_ptr()}


@pytest.mark.parametrize(("logit", "weight", "classes"), [
    ((9, 7, 4), SHAPE, None), (SHAPE, (1, 1, 1), None), (SHAPE, SHAPE, (2, *SHAPE)), (SHAPE, SHAPE, (3, 9, 7, 4)),
])  # fmt: skip
def test_predictions_of_the_wrong_shape_are_refused(logit, weight, classes):
    grid = RollingMap(0.5, SHAPE, MapConfig(), num_classes=3)
    extra = None if classes is None else torch.ones(classes)
    with pytest.raises(ValueError, match="expected"):
        grid.integrate(Prediction(grid.window, torch.ones(logit), torch.ones(weight), extra), 0)
    assert int((grid.seen_ms >= 0).sum()) == 0


def test_a_prediction_adds_what_it_says_beyond_its_prior():
    grid = RollingMap(0.5, (4, 4, 2), MapConfig(), num_classes=0)
    ones = torch.ones((4, 4, 2))
    for n in range(3):
        grid.integrate(Prediction(grid.window, -1.5 * ones, ones, prior_log_odds=-1.5), n * 1_000_000_000)
    assert not grid.log_odds.any()  # looks that tell nothing new add up to nothing
    grid.integrate(Prediction(grid.window, 0.5 * ones, 0.5 * ones, prior_log_odds=-1.5), 3_000_000_000)
    assert torch.allclose(grid.log_odds, torch.ones(4, 4, 2))


def test_a_stamp_that_is_no_integer_is_refused():
    grid = RollingMap(0.5, (4, 4, 2), MapConfig(), num_classes=0)
    ones = torch.ones((4, 4, 2))
    with pytest.raises(ValueError, match=r"stamp is 1\.5, expected integer nanoseconds"):
        grid.integrate(Prediction(grid.window, ones, ones), 1.5)
    grid.integrate(Prediction(grid.window, ones, ones), np.int64(5))
