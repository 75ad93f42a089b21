# SPDX-License-Identifier: Apache-2.0
"""Labels of a recording hold another share of occupied points than a network expects, and learning must not move all of space by that.

What views agree on is a part of what is there: surfaces without texture have no labels, while the space before things has many. A network
that learns from such labels calls everything a little less occupied, and its calibration no longer fits. So learning begins with logits
that are shifted to the labels' share, and the shift is taken back afterwards (logit adjustment, Menon et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from scipy.special import expit

from occupancy_nn_ros.network.checkpoint import Checkpoint
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.training.dataset import make_sample
from occupancy_nn_ros.training.shards import IGNORED, Shard, read_shard
from occupancy_nn_ros.training.step import observe_sample
from occupancy_nn_ros.values import FloatArray

FRAMES = 8
"""Keyframes that are asked about, of all."""

MOST = 8.0
"""Shifts are not larger than this: labels of one kind alone would ask for any."""


def prior_shift(network: OccupancyNetwork, shards: Sequence[Path]) -> float:
    """By how much raw logits have to grow for the network to find as many labelled points occupied as there are; 0 without any it sees.

    Raises:
        TrainingError: a shard is corrupt.
    """
    opened = [read_shard(path) for path in shards]
    frames = [(shard, frame) for shard in opened for frame in range(len(shard.images))]
    picked = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    logits, labels = (
        np.concatenate(parts) for parts in zip(*(_seen_points(network, *frames[n]) for n in picked), strict=True)
    )
    known = labels != IGNORED
    return fit_shift(logits[known], (labels[known] > 0).mean()) if known.any() else 0.0


def fit_shift(logits: FloatArray, share: float) -> float:
    """What has to be added to logits (N,) for the mean of their probabilities to be ``share``; at most ``MOST`` either way."""

    def excess(shift: float) -> float:
        return float(expit(logits + shift).mean()) - share

    if excess(-MOST) >= 0:
        return -MOST
    return MOST if excess(MOST) <= 0 else float(brentq(excess, -MOST, MOST))


def shift_logits(checkpoint: Checkpoint, by: float) -> Checkpoint:
    """The checkpoint, whose network's raw occupancy logits are larger by so much from now on."""
    checkpoint.network.decoder.shift_occupancy(by)
    return checkpoint


@torch.inference_mode()
def _seen_points(network: OccupancyNetwork, shard: Shard, frame: int) -> tuple[FloatArray, npt.NDArray[np.integer]]:
    """Raw occupancy logits (N,) and labels (N,) of the points of a keyframe that the network says it sees."""
    device = next(network.parameters()).device
    sample = make_sample(shard, frame, np.random.default_rng(0), augment=False)
    scene = observe_sample(network.eval(), sample, device)
    points = sample.points.to(device)
    logits, visible = network.query(scene, points, torch.full_like(points[:, 0], sample.edge_m))
    seen = (visible >= 0.5).cpu().numpy()
    return logits[:, 0].double().cpu().numpy()[seen], sample.labels.numpy()[seen]
