# SPDX-License-Identifier: Apache-2.0
"""Processes that train one model together, on one machine or several, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from occupancy_nn_ros.errors import TrainingError


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Attributes:
        rank: its number, 0 for the one that writes.
        count: how many there are.
        device: where it computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and reports."""
        return self.rank == 0

    def any_of(self, mine: bool) -> bool:
        """Whether it is so in any of the processes, which thus agree."""
        if self.count == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def average_gradients(self, network: nn.Module) -> None:
        """Replace each gradient by its mean over all processes; a missing one counts as zero."""
        if self.count == 1:
            return
        parameters = list(network.parameters())
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        distributed.all_reduce(flat)
        flat /= self.count
        start = 0
        for parameter in parameters:
            mean = flat[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = mean.clone() if parameter.grad is None else parameter.grad.copy_(mean)
            start += parameter.numel()


@contextmanager
def join_workers(device: str) -> Iterator[Workers]:
    """Meet the other processes, if ``torchrun`` started any, and part from them at the end.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; with ``cuda`` each process takes the GPU of its local rank.

    Raises:
        TrainingError: no such device.
    """
    count, rank, local = (
        int(os.environ.get(n, d)) for n, d in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
    )
    chosen = _device(device, local if count > 1 else None)
    if count == 1:
        yield Workers(0, 1, chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Workers(rank, count, chosen)
    finally:
        distributed.destroy_process_group()


def _device(name: str, local_rank: int | None) -> torch.device:
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise TrainingError(f"device is '{name}', expected auto, cpu or cuda") from None
    if device.type == "cuda" and device.index is None and local_rank is not None:
        return torch.device("cuda", local_rank)
    return device
