# SPDX-License-Identifier: Apache-2.0
"""Maps of two walls whose pictures are exact: the true one wins against those that a collapsed or a silent network makes."""

from dataclasses import replace

import numpy as np
import pytest
import textured_walls as walls
import torch

from occupancy_nn_ros.adaptation import map_judge
from occupancy_nn_ros.adaptation.map_judge import (
    HeldOut,
    MapJudge,
    blocked_shares,
    by_parts,
    missed_places,
    surface_depths,
)
from occupancy_nn_ros.adaptation.photometric import Picture
from occupancy_nn_ros.adaptation.verdict import MISSED_WEIGHT, Comparison, Verdict
from occupancy_nn_ros.config import MapConfig, load_config
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.training.shards import DEPTH_STRIDE, write_shard
from occupancy_nn_ros.values import LatticeWindow, Prediction

EDGE_M = 0.25
FRAMES, LEARNED = 8, 5
UP = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""The map's x axis points into the picture, and its z axis up."""

CONFIG = load_config()
CONFIG = replace(CONFIG, voxel_size_m=EDGE_M, map=replace(CONFIG.map, size_xy_m=12.0, below_m=2.0, above_m=2.0))


def behind_m(window):
    """How far centres of voxels (X, Y, Z) lie behind the first surface that a camera sees there."""
    centers = window.centers_m()
    near = -centers[..., 1] > walls.LEFT_M[1]
    return centers[..., 0] - np.where(near, walls.DEPTHS_M[1], walls.DEPTHS_M[0])


def field(thick_m=0.0, is_free_known=True, offset_m=0.0):
    """A network that puts surfaces ``offset_m`` too far and makes them thicker in front; behind them it knows nothing."""

    def predict(window):
        behind = behind_m(window) - offset_m
        occupied = (behind > -thick_m) & (behind < EDGE_M)
        known = occupied | ((behind < 0) & is_free_known)
        logit = torch.from_numpy(np.where(occupied, 4.0, -4.0).astype(np.float32))
        return Prediction(window, logit, torch.from_numpy(known.astype(np.float32)))

    return predict


def empty(window):
    """A network that claims nothing but free space."""
    return Prediction(window, torch.full(window.shape, -4.0), torch.ones(window.shape))


def everywhere(window):
    """One that claims matter everywhere."""
    return Prediction(window, torch.full(window.shape, 4.0), torch.ones(window.shape))


TRUE, COLLAPSED = field(), field(thick_m=0.7)


class StandInPredictor:
    """Remembers what it was shown without being asked for a prediction."""

    def __init__(self, network, config):
        self.network, self.observed = network, []

    def observe(self, keyframe):
        self.observed.append(keyframe.stamp_ns)


made = []


class StandInPipeline:
    """Fuses what a stand-in network says into the real map."""

    def __init__(self, config, predictor):
        self.map, self.predictor = RollingMap.from_config(config), predictor
        made.append(self)
        self.fused = []

    def step(self, keyframe):
        self.map.move_to(keyframe.T_map_base)
        self.map.integrate(self.predictor.network(self.map.window), keyframe.stamp_ns)
        self.fused.append(keyframe)


def shard_arrays(first, frames):
    poses = np.stack([walls.pose(0.4 * n) for n in range(first, first + frames)])
    return {
        "images": np.stack([walls.picture(pose) for pose in poses])[:, None],
        "K": walls.MODEL.K[None].astype(np.float32),
        "T_map_cam": (UP @ poses)[:, None].astype(np.float32),
        "T_map_base": (UP @ poses @ UP.T).astype(np.float32),
        "depth_m": np.stack([walls.depth(pose, DEPTH_STRIDE) for pose in poses])[:, None].astype(np.float16),
        "points_m": np.zeros((frames, 4, 3), np.float32),
        "edge_m": np.full(frames, 0.2, np.float32),
        "labels": np.zeros((frames, 4), np.uint8),
    }


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """A recording in two shards."""
    folder = tmp_path_factory.mktemp("walls")
    write_shard(folder / "a_000.safetensors", shard_arrays(0, LEARNED + 1), {})
    write_shard(folder / "a_001.safetensors", shard_arrays(LEARNED + 1, FRAMES - LEARNED - 1), {})
    return HeldOut(tuple(sorted(folder.glob("*.safetensors"))), LEARNED)


@pytest.fixture
def judge(held_out, monkeypatch):
    """Its checkpoints are stand-in networks."""
    monkeypatch.setattr(map_judge, "Predictor", StandInPredictor)
    monkeypatch.setattr(map_judge, "OccupancyPipeline", StandInPipeline)
    return MapJudge([held_out], CONFIG)


def test_the_true_map_wins_and_none_wins_against_it(judge):
    true = judge.errors(TRUE)
    assert judge.keyframes == FRAMES - LEARNED and np.nanmean(true.pictures) < 0.1 and np.nanmean(true.space) < 0.02
    for other in (COLLAPSED, empty, everywhere, field(offset_m=0.75), field(offset_m=-0.75)):
        errors = judge.errors(other)
        assert np.array_equal(np.isfinite(errors.pictures), np.isfinite(true.pictures))
        assert Verdict.of(errors, true, 3).improved and not Verdict.of(true, errors, 3).improved
        assert np.nanmean(errors.pictures) > np.nanmean(true.pictures) + 0.1
    assert not Verdict.of(true, true, 3).improved


def test_a_map_that_claims_nothing_matches_nothing(judge):
    found = judge.errors(empty)
    assert np.nanmin(found.pictures) == 1.0 and np.nanmean(found.space) < 0.002 and np.isnan(found.looks).all()


def test_a_map_that_claims_less_is_no_gain(judge):
    """Surfaces without texture are the first to go, and nothing else would tell."""
    lost = judge.errors(empty)
    assert np.nanmean(lost.missed) == 1.0 and np.nanmean(judge.errors(TRUE).missed) < 0.05
    pictures = np.where(np.isfinite(lost.pictures), 0.0, np.nan)  # what is left of it fits
    assert not Verdict.of(judge.errors(TRUE), replace(lost, pictures=pictures), 3).improved


def test_right_surfaces_without_free_space_are_no_gain(judge):
    """They fit pictures as well as the true map does, but nobody could drive there."""
    before, surfaces = judge.errors(COLLAPSED), judge.errors(field(is_free_known=False))
    np.testing.assert_allclose(surfaces.pictures, judge.errors(TRUE).pictures)
    verdict = Verdict.of(before, surfaces, 3)
    assert verdict.pictures.after < verdict.pictures.before - 0.1 and not verdict.improved
    assert verdict.space.after > verdict.space.before + 0.5


def test_what_was_learned_from_is_matched_with_but_not_fused(judge):
    """Maps of keyframes that were learned from would tell how well those are known by heart."""
    made.clear()
    judge.errors(TRUE)
    (pipeline,) = made
    assert len(pipeline.predictor.observed) == LEARNED
    assert pipeline.predictor.observed + [keyframe.stamp_ns for keyframe in pipeline.fused] == [
        n * map_judge.KEYFRAME_NS for n in range(1, FRAMES + 1)
    ]
    for number, keyframe in enumerate(pipeline.fused, LEARNED):
        pose = walls.pose(0.4 * number)
        np.testing.assert_array_equal(keyframe.images[0].image, walls.picture(pose))
        np.testing.assert_allclose(keyframe.images[0].T_map_cam, UP @ pose, atol=1e-6)
        np.testing.assert_allclose(keyframe.T_map_base, UP @ pose @ UP.T, atol=1e-6)


def test_what_the_map_shows_is_where_the_surface_is(judge):
    shown = judge.errors(TRUE).looks[0]
    true = walls.depth(walls.pose(0.4 * (FRAMES - 1)), DEPTH_STRIDE)
    off = shown / true - 1
    assert np.isfinite(shown).mean() > 0.95 and np.nanquantile(np.abs(off), 0.9) < 0.01


def test_only_some_keyframes_of_a_long_recording_are_held(held_out, monkeypatch):
    monkeypatch.setattr(map_judge, "MOST_KEYFRAMES", 2)
    monkeypatch.setattr(map_judge, "AROUND", 3)
    moments, first = map_judge._read(held_out)
    seen = [np.flatnonzero([np.array_equal(m.pictures[0].image, walls.picture(walls.pose(0.4 * n))) for n in range(8)])
            for m in moments]  # fmt: skip
    assert [int(n[0]) for n in seen] == [3, 4, 5, 6, 7] and first == 3


def small_map(occupied, free):
    """A map of 1 m voxels, eight along x, that knows some of the row in which the camera looks along x."""
    grid = RollingMap(1.0, (8, 8, 8), replace(MapConfig(), size_xy_m=16.0, remember_mib=0), num_classes=0)
    grid.move_origin((0, 0, 0))
    logit, weight = torch.full((8, 8, 8), -4.0), torch.zeros(8, 8, 8)
    logit[occupied], weight[occupied], weight[free] = 4.0, 1.0, 1.0
    grid.integrate(Prediction(LatticeWindow(1.0, (0, 0, 0), (8, 8, 8)), logit, weight), 10**9)
    return grid


def small_picture():
    """One cell, whose ray goes along x from (0.5, 4.5, 4.5)."""
    pose = UP.copy()
    pose[:3, 3] = (0.5, 4.5, 4.5)
    K = np.array([[100.0, 0, 1.5], [0, 100, 1.5], [0, 0, 1]])
    return Picture(np.zeros((4, 4, 3), np.uint8), K, pose)


def test_a_ray_tells_the_span_of_the_voxel_that_ends_it():
    grid = small_map(np.s_[5], np.s_[:5])
    np.testing.assert_allclose(surface_depths(grid, small_picture())[:, 0, 0], [4.5, 5.0, 5.5], atol=1e-6)
    assert np.isnan(surface_depths(small_map(np.s_[:0], np.s_[:]), small_picture())).all()


@pytest.mark.parametrize(
    ("occupied", "free", "share"),
    [
        (np.s_[5], np.s_[:5], 0.0),
        (np.s_[5], np.s_[1:5], 0.5 / 4),  # the voxel of the camera is not known
        (np.s_[:0], np.s_[:0], 1.0),
        (np.s_[3], np.s_[:3], 1.5 / 4),  # behind what is occupied nothing is free
        (np.s_[3], np.s_[:], 1.5 / 4),
    ],
)
def test_what_blocks_the_way_to_agreed_depth_counts(occupied, free, share):
    grid = small_map(occupied, free)
    assert blocked_shares(grid, small_picture(), np.array([[5.0]]))[0, 0] == pytest.approx(share, abs=0.5 / 32)
    assert np.isnan(blocked_shares(grid, small_picture(), np.array([[0.0]]))).all()


@pytest.mark.parametrize(("occupied", "missed"), [(np.s_[5], 0.0), (np.s_[4], 1.0), (np.s_[6], 1.0), (np.s_[:0], 1.0)])
def test_a_surface_is_missed_where_its_voxel_is_not_occupied(occupied, missed):
    grid = small_map(occupied, np.s_[:5])
    assert missed_places(grid, small_picture(), np.array([[5.0]]))[0, 0] == missed
    assert np.isnan(missed_places(grid, small_picture(), np.array([[0.0]]))).all()


def test_parts_with_too_little_to_compare_are_left_out():
    errors = np.full((8, 8), np.nan)
    errors[:2, :2], errors[7, 7] = [[0.1, 0.2], [0.3, 0.4]], 0.5
    found = np.array(by_parts(errors)).reshape(4, 4)
    assert found[0, 0] == pytest.approx(0.25) and found[3, 3] == 0.5 and np.isfinite(found).sum() == 2


def test_a_difference_within_chance_is_none():
    def verdict(pictures, space=(), missed=()):
        comparisons = [Comparison.of(np.full(len(d), 0.3), 0.3 + np.array(d)) for d in (pictures, space, missed)]
        return Verdict(*comparisons, 3)

    better, chance = [-0.01, -0.011, -0.009, -0.01, np.nan] * 2, [-0.02, 0.015, -0.01, 0.012] * 2
    found = verdict(better)
    assert found.improved and found.change == pytest.approx(-0.01)
    assert (found.pictures.before, found.pictures.after, found.pictures.parts) == (0.3, pytest.approx(0.29), 8)
    assert found.pictures.standard_error == pytest.approx(np.nanstd(better, ddof=1) / 8**0.5)
    for pictures in (chance, [-0.1] * 7, [np.nan] * 20, [0.0] * 20, [0.01, 0.011] * 4, []):
        assert not verdict(pictures).improved


def test_surfaces_and_free_space_count_alike():
    def comparison(change, error=0.01):
        return Comparison(0.3, 0.3 + change, 20, error)

    none = Comparison(0.0, 0.0, 20, 0.0)
    assert Verdict(comparison(-0.1), comparison(0.05), none, 3).improved
    assert not Verdict(comparison(-0.05), comparison(0.1), none, 3).improved
    assert Verdict(comparison(0.0), comparison(-0.03), none, 3).improved
    assert not Verdict(comparison(0.0), comparison(-0.028), none, 3).improved  # twice the root of 0.01^2 + 0.01^2


def test_surfaces_that_are_lost_count_less():
    gained, lost = Comparison(0.3, 0.27, 20, 0.001), Comparison(0.1, 0.25, 20, 0.001)
    verdict = Verdict(gained, gained, lost, 3)
    assert verdict.change == pytest.approx(2 * -0.03 + MISSED_WEIGHT * 0.15) and verdict.improved
    assert not Verdict(gained, gained, Comparison(0.1, 0.35, 20, 0.001), 3).improved
    assert not Verdict(gained, gained, Comparison(0.1, 0.1, 20, 0.03 / MISSED_WEIGHT), 3).improved  # not certain
