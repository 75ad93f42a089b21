# SPDX-License-Identifier: Apache-2.0
"""A model is replaced by one that learned from recordings only if keyframes that it did not learn from say so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from occupancy_nn_ros.adaptation import adapt as adapting
from occupancy_nn_ros.adaptation.adapt import FIT, AdaptPlan, Audience, adapt, between, split
from occupancy_nn_ros.adaptation.prior_shift import prior_shift, shift_logits
from occupancy_nn_ros.adaptation.verdict import MapErrors
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.labelling.bags import Outcome
from occupancy_nn_ros.labelling.plan import BagLabels, LabelPlan
from occupancy_nn_ros.network.checkpoint import Calibration, load_checkpoint, save_checkpoint
from occupancy_nn_ros.training.shards import read_shard, write_shard

BEFORE, BETTER, HALFWAY, WORSE = 0.3, (0.25, 0.28), (0.31, 0.26), (0.31, 0.32)
"""Errors of the old weights, and of those that were learned and of those halfway between both."""


def arrays(frames, first=0):
    """A camera that looks at noise; the frames are numbered by their pixels."""
    rng = np.random.default_rng(first)
    poses = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    poses[:, 0, 3] = 0.1 * (first + np.arange(frames))
    images = rng.integers(0, 255, (frames, 1, 64, 96, 3), dtype=np.uint8)
    images[:, 0, 0, 0, 0] = first + np.arange(frames)
    return {
        "images": images,
        "K": np.array([[[60.0, 0, 47.5], [0, 60, 31.5], [0, 0, 1]]], np.float32),
        "T_map_cam": poses[:, None],
        "T_map_base": poses,
        "depth_m": rng.uniform(1, 4, (frames, 1, 16, 24)).astype(np.float16),
        "points_m": rng.uniform(-2, 2, (frames, 64, 3)).astype(np.float32),
        "edge_m": np.full(frames, 0.2, np.float32),
        "labels": np.where(rng.random((frames, 64)) < 0.5, 0, 254).astype(np.uint8),
    }


def frames_of(paths):
    return [int(n) for path in sorted(paths) for n in read_shard(path).images[:, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("sizes", "held_out"), [((10,), 3), ((24, 24, 7), 11), ((24, 24, 2), 10), ((5,), 3), ((30, 2), 6), ((24, 11), 7)]
)
def test_the_last_keyframes_of_each_recording_are_kept_from_training(tmp_path, sizes, held_out):
    shards, first = [], 0
    for n, frames in enumerate(sizes):
        shards.append(tmp_path / "labels" / f"a_{n:03d}.safetensors")
        write_shard(shards[-1], arrays(frames, first), {})
        first += frames
    kept = split([shards], tmp_path)
    learned = sorted((tmp_path / "train").glob("*.safetensors"))
    others = [n for item in kept for n in frames_of(item.shards)[item.first :]]
    assert frames_of(learned) + others == list(range(sum(sizes))) and len(others) == held_out
    assert [item.shards for item in kept] == [tuple(shards)]
    first = read_shard(learned[0])
    np.testing.assert_array_equal(first.points_m, read_shard(shards[0]).points_m[: len(first.images)])
    assert np.isnan(first.depth_m).all()  # space is learned, depth follows


def test_too_few_keyframes_to_judge_by_are_refused(tmp_path):
    write_shard(tmp_path / "labels" / "a_000.safetensors", arrays(3), {})
    with pytest.raises(TrainingError, match="too few keyframes"):
        split([[tmp_path / "labels" / "a_000.safetensors"]], tmp_path)


@pytest.fixture
def initial(tmp_path, tiny_model):
    """The model to start from, with a calibration of its own."""
    path = tmp_path / "initial.safetensors"
    save_checkpoint(replace(load_checkpoint(tiny_model), calibration=Calibration(visible_scale=0.7)), path)
    return path


@pytest.fixture
def labels(monkeypatch):
    """Recordings are labelled with noise, and those whose name says so are refused."""
    made = []

    def label(bags, out, plan, pool, report=None):
        outcomes = []
        for bag in bags:
            made.append(bag)
            name = f"{bag.name}_000.safetensors"
            if bag.name.startswith("bad"):
                outcomes.append(Outcome(bag, None, "cameras move by 0.01 m in all"))
                continue
            write_shard(out / name, arrays(8), {})
            outcomes.append(Outcome(bag, BagLabels((name,), 8, 100, 100)))
        if report is not None:
            report(1.0)
        return outcomes

    monkeypatch.setattr(adapting, "label_bags", label)
    return made


def judged(monkeypatch, after):
    """Old and new weights make maps with these errors."""

    class Judge:
        def __init__(self, held_out, config):
            self.keyframes, self.said = sum(8 - item.first for item in held_out), iter((BEFORE, *after))

        def errors(self, checkpoint):
            noise, none = np.linspace(-1e-3, 1e-3, 16), np.full(16, np.nan)
            return MapErrors(next(self.said) + noise, none, none, np.full((1, 16, 24), 2.0, np.float32))

    monkeypatch.setattr(adapting, "MapJudge", Judge)


def plan(initial):
    config = replace(load_config(), model=str(initial))
    return AdaptPlan(
        LabelPlan(config, sensor="cameras"), None, replace(FIT, steps=3, batch=1, save_every=2, device="cpu")
    )


@pytest.mark.usefixtures("labels")
def test_a_better_model_is_written_with_the_calibration_of_the_old_one(tmp_path, initial, monkeypatch):
    judged(monkeypatch, BETTER)
    steps, out = [], tmp_path / "site"
    told = Audience(training=lambda progress: steps.append(progress.step))
    adapted = adapt([Path("one"), Path("bad")], out, plan(initial), told)
    assert adapted.model == out / "site.safetensors" and steps == [1, 2, 3]
    assert [outcome.refused for outcome in adapted.outcomes] == ["", "cameras move by 0.01 m in all"]
    before, after = load_checkpoint(initial), load_checkpoint(adapted.model)
    assert after.calibration == before.calibration and after.record["adapted_from"] == str(initial)
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before.network.state_dict().values(), after.network.state_dict().values(), strict=True)
    ]
    assert any(changed)
    figures = json.loads((out / "adapt.json").read_text())
    assert figures["model"] == str(adapted.model) and [one["share"] for one in figures["judged"]] == [1.0, 0.5]
    assert [one["pictures"]["after"] for one in figures["judged"]] == pytest.approx(BETTER)
    assert [one["pictures"]["before"] for one in figures["judged"]] == pytest.approx([BEFORE] * 2)
    assert adapted.share == after.record["share"] == 1.0 and adapted.verdict.keyframes == 3
    assert (out / "held_out.png").stat().st_size > 1000 and (out / "run" / "sample.png").exists()


@pytest.mark.usefixtures("labels")
def test_weights_halfway_are_kept_where_they_are_better(tmp_path, initial, monkeypatch):
    judged(monkeypatch, HALFWAY)
    adapted = adapt([Path("one")], tmp_path / "site", plan(initial))
    learned = load_checkpoint(tmp_path / "site" / "run" / "site.safetensors")
    shift = prior_shift(load_checkpoint(initial).network, sorted((tmp_path / "site" / "train").glob("*.safetensors")))
    assert float(learned.record["prior_shift"]) == pytest.approx(shift, abs=1e-4)
    halfway = between(load_checkpoint(initial).network, shift_logits(learned, -shift).network, 0.5)
    assert adapted.share == 0.5 and adapted.verdict.pictures.after == pytest.approx(0.26)
    for name, weights in load_checkpoint(adapted.model).network.state_dict().items():
        np.testing.assert_array_equal(weights, halfway.state_dict()[name])


def test_weights_between_two_networks(initial):
    before, after = (load_checkpoint(initial).network for _ in range(2))
    for weights in after.parameters():
        weights.data += 4.0
    for share in (0.0, 0.25, 1.0):
        for old, mixed in zip(before.parameters(), between(before, after, share).parameters(), strict=True):
            np.testing.assert_allclose(mixed.detach() - old.detach(), 4.0 * share, atol=1e-5)


@pytest.mark.usefixtures("labels")
def test_one_that_is_no_better_is_not(tmp_path, initial, monkeypatch):
    judged(monkeypatch, WORSE)
    out = tmp_path / "site"
    out.mkdir()
    (out / "site.safetensors").write_bytes(b"of before")
    adapted = adapt([Path("one")], out, plan(initial))
    assert adapted.model is None and (out / "site.safetensors").read_bytes() == b"of before"
    assert json.loads((out / "adapt.json").read_text())["model"] is None


@pytest.mark.usefixtures("labels")
def test_an_interrupted_run_goes_on(tmp_path, initial, monkeypatch):
    judged(monkeypatch, BETTER)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt([Path("one")], tmp_path / "parts", plan(initial), Audience(training=stop))
    steps = []
    parts = adapt([Path("one")], tmp_path / "parts", plan(initial), Audience(training=lambda p: steps.append(p.step)))
    whole = adapt([Path("one")], tmp_path / "whole", plan(initial))
    assert steps == [3]
    for name, weights in load_checkpoint(whole.model).network.state_dict().items():
        np.testing.assert_array_equal(weights, load_checkpoint(parts.model).network.state_dict()[name])


@pytest.mark.usefixtures("labels")
def test_a_folder_of_other_recordings_is_not_gone_on_with(tmp_path, initial, monkeypatch):
    judged(monkeypatch, BETTER)
    adapt([Path("one")], tmp_path / "site", plan(initial))
    with pytest.raises(TrainingError, match=r"site holds a run with other bags, expected the same or another folder"):
        adapt([Path("two")], tmp_path / "site", plan(initial))
    (tmp_path / "site" / "began.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot read"):
        adapt([Path("one")], tmp_path / "site", plan(initial))


@pytest.mark.usefixtures("labels")
def test_the_command_says_how_it_went(tmp_path, initial, monkeypatch, capsys):
    judged(monkeypatch, WORSE)
    arguments = ["--model", str(initial), "--steps", "2", "--processes", "1", "--out", str(tmp_path / "site")]
    assert main(["adapt", "one", "bad", *arguments]) == 3
    said = capsys.readouterr()
    assert "maps of 3 keyframes kept from training, before and after:" in said.out
    assert "mismatch of pictures where rays end: 0.3000, 0.3100" in said.out
    assert "bad: not used: cameras move by 0.01 m in all" in said.err
    assert f"no better, so the old weights are kept: go on with --model {initial}" in said.err
    judged(monkeypatch, BETTER)
    assert main(["adapt", "one", "bad", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(tmp_path / "site" / "site.safetensors")


@pytest.mark.usefixtures("labels")
def test_nothing_to_learn_from_is_one_line(tmp_path, initial, capsys):
    arguments = ["--model", str(initial), "--processes", "1", "--out", str(tmp_path / "site")]
    assert main(["adapt", "bad1", "bad2", *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert said == (
        "occupancy-nn adapt: none of the recordings can be learned from: bad1: cameras move by 0.01 m in all; "
        "bad2: cameras move by 0.01 m in all"
    )
    assert main(["adapt", "one", "--model", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "site")]) == 1
    assert "no.safetensors" in capsys.readouterr().err
