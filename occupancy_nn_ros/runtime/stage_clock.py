# SPDX-License-Identifier: Apache-2.0
"""How long the stages of a keyframe take: by the host's clock, or on a GPU by its own, which nobody has to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

StageTimes = dict[str, float]


Moment = Any
"""Seconds of the host's clock, or a ``torch.cuda.Event``."""


class StageClock:
    """Takes the times of one keyframe's stages."""

    def __init__(self, device: torch.device, between: Callable[[], None]) -> None:
        """Start.

        Args:
            device: where the work is done.
            between: called before each stage; what it raises ends the work there.
        """
        self._device, self._between = device, between
        self._parts: list[tuple[str, Moment, Moment]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of what is done within; a stage may have several parts."""
        self._between()
        first = self._now()
        yield
        self._parts.append((name, first, self._now()))

    def seconds(self) -> StageTimes:
        """Seconds by stage, in the order in which they ended first; a GPU is waited for."""
        on_gpu, times = self._device.type == "cuda", StageTimes()
        if on_gpu and self._parts:
            self._parts[-1][2].synchronize()
        for name, first, last in self._parts:
            took = first.elapsed_time(last) * 1e-3 if on_gpu else last - first
            times[name] = times.get(name, 0.0) + took
        return times

    def _now(self) -> Moment:
        """This moment on the host, or in the device's queue of work."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
