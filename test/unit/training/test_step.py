# SPDX-License-Identifier: Apache-2.0
"""A step feeds a GPU: the host never waits within it, views are handled together, and what comes out is the CPU's."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_in_device import HostWaitsError, no_host_waits, stand_in_device
from torch.utils._python_dispatch import TorchDispatchMode

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.training.dataset import SampleSource, make_sample
from occupancy_nn_ros.training.loop import Recipe, TrainConfig, _begin, _take_step, initial_model
from occupancy_nn_ros.training.step import PARTS, Figures, Learner, begin_reading, inputs_of, sample_losses
from occupancy_nn_ros.training.workers import Workers

CPU = torch.device("cpu")
VIEWS = ("view", "reshape", "expand", "permute", "transpose", "unsqueeze", "squeeze", "slice", "select", "alias", "t", "detach",
         "as_strided", "unbind", "split", "_unsafe_view", "lift_fresh", "narrow")  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts operators that compute something, each of which is at least one kernel on a GPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.split(".")[0] not in VIEWS
        return func(*args, **(kwargs or {}))


@pytest.fixture
def sample(room_shard):
    """Three views and nine of the past."""
    sample = make_sample(room_shard, 3, np.random.default_rng(0), augment=False)
    assert sample.views == 3 and len(sample.images) == 12
    return sample


@pytest.fixture
def network(tiny):
    torch.manual_seed(0)
    return OccupancyNetwork(tiny)


def test_the_guard_sees_what_the_host_waits_for(monkeypatch):
    with stand_in_device(monkeypatch.setattr) as device:
        there = torch.arange(4.0, device=device)
        here = torch.zeros(4)
        waits = (
            there.sum().item, there.tolist, there.cpu, lambda: there.to("cpu"), lambda: there[there > 1], there.nonzero,
            lambda: bool(there.any()), lambda: float(there[0]), lambda: here.to(device), lambda: here.copy_(there),
            lambda: torch.tensor([1.0], device=device), lambda: there.new_tensor([1.0]), lambda: there.unique(),
            lambda: there.__setitem__(there > 1, 0.0),
        )  # fmt: skip
        for wait in waits:
            with pytest.raises(HostWaitsError), no_host_waits():
                wait()
        with no_host_waits():
            assert (there + here.pin_memory().to(device, non_blocking=True)).shape == (4,)
            torch.empty(4, pin_memory=True).copy_(there, non_blocking=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_host_never_waits_within_a_step(monkeypatch, tmp_path, data, tiny, sample, precision):
    """Forward, backward, clipping, fused optimizer, averaging, and the way of the figures to the host."""
    config = TrainConfig(name="t", batch=2, device="cuda", precision=precision, model=tiny)
    torch.manual_seed(0)
    expected = None
    if precision == "float32":
        expected = Learner(initial_model(config).network, 2, Workers(0, 1, CPU), mixed=False)(iter([sample] * 2))
    with stand_in_device(monkeypatch.setattr, learning=True) as device:
        run = _begin(config, Recipe(), data, tmp_path, torch.device(device))
        before = copy.deepcopy(run.network.state_dict())
        workers = Workers(0, 1, torch.device(device))
        learner = Learner(run.network, 2, workers, mixed=precision == "bfloat16")
        with no_host_waits():
            figures = _take_step(config, run, iter([sample] * 2), learner)
        assert run.optimizer.param_groups[0]["fused"]
        means = {}
        figures.add_to(means)
        moved = [not torch.equal(new, before[name]) for name, new in run.network.state_dict().items()]
    assert sum(moved) > 0.9 * len(moved) and means.keys() == set(PARTS)
    if expected is not None:
        torch.testing.assert_close(
            figures.values[:6].as_subclass(torch.Tensor).view(2, 3), expected[0], rtol=1e-4, atol=0
        )
        assert float(figures.values[6]) == pytest.approx(float(expected[1]), rel=1e-3)


def launches(network, sample, device):
    with Launches() as counted:
        inputs = inputs_of(sample, network.config.sources).on(device)
        sample_losses(network, sample.views, inputs).total.backward()
    return counted.count


def test_launches_for_a_sample(monkeypatch, network, sample):
    """Forward and backward of a sample with three views and nine of the past."""
    by_view = launches(network, sample, CPU)
    with stand_in_device(monkeypatch.setattr, learning=True) as device:
        at_once = launches(network.to(device), sample, torch.device(device))
    print(f"launches for a sample: {by_view} view by view, {at_once} at once")
    assert at_once < 0.7 * by_view and at_once < 1500


def test_more_views_take_no_more_launches(monkeypatch, network, sample):
    one = replace(
        sample, images=sample.images[[0, 3]], K=sample.K[[0, 3]], T_world_cam=sample.T_world_cam[[0, 3]], views=1,
        depth_m=sample.depth_m[:1],
    )  # fmt: skip
    with stand_in_device(monkeypatch.setattr, learning=True) as device:
        there = network.to(device)
        counts = [launches(there, shown, torch.device(device)) for shown in (one, sample)]
    assert counts[1] <= counts[0] * 1.1


def test_figures_that_are_not_finite(network):
    losses = torch.tensor([[1.0, 2.0, 3.0], [1.0, float("nan"), 3.0]])
    figures = begin_reading(7, losses, torch.tensor(1.0))
    assert isinstance(figures, Figures) and figures.arrived is None
    with pytest.raises(TrainingError, match="occupancy loss is nan at step 7; the last checkpoint is kept"):
        figures.add_to({})
    with pytest.raises(TrainingError, match="gradient is inf at step 8"):
        begin_reading(8, losses[:1], torch.tensor(float("inf"))).add_to({})
    means = {}
    begin_reading(9, torch.tensor([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]), torch.tensor(1.0)).add_to(means)
    assert means == pytest.approx({"depth": 1.01, "occupancy": 2.01, "semantic": 3.01})


def test_replayed_steps_learn_what_computed_ones_do(monkeypatch, data, tiny, tmp_path):
    """Six steps with samples of several layouts: recorded work sees the new weights, sources and points each time."""
    config = TrainConfig(name="t", batch=2, warmup=1, device="cuda", precision="float32", model=tiny)
    source = SampleSource(sorted(data.iterdir()), 0)
    ends = []
    with stand_in_device(monkeypatch.setattr, learning=True) as device:
        for recorded in (False, True):
            run = _begin(config, Recipe(), data, tmp_path, torch.device(device))
            learner = Learner(run.network, 2, Workers(0, 1, torch.device(device)), mixed=False, recorded=recorded)
            samples = iter([source.sample(number) for number in (3, 5, 3, 8, 3, 9, 3, 5, 5, 3, 11, 5)])
            for _ in range(6):
                _take_step(config, run, samples, learner).add_to({})
            ends.append(run.network.state_dict())
    for name, weight in ends[0].items():
        difference = (weight - ends[1][name]).abs().max()
        assert difference <= 1e-5, (name, difference)
    assert learner._recorded._seen.most_common(1)[0][1] >= 3
