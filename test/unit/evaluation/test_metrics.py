# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.evaluation.metrics import (
    ClassCounts,
    Counts,
    NearCounts,
    Reliability,
    count,
    count_near,
    interior,
    score_map,
    with_border,
)
from occupancy_nn_ros.values import LatticeWindow, MapView


def test_counts_by_hand():
    claimed = np.array([1, 1, 0, 0, 1], bool)
    true = np.array([1, 0, 1, 0, 1], bool)
    counts = count(claimed, true, np.array([1, 1, 1, 1, 0], bool))
    assert counts == Counts(tp=1, fp=1, fn=1, tn=1)
    assert counts.iou == pytest.approx(1 / 3)
    assert counts.mcc == 0
    assert (counts + counts).tp == 2


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_mcc_equals_the_correlation_coefficient(tp, fp, fn, tn):
    counts = Counts(tp, fp, fn, tn)
    claimed = np.repeat([1, 1, 0, 0], [tp, fp, fn, tn])
    true = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn])
    if claimed.std() > 0 and true.std() > 0:
        assert counts.mcc == pytest.approx(np.corrcoef(claimed, true)[0, 1], abs=1e-9)
    else:
        assert counts.mcc == 0


def test_everything_occupied_has_an_iou_but_no_correlation():
    counts = count(np.ones(9, bool), np.arange(9) < 3, np.ones(9, bool))
    assert counts.iou == pytest.approx(1 / 3)
    assert counts.mcc == 0


def test_interior_is_what_no_free_voxel_touches():
    occupied = np.zeros((7, 7, 7), bool)
    occupied[1:6, 1:6, 1:6] = True
    assert interior(occupied).sum() == 27
    assert interior(np.ones((3, 3, 3), bool)).all()


def test_border_reaches_diagonally():
    seen = np.zeros((5, 5, 5), bool)
    seen[2, 2, 2] = True
    assert with_border(seen).sum() == 27


def test_score_ignores_the_inside_and_what_is_far_from_anything_known():
    truth = np.zeros((9, 9, 9), np.int8)
    truth[:, :, :4] = 1
    state = np.full(truth.shape, -1, np.int8)
    state[:, :, 4:] = 0
    state[:, :, 3] = 1
    window = LatticeWindow(0.2, (0, 0, 0), truth.shape)

    def view(s):
        return MapView(0, "odom", window, np.eye(4), s, np.zeros(s.shape, np.float32), np.zeros(s.shape, np.uint8))

    assert score_map(view(state), view(truth)) == Counts(tp=81, fp=0, fn=0, tn=5 * 81)


def test_reliability_of_a_perfect_and_of_an_overconfident_answer(rng):
    true = rng.random(200_000) < 0.3
    everywhere = np.ones(true.shape, bool)
    calm = Reliability.of(np.full(true.shape, 0.3), true, everywhere)
    assert calm.ece == pytest.approx(0.0, abs=0.005)
    assert calm.brier == pytest.approx(0.21, abs=0.005)
    rash = Reliability.of(np.full(true.shape, 0.9), true, everywhere)
    assert rash.ece == pytest.approx(0.6, abs=0.005)
    both = calm + rash
    assert both.ece == pytest.approx(0.3, abs=0.005)


def test_mean_iou_over_the_classes_of_the_truth():
    true = np.array([0, 1, 1, 2, 2, 2, 5], np.uint8)
    claimed = np.array([1, 1, 0, 2, 2, 1, 3], np.uint8)
    judged = np.array([1, 1, 1, 1, 1, 1, 0], bool)
    counts = ClassCounts.of(claimed, true, judged, 6)
    assert counts.true.tolist() == [1, 2, 3, 0, 0, 0, 0]
    assert counts.miou == pytest.approx((1 / 4 + 2 / 3) / 2)
    assert (counts + counts).miou == pytest.approx(counts.miou)
    everywhere = ClassCounts.of(claimed, true, np.ones(7, bool), 6)
    assert everywhere.miou == pytest.approx((1 / 4 + 2 / 3 + 0) / 3)  # class 5 was there, class 3 was not
    assert np.isnan(ClassCounts.empty(6).miou)


def test_f_score_with_a_tolerance_of_one_voxel():
    true, claimed = np.zeros((2, 12, 12, 12), bool)
    true[5, 5, 5] = true[5, 5, 6] = claimed[6, 6, 6] = claimed[9, 9, 9] = True
    judged = np.ones(true.shape, bool)
    assert count_near(claimed, true, judged) == NearCounts(right=1, claimed=2, found=2, true=2)
    assert count_near(claimed, true, judged).f_score == pytest.approx(2 * 0.5 * 1 / 1.5)
    judged[9, 9, 9] = judged[5, 5, 5] = False
    assert count_near(claimed, true, judged) == NearCounts(right=1, claimed=1, found=1, true=1)
    judged[6, 6, 6] = False  # not judged, but still a counterpart
    assert count_near(claimed, true, judged) == NearCounts(right=0, claimed=0, found=1, true=1)
    assert count_near(np.zeros_like(true), true, judged).f_score == 0.0
    assert NearCounts().f_score == 1.0


def test_f_score_equals_distances_taken_one_by_one(rng):
    true, claimed, judged = (rng.random((9, 8, 7)) < share for share in (0.05, 0.05, 0.8))
    got = count_near(claimed, true, judged)

    def near(some, all_):
        away = np.abs(np.argwhere(some)[:, None] - np.argwhere(all_)[None]).max(axis=2)
        return int((away.min(axis=1) <= 1).sum())

    assert (got.right, got.found) == (near(claimed & judged, true), near(true & judged, claimed))
    assert 0 < got.right < got.claimed
