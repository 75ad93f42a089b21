# SPDX-License-Identifier: Apache-2.0
"""Trains a baseline as the shipped model is trained: the same samples, losses, optimizer, schedule and averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch
from baselines_learned import make_network, make_predictor, make_samples

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.checkpoint import Checkpoint, save_checkpoint
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.training.calibrate import collect_logits, fit_calibration
from occupancy_nn_ros.training.loop import TrainConfig, learning_rate, sample_losses

Report = Callable[[int, float], None]


def train_baseline(kind: str, config: TrainConfig, data: Path, out: Path, report: Report) -> Path:
    """Train a baseline, or go on from the last state in ``out``; returns the path of the averaged model.

    Args:
        kind: one of ``KINDS``.
        config: as of the shipped model.
        data: folder of shards.
        out: folder for the model and the state.
        report: told the step and its loss.

    Raises:
        TrainingError: no shards, or a loss that is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = make_network(kind, config.model).to(device).train()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    parts = {"network": network, "average": average, "optimizer": optimizer}
    start = _resume(out / "state.pt", parts)
    samples = make_samples(kind, data, config.seed)
    model = out / f"{kind}.safetensors"
    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(samples.sample, start * config.batch)
        for step in range(start, config.steps):
            optimizer.param_groups[0]["lr"] = learning_rate(config, step)
            optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for number in range(step * config.batch, (step + 1) * config.batch):
                sample = pending.result()
                pending = ahead.submit(samples.sample, number + 1)
                loss = sample_losses(network, sample, device).total / config.batch
                loss.backward()
                total += float(loss.detach())
            norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0))
            if not (math.isfinite(total) and math.isfinite(norm)):
                raise TrainingError(f"loss is {total} and its gradient {norm} at step {step}")
            optimizer.step()
            _average(average, network, min(config.ema, (step + 1) / (step + 10)))
            report(step + 1, total)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                _save(out / "state.pt", step + 1, parts)
                record = {"baseline": kind, "step": step + 1, "training": asdict(replace(config, model=None))}
                save_checkpoint(Checkpoint(average, record=record), model)
    return model


def calibrate_baseline(kind: str, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its probabilities fitted as the shipped model's are."""
    return replace(checkpoint, calibration=fit_calibration(list(collect_logits(make_predictor(kind, checkpoint)))))


@torch.no_grad()
def _average(average: OccupancyNetwork, network: OccupancyNetwork, decay: float) -> None:
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def _save(path: Path, step: int, parts: dict[str, torch.nn.Module | torch.optim.Optimizer]) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(path)


def _resume(path: Path, parts: dict[str, torch.nn.Module | torch.optim.Optimizer]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
