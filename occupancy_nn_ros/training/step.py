# SPDX-License-Identifier: Apache-2.0
"""One step of training: samples forward and backward, and the figures that say how it went.

On a GPU the host never waits for it within a step: it queues the work and reads the figures of the step before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.model import OccupancyNetwork, Scene
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.training.captured_step import RecordedGradients
from occupancy_nn_ros.training.dataset import Sample
from occupancy_nn_ros.training.losses import Losses, depth_losses, point_losses
from occupancy_nn_ros.training.workers import Workers

LARGEST_NORM = 5.0
"""Gradients of a larger norm are scaled down to it."""

PARTS = tuple(item.name for item in fields(Losses))


@dataclass(frozen=True)
class Figures:
    """How a step went, perhaps still on its way from the device.

    Attributes:
        step: its number.
        values: (3 * samples + 1,) float32 on the host: the losses of each sample in the order of ``PARTS``, then the norm
            of the gradient.
        arrived: recorded when ``values`` are there; None if they are.
    """

    step: int
    values: Tensor
    arrived: torch.cuda.Event | None

    def add_to(self, means: dict[str, float]) -> None:
        """Wait for the figures and put the losses into the running means.

        Raises:
            TrainingError: one of them is not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        *losses, norm = self.values.tolist()
        for index, value in enumerate(losses):
            name = PARTS[index % len(PARTS)]
            if not math.isfinite(value):
                raise TrainingError(f"{name} loss is {value} at step {self.step}; the last checkpoint is kept")
            means[name] = 0.99 * means.get(name, value) + 0.01 * value
        if not math.isfinite(norm):
            raise TrainingError(f"gradient is {norm} at step {self.step}; the last checkpoint is kept")


class Inputs(NamedTuple):
    """What a sample's forward and backward pass takes, on the host or on the device; shapes as in :class:`Sample`.

    ``sources`` (V, S) are the views that each current one is matched against, -1 where there is none; ``edge_m`` is ().
    """

    images: Tensor
    K: Tensor
    T_world_cam: Tensor
    sources: Tensor
    depth_m: Tensor
    points: Tensor
    edge_m: Tensor
    labels: Tensor

    def on(self, device: torch.device) -> Inputs:
        """The same on a device; the host does not wait for the copies."""
        return Inputs(*(tensor.to(device, non_blocking=True) for tensor in self.pinned(device)))

    def pinned(self, device: torch.device) -> Inputs:
        """The same in memory that the device can copy by itself."""
        return self if device.type == "cpu" else Inputs(*(tensor.pin_memory() for tensor in self))


def inputs_of(sample: Sample, sources: int) -> Inputs:
    """A sample on the host, each current view matched against at most so many others."""
    index = torch.arange(sample.views)
    chosen = choose_sources(sample.T_world_cam[: sample.views], sample.T_world_cam, sources, index)
    edge_m = torch.tensor(sample.edge_m, dtype=torch.float32)
    return Inputs(
        sample.images, sample.K, sample.T_world_cam, chosen, sample.depth_m, sample.points, edge_m, sample.labels
    )


def observe(network: OccupancyNetwork, views: int, inputs: Inputs) -> Scene:
    """What the network makes of the images, of which the first ``views`` are current."""
    images = normalize_images(inputs.images)
    maps = network.encode(images[:views])
    match = network.match_maps(images[:views], maps)
    if views < len(images):
        with torch.no_grad():  # matching is symmetric: gradients of one side teach the same at two thirds of the time
            match = match + network.match_maps(images[views:], network.encode(images[views:]))
    depth_logits = network.depth(maps, Views(images, inputs.K, inputs.T_world_cam), match, inputs.sources)
    current = Views(images[:views], inputs.K[:views], inputs.T_world_cam[:views])
    return network.lift(current, maps, depth_logits, torch.zeros(3, device=images.device))


def observe_sample(network: OccupancyNetwork, sample: Sample, device: torch.device) -> Scene:
    """What the network makes of a sample's images."""
    return observe(network, sample.views, inputs_of(sample, network.config.sources).on(device))


def sample_losses(network: OccupancyNetwork, views: int, inputs: Inputs) -> Losses:
    """Forward one sample and compare with its labels."""
    scene = observe(network, views, inputs)
    logits, visible = network.query(scene, inputs.points, inputs.edge_m.expand(len(inputs.points)))
    occupancy, semantic = point_losses(logits, visible.detach(), inputs.labels)
    return Losses(depth_losses(scene.depth_logits, inputs.depth_m, network.bins), occupancy, semantic)


class Learner:
    """Gradients of the mean loss over a batch of samples, clipped.

    Args:
        network: whose gradients are replaced at each call.
        batch: samples of a call.
        workers: processes that train together.
        mixed: activations in bfloat16.
        recorded: layouts of samples that come often are recorded and replayed; for GPUs.
    """

    def __init__(
        self, network: OccupancyNetwork, batch: int, workers: Workers, *, mixed: bool, recorded: bool = False
    ) -> None:
        self.network, self.batch, self.workers, self.mixed = network, batch, workers, mixed
        self._recorded = RecordedGradients(network, self._add_gradients) if recorded else None

    def __call__(self, samples: Iterator[Sample]) -> tuple[Tensor, Tensor]:
        """Take the next samples; losses (batch, 3) in the order of ``PARTS``, and the norm of the gradient before clipping."""
        self.network.zero_grad(set_to_none=self._recorded is None)
        losses = []
        for sample in islice(samples, self.batch):
            inputs = inputs_of(sample, self.network.config.sources)
            if self._recorded is not None:
                losses.append(self._recorded(sample.views, inputs.pinned(self.workers.device)))
            else:
                losses.append(self._add_gradients(sample.views, inputs.on(self.workers.device)))
        self.workers.average_gradients(self.network)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_NORM)
        return torch.stack(losses), norm

    def _add_gradients(self, views: int, inputs: tuple[Tensor, ...]) -> Tensor:
        """Add a sample's share to the gradients; its losses (3,)."""
        caches = self._recorded is None  # a recording must not hold copies of weights as they were
        device = self.workers.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.mixed, cache_enabled=caches):
            parts = sample_losses(self.network, views, Inputs(*inputs))
        (parts.total / self.batch).backward()  # type: ignore[no-untyped-call]
        return torch.stack([getattr(parts, name).detach().float() for name in PARTS])


def begin_reading(step: int, losses: Tensor, norm: Tensor) -> Figures:
    """Have the figures of a step copied to the host as soon as they are known."""
    values = torch.cat([losses.flatten(), norm.detach().float()[None]])
    if values.device.type == "cpu":
        return Figures(step, values, None)
    host = torch.empty(len(values), pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return Figures(step, host, arrived)


@torch.no_grad()
def move_average(average: OccupancyNetwork, network: OccupancyNetwork, decay: float) -> None:
    """Move averaged weights towards the network's."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
