# SPDX-License-Identifier: Apache-2.0
"""Many recordings to training shards: in parallel, each refused or finished on its own, and none made twice."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from occupancy_nn_ros.jobs.run import Report, WorkerPool, run_jobs
from occupancy_nn_ros.labelling.bag import label_bag
from occupancy_nn_ros.labelling.plan import BagLabels, LabelPlan
from occupancy_nn_ros.settings import to_mapping


@dataclass(frozen=True)
class Outcome:
    """What became of a bag: its labels, or the reason why there are none."""

    bag: Path
    labels: BagLabels | None
    refused: str = ""


@dataclass(frozen=True)
class _Job:
    """A bag to label, and where its shards go."""

    bag: Path
    out: Path
    plan: LabelPlan


def label_bags(
    bags: Sequence[Path], out: Path, plan: LabelPlan, pool: WorkerPool, report: Report | None = None
) -> list[Outcome]:
    """Label bags in parallel.

    Args:
        bags: recordings; one that is named twice is labelled once.
        out: folder of the shards, made if it does not exist.
        plan: what to make of each.
        pool: who does it; all its workers see bags and folder under the same absolute paths.
        report: told the finished share of all.

    Returns:
        What became of each bag, in order. A bag that cannot be labelled does not stop the others.

    Raises:
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    bags = list(dict.fromkeys(bags))
    jobs = [_Job(bag.absolute(), out.absolute(), plan) for bag in bags]
    ended = sorted(run_jobs(pool, _label, jobs, report), key=lambda outcome: outcome.index)
    return [Outcome(bag, done.result, done.failure) for bag, done in zip(bags, ended, strict=True)]


def _label(job: _Job, report: Report) -> BagLabels:
    return label_into(job.bag, job.out, job.plan, report)


def label_into(bag: Path, out: Path, plan: LabelPlan, report: Report | None = None) -> BagLabels:
    """Make a bag's shards in a folder; a bag that was finished before with the same settings is kept.

    Shards gather in a folder of their own and move into ``out`` together, and last comes ``NAME.json`` that says so: what
    an interrupted run leaves behind is never taken for finished, and the next one begins that bag anew.

    Raises:
        OccupancyError: as :func:`~occupancy_nn_ros.labelling.bag.label_bag`.
    """
    name = shard_name(bag)
    end_s = plan.part.end_s if math.isfinite(plan.part.end_s) else None
    part = {"start_s": plan.part.start_s, "end_s": end_s, "scale": plan.scale, "sensor": plan.sensor}
    settings = json.loads(json.dumps({**part, **to_mapping(plan.config)}))
    before = _read_finished(out, name)
    if before is not None and before["settings"] == settings:
        labels = before["labels"]
        return BagLabels(**{**labels, "shards": tuple(labels["shards"])})
    for killed in out.glob(f"{glob.escape(name)}.*partial"):
        shutil.rmtree(killed, ignore_errors=True)
    partial = out / f"{name}.{uuid4().hex[:8]}.partial"
    partial.mkdir(parents=True)
    try:
        labels = label_bag(bag, partial, name, plan, report)
        done = {"bag": str(bag), "settings": settings, "labels": asdict(labels)}
        (partial / "done").write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        for old in [path for path in out.iterdir() if path.name == f"{name}.json" or path.name.startswith(f"{name}_")]:
            old.unlink()
        for shard in labels.shards:
            (partial / shard).replace(out / shard)
        (partial / "done").replace(out / f"{name}.json")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
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
