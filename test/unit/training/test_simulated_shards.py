# SPDX-License-Identifier: Apache-2.0
"""Which drives become training data."""

from collections import Counter

import numpy as np
import pytest
from fake_pool import FakePool

from occupancy_nn_ros.simulation.terrains import EDGE_X_M, TERRAINS
from occupancy_nn_ros.training import simulated_shards
from occupancy_nn_ros.training.shards import FRAMES
from occupancy_nn_ros.training.simulated_shards import (
    FURNISHED_KINDS,
    KINDS,
    NOWHERE,
    ShardPlan,
    kind_of,
    label_points,
    make_shards,
    on_terrain,
)


def test_one_drive_of_eight_is_on_two_levels_and_every_second_one_may_be_furnished():
    plain = Counter(kind_of(number, furnished=False) for number in range(240))
    assert {kind: plain[kind] for kind in TERRAINS} == dict.fromkeys(TERRAINS, 10)
    assert {kind: plain[kind] for kind in KINDS} == dict.fromkeys(KINDS, 42)
    furnished = Counter(kind_of(number, furnished=True) for number in range(240))
    assert {kind: furnished[kind] for kind in TERRAINS} == dict.fromkeys(TERRAINS, 10)
    assert sum(furnished[kind] for kind in set(FURNISHED_KINDS)) == 120
    assert sum(furnished[kind] for kind in KINDS) == 90


@pytest.mark.parametrize("kind", TERRAINS)
def test_a_drive_on_two_levels_has_all_its_frames_on_the_ground(kind):
    for seed in range(20):
        world, _, drive = on_terrain(kind, seed, photos=False, scale=1.0, rng=np.random.default_rng(seed))
        assert drive.T_map_base.shape == (FRAMES, 4, 4)
        steps = np.linalg.norm(np.diff(drive.T_map_base[:, :3, 3], axis=0), axis=1)
        assert (steps > 0.03).all() and (steps < 0.14).all()  # 0.5 m/s at 4 to 6 Hz
        assert np.abs(world.signed_distance(drive.T_map_base[:, :3, 3])).max() < 0.002


def test_beyond_the_edge_of_a_dock_there_is_no_floor():
    world, _, drive = on_terrain("dock", 1, photos=False, scale=1.0, rng=np.random.default_rng(1))
    level = drive.T_map_base[0, 2, 3]
    points = np.array([[EDGE_X_M - 0.3, 0, level], [EDGE_X_M + 0.3, 0, level], [EDGE_X_M + 0.3, 0, 0]], np.float32)
    assert label_points(world, points, 0.1, 0.0).tolist() == [1, 0, 1]


def test_shards_at_a_url_are_made_once_and_so_are_notes_that_there_is_none(monkeypatch, tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'occupancy-nn-ros[remote]'")
    made = []

    def make(kind, number, path, **how):
        made.append(number)
        (path if number else path.with_suffix(NOWHERE)).write_text(kind)
        return bool(number)

    monkeypatch.setattr(simulated_shards, "make_shard", make)
    url = f"memory://simulated/{tmp_path.name}"
    for count in (2, 4):
        *_, last = make_shards(url, ShardPlan(count), FakePool())
        assert (last.done, last.failed) == (count, {})
    assert sorted(made) == [0, 1, 2, 3]
    there = [
        name.rsplit("/", 1)[1] for name in fsspec.filesystem("memory").ls(f"/simulated/{tmp_path.name}", detail=False)
    ]
    assert sorted(there) == sorted(
        f"{kind_of(n, furnished=False)}_{n:05d}{NOWHERE if n == 0 else '.safetensors'}" for n in range(4)
    )
