# SPDX-License-Identifier: Apache-2.0
"""What needs a real GPU; everything else about devices is tested on a stand-in. scripts/gpu_day runs these first."""

import numpy as np
import pytest
import torch

from occupancy_nn_ros.compute.capture import Captured, copied
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.training.loop import TrainConfig, train
from occupancy_nn_ros.training.shards import FORMAT
from occupancy_nn_ros.training.step import Learner, inputs_of, sample_losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

TINY = ModelConfig(
    canvas_pixels=6144, widths=(8, 8, 16, 16), feature_channels=16, match_groups=2, match_width=4, depth_bins=12,
    detail_channels=8, detail_groups=2, detail_width=4, detail_planes=6, volume_cell_m=0.8, volume_shape=(12, 12, 4),
    volume_features=4, volume_channels=6, volume_width=16, decoder_width=16, range_m=4.0,
)  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """A shard of random pictures: what is learnt does not matter, that it is the same does."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    frames, views, height, width, points = 4, 2, 64, 96, 512
    optical = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.8], [0, 0, 0, 1]])
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = 0.25 * np.arange(frames)
    folder = tmp_path / "data"
    folder.mkdir()
    arrays = {
        "images": rng.integers(0, 256, (frames, views, height, width, 3), dtype=np.uint8),
        "K": np.tile(np.array([[60, 0, 48], [0, 60, 32], [0, 0, 1]], np.float32), (views, 1, 1)),
        "T_map_cam": np.tile((poses @ optical)[:, None], (1, views, 1, 1)).astype(np.float32),
        "T_map_base": poses.astype(np.float32),
        "depth_m": rng.uniform(0.5, 9, (frames, views, height // 4, width // 4)).astype(np.float16),
        "points_m": rng.uniform(-4, 4, (frames, points, 3)).astype(np.float32),
        "edge_m": np.full(frames, 0.2, np.float32),
        "labels": rng.integers(0, 4, (frames, points)).astype(np.uint8),
    }
    save_file(arrays, str(folder / "a.safetensors"), metadata={"format": FORMAT})
    return folder


def test_losses_and_gradients_are_those_of_the_cpu(data):
    from occupancy_nn_ros.training.dataset import SampleSource

    sample = SampleSource(sorted(data.iterdir()), 0).sample(3)
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = OccupancyNetwork(TINY).to(device)
        inputs = inputs_of(sample, TINY.sources).on(torch.device(device))
        losses = sample_losses(network, sample.views, inputs)
        losses.total.backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None])
        results.append((float(losses.total.detach()), gradient))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-3)
    assert (results[1][1] - results[0][1]).norm() < 0.02 * results[0][1].norm()


def test_no_step_waits_for_the_device(data, tmp_path):
    """CUDA's own watch: a synchronising call within the step raises."""
    from occupancy_nn_ros.training.dataset import SampleSource
    from occupancy_nn_ros.training.workers import Workers

    network = OccupancyNetwork(TINY).cuda()
    source = SampleSource(sorted(data.iterdir()), 0)
    workers = Workers(0, 1, torch.device("cuda"))
    samples = [source.sample(3) for _ in range(4)]
    learner = Learner(network, 2, workers, mixed=True)
    learner(iter(samples))
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner(iter(samples))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_replayed_gradients_are_those_that_are_computed(data):
    from occupancy_nn_ros.training.dataset import SampleSource
    from occupancy_nn_ros.training.workers import Workers

    source = SampleSource(sorted(data.iterdir()), 0)
    samples = [source.sample(number) for number in (3, 3, 3, 3, 5)]
    gradients = []
    for recorded in (False, True):
        torch.manual_seed(0)
        network = OccupancyNetwork(TINY).cuda()
        learner = Learner(network, 1, Workers(0, 1, torch.device("cuda")), mixed=False, recorded=recorded)
        for sample in samples:
            learner(iter([sample]))
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() < 0.01 * gradients[0].norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_runs_and_goes_on_from_a_cpu(data, tmp_path, precision):
    """A run that began on the CPU goes on here, with the fused optimizer."""
    config = TrainConfig(name="t", steps=4, batch=2, warmup=1, save_every=2, device="cpu", model=TINY)
    train(TrainConfig(**{**vars(config), "steps": 2}), data, tmp_path / "run")
    steps = []
    there = TrainConfig(**{**vars(config), "device": "cuda", "precision": precision, "loaders": 1})
    train(there, data, tmp_path / "run", lambda progress: steps.append(progress.step))
    assert steps[-1] == 4 and torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 4


def test_recorded_work_gives_what_the_function_gives():
    weight = torch.randn(64, 64, device="cuda")

    def function(x):
        return {"y": torch.relu(x @ weight).softmax(dim=1)}

    with torch.no_grad():
        recorded = Captured(function, [torch.randn(32, 64, device="cuda")])
        inputs = [torch.randn(32, 64, device="cuda") for _ in range(3)]
        answers = [copied(recorded(x))["y"] for x in inputs]
        for x, got in zip(inputs, answers, strict=True):
            torch.testing.assert_close(got, function(x)["y"])
