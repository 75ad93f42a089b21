# SPDX-License-Identifier: Apache-2.0
"""What is brought home from a GPU machine: a run in pieces, joined, checked, and going on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.training.loop import TrainConfig, train

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "gpu_day"))

from pieces import join, pack


@pytest.fixture
def config(tiny):
    return TrainConfig(name="t", steps=4, batch=1, warmup=1, save_every=2, device="cpu", model=tiny)


def state_of(run):
    return torch.load(run / "state.pt", weights_only=True)


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def test_a_run_in_pieces_goes_on_to_the_same_bits(tmp_path, data, config):
    train(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "away", seconds=0)
    (tmp_path / "home").mkdir()
    manifest = pack(tmp_path / "away", tmp_path / "home", "t", piece=100_000)
    sizes = [(tmp_path / "home" / name).stat().st_size for name in manifest["pieces"]]
    assert len(sizes) > 2 and max(sizes) == 100_000 and manifest["whole"]
    join(tmp_path / "home", tmp_path / "here")
    assert state_of(tmp_path / "here")["step"] == 1
    train(config, data, tmp_path / "here")
    assert same(state_of(tmp_path / "whole")["average"], state_of(tmp_path / "here")["average"])


def test_what_does_not_fit_travels_as_half_and_begins_a_new_optimizer(tmp_path, data, config):
    train(config, data, tmp_path / "away", seconds=0)
    (tmp_path / "home").mkdir()
    whole = (tmp_path / "away" / "state.pt").stat().st_size
    manifest = pack(tmp_path / "away", tmp_path / "home", "t", limit=whole - 1)
    assert not manifest["whole"] and manifest["bytes"] < 0.4 * whole
    join(tmp_path / "home", tmp_path / "here")
    there, here = state_of(tmp_path / "away"), state_of(tmp_path / "here")
    assert here["step"] == 1 and here["optimizer"] is None
    for part in ("network", "average"):
        for name, weight in there[part].items():
            torch.testing.assert_close(here[part][name], weight, rtol=1e-3, atol=1e-6)
    train(config, data, tmp_path / "here")
    assert state_of(tmp_path / "here")["step"] == 4 and state_of(tmp_path / "here")["warmed_from"] == 1


@pytest.mark.parametrize("harm", ["missing", "changed", "short", "no manifest"])
def test_pieces_that_are_not_what_was_sent_are_refused(tmp_path, data, config, harm):
    train(config, data, tmp_path / "away", seconds=0)
    home = tmp_path / "home"
    home.mkdir()
    first = home / pack(tmp_path / "away", home, "t", piece=100_000)["pieces"][0]
    content = first.read_bytes()
    if harm == "missing":
        first.unlink()
    elif harm == "no manifest":
        (home / "pieces.json").unlink()
    else:
        first.write_bytes(content[:-1] if harm == "short" else content[:50] + bytes([content[50] ^ 1]) + content[51:])
    with pytest.raises(TrainingError, match=r"cannot join|another content"):
        join(home, tmp_path / "here")
    assert not (tmp_path / "here" / "state.pt").exists()


def test_all_stages_know_the_package():
    """The rehearsal runs them; this one says at once when something they use was moved."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu_day"
    names = ", ".join(sorted(path.stem for path in folder.glob("*.py")))
    code = [sys.executable, "-c", f"import {names}"]
    done = subprocess.run(
        code, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder.parents[1])}
    )
    assert done.returncode == 0, done.stderr
