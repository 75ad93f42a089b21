# SPDX-License-Identifier: Apache-2.0
"""Trains a baseline as the shipped model is trained: the same samples, losses, optimizer, schedule and averaging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from baselines_learned import WithoutPast, begin_baseline, make_predictor

from occupancy_nn_ros.evaluation.calibrate import collect_logits, fit_calibration
from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint
from occupancy_nn_ros.training.loop import Progress, Recipe, TrainConfig, train
from occupancy_nn_ros.training.losses import Losses

Report = Callable[[int, float], None]


def train_baseline(
    kind: str, config: TrainConfig, data: Path, out: Path, report: Report, encoder: str | None = None
) -> Path:
    """Train a baseline, or go on from the last state in ``out``; returns the path of the averaged model.

    Args:
        kind: one of ``KINDS``.
        config: as of the shipped model.
        data: folder of shards.
        out: folder for the model and the state.
        report: told the step and the running mean of the loss.
        encoder: the shipped model whose image encoder a new ``bev`` begins with.

    Raises:
        ConfigError: an encoder for a network that does not begin with one.
        TrainingError: no shards, or a loss that is not finite.
    """

    def tell(progress: Progress) -> None:
        report(progress.step, float(Losses(progress.depth, progress.occupancy, progress.semantic).total))

    show = partial(WithoutPast, one_view=kind == "one_view")
    recipe = Recipe(partial(begin_baseline, kind, encoder), show, {"baseline": kind})
    return train(replace(config, name=kind), data, out, tell, recipe)


def calibrate_baseline(kind: str, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its probabilities fitted as the shipped model's are; those it had are forgotten."""
    raw = replace(checkpoint, calibration=Calibration())
    return replace(raw, calibration=fit_calibration(list(collect_logits(make_predictor(kind, raw)))))
