# SPDX-License-Identifier: Apache-2.0
"""The training loop: readable in one sitting, resumable to the bit, and it never loses finished work."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from occupancy_nn_ros.config import _Checked, setting
from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.checkpoint import Checkpoint, find_model, load_checkpoint, save_checkpoint
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.training.dataset import Sample, SampleSource
from occupancy_nn_ros.training.losses import Losses, depth_loss, point_losses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """A training run."""

    name: str = setting("nano", "Name of the model.")
    seed: int = setting(0, "Seed of weights, samples and augmentation.", low=0)
    steps: int = setting(6000, "Optimizer steps.", low=1, high=10_000_000)
    batch: int = setting(2, "Samples in one step.", low=1, high=1024)
    learning_rate: float = setting(1.5e-3, "Peak learning rate of AdamW.", low=1e-6, high=1.0)
    warmup: int = setting(200, "Steps until the peak learning rate.", low=1, high=1_000_000)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", low=0.0, high=1.0)
    ema: float = setting(0.998, "Decay of the averaged weights that are shipped.", low=0.0, high=0.99999)
    save_every: int = setting(250, "Steps between checkpoints.", low=1, high=1_000_000)
    device: str = setting("auto", "auto, cpu or cuda.")
    initial: str = setting("", "Model to start from, by name or path, as in fine-tuning; empty: random weights.")
    model: ModelConfig = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class Progress:
    """What one step reports: step number and running means of the loss parts."""

    step: int
    steps: int
    depth: float
    occupancy: float
    semantic: float


def sample_losses(network: OccupancyNetwork, sample: Sample, device: torch.device) -> Losses:
    """Forward one sample and compare with its labels."""
    images = normalize_images(sample.images.to(device))
    K, T_world_cam = sample.K.to(device), sample.T_world_cam.to(device)
    count = sample.views
    features = network.encode(images[:count])
    match = network.match_features(features)
    if count < len(images):
        with torch.no_grad():  # matching is symmetric: gradients of one side teach the same at two thirds of the time
            past = network.match_features(network.encode(images[count:]))
        match = torch.cat([match, past])
    index = torch.arange(count, device=device)
    sources = choose_sources(T_world_cam[:count], T_world_cam, network.config.sources, index)
    depth_logits = network.depth(features, Views(images, K, T_world_cam), match, sources)
    current = Views(images[:count], K[:count], T_world_cam[:count])
    scene = network.lift(current, features, depth_logits, torch.zeros(3, device=device))
    points = sample.points.to(device)
    logits, visible = network.query(scene, points, torch.full_like(points[:, 0], sample.edge_m))
    occupancy, semantic = point_losses(logits, visible.detach(), sample.labels.to(device))
    return Losses(depth_loss(depth_logits, sample.depth_m.to(device), network.bins), occupancy, semantic)


def train(config: TrainConfig, data: Path, out: Path, report: Callable[[Progress], None] | None = None) -> Path:
    """Train, or go on from the last checkpoint in ``out``; returns the path of the averaged model.

    Raises:
        TrainingError: no data, a corrupt shard, or a loss that is not finite; the last checkpoint stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = _device(config.device)
    torch.manual_seed(config.seed)
    network = initial_network(config).to(device).train()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    start = _resume(out / "state.pt", network, average, optimizer)
    source = SampleSource(list(data.glob("*.safetensors")), config.seed)
    means: dict[str, float] = {}
    began = time.monotonic()
    with ThreadPoolExecutor(1) as ahead, (out / "curve.jsonl").open("a", encoding="utf-8") as curve:
        pending = ahead.submit(source.sample, start * config.batch)
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            optimizer.zero_grad(set_to_none=True)
            for micro in range(config.batch):
                sample = pending.result()
                pending = ahead.submit(source.sample, step * config.batch + micro + 1)
                losses = sample_losses(network, sample, device)
                _check_finite(losses, step)
                (losses.total / config.batch).backward()  # type: ignore[no-untyped-call]
                _update_means(means, losses)
            norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0))
            if not math.isfinite(norm):
                raise TrainingError(f"gradient is {norm} at step {step}; the last checkpoint is kept")
            optimizer.step()
            _average(average, network, min(config.ema, (step + 1) / (step + 10)))
            if report is not None:
                report(Progress(step + 1, config.steps, **means))
            if (step + 1) % 50 == 0:
                curve.write(
                    json.dumps({"step": step + 1, "seconds": round(time.monotonic() - began, 1), **means}) + "\n"
                )
                curve.flush()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                _save(out, step + 1, network, average, optimizer, config)
    return out / f"{config.name}.safetensors"


def initial_network(config: TrainConfig) -> OccupancyNetwork:
    """A network with random weights, or a copy of the model that the run starts from, whose shape it then has.

    Raises:
        CheckpointError: the model to start from is missing or corrupt.
    """
    return load_checkpoint(find_model(config.initial)).network if config.initial else OccupancyNetwork(config.model)


def _device(name: str) -> torch.device:
    try:
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise TrainingError(f"device is '{name}', expected auto, cpu or cuda") from None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to 2 % of the peak."""
    warm = min(1.0, (step + 1) / config.warmup)
    done = min(1.0, step / config.steps)
    return config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _check_finite(losses: Losses, step: int) -> None:
    for item in dataclasses.fields(losses):
        value = float(getattr(losses, item.name).detach())
        if not math.isfinite(value):
            raise TrainingError(f"{item.name} loss is {value} at step {step}; the last checkpoint is kept")


def _update_means(means: dict[str, float], losses: Losses) -> None:
    for item in dataclasses.fields(losses):
        value = float(getattr(losses, item.name).detach())
        means[item.name] = 0.99 * means.get(item.name, value) + 0.01 * value


@torch.no_grad()
def _average(average: OccupancyNetwork, network: OccupancyNetwork, decay: float) -> None:
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def _save(
    out: Path,
    step: int,
    network: OccupancyNetwork,
    average: OccupancyNetwork,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = out / "state.partial"
    torch.save(state, partial)
    partial.replace(out / "state.pt")
    training = {key: value for key, value in dataclasses.asdict(config).items() if key != "model"}
    record = {"training": training, "step": step}
    save_checkpoint(Checkpoint(average, record=record), out / f"{config.name}.safetensors")


def _resume(path: Path, network: OccupancyNetwork, average: OccupancyNetwork, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    except (
        OSError,
        EOFError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        UnpicklingError,
    ) as error:
        raise TrainingError(f"cannot resume from {path}: {error}") from None
    logger.info("resuming at step %d", step)
    return step
