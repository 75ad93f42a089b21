# SPDX-License-Identifier: Apache-2.0
"""Drives judged as jobs add up in their order, whoever judged them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_pool import FakePool

from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import NetworkConfig, load_config
from occupancy_nn_ros.errors import CheckpointError, SimulationError
from occupancy_nn_ros.evaluation import model_scores
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan
from occupancy_nn_ros.evaluation.kept_drives import KeptDrives
from occupancy_nn_ros.evaluation.metrics import Counts, Reliability
from occupancy_nn_ros.evaluation.model_scores import Contender, evaluate_model, sum_of
from occupancy_nn_ros.evaluation.tally import ChangeTimes, GridScore, Tally

PLAN = EvaluationPlan(("indoor_heldout", "street_heldout"), (1, 2, 3))


def tally_of(seed):
    grid = GridScore([Counts(tp=seed), Counts(fn=seed)], [Counts(), Counts(fp=seed)])
    return Tally(single=Counts(tp=seed), grid=grid, changes=ChangeTimes([0.5 * seed], []), has_classes=seed == 3)


@pytest.fixture
def worlds(monkeypatch):
    """Worlds of seed 2 have no room, street 3 has no textures; the others give known tallies."""

    def judge(make, kind, seed, plan):
        if (kind, seed) == ("street_heldout", 3):
            raise SimulationError("no textures")
        return None if seed == 2 else tally_of(seed)

    monkeypatch.setattr(model_scores, "judge_world", judge)


@pytest.fixture
def judged(worlds):
    return evaluate_model(Contender("nano"), PLAN, FakePool(3, deaths=[0, 3, 3]))


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


def test_all_settings_reach_the_map(monkeypatch):
    """Those of the network are the contender's, in the predictor and in what is beside it."""
    seen = []
    monkeypatch.setattr(model_scores, "judge_world", lambda make, kind, seed, plan: seen.append(make(plan.config())))
    settings = load_config([], ["map.max_range_m=4", "voxel_size_m=0.7", "network.sources=3", "source=depth"])
    plan = replace(PLAN, worlds=("street",), seeds=(1,), settings=settings)
    evaluate_model(Contender("nano", NetworkConfig(align_poses=False)), plan, FakePool())
    (pipeline,) = seen
    assert pipeline.config.map.max_range_m == 4 and pipeline.config.voxel_size_m == PLAN.voxel_size_m
    assert not pipeline.config.network.align_poses and pipeline.config.network.sources == NetworkConfig().sources
    assert pipeline.config.source == "network"


def test_a_model_that_is_none_stops_all():
    with pytest.raises(CheckpointError):
        evaluate_model(Contender("no_such_model"), PLAN, FakePool())


def test_what_is_kept_is_not_judged_again_unless_something_changed(worlds, tmp_path, monkeypatch):
    nano, first = Contender("nano"), FakePool()
    drives = evaluate_model(nano, PLAN, first, keep=tmp_path / "kept")
    assert sum(first.begun.values()) == 6 and len(list((tmp_path / "kept").iterdir())) == 5
    second = FakePool()
    again = evaluate_model(nano, replace(PLAN, seeds=(1, 2, 3, 5)), second, keep=tmp_path / "kept")
    assert sum(second.begun.values()) == 3  # both of seed 5, and the one that failed
    assert [drive.name for drive in again if drive.failure] == ["street_heldout 3"]
    assert [drive for drive in drives if drive.tally is None and not drive.failure] == [
        drive for drive in again if drive.tally is None and not drive.failure
    ]
    changes = [
        replace(PLAN, voxel_size_m=0.1),
        replace(PLAN, imperfect=True),
        replace(PLAN, settings=load_config([], ["grid.max_height_m=2"])),
    ]
    for plan, contender in [
        *((plan, nano) for plan in changes),
        (PLAN, replace(nano, network=NetworkConfig(sources=2))),
    ]:
        pool = FakePool()
        evaluate_model(contender, plan, pool, keep=tmp_path / "kept")
        assert sum(pool.begun.values()) >= 5


def test_a_kept_tally_is_the_tally(tmp_path):
    tally = tally_of(3)
    tally.visible.all += Reliability.of(np.array([0.1, 0.9]), np.array([False, True]), np.array([True, True]))
    tally.changes.mark_s.append(math.inf)
    kept = KeptDrives(tmp_path, {"a": 1})
    kept.keep("a b", tally)
    found, back = kept.find("a b")
    assert found and repr(back) == repr(tally)
    assert (back + tally).figures().keys() == tally.figures().keys()
    assert KeptDrives(tmp_path, {"a": 2}).find("a b") == (False, None)
    text = (tmp_path / "a_b.json").read_text()
    for damaged in (text[:90], "[]", text.replace('"tp": 3', '"tp": "x"'), text.replace('"fused"', '"x"')):
        (tmp_path / "a_b.json").write_text(damaged)
        assert kept.find("a b") == (False, None)


def test_options_of_simulated_drives_are_refused_beside_a_bag(tmp_path, capsys):
    assert main(["eval", "--bag", str(tmp_path), "--keep", str(tmp_path)]) == 1
    assert "are for simulated drives" in capsys.readouterr().err
