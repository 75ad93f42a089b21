# SPDX-License-Identifier: Apache-2.0
"""The training loop: readable in one sitting, resumable to the bit, and it never loses finished work."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import cv2
import torch

from occupancy_nn_ros.config import _Checked, setting
from occupancy_nn_ros.errors import ConfigError, TrainingError
from occupancy_nn_ros.network.checkpoint import (
    Calibration,
    Checkpoint,
    find_model,
    grow_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork, Scene
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.training.dataset import Sample, Samples, SampleSource
from occupancy_nn_ros.training.journal import Journal, draw_sample
from occupancy_nn_ros.training.losses import Losses, depth_losses, point_losses
from occupancy_nn_ros.training.workers import Workers, join_workers
from occupancy_nn_ros.values import UInt8Array

logger = logging.getLogger(__name__)

CURVE_EVERY = 50
"""Steps between points of the curves."""


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """A training run."""

    name: str = setting("nano", "Name of the model.")
    seed: int = setting(0, "Seed of weights, samples and augmentation.", low=0)
    steps: int = setting(6000, "Optimizer steps.", low=1, high=10_000_000)
    batch: int = setting(2, "Samples in one step of each process; their gradients are accumulated.", low=1, high=1024)
    learning_rate: float = setting(1.5e-3, "Peak learning rate of AdamW.", low=1e-6, high=1.0)
    warmup: int = setting(200, "Steps until the peak learning rate.", low=1, high=1_000_000)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", low=0.0, high=1.0)
    ema: float = setting(0.998, "Decay of the averaged weights that are shipped.", low=0.0, high=0.99999)
    save_every: int = setting(250, "Steps between checkpoints.", low=1, high=1_000_000)
    device: str = setting("auto", "auto, cpu or cuda.")
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "Of activations; auto: bfloat16 on a GPU.")
    tensorboard: bool = setting(False, "Write curves and pictures for TensorBoard too.")
    initial: str = setting("", "Model to start from, by name or path, as in fine-tuning; empty: random weights.")
    fresh: tuple[str, ...] = setting((), "Parts of the network that start from random weights beside those of initial.")
    model: ModelConfig = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class Progress:
    """What one step reports: step number and running means of the loss parts."""

    step: int
    steps: int
    depth: float
    occupancy: float
    semantic: float


@dataclass
class _Run:
    """Everything that changes while training, and so everything that a resumed run needs."""

    network: OccupancyNetwork
    average: OccupancyNetwork
    optimizer: torch.optim.Optimizer
    shards: list[str]
    calibration: Calibration
    note: Mapping[str, str]
    step: int = 0
    means: dict[str, float] = field(default_factory=dict)


def observe_sample(network: OccupancyNetwork, sample: Sample, device: torch.device) -> Scene:
    """What the network makes of a sample's images."""
    images = normalize_images(sample.images.to(device))
    K, T_world_cam = sample.K.to(device), sample.T_world_cam.to(device)
    count = sample.views
    maps = network.encode(images[:count])
    match = network.match_maps(images[:count], maps)
    if count < len(images):
        with torch.no_grad():  # matching is symmetric: gradients of one side teach the same at two thirds of the time
            match = match + network.match_maps(images[count:], network.encode(images[count:]))
    index = torch.arange(count, device=device)
    sources = choose_sources(T_world_cam[:count], T_world_cam, network.config.sources, index)
    depth_logits = network.depth(maps, Views(images, K, T_world_cam), match, sources)
    current = Views(images[:count], K[:count], T_world_cam[:count])
    return network.lift(current, maps, depth_logits, torch.zeros(3, device=device))


def sample_losses(network: OccupancyNetwork, sample: Sample, device: torch.device) -> Losses:
    """Forward one sample and compare with its labels."""
    scene = observe_sample(network, sample, device)
    points = sample.points.to(device)
    logits, visible = network.query(scene, points, torch.full_like(points[:, 0], sample.edge_m))
    occupancy, semantic = point_losses(logits, visible.detach(), sample.labels.to(device))
    return Losses(depth_losses(scene.depth_logits, sample.depth_m.to(device), network.bins), occupancy, semantic)


def initial_model(config: TrainConfig) -> Checkpoint:
    """Random weights, or the model that the run starts from, whose shape and calibration it then has.

    With ``fresh`` parts the shape is the configured one, and the calibration has to be fitted anew.

    Raises:
        CheckpointError: the model to start from is missing, corrupt, or does not fit.
        ConfigError: fresh parts, but no model to start from.
    """
    if config.fresh:
        if not config.initial:
            raise ConfigError(f"fresh is {list(config.fresh)}, which needs a model to start from: initial")
        return grow_checkpoint(find_model(config.initial), config.model, config.fresh)
    if config.initial:
        return load_checkpoint(find_model(config.initial))
    return Checkpoint(OccupancyNetwork(config.model))


@dataclass(frozen=True)
class Recipe:
    """What is trained and what it is shown: the shipped network and whole samples, unless something else is compared with it.

    Attributes:
        begin: the network to start with, of the interface of ``OccupancyNetwork``.
        show: samples to learn from, made of those of the shards.
        note: plain values for the model's record.
    """

    begin: Callable[[TrainConfig], Checkpoint] = initial_model
    show: Callable[[SampleSource], Samples] = lambda source: source
    note: Mapping[str, str] = field(default_factory=dict)


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    report: Callable[[Progress], None] | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """Train, or go on from the last checkpoint in ``out``; returns the path of the averaged model.

    Under ``torchrun`` all processes train together, each on samples of its own; only the first one writes.

    Raises:
        TrainingError: no data, a corrupt shard, or a loss that is not finite; the last checkpoint stays.
        CheckpointError: the model to start from cannot be loaded.
    """
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe or Recipe()
    with join_workers(config.device) as workers:
        run = _begin(config, recipe, data, out, workers.device)
        source = recipe.show(SampleSource([data / name for name in run.shards], config.seed))
        if not workers.leads:
            _train(config, run, source, workers, None, out, None)
        else:
            with Journal(out, tensorboard=config.tensorboard) as journal:
                _train(config, run, source, workers, journal, out, report)
    return out / f"{config.name}.safetensors"


def _begin(config: TrainConfig, recipe: Recipe, data: Path, out: Path, device: torch.device) -> _Run:
    """A new run, or the one in ``out`` with the shards it began with."""
    torch.manual_seed(config.seed)
    initial = recipe.begin(config)
    network = initial.network.to(device).train()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    run = _Run(
        network,
        average,
        optimizer,
        sorted(path.name for path in data.glob("*.safetensors")),
        initial.calibration,
        recipe.note,
    )
    if (out / "state.pt").exists():
        _resume(out / "state.pt", run)
    missing = [name for name in run.shards if not (data / name).is_file()]
    if missing:
        raise TrainingError(f"{data} lacks {len(missing)} shards that this run began with, such as {missing[0]}")
    return run


def _train(
    config: TrainConfig,
    run: _Run,
    source: Samples,
    workers: Workers,
    journal: Journal | None,
    out: Path,
    report: Callable[[Progress], None] | None,
) -> None:
    """Steps until the last one; sample numbers follow from step and rank alone, so that runs resume exactly."""
    numbers = (
        (step * config.batch + micro) * workers.count + workers.rank
        for step in range(run.step, config.steps)
        for micro in range(config.batch)
    )
    began = time.monotonic()
    with ThreadPoolExecutor(1) as ahead:
        samples = _read_ahead(ahead, source, numbers)
        while run.step < config.steps:
            _take_step(config, run, samples, workers)
            if journal is None:
                continue
            if report is not None:
                report(Progress(run.step, config.steps, **run.means))
            if run.step % CURVE_EVERY == 0:
                journal.add(run.step, {"seconds": round(time.monotonic() - began, 1), **run.means})
            if run.step % config.save_every == 0 or run.step == config.steps:
                _save(out, run, config)
                picture = _draw(run.average, source, workers.device)
                cv2.imwrite(str(out / "sample.png"), picture[..., ::-1])
                journal.picture(run.step, picture)


def _read_ahead(pool: ThreadPoolExecutor, source: Samples, numbers: Iterable[int]) -> Iterator[Sample]:
    """Samples of these numbers; the next one is read while the one before is learnt from."""
    pending: deque[Future[Sample]] = deque()
    for number in numbers:
        pending.append(pool.submit(source.sample, number))
        if len(pending) > 1:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _take_step(config: TrainConfig, run: _Run, samples: Iterator[Sample], workers: Workers) -> None:
    """One optimizer step on a batch of samples."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step)
    run.optimizer.zero_grad(set_to_none=True)
    for _ in range(config.batch):
        with torch.autocast(workers.device.type, torch.bfloat16, enabled=_is_mixed(config, workers.device)):
            losses = sample_losses(run.network, next(samples), workers.device)
        _check_finite(losses, run.step)
        (losses.total / config.batch).backward()  # type: ignore[no-untyped-call]
        _update_means(run.means, losses)
    workers.average_gradients(run.network)
    norm = float(torch.nn.utils.clip_grad_norm_(run.network.parameters(), 5.0))
    if not math.isfinite(norm):
        raise TrainingError(f"gradient is {norm} at step {run.step}; the last checkpoint is kept")
    run.optimizer.step()
    _average(run.average, run.network, min(config.ema, (run.step + 1) / (run.step + 10)))
    run.step += 1


def _is_mixed(config: TrainConfig, device: torch.device) -> bool:
    return config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")


@torch.no_grad()
def _draw(network: OccupancyNetwork, source: Samples, device: torch.device) -> UInt8Array:
    """What the averaged network makes of the run's first sample."""
    sample = source.sample(0)
    scene = observe_sample(network, sample, device)
    return draw_sample(sample, network.bins[-1].centers[scene.depth_logits[-1].argmax(dim=1)])


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


def _save(out: Path, run: _Run, config: TrainConfig) -> None:
    state = {
        "step": run.step,
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "shards": run.shards,
    }
    partial = out / "state.partial"
    torch.save(state, partial)
    partial.replace(out / "state.pt")
    training = {key: value for key, value in dataclasses.asdict(config).items() if key != "model"}
    record = {**run.note, "training": training, "step": run.step, "shards": len(run.shards)}
    save_checkpoint(Checkpoint(run.average, run.calibration, record), out / f"{config.name}.safetensors")


def _resume(path: Path, run: _Run) -> None:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        run.network.load_state_dict(state["network"])
        run.average.load_state_dict(state["average"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.shards = int(state["step"]), [str(name) for name in state["shards"]]
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
    logger.info("resuming at step %d with the %d shards of the beginning", run.step, len(run.shards))
