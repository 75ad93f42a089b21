# SPDX-License-Identifier: Apache-2.0
"""Latencies by stage and rates, over a sliding window."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

KEPT = 1000
"""Samples kept for each stage."""


@dataclass(frozen=True)
class Latency:
    """Median, 95th and 99th percentile in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class LatencyRecorder:
    """Remembers how long each stage took lately. One thread may add while another asks."""

    def __init__(self) -> None:
        """Start empty."""
        self._seconds: dict[str, deque[float]] = {}

    def add(self, times: Mapping[str, float]) -> None:
        """Add the seconds that the stages of one map update took."""
        for stage, seconds in times.items():
            self._seconds.setdefault(stage, deque(maxlen=KEPT)).append(seconds)

    def newest(self, stage: str) -> float:
        """Seconds that a stage took last; 0 if it never ran."""
        return self._seconds[stage][-1] if stage in self._seconds else 0.0

    def summary(self) -> dict[str, Latency]:
        """Percentiles by stage, in the order in which the stages first came."""
        result = {}
        for stage, seconds in list(self._seconds.items()):
            p50, p95, p99 = (float(v) * 1e3 for v in np.percentile(list(seconds), (50, 95, 99)))
            result[stage] = Latency(p50, p95, p99)
        return result
