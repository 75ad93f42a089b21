# SPDX-License-Identifier: Apache-2.0
"""The table of what adapting is worth: which weights map which place, and which of them the judge keeps."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from occupancy_nn_ros.adaptation.adapt import Adapted
from occupancy_nn_ros.adaptation.prior_shift import shift_logits
from occupancy_nn_ros.network.checkpoint import load_checkpoint, save_checkpoint

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import adapting

SHIFT = -0.75


@pytest.fixture
def bench(tmp_path, tiny_model, monkeypatch):
    """Learning makes all logits larger by 2, and a map is as good as they are large."""

    def learn(bags, out, plan):
        assert plan.labels.part.end_s == 6.0 and plan.labels.sensor == "cameras"
        learned = shift_logits(load_checkpoint(tiny_model), 2.0 + SHIFT)  # as it is trained, by the labels' share
        learned = replace(learned, record={"prior_shift": str(SHIFT)})
        save_checkpoint(learned, out / "run" / f"{out.name}.safetensors")
        is_better = bags[0].name == "a"
        (out / "adapt.json").write_text(json.dumps({"judged": [{"share": 1.0, "improved": is_better}]}))
        kept = out / "site.safetensors"
        save_checkpoint(shift_logits(load_checkpoint(tiny_model), 0.5), kept)
        return Adapted(kept if is_better else None, None, 0.5, ())

    class Scores:
        def __init__(self, mcc):
            self.mcc = mcc

        def figures(self):
            return {"mcc": self.mcc}

    mapped = []

    def map_bag(bag, config, part):
        mapped.append((bag.name, part.start_s))
        grown = bias(config.model) - bias(tiny_model)
        return Scores(grown + {"a": 0.0, "b": 10.0}[bag.name])

    monkeypatch.setattr(adapting, "adapt", learn)
    monkeypatch.setattr(adapting, "evaluate_bag", map_bag)
    made = adapting.Bench(tmp_path, str(tiny_model), steps=3)
    made.mapped = mapped
    return made


def bias(model):
    return load_checkpoint(Path(model)).network.decoder.evidence.bias.item()


PLACES = [adapting.recorded("one=/bags/a@6"), adapting.recorded("two=/bags/b@6")]


def test_each_places_weights_map_it_and_the_next(bench):
    rows = list(adapting.rows(bench, PLACES, with_depth=False))
    assert [(row["place"], row["name"], row["judge"]) for row in rows] == [
        ("one", "as shipped", ""),
        ("one", "learned", "better"),
        ("one", "what adapt keeps", "50% of what was learned"),
        ("two", "as shipped", ""),
        ("two", "learned", "no better"),
        ("two", "what adapt keeps", "as shipped"),
    ]
    assert [row["mcc"] for row in rows] == pytest.approx([0, 2, 0.5, 10, 12, 10])
    assert [row["elsewhere_mcc"] for row in rows] == pytest.approx([10, 12, 10.5, 0, 2, 0])
    assert [row["elsewhere"] for row in rows] == ["two"] * 3 + ["one"] * 3


def test_a_place_is_mapped_by_the_same_weights_once(bench):
    first = list(adapting.rows(bench, PLACES, with_depth=False))
    assert sorted(bench.mapped) == [("a", 6.0)] * 3 + [("b", 6.0)] * 3
    assert list(adapting.rows(bench, PLACES, with_depth=False)) == first and len(bench.mapped) == 6
