# SPDX-License-Identifier: Apache-2.0
"""How long things take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def median_ms(work: Callable[[], Any], repeats: int, *, warm_up: bool = False) -> float:
    """Median wall time of a call in milliseconds, perhaps after one call that is not counted."""
    if warm_up:
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3
