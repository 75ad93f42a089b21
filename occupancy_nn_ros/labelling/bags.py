# SPDX-License-Identifier: Apache-2.0
"""Many recordings to training shards: in parallel, each refused or finished on its own, and none made twice."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.labelling.bag import BagLabels, LabelPlan, Report, label_bag
from occupancy_nn_ros.settings import to_mapping

POLL_S = 0.2
_shares: Any = None
"""In a worker process: the finished share of each bag, in memory that all processes see."""


@dataclass(frozen=True)
class Outcome:
    """What became of a bag: its labels, or the reason why there are none."""

    bag: Path
    labels: BagLabels | None
    refused: str = ""


def label_bags(
    bags: Sequence[Path], out: Path, plan: LabelPlan, processes: int, report: Callable[[float], None] | None = None
) -> list[Outcome]:
    """Label bags in parallel.

    Args:
        bags: recordings; one that is named twice is labelled once.
        out: folder of the shards, made if it does not exist.
        plan: what to make of each.
        processes: how many at once.
        report: told the finished share of all.

    Returns:
        What became of each bag, in order. A bag that cannot be labelled does not stop the others.
    """
    bags, context = list(dict.fromkeys(bags)), get_context("spawn")
    shares = context.Array("d", len(bags))
    workers = max(1, min(processes, len(bags)))
    with ProcessPoolExecutor(workers, context, _start_worker, (shares, workers)) as pool:
        pending = [pool.submit(_work, index, bag, out, plan) for index, bag in enumerate(bags)]
        try:
            while wait(pending, POLL_S).not_done:
                if report is not None:
                    report(sum(shares[:]) / len(bags))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return [_outcome(bag, future) for bag, future in zip(bags, pending, strict=True)]


def _start_worker(shares: Any, workers: int) -> None:
    global _shares
    _shares = shares
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _work(index: int, bag: Path, out: Path, plan: LabelPlan) -> BagLabels | str:
    """Labels of a bag, or why there are none."""

    def report(share: float) -> None:
        _shares[index] = share

    try:
        return label_into(bag, out, plan, report)
    except (OccupancyError, SafetensorError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__
    except KeyboardInterrupt:  # which the pool would take for a result, and hand this process the next bag
        os._exit(130)
    finally:
        report(1.0)


def _outcome(bag: Path, future: Future[BagLabels | str]) -> Outcome:
    try:
        result = future.result()
    except BrokenProcessPool:
        result = "its process ended suddenly, perhaps for want of memory"
    return Outcome(bag, None, result) if isinstance(result, str) else Outcome(bag, result)


def label_into(bag: Path, out: Path, plan: LabelPlan, report: Report | None = None) -> BagLabels:
    """Make a bag's shards in a folder; a bag that was finished before with the same settings is kept.

    Shards gather in a folder of their own and move into ``out`` together, and last comes ``NAME.json`` that says so: what
    an interrupted run leaves behind is never taken for finished, and the next one begins that bag anew.

    Raises:
        OccupancyError: as :func:`~occupancy_nn_ros.labelling.bag.label_bag`.
    """
    name = shard_name(bag)
    end_s = plan.part.end_s if math.isfinite(plan.part.end_s) else None
    part = {"start_s": plan.part.start_s, "end_s": end_s, "scale": plan.scale}
    settings = json.loads(json.dumps({**part, **to_mapping(plan.config)}))
    before = _read_finished(out, name)
    if before is not None and before["settings"] == settings:
        labels = before["labels"]
        return BagLabels(**{**labels, "shards": tuple(labels["shards"])})
    partial = out / f"{name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        labels = label_bag(bag, partial, name, plan, report)
        for old in [path for path in out.iterdir() if path.name.startswith((f"{name}_", f"{name}.json"))]:
            old.unlink()
        for shard in labels.shards:
            (partial / shard).replace(out / shard)
    finally:
        for rest in partial.iterdir():
            rest.unlink()
        partial.rmdir()
    written = out / f"{name}.json.partial"
    done = {"bag": str(bag), "settings": settings, "labels": asdict(labels)}
    written.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    written.replace(out / f"{name}.json")
    return labels


def shard_name(bag: Path) -> str:
    """Name of a bag's shards: its own, and a mark of where it lies, since bags in many folders are named alike."""
    place = hashlib.sha256(str(bag.resolve()).encode()).hexdigest()[:6]
    return f"{bag.stem}_{place}"


def _read_finished(out: Path, name: str) -> dict[str, Any] | None:
    """What the file of a finished bag says; None unless it is there with all its shards."""
    try:
        done: dict[str, Any] = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        there = all((out / shard).exists() for shard in done["labels"]["shards"])
        return done if there and done["settings"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
