# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of a sample recorded on a GPU and replayed: a handful of launches instead of more than a thousand.

Samples come in few layouts: so many views, of such a size, with so many of the past. One that is seen often is recorded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from occupancy_nn_ros.compute.capture import Captured
from occupancy_nn_ros.network.model import OccupancyNetwork

logger = logging.getLogger(__name__)

OFTEN = 3
"""A layout is recorded when it comes for this time: recording takes as long as some samples do."""

MOST_LAYOUTS = 64

Gradients = Callable[[int, tuple[Tensor, ...]], Tensor]
"""Adds a sample's gradients to those of the weights, and gives its losses: of the count of views and the sample's tensors."""


class RecordedGradients:
    """A function that learns from a sample, step by step at first, and from recordings once they pay."""

    def __init__(self, network: OccupancyNetwork, gradients: Gradients) -> None:
        """Take the function; the gradients of the network stay in the same memory from now on."""
        self._gradients, self._network = gradients, network
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._recorded: dict[tuple[Any, ...], Captured | None] = {}
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, views: int, tensors: tuple[Tensor, ...]) -> Tensor:
        """Losses (3,) of a sample whose tensors lie in pinned memory; its gradients are added to the network's."""
        layout = (views, *(tuple(tensor.shape) for tensor in tensors))
        self._seen[layout] += 1
        if self._seen[layout] == OFTEN and len(self._recorded) < MOST_LAYOUTS:
            self._recorded[layout] = self._record(views, tensors)
        recorded = self._recorded.get(layout)
        if recorded is None:
            return self._gradients(views, self._upload(tensors))
        losses: Tensor = recorded(*tensors)
        return losses.clone()

    def _record(self, views: int, tensors: tuple[Tensor, ...]) -> Captured | None:
        """The recording of a layout, or None if it cannot be had; gradients are as they were before."""
        weights = list(self._network.parameters())
        before = [weight.grad.clone() for weight in weights if weight.grad is not None]
        try:
            return Captured(lambda *inputs: self._gradients(views, inputs), self._upload(tensors))
        except RuntimeError as error:
            logger.warning("a step is not recorded, and takes longer so: %s", error)
            return None
        finally:
            torch._foreach_copy_([weight.grad for weight in weights if weight.grad is not None], before)

    def _upload(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        device = next(self._network.parameters()).device
        return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)
