# SPDX-License-Identifier: Apache-2.0
"""A mapper that knows the truth gets full marks, one that lags behind it lags by known times."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from occupancy_nn_ros.cli.eval import _print
from occupancy_nn_ros.evaluation.changes import (
    BEFORE,
    FURTHEST_M,
    NEAREST_M,
    PRESENT,
    footprint,
    plan_change,
    react,
)
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan, evaluate_mapper, judge_probabilities
from occupancy_nn_ros.evaluation.tally import Calibrations, ChangeTimes, GridScore, Tally
from occupancy_nn_ros.evaluation.truth import RATE_HZ, bounding_part, overlapping_parts, sub_window
from occupancy_nn_ros.mapping.slices import LETHAL, occupancy_slice
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import named_rig
from occupancy_nn_ros.values import Keyframe, LatticeWindow, MapView, Prediction, VoxelState

PLAN = EvaluationPlan(("indoor_heldout",), (9000,), "front", 1.0, changes=False)
CONFIG = PLAN.config()


@pytest.fixture(scope="module")
def world(renderer_works):
    return build_world("indoor_heldout", 9000)


class Oracle:
    """Maps what the world holds at the keyframe's time, some keyframes late, or when it began; ``blind`` claims nothing."""

    def __init__(self, world, late=0, blind=False, still=False, half=60):
        self.world, self.late, self.blind, self.still, self.half, self.seen = world, late, blind, still, half, []

    def step(self, keyframe):
        self.seen.append(keyframe)

    def view(self, frame_id):
        pose = self.seen[-1].T_map_base
        shown = self.seen[max(0, len(self.seen) - 1 - self.late)]
        i, j, _ = (int(v) for v in np.floor(pose[:3, 3] / 0.2))
        window = LatticeWindow(0.2, (i - self.half, j - self.half, -6), (2 * self.half, 2 * self.half, 20))
        labels = self.world.occupancy(window, shown.stamp_ns * 1e-9 * (not self.still)) * (not self.blind)
        state = np.where(labels > 0, VoxelState.OCCUPIED, VoxelState.FREE).astype(np.int8)
        return MapView(shown.stamp_ns, frame_id, window, pose, state, (labels > 0).astype(np.float32), labels)

    @property
    def prediction(self):
        view = self.view("odom")
        labels = torch.from_numpy(view.classes.astype(np.int64))
        scores = torch.nn.functional.one_hot((labels - 1).clamp(min=0), 6).permute(3, 0, 1, 2).float()
        logit = torch.where(labels > 0, 9.0, -9.0)
        return Prediction(view.window, logit, torch.ones_like(logit), scores, torch.ones_like(logit))


def figures_of(make):
    *_, (_, tally) = evaluate_mapper(make, PLAN)
    return tally.figures()


def test_the_truth_gets_full_marks(world):
    got = figures_of(lambda config: Oracle(world, still=True))
    ones = [
        key for key in got if any(word in key for word in ("iou", "mcc", "precision", "recall", "score", "accuracy"))
    ]
    ones = [key for key in ones if "ceiling" not in key]
    assert len(ones) == 12 + 24 + 1
    assert {key: got[key] for key in ones} == pytest.approx(dict.fromkeys(ones, 1.0))
    assert got["missed_obstacle_rate_8m"] == got["phantom_obstacle_rate_8m"] == 0
    assert got["missed_obstacle_rate_8m_tolerant"] == got["phantom_obstacle_rate_8m_tolerant"] == 0
    assert 0 < got["missed_obstacle_rate_8m_tolerant_ceiling"] < got["missed_obstacle_rate_8m_ceiling"] < 1
    assert got["ece_visible"] < 2e-4 and got["brier_visible_3_8m"] < 1e-6
    assert 0.3 < got["fused_iou_ceiling"] < 1
    assert np.isnan(got["time_to_mark_s"])  # not asked for
    assert np.isnan(got["ece_inferred"])  # an oracle sees all
    assert got["unseen_free_right"] == 1
    assert got["unseen_free_share_ceiling"] < 0.02 < got["unseen_free_share"] < 1


def test_who_claims_nothing_finds_nothing(world):
    got = figures_of(lambda config: Oracle(world, blind=True))
    for key in ("iou", "recall", "f_score", "fused_f_score", "ray_iou_4m", "fused_ray_iou_4vox", "fused_mcc"):
        assert got[key] == 0, key
    assert got["missed_obstacle_rate_3m"] == 1
    assert got["phantom_obstacle_rate_3m"] == 0
    assert 0.05 < got["brier_visible"] < 0.9  # the share of what is occupied
    assert got["unseen_free_share"] == 1  # it calls all free, behind walls too
    assert got["unseen_free_right"] == pytest.approx(
        figures_of(lambda config: Oracle(world, still=True))["unseen_free_share"]
    )


def test_the_grid_is_scored_as_it_is_and_with_a_tolerance_of_one_cell():
    """Seven obstacles in a row 2 m away: one marked, three beside marked cells, three not found; a far phantom."""
    shape = (40, 40)
    distance = np.full(shape, 5.0)
    distance[:20] = 2.0
    solid, lethal = np.zeros(shape, bool), np.zeros(shape, bool)
    solid[10, 10:17] = True
    solid[10:15, 30] = True  # something that is not to be marked, such as the back of a wall
    lethal[[10, 9, 9], [10, 12, 30]] = True  # an obstacle, the cell before one, and one beside what is solid
    lethal[30, 5] = True
    obstacle = solid.copy()
    obstacle[:, 30] = False
    score = GridScore()
    score.add(lethal, obstacle, ~solid, solid, distance)
    got = score.figures("_x")
    assert got["missed_obstacle_rate_3m_x"] == pytest.approx(6 / 7)
    assert got["missed_obstacle_rate_3m_tolerant_x"] == pytest.approx(3 / 7)
    empty_near = 20 * 40 - 12
    assert got["phantom_obstacle_rate_3m_x"] == pytest.approx(2 / empty_near)
    assert got["phantom_obstacle_rate_3m_tolerant_x"] == 0
    assert got["phantom_obstacle_rate_8m_tolerant_x"] == pytest.approx(1 / (40 * 40 - 12))
    assert len(got) == 8


def test_a_late_map_is_late_by_its_delay(world):
    rig = named_rig("surround4")
    scene = plan_change(world, rig)
    few = replace(rig, cameras=())  # what is judged does not look at the pictures
    times, late, never = ChangeTimes(), ChangeTimes(), ChangeTimes()
    oracles = Oracle(scene.world, half=22), Oracle(scene.world, 2, half=22), Oracle(world, half=22)
    maps = [(oracle, n > 0, t) for n, (oracle, t) in enumerate(zip(oracles, (times, late, never), strict=True))]
    react(scene, few, CONFIG, maps)
    assert times.mark_s == times.clear_s == pytest.approx([1 / RATE_HZ])
    assert late.mark_s == late.clear_s == pytest.approx([3 / RATE_HZ])
    assert never.mark_s == [np.inf] and never.clear_s == []
    assert never.figures("_x")["marked_share_x"] == 0


def test_the_person_stands_in_free_space_in_view(world):
    rig = named_rig("surround4")
    scene = plan_change(world, rig)
    oracle = Oracle(scene.world, half=22)
    stamps, poses = scene.drive.stamps_s, scene.drive.T_map_base
    moved = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) * RATE_HZ
    assert moved.max() < 0.45
    oracle.step(Keyframe(round(float(stamps[BEFORE]) * 1e9), poses[BEFORE]))
    view = oracle.view("odom")
    cells = footprint(scene.world, view, CONFIG.grid, stamps)
    assert 4 <= len(cells) <= 16
    x, y = (cells - view.window.origin[:2]).T
    assert (occupancy_slice(view, CONFIG.grid).values[x, y] == LETHAL).all()
    away = np.linalg.norm((cells + 0.5)[:, None] * 0.2 - poses[BEFORE - 1 :, :2, 3], axis=2)
    assert away.min() > NEAREST_M - 0.5 and away.max() < FURTHEST_M + 0.5
    # The picture from the camera that looks there changes when the person comes and goes, and only then.
    with WorldRenderer(scene.world) as renderer:
        nearest = []
        for index in (BEFORE - 1, BEFORE, BEFORE + PRESENT - 1, BEFORE + PRESENT):
            renderer.set_time(float(stamps[index]))
            views = [renderer.render(c.model, poses[index] @ c.T_base_cam) for c in rig.cameras]
            nearest.append(sum(int((v.classes == 5).sum()) for v in views))
    assert min(nearest[1], nearest[2]) > max(nearest[0], nearest[3]) + 500


def test_median_times_and_shares():
    times = ChangeTimes([1.0, np.inf, 3.0], [0.5, np.inf])
    got = times.figures()
    assert (got["time_to_mark_s"], got["marked_share"]) == (3.0, pytest.approx(2 / 3))
    assert (got["time_to_clear_s"], got["cleared_share"]) == (np.inf, 0.5)


def test_probabilities_by_distance_and_visibility():
    """Eight voxels in a row, one metre each; p = 0.9 where seen, 0.5 where inferred, the last not looked at."""
    logit = np.full((8, 1, 1), np.log(9.0), np.float32)
    visible = np.array([1, 1, 1, 1, 0.6, 0.3, 0.3, 0], np.float32).reshape(8, 1, 1)
    logit[visible < 0.5] = 0
    occupied = np.array([1, 0, 1, 1, 1, 1, 0, 1], bool).reshape(8, 1, 1)
    distance = np.array([0.5, 2.9, 3.0, 7.9, 9.0, 1.0, 5.0, 1.0]).reshape(8, 1, 1)
    seen, inferred = Calibrations(), Calibrations()
    judge_probabilities((seen, inferred), logit, visible, (occupied, np.ones_like(occupied)), distance)
    got = seen.figures("seen") | inferred.figures("inferred")
    assert got["ece_seen"] == pytest.approx(0.9 - 0.8, abs=1e-6)
    assert got["ece_seen_0_3m"] == pytest.approx(0.9 - 0.5, abs=1e-6)
    assert got["ece_seen_3_8m"] == pytest.approx(1.0 - 0.9, abs=1e-6)
    assert got["brier_seen_0_3m"] == pytest.approx((0.01 + 0.81) / 2, abs=1e-6)
    assert got["brier_seen"] == pytest.approx((4 * 0.01 + 0.81) / 5, abs=1e-6)
    assert got["ece_inferred"] == pytest.approx(0.0, abs=1e-6)
    assert got["ece_inferred_0_3m"] == pytest.approx(0.5, abs=1e-6)
    assert got["brier_inferred_3_8m"] == pytest.approx(0.25, abs=1e-6)


def test_without_classes_there_are_no_figures_of_classes():
    got = Tally().figures()
    missing = {key for key, value in got.items() if np.isnan(value)}
    assert {"miou", "fused_miou", "ray_miou_1m", "fused_ray_miou_4vox", "class_accuracy"} <= missing
    assert {"ece_visible", "brier_inferred_3_8m"} <= missing  # no voxels either
    assert not missing & {"iou", "f_score", "missed_obstacle_rate_3m"}


def test_what_does_not_exist_is_null_or_a_dash(capsys):
    figures = {"iou": 0.123456789, "miou": float("nan"), "time_to_mark_s": np.inf}
    _print(figures, "how", as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "iou": 0.12346,
        "miou": None,
        "time_to_mark_s": None,
        "protocol": "how",
    }
    _print(figures, "how", as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["how"], ["iou", "0.123"], ["miou", "-"], ["time_to_mark_s", "-"],
    ]  # fmt: skip


def test_parts_of_windows(rng):
    first, second = LatticeWindow(0.2, (-3, 4, 0), (9, 5, 6)), LatticeWindow(0.2, (1, 2, 3), (7, 5, 9))
    here, there = overlapping_parts(first, second)
    assert sub_window(first, here) == sub_window(second, there) == LatticeWindow(0.2, (1, 4, 3), (5, 3, 3))
    apart = overlapping_parts(first, LatticeWindow(0.2, (50, 0, 0), (2, 2, 2)))
    assert np.zeros(first.shape)[apart[0]].size == 0
    mask = np.zeros((7, 8, 9), bool)
    assert mask[bounding_part(mask)].size == 0
    mask[2, 3:5, 8] = True
    assert bounding_part(mask) == (slice(2, 3), slice(3, 5), slice(8, 9))
