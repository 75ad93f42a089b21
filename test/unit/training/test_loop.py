# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from stand_in_device import no_host_waits, stand_in_device

from occupancy_nn_ros.errors import ConfigError, MissingDependencyError, TrainingError
from occupancy_nn_ros.network.checkpoint import load_checkpoint
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.settings import from_mapping, read_yaml
from occupancy_nn_ros.training import loop
from occupancy_nn_ros.training import step as training_step
from occupancy_nn_ros.training.dataset import SampleSource, make_sample
from occupancy_nn_ros.training.journal import draw_sample
from occupancy_nn_ros.training.loop import TrainConfig, learning_rate, train
from occupancy_nn_ros.training.step import inputs_of, sample_losses

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "config" / "train").glob("*.yaml"))


@pytest.fixture
def config(tiny):
    return TrainConfig(name="t", steps=6, batch=2, warmup=2, save_every=2, device="cpu", model=tiny)


def weights(path):
    return load_checkpoint(path).network.state_dict()


class InterruptedRunError(Exception):
    """What interrupts a run in these tests."""


def stop_after(step):
    def report(progress):
        if progress.step == step:
            raise InterruptedRunError

    return report


def test_a_resumed_run_ends_with_the_same_bits(tmp_path, data, config):
    whole = train(config, data, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(config, data, tmp_path / "parts", stop_after(3))
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 2
    steps = []
    parts = train(config, data, tmp_path / "parts", lambda progress: steps.append(progress.step))
    assert steps == [3, 4, 5, 6]
    expected = weights(whole)
    for name, tensor in weights(parts).items():
        assert torch.equal(tensor, expected[name]), name
    first, second = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("whole", "parts"))
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, second["network"][name]), name


def test_a_resumed_run_keeps_the_shards_it_began_with(tmp_path, data, config, write_shard, shard_arrays):
    whole = train(config, data, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(config, data, tmp_path / "parts", stop_after(3))
    write_shard(data / "later.safetensors", shard_arrays(7))
    expected = weights(whole)
    for name, tensor in weights(train(config, data, tmp_path / "parts")).items():
        assert torch.equal(tensor, expected[name]), name
    with pytest.raises(InterruptedRunError):
        train(config, data, tmp_path / "other", stop_after(3))
    (data / "later.safetensors").unlink()
    with pytest.raises(TrainingError, match="lacks 1 shards that this run began with, such as later"):
        train(config, data, tmp_path / "other")


def test_two_processes_take_the_step_that_one_takes_with_all_samples(tmp_path, data, config):
    """Two workers with one sample each, started by torchrun, end where one worker with both samples ends."""
    alone = train(replace(config, steps=3, batch=2, precision="float32"), data, tmp_path / "alone")
    settings = {**vars(config), "steps": 3, "batch": 1, "model": dataclasses.asdict(config.model)}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(settings))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(Path(sys.executable).with_name("occupancy-nn")), "train", str(tmp_path / "t.yaml"),
        "--data", str(data), "--out", str(tmp_path / "together"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    expected = weights(alone)
    for name, tensor in weights(tmp_path / "together" / "t.safetensors").items():
        assert torch.allclose(tensor, expected[name], atol=2e-5), name


def test_half_precision_learns_about_the_same(tmp_path, data, config):
    full = train(replace(config, precision="float32"), data, tmp_path / "full")
    half = train(replace(config, precision="bfloat16"), data, tmp_path / "half")
    difference = max(
        float((a - b).abs().max()) for a, b in zip(weights(full).values(), weights(half).values(), strict=True)
    )
    assert 0 < difference < 0.02


def test_a_run_can_start_from_a_model(tmp_path, data, config):
    first = train(config, data, tmp_path / "first")
    second = train(replace(config, initial=str(first), steps=1, learning_rate=1e-6, ema=0.0), data, tmp_path / "second")
    expected = weights(first)
    for name, tensor in weights(second).items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name


def test_a_run_can_start_from_a_smaller_model(tmp_path, data, config):
    first = train(config, data, tmp_path / "first")
    larger = replace(config.model, detail_planes=8)
    grown = replace(config, initial=str(first), fresh=("refiner.",), steps=1, learning_rate=1e-6, ema=0.0, model=larger)
    new, old = weights(train(grown, data, tmp_path / "second")), weights(first)
    assert all(torch.allclose(new[n], old[n], atol=1e-5) for n in new if not n.startswith("refiner."))
    with pytest.raises(ConfigError, match="needs a model to start from"):
        train(replace(config, fresh=("refiner.",)), data, tmp_path / "third")


def test_a_run_leaves_curves_and_a_picture(tmp_path, data, config, monkeypatch):
    monkeypatch.setattr(loop, "CURVE_EVERY", 2)
    train(config, data, tmp_path / "out")
    curve = [json.loads(line) for line in (tmp_path / "out" / "curve.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert all(point["depth"] > 0 for point in curve)
    picture = cv2.imread(str(tmp_path / "out" / "sample.png"))
    sample = SampleSource(sorted(data.iterdir()), config.seed).sample(0)
    height, width = sample.images.shape[1:3]
    assert picture.shape == (3 * height, sample.views * width, 3)
    assert (picture[:height, :width, ::-1] == sample.images[0].numpy()).all()


def test_a_picture_is_red_near_blue_far_and_black_where_nothing_is_known(tmp_path, room_shard):
    sample = make_sample(room_shard, 3, np.random.default_rng(0), augment=False)
    depth = torch.full_like(sample.depth_m, 12.0)
    depth[:, :, ::2], depth[:, 0] = 0.5, float("nan")
    picture = draw_sample(replace(sample, depth_m=depth), depth)
    height = sample.images.shape[1]
    cell = height // depth.shape[1]
    labels = picture[height : 2 * height]
    assert (labels[:cell] == 0).all()
    assert labels[cell, 0, 0] > labels[cell, 0, 2] and labels[cell, cell, 2] > labels[cell, cell, 0]


def test_tensorboard_is_asked_for_but_missing(tmp_path, data, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        train(replace(config, tensorboard=True), data, tmp_path / "out")


def test_a_run_that_has_to_stop_saves_and_goes_on_to_the_same_bits(tmp_path, data, config):
    whole = train(config, data, tmp_path / "whole")
    for step in (1, 2):
        train(replace(config, save_every=100), data, tmp_path / "parts", seconds=0)
        assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == step
    expected = weights(whole)
    for name, tensor in weights(train(config, data, tmp_path / "parts")).items():
        assert torch.equal(tensor, expected[name]), name


def test_processes_that_read_change_nothing(tmp_path, data, config):
    alone = train(replace(config, steps=2), data, tmp_path / "alone")
    expected = weights(alone)
    for name, tensor in weights(train(replace(config, steps=2, loaders=2), data, tmp_path / "read")).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_finished_run_is_not_trained_further(tmp_path, data, config):
    path = train(config, data, tmp_path / "out")
    before = path.read_bytes()
    assert train(config, data, tmp_path / "out", stop_after(1)) == path
    assert path.read_bytes() == before


def test_the_model_carries_its_training_record(tmp_path, data, config):
    record = load_checkpoint(train(config, data, tmp_path / "out")).record
    assert record["step"] == 6
    assert record["training"]["learning_rate"] == config.learning_rate
    json.dumps(dict(record))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, data, config, monkeypatch):
    calls, honest = [], training_step.sample_losses

    def broken(network, views, inputs):
        calls.append(1)
        losses = honest(network, views, inputs)
        if len(calls) > 7:  # in the fourth step
            losses = type(losses)(losses.depth * float("nan"), losses.occupancy, losses.semantic)
        return losses

    monkeypatch.setattr(training_step, "sample_losses", broken)
    with pytest.raises(TrainingError, match="depth loss is nan at step 3; the last checkpoint is kept"):
        train(config, data, tmp_path / "out")
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "out" / "t.safetensors").values())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path, data, config, monkeypatch):
    honest = training_step.sample_losses

    class NanGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    def broken(network, views, inputs):
        losses = honest(network, views, inputs)
        return type(losses)(NanGradient.apply(losses.depth), losses.occupancy, losses.semantic)

    monkeypatch.setattr(training_step, "sample_losses", broken)
    with pytest.raises(TrainingError, match="gradient is nan at step 0"):
        train(config, data, tmp_path / "out")
    assert not (tmp_path / "out" / "state.pt").exists()


def test_a_corrupt_shard_stops_the_run(tmp_path, data, config):
    for path in data.iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match="cannot read shard"):
        train(config, data, tmp_path / "out")


def test_no_data(tmp_path, config):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(TrainingError, match="no training shards"):
            train(config, folder, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(50), b"\x80\x02}q\x00."])
def test_a_broken_state_is_refused(tmp_path, data, config, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.pt").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot resume from"):
        train(config, data, tmp_path / "out")


def test_the_state_of_another_network_is_refused(tmp_path, data, config):
    (tmp_path / "out").mkdir()
    torch.save({"step": 1, "network": {}, "average": {}, "optimizer": {}, "shards": []}, tmp_path / "out" / "state.pt")
    with pytest.raises(TrainingError, match="cannot resume from"):
        train(config, data, tmp_path / "out")


def test_an_unknown_device(tmp_path, data, config):
    with pytest.raises(TrainingError, match="device is 'toaster'"):
        train(type(config)(**{**vars(config), "device": "toaster"}), data, tmp_path / "out")


def test_learning_rate_rises_then_falls():
    config = TrainConfig(steps=1000, warmup=100, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01, rel=0.01)
    assert 80 < int(np.argmax(rates)) <= 110
    assert rates[500] == pytest.approx(0.51, rel=0.01)
    assert rates[-1] == pytest.approx(0.02, rel=0.01)
    assert (np.diff(rates[110:]) < 0).all()
    assert [learning_rate(config, 400 + n, 400) / rates[400 + n] for n in (0, 49, 99, 200)] == pytest.approx(
        [0.01, 0.5, 1, 1], rel=1e-6
    )


def test_one_batch_can_be_learnt_by_heart(room_shard, tiny):
    torch.manual_seed(0)
    network = OccupancyNetwork(tiny).train()
    sample = make_sample(room_shard, 3, np.random.default_rng(0), augment=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    totals = []
    for _ in range(60):
        optimizer.zero_grad()
        losses = sample_losses(network, sample.views, inputs_of(sample, tiny.sources))
        losses.total.backward()
        optimizer.step()
        totals.append([float(losses.total), float(losses.occupancy), float(losses.depth)])
    first, last = np.array(totals[0]), np.mean(totals[-5:], axis=0)
    assert last[0] < first[0] / 2
    assert last[1] < first[1] / 2
    assert last[2] < first[2] * 0.75


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_training_settings_fit_a_network(path):
    shipped = from_mapping(TrainConfig, read_yaml(path))
    with torch.device("meta"):
        network = OccupancyNetwork(shipped.model)
    assert 1e6 < sum(parameter.numel() for parameter in network.parameters()) < 5e7


def test_a_sample_is_learnt_from_on_a_device(monkeypatch, room_shard, tiny):
    """On a stand-in for a GPU: no tensors are mixed up, and the losses are the CPU's."""
    torch.manual_seed(0)
    network = OccupancyNetwork(tiny)
    sample = make_sample(room_shard, 3, np.random.default_rng(0), augment=True)
    with torch.no_grad():
        expected = vars(sample_losses(network, sample.views, inputs_of(sample, tiny.sources)))
    with stand_in_device(monkeypatch.setattr) as device:
        there = network.to(device)
        with no_host_waits():
            inputs = inputs_of(sample, tiny.sources).on(torch.device(device))
            got = vars(sample_losses(there, sample.views, inputs))
        assert all(loss.device.type == "cuda" for loss in got.values())
        assert {name: float(loss) for name, loss in got.items()} == pytest.approx(
            {name: float(loss) for name, loss in expected.items()}, rel=1e-4
        )
