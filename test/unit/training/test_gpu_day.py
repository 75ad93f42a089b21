# SPDX-License-Identifier: Apache-2.0
"""What is brought home from a GPU machine: a run in pieces, joined, checked, and going on."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.training.loop import TrainConfig, train

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "gpu_day"))

from pieces import join, pack

ROOT = Path(__file__).resolve().parents[3]


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
    assert not manifest["whole"] and manifest["bytes"] < 0.2 * whole
    join(tmp_path / "home", tmp_path / "here")
    there, here = state_of(tmp_path / "away"), state_of(tmp_path / "here")
    assert here["step"] == 1 and here["optimizer"] is None
    for part in ("network", "average"):
        for name, weight in there["average"].items():
            torch.testing.assert_close(here[part][name], weight, rtol=1e-3, atol=1e-6)
    train(config, data, tmp_path / "here")
    assert state_of(tmp_path / "here")["step"] == 4 and state_of(tmp_path / "here")["warmed_from"] == 1


def test_what_is_packed_again_replaces_what_was_packed_before(tmp_path, data, config):
    """And the pieces of before go last, so that at any moment some can be joined."""
    train(config, data, tmp_path / "away", seconds=0)
    home = tmp_path / "home"
    first = pack(tmp_path / "away", home, "t", piece=100_000)
    train(config, data, tmp_path / "away")
    second = pack(tmp_path / "away", home, "t", piece=100_000)
    assert not set(first["pieces"]) & set(second["pieces"])
    assert {path.name for path in home.iterdir()} == {*second["pieces"], "pieces.json"}
    join(home, tmp_path / "here")
    assert state_of(tmp_path / "here")["step"] == 4


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


THERE = {
    "numpy", "torch", "triton", "scipy", "numba", "opencv-python-headless", "safetensors", "pyyaml", "pillow", "matplotlib", "rich",
    "onnxruntime", "pytest", "pytest-timeout",
}  # fmt: skip
"""What docs/gpu.md says that a machine has; it has what these need, too."""


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def with_needs(names):
    """Distributions and all that they need."""
    found, left = set(), {plain(name) for name in names}
    while left:
        name = left.pop()
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        left |= {plain(re.match(r"[\w.-]+", need)[0]) for need in needs if "extra ==" not in need} - found
    return found


def test_all_stages_find_what_they_import():
    """The rehearsal runs them; this one says at once when something was moved, or needs a package that does not travel."""
    stages = sorted(path.stem for path in (ROOT / "benchmarks" / "gpu_day").glob("*.py"))
    text = (ROOT / "scripts" / "requirements-gpu.txt").read_text(encoding="utf-8")
    wheels = {plain(name) for name in re.findall(r"^[\w.-]+", text, re.MULTILINE)}
    assert (
        with_needs(wheels - {"mujoco"}) <= with_needs(THERE) | wheels
    )  # mujoco names a viewer that nobody here imports
    known = with_needs(THERE) | wheels | {"occupancy-nn-ros"}
    owners = metadata.packages_distributions().items()
    missing = sorted(name for name, names in owners if not known & {plain(owner) for owner in names})
    code = f"""
import sys
sys.modules |= dict.fromkeys({missing})  # an import of these fails
import {", ".join(stages)}
from scenes import demo_keyframes
assert len(demo_keyframes(1)) == 1
"""
    path = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks" / "gpu_day")))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
