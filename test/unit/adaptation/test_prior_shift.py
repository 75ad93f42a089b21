# SPDX-License-Identifier: Apache-2.0
"""Learning begins with as many occupied points as the labels have, and gives the difference back."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from occupancy_nn_ros.adaptation.prior_shift import MOST, fit_shift, prior_shift, shift_logits
from occupancy_nn_ros.network.checkpoint import load_checkpoint
from occupancy_nn_ros.training.dataset import make_sample
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED, read_shard, write_shard
from occupancy_nn_ros.training.step import observe_sample


@pytest.mark.parametrize("shift", [-3.0, -0.4, 0.0, 2.5])
def test_the_shift_of_labels_that_were_drawn_by_shifted_logits(rng, shift):
    logits = rng.normal(-1, 3, 2000)
    assert fit_shift(logits, float(expit(logits + shift).mean())) == pytest.approx(shift, abs=1e-6)


def test_labels_of_one_kind_do_not_ask_for_any_shift(rng):
    logits = rng.normal(-1, 3, 2000)
    assert fit_shift(logits, 0.0) == -MOST and fit_shift(logits, 1.0) == MOST


@pytest.fixture
def shard(tmp_path, rng):
    """A camera that looks ahead at noise; of the points before it a tenth is occupied, some are not known."""
    frames, points = 3, 256
    poses = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(frames)
    labels = np.where(rng.random((frames, points)) < 0.1, OCCUPIED, 0).astype(np.uint8)
    labels[:, ::7] = IGNORED
    arrays = {
        "images": rng.integers(0, 255, (frames, 1, 64, 96, 3), dtype=np.uint8),
        "K": np.array([[[60.0, 0, 47.5], [0, 60, 31.5], [0, 0, 1]]], np.float32),
        "T_map_cam": poses[:, None],
        "T_map_base": poses,
        "depth_m": np.full((frames, 1, 16, 24), np.nan, np.float16),
        "points_m": rng.uniform([-0.3, -0.3, 0.5], [0.3, 0.3, 1.1], (frames, points, 3)).astype(np.float32),
        "edge_m": np.full(frames, 0.2, np.float32),
        "labels": labels,
    }
    write_shard(tmp_path / "a.safetensors", arrays, {})
    return tmp_path / "a.safetensors"


def answers(network, path):
    """Raw logits, whether they are seen, and labels of all points."""
    shard, found = read_shard(path), []
    for frame in range(len(shard.images)):
        sample = make_sample(shard, frame, np.random.default_rng(0), augment=False)
        with torch.inference_mode():
            scene = observe_sample(network.eval(), sample, torch.device("cpu"))
            logits, visible = network.query(scene, sample.points, torch.full((len(sample.points),), 0.2))
        found.append((logits[:, 0].numpy(), visible.numpy() >= 0.5, sample.labels.numpy()))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def test_shifted_the_network_finds_as_many_occupied_as_there_are(shard, tiny_model):
    checkpoint = load_checkpoint(tiny_model)
    before, seen, labels = answers(checkpoint.network, shard)
    known = seen & (labels != IGNORED)
    assert known.sum() > 50
    shift = prior_shift(checkpoint.network, [shard])
    after, _, _ = answers(shift_logits(checkpoint, shift).network, shard)
    np.testing.assert_allclose(after - before, shift, atol=1e-4)
    assert expit(after[known]).mean() == pytest.approx((labels[known] > 0).mean(), abs=1e-3)
    assert prior_shift(checkpoint.network, [shard]) == pytest.approx(0.0, abs=1e-4)


def test_nothing_that_is_known_asks_for_no_shift(shard, tiny_model, tmp_path):
    arrays = {name: value for name, value in vars(read_shard(shard)).items() if value is not None}
    write_shard(tmp_path / "none.safetensors", {**arrays, "labels": np.full_like(arrays["labels"], IGNORED)}, {})
    assert prior_shift(load_checkpoint(tiny_model).network, [tmp_path / "none.safetensors"]) == 0.0
