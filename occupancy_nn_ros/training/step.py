# SPDX-License-Identifier: Apache-2.0
"""One step of training: samples forward and backward, and the figures that say how it went.

On a GPU the host never waits for it within a step: it queues the work and reads the figures of the step before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.model import OccupancyNetwork, Scene
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
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


def observe_sample(network: OccupancyNetwork, sample: Sample, device: torch.device) -> Scene:
    """What the network makes of a sample's images."""
    count = sample.views
    index = torch.arange(count)
    sources = choose_sources(sample.T_world_cam[:count], sample.T_world_cam, network.config.sources, index)
    images = normalize_images(upload(sample.images, device))
    K, T_world_cam = upload(sample.K, device), upload(sample.T_world_cam, device)
    maps = network.encode(images[:count])
    match = network.match_maps(images[:count], maps)
    if count < len(images):
        with torch.no_grad():  # matching is symmetric: gradients of one side teach the same at two thirds of the time
            match = match + network.match_maps(images[count:], network.encode(images[count:]))
    depth_logits = network.depth(maps, Views(images, K, T_world_cam), match, upload(sources, device))
    current = Views(images[:count], K[:count], T_world_cam[:count])
    return network.lift(current, maps, depth_logits, torch.zeros(3, device=device))


def sample_losses(network: OccupancyNetwork, sample: Sample, device: torch.device) -> Losses:
    """Forward one sample and compare with its labels."""
    scene = observe_sample(network, sample, device)
    points = upload(sample.points, device)
    logits, visible = network.query(scene, points, torch.full_like(points[:, 0], sample.edge_m))
    occupancy, semantic = point_losses(logits, visible.detach(), upload(sample.labels, device))
    return Losses(depth_losses(scene.depth_logits, upload(sample.depth_m, device), network.bins), occupancy, semantic)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device; the host does not wait for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def learn(
    network: OccupancyNetwork, samples: Iterator[Sample], batch: int, workers: Workers, *, mixed: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss over a batch of samples, clipped.

    Args:
        network: its gradients are replaced.
        samples: of which the next ones are taken.
        batch: how many.
        workers: processes that train together.
        mixed: activations in bfloat16.

    Returns:
        Losses (batch, 3) in the order of ``PARTS``, and the norm of the gradient before it was clipped.
    """
    losses = []
    for _ in range(batch):
        with torch.autocast(workers.device.type, torch.bfloat16, enabled=mixed):
            parts = sample_losses(network, next(samples), workers.device)
        (parts.total / batch).backward()  # type: ignore[no-untyped-call]
        losses.append(torch.stack([getattr(parts, name).detach().float() for name in PARTS]))
    workers.average_gradients(network)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_NORM)
    return torch.stack(losses), norm


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
