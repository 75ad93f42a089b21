# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.checkpoint import load_checkpoint
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.training import loop
from occupancy_nn_ros.training.dataset import make_sample
from occupancy_nn_ros.training.loop import TrainConfig, learning_rate, sample_losses, train


@pytest.fixture
def data(tmp_path, write_shard, shard_arrays):
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(2):
        write_shard(folder / f"{n}.safetensors", shard_arrays(n))
    return folder


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
    calls, honest = [], loop.sample_losses

    def broken(network, sample, device):
        calls.append(1)
        losses = honest(network, sample, device)
        if len(calls) > 7:  # in the fourth step
            losses = type(losses)(losses.depth * float("nan"), losses.occupancy, losses.semantic)
        return losses

    monkeypatch.setattr(loop, "sample_losses", broken)
    with pytest.raises(TrainingError, match="depth loss is nan at step 3; the last checkpoint is kept"):
        train(config, data, tmp_path / "out")
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "out" / "t.safetensors").values())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path, data, config, monkeypatch):
    honest = loop.sample_losses

    class NanGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    def broken(network, sample, device):
        losses = honest(network, sample, device)
        return type(losses)(NanGradient.apply(losses.depth), losses.occupancy, losses.semantic)

    monkeypatch.setattr(loop, "sample_losses", broken)
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
    torch.save({"step": 1, "network": {}, "average": {}, "optimizer": {}}, tmp_path / "out" / "state.pt")
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


def test_one_batch_can_be_learnt_by_heart(room_shard, tiny):
    torch.manual_seed(0)
    network = OccupancyNetwork(tiny).train()
    sample = make_sample(room_shard, 3, np.random.default_rng(0), augment=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    totals = []
    for _ in range(60):
        optimizer.zero_grad()
        losses = sample_losses(network, sample, torch.device("cpu"))
        losses.total.backward()
        optimizer.step()
        totals.append([float(losses.total), float(losses.occupancy), float(losses.depth)])
    first, last = np.array(totals[0]), np.mean(totals[-5:], axis=0)
    assert last[0] < first[0] / 2
    assert last[1] < first[1] / 2
    assert last[2] < first[2] * 0.75
