# SPDX-License-Identifier: Apache-2.0
"""What the stages of a GPU day have in common: their arguments, their rows, and how things are timed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage's orders.

    Attributes:
        name: of the stage, and of its file of rows.
        out: folder of what is to be brought home.
        work: folder of what may stay.
        seconds: that it may take.
        dry: a rehearsal with tiny sizes on whatever there is.
        model: name of the model to train.
        began: when, by the monotonic clock.
    """

    name: str
    out: Path
    work: Path
    seconds: float
    dry: bool
    model: str
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.began + self.seconds - time.monotonic()

    @property
    def device(self) -> torch.device:
        """The GPU; in a rehearsal the CPU if there is none.

        Raises:
            SystemExit: there is no GPU, and this is no rehearsal.
        """
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if not self.dry:
            raise SystemExit("torch finds no GPU: scripts/gpu_day --dry-run rehearses without one")
        return torch.device("cpu")

    def write(self, rows: list[Row]) -> None:
        """Write the rows found so far; a stage calls it often, so that what is known outlives it."""
        path = self.out / f"{self.name}.json"
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read_stage(name: str) -> Stage:
    """The orders of a stage from its command line."""
    parser = argparse.ArgumentParser(description=f"The stage '{name}' of a GPU day; scripts/gpu_day runs it.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--model", default="base")
    args = parser.parse_args()
    return Stage(name, args.out, args.work, args.seconds, args.dry_run, args.model)


def finish(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device, repeats: int, warm_up: int = 3) -> Row:
    """Median and 95th percentile of a call's wall time in milliseconds, its end on the device included."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        finish(device)
        began = time.perf_counter()
        work()
        finish(device)
        times.append((time.perf_counter() - began) * 1e3)
    p50, p95 = np.percentile(times, (50, 95))
    return {"p50_ms": round(float(p50), 4), "p95_ms": round(float(p95), 4), "repeats": repeats}


def card(device: torch.device) -> str:
    """Name of what computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
