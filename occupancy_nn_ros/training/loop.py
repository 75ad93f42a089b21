# SPDX-License-Identifier: Apache-2.0
"""The training loop: readable in one sitting, resumable to the bit, and it never loses finished work."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import cv2
import torch

from occupancy_nn_ros.errors import ConfigError, TrainingError
from occupancy_nn_ros.network.checkpoint import (
    Calibration,
    Checkpoint,
    find_model,
    grow_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.settings import CheckedSettings, setting
from occupancy_nn_ros.training.dataset import Sample, Samples, SampleSource
from occupancy_nn_ros.training.journal import Journal, draw_sample
from occupancy_nn_ros.training.loaders import read_ahead
from occupancy_nn_ros.training.step import Figures, Learner, begin_reading, move_average, observe_sample
from occupancy_nn_ros.training.workers import Workers, join_workers
from occupancy_nn_ros.values import UInt8Array

logger = logging.getLogger(__name__)

CURVE_EVERY = 50
"""Steps between points of the curves."""


@dataclass(frozen=True)
class TrainConfig(CheckedSettings):
    """A training run."""

    name: str = setting("nano", "Name of the model.")
    seed: int = setting(0, "Seed of weights, samples and augmentation.", low=0)
    steps: int = setting(6000, "Optimizer steps.", low=1, high=10_000_000)
    batch: int = setting(2, "Samples in one step of each process; their gradients are accumulated.", low=1, high=1024)
    learning_rate: float = setting(1.5e-3, "Peak learning rate of AdamW.", low=1e-6, high=1.0)
    warmup: int = setting(200, "Steps until the peak learning rate.", low=1, high=1_000_000)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", low=0.0, high=1.0)
    ema: float = setting(0.998, "Decay of the averaged weights that are shipped.", low=0.0, high=0.99999)
    measurement_errors: bool = setting(
        True, "Tell wrong poses and calibration as real robots do; shards of recordings have their own errors."
    )
    save_every: int = setting(250, "Steps between checkpoints.", low=1, high=1_000_000)
    device: str = setting("auto", "auto, cpu or cuda.")
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "Of activations; auto: bfloat16 on a GPU.")
    loaders: int = setting(
        0, "Processes that read samples ahead, for each training process; 0: a thread.", low=0, high=256
    )
    record_steps: bool = setting(
        False, "On a GPU: record what a sample takes and replay it, a launch instead of thousands."
    )
    tensorboard: bool = setting(False, "Write curves and pictures for TensorBoard too.")
    initial: str = setting("", "Model to start from, by name or path, as in fine-tuning; empty: random weights.")
    fresh: tuple[str, ...] = setting((), "Parts of the network that start from random weights beside those of initial.")
    model: ModelConfig = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class Progress:
    """What one step reports: step number, running means of the loss parts, and samples a second."""

    step: int
    steps: int
    depth: float
    occupancy: float
    semantic: float
    samples_per_s: float


class Pace:
    """How fast samples are learnt from, over the last ``CURVE_EVERY`` steps."""

    def __init__(self, samples: int) -> None:
        """Start the clock; a step takes this many samples."""
        self._samples = samples
        self._times = deque([time.monotonic()], maxlen=CURVE_EVERY + 1)
        self._began = self._times[0]

    def count(self) -> None:
        """A step is done."""
        self._times.append(time.monotonic())

    @property
    def samples_per_s(self) -> float:
        """Samples a second of all processes together."""
        elapsed = self._times[-1] - self._times[0]
        return self._samples * (len(self._times) - 1) / elapsed if elapsed > 0 else 0.0

    def curve(self) -> dict[str, float]:
        """What belongs to a point of the curves."""
        return {"seconds": round(self._times[-1] - self._began, 1), "samples_per_s": round(self.samples_per_s, 2)}


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
    warmed_from: int = 0  # where the optimizer began
    means: dict[str, float] = field(default_factory=dict)


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


@dataclass(frozen=True)
class _Audience:
    """Who is told about a run, in the process that leads: the curves, and a function; and when it has to stop."""

    journal: Journal | None = None
    report: Callable[[Progress], None] | None = None
    deadline: float = math.inf


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    report: Callable[[Progress], None] | None = None,
    recipe: Recipe | None = None,
    seconds: float = math.inf,
) -> Path:
    """Train, or go on from the last checkpoint in ``out``; returns the path of the averaged model.

    Under ``torchrun`` all processes train together, each on samples of its own; only the first one writes. After
    ``seconds`` it saves and stops, wherever it is; the next call goes on from there.

    Raises:
        TrainingError: no data, a corrupt shard, or a loss that is not finite; the last checkpoint stays.
        CheckpointError: the model to start from cannot be loaded.
    """
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe or Recipe()
    deadline = time.monotonic() + seconds
    with join_workers(config.device) as workers:
        run = _begin(config, recipe, data, out, workers.device)
        paths = [data / name for name in run.shards]
        source = recipe.show(SampleSource(paths, config.seed, measurement_errors=config.measurement_errors))
        if not workers.leads:
            _train(config, run, source, workers, out, _Audience(deadline=deadline))
        else:
            with Journal(out, tensorboard=config.tensorboard) as journal:
                _train(config, run, source, workers, out, _Audience(journal, report, deadline))
    return out / f"{config.name}.safetensors"


def _begin(config: TrainConfig, recipe: Recipe, data: Path, out: Path, device: torch.device) -> _Run:
    """A new run, or the one in ``out`` with the shards it began with."""
    torch.manual_seed(config.seed)
    initial = recipe.begin(config)
    network = initial.network.to(device).train()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=_can_fuse(device)
    )
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


def _train(config: TrainConfig, run: _Run, source: Samples, workers: Workers, out: Path, audience: _Audience) -> None:
    """Steps until the last one; sample numbers follow from step and rank alone, so that runs resume exactly."""
    numbers = (
        (step * config.batch + micro) * workers.count + workers.rank
        for step in range(run.step, config.steps)
        for micro in range(config.batch)
    )
    learner = Learner(
        run.network, config.batch, workers, mixed=_is_mixed(config, workers.device), recorded=config.record_steps
    )
    pace, pending = Pace(config.batch * workers.count), None
    with read_ahead(source, numbers, config.loaders) as samples:
        late = False
        while run.step < config.steps and not late:
            figures = _take_step(config, run, samples, learner)
            late = workers.any_of(time.monotonic() > audience.deadline)
            due = run.step % config.save_every == 0 or run.step == config.steps or late
            # The device is at work on the step just queued while the one before is looked at.
            for seen in (pending, figures if due or figures.arrived is None else None):
                if seen is not None:
                    seen.add_to(run.means)
            pending = None if due or figures.arrived is None else figures
            pace.count()
            _tell(audience, config, run, pace)
            if due and audience.journal is not None:
                _save(out, run, config)
                picture = _draw(run.average, source, workers.device)
                cv2.imwrite(str(out / "sample.png"), picture[..., ::-1])
                audience.journal.picture(run.step, picture)


def _tell(audience: _Audience, config: TrainConfig, run: _Run, pace: Pace) -> None:
    """Report a step, and every so often a point of the curves."""
    if audience.report is not None and run.means:
        audience.report(Progress(run.step, config.steps, **run.means, samples_per_s=pace.samples_per_s))
    if audience.journal is not None and run.step % CURVE_EVERY == 0:
        audience.journal.add(run.step, {**pace.curve(), **run.means})


def _take_step(config: TrainConfig, run: _Run, samples: Iterator[Sample], learner: Learner) -> Figures:
    """One optimizer step on a batch of samples; what it gave may still be on its way."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step, run.warmed_from)
    losses, norm = learner(samples)
    run.optimizer.step()
    move_average(run.average, run.network, min(config.ema, (run.step + 1) / (run.step + 10)))
    figures = begin_reading(run.step, losses, norm)
    run.step += 1
    return figures


def _can_fuse(device: torch.device) -> bool:
    """Whether the optimizer updates all weights at once: on a GPU."""
    return device.type == "cuda"


def _is_mixed(config: TrainConfig, device: torch.device) -> bool:
    return config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")


@torch.no_grad()
def _draw(network: OccupancyNetwork, source: Samples, device: torch.device) -> UInt8Array:
    """What the averaged network makes of the run's first sample."""
    sample = source.sample(0)
    scene = observe_sample(network, sample, device)
    return draw_sample(sample, network.bins[-1].centers[scene.depth_logits[-1].argmax(dim=1)])


def learning_rate(config: TrainConfig, step: int, warmed_from: int = 0) -> float:
    """Linear warm-up from the step where the optimizer began, then half a cosine down to 2 % of the peak."""
    warm = min(1.0, (step + 1 - warmed_from) / config.warmup)
    done = min(1.0, step / config.steps)
    return config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _save(out: Path, run: _Run, config: TrainConfig) -> None:
    state = {
        "step": run.step,
        "warmed_from": run.warmed_from,
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "shards": run.shards,
    }
    partial = out / "state.partial"
    try:
        out.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        partial.replace(out / "state.pt")
    except (OSError, RuntimeError) as error:  # torch's writer of archives raises the latter on a full disk
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {out / 'state.pt'}: {error}; the state before it stays") from None
    training = {key: value for key, value in dataclasses.asdict(config).items() if key != "model"}
    record = {**run.note, "training": training, "step": run.step, "shards": len(run.shards)}
    save_checkpoint(Checkpoint(run.average, run.calibration, record), out / f"{config.name}.safetensors")


def _resume(path: Path, run: _Run) -> None:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        run.network.load_state_dict(state["network"])
        run.average.load_state_dict(state["average"])
        if state["optimizer"] is not None:  # a state that came through a narrow door has none: it begins anew
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = run.optimizer.defaults["fused"]  # of where it goes on, not of where it began
            run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.shards = int(state["step"]), [str(name) for name in state["shards"]]
        run.warmed_from = run.step if state["optimizer"] is None else int(state.get("warmed_from", 0))
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
