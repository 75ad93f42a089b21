# SPDX-License-Identifier: Apache-2.0
"""Drives judged as jobs add up in their order, whoever judged them."""

import pytest
from fake_pool import FakePool

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.errors import CheckpointError, SimulationError
from occupancy_nn_ros.evaluation import model_scores
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan
from occupancy_nn_ros.evaluation.metrics import Counts
from occupancy_nn_ros.evaluation.model_scores import evaluate_model, sum_of
from occupancy_nn_ros.evaluation.tally import ChangeTimes, GridScore, Tally

PLAN = EvaluationPlan(("indoor_heldout", "street_heldout"), (1, 2, 3))


def tally_of(seed):
    grid = GridScore([Counts(tp=seed), Counts(fn=seed)], [Counts(), Counts(fp=seed)])
    return Tally(single=Counts(tp=seed), grid=grid, changes=ChangeTimes([0.5 * seed], []), has_classes=seed == 3)


@pytest.fixture
def judged(monkeypatch):
    """Worlds of seed 2 have no room, street 3 has no textures; the others give known tallies."""

    def judge(make, kind, seed, plan):
        if (kind, seed) == ("street_heldout", 3):
            raise SimulationError("no textures")
        return None if seed == 2 else tally_of(seed)

    monkeypatch.setattr(model_scores, "judge_world", judge)
    return evaluate_model("nano", NetworkConfig(), PLAN, FakePool(3, deaths=[0, 3, 3]))


def test_drives_come_back_in_order_with_their_failures(judged):
    names = [f"{kind} {seed}" for kind in PLAN.worlds for seed in PLAN.seeds]
    assert [drive.name for drive in judged] == names
    assert [drive.tally is None for drive in judged] == [False, True, False, False, True, True]
    assert [drive.failure for drive in judged] == ["", "", "", "", "", "no textures"]


def test_the_sum_holds_every_count(judged):
    total = sum_of(judged)
    assert total.single == Counts(tp=1 + 3 + 1)
    assert total.grid.exact == [Counts(tp=5), Counts(fn=5)] and total.grid.tolerant[1] == Counts(fp=5)
    assert total.changes.mark_s == [0.5, 1.5, 0.5] and total.has_classes
    assert not sum_of([]).has_classes
    nothing, once = Tally().figures(), (tally_of(1) + Tally()).figures()
    assert once["recall"] == tally_of(1).figures()["recall"] == 1.0 and nothing.keys() == once.keys()


def test_a_model_that_is_none_stops_all():
    with pytest.raises(CheckpointError):
        evaluate_model("no_such_model", NetworkConfig(), PLAN, FakePool())
