# SPDX-License-Identifier: Apache-2.0
"""Many recordings to training shards: in parallel, each refused or finished on its own, and none made twice."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from occupancy_nn_ros.jobs.run import Report, WorkerPool, run_jobs
from occupancy_nn_ros.labelling.bag import label_bag
from occupancy_nn_ros.labelling.plan import BagLabels, LabelPlan
from occupancy_nn_ros.settings import to_mapping
from occupancy_nn_ros.training.object_store import ObjectStore


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
    out: Path | str
    plan: LabelPlan


def label_bags(
    bags: Sequence[Path], out: Path | str, plan: LabelPlan, pool: WorkerPool, report: Report | None = None
) -> list[Outcome]:
    """Label bags in parallel.

    Args:
        bags: recordings; one that is named twice is labelled once.
        out: folder of the shards, or its URL; made if it does not exist.
        plan: what to make of each.
        pool: who does it; all its workers see bags and folder under the same absolute paths.
        report: told the finished share of all.

    Returns:
        What became of each bag, in order. A bag that cannot be labelled does not stop the others.

    Raises:
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    bags = list(dict.fromkeys(bags))
    place = out.absolute() if isinstance(out, Path) else out
    jobs = [_Job(bag.absolute(), place, plan) for bag in bags]
    ended = sorted(run_jobs(pool, _label, jobs, report), key=lambda outcome: outcome.index)
    return [Outcome(bag, done.result, done.failure) for bag, done in zip(bags, ended, strict=True)]


def _label(job: _Job, report: Report) -> BagLabels:
    if isinstance(job.out, Path):
        return label_into(job.bag, job.out, job.plan, report)
    return label_to_store(job.bag, ObjectStore(job.out), job.plan, report)


def label_to_store(bag: Path, store: ObjectStore, plan: LabelPlan, report: Report | None = None) -> BagLabels:
    """Make a bag's shards and send them, and last ``NAME.json``; a bag that was finished before with the same settings is kept.

    Raises:
        OccupancyError: as :func:`~occupancy_nn_ros.labelling.bag.label_bag`, or the store cannot be used.
    """
    name, names = shard_name(bag), store.sizes().keys()
    note = f"{name}.json"
    before = _finished(store.read(note).decode("utf-8", "replace"), names, plan) if note in names else None
    if before is not None:
        return before
    with TemporaryDirectory() as folder:
        labels = label_into(bag, Path(folder), plan, report)
        store.remove([note] if note in names else [])  # first: without it nothing here is finished
        store.remove(sorted(old for old in names if old.startswith(f"{name}_")))
        store.send(Path(folder) / file for file in (*labels.shards, note))
    return labels


def label_into(bag: Path, out: Path, plan: LabelPlan, report: Report | None = None) -> BagLabels:
    """Make a bag's shards in a folder; a bag that was finished before with the same settings is kept.

    Shards gather in a folder of their own and move into ``out`` together, and last comes ``NAME.json`` that says so: what
    an interrupted run leaves behind is never taken for finished, and the next one begins that bag anew.

    Raises:
        OccupancyError: as :func:`~occupancy_nn_ros.labelling.bag.label_bag`.
    """
    name = shard_name(bag)
    before = _read_finished(out, name, plan)
    if before is not None:
        return before
    for killed in out.glob(f"{glob.escape(name)}.*partial"):
        shutil.rmtree(killed, ignore_errors=True)
    partial = out / f"{name}.{uuid4().hex[:8]}.partial"
    partial.mkdir(parents=True)
    try:
        labels = label_bag(bag, partial, name, plan, report)
        done = {"bag": str(bag), "settings": _settings(plan), "labels": asdict(labels)}
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


def _settings(plan: LabelPlan) -> dict[str, Any]:
    """What labels depend on, as it is noted beside them."""
    end_s = plan.part.end_s if math.isfinite(plan.part.end_s) else None
    part = {"start_s": plan.part.start_s, "end_s": end_s, "scale": plan.scale, "sensor": plan.sensor}
    settings: dict[str, Any] = json.loads(json.dumps({**part, **to_mapping(plan.config)}))
    return settings


def _read_finished(out: Path, name: str, plan: LabelPlan) -> BagLabels | None:
    """What a folder says of a finished bag."""
    try:
        text = (out / f"{name}.json").read_text(encoding="utf-8")
        return _finished(text, {path.name for path in out.iterdir()}, plan)
    except (OSError, ValueError):
        return None


def _finished(note: str, names: Collection[str], plan: LabelPlan) -> BagLabels | None:
    """What the note of a finished bag says; None unless it is of this plan, and all its shards are among the names."""
    try:
        done = json.loads(note)
        labels = BagLabels(**{**done["labels"], "shards": tuple(done["labels"]["shards"])})
        is_same = done["settings"] == _settings(plan)
    except (ValueError, KeyError, TypeError):
        return None
    return labels if is_same and all(shard in names for shard in labels.shards) else None
