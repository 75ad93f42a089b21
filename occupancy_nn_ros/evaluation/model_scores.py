# SPDX-License-Identifier: Apache-2.0
"""Scores a model on simulated drives side by side, each a job of its own; the sum is the same, whoever judges them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan, judge_world, mapper_of
from occupancy_nn_ros.evaluation.kept_drives import KeptDrives
from occupancy_nn_ros.evaluation.tally import Tally
from occupancy_nn_ros.jobs.release import RELEASE
from occupancy_nn_ros.jobs.run import Report, WorkerPool, run_jobs
from occupancy_nn_ros.network.checkpoint import find_model
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.settings import to_mapping


@dataclass(frozen=True)
class JudgedDrive:
    """What came of a drive: its tally, None where the world has no room to drive in or where it failed."""

    name: str
    tally: Tally | None
    failure: str = ""


@dataclass(frozen=True)
class Contender:
    """What is judged.

    Attributes:
        model: name under models/, or path of a file that all workers see.
        network: settings of the predictor.
    """

    model: str
    network: NetworkConfig = field(default_factory=NetworkConfig)


@dataclass(frozen=True)
class _Job:
    """A drive to judge a model on."""

    contender: Contender
    plan: EvaluationPlan
    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.seed}"


def evaluate_model(
    contender: Contender, plan: EvaluationPlan, pool: WorkerPool, report: Report | None = None, keep: Path | None = None
) -> list[JudgedDrive]:
    """Judge a model on every drive of a plan; a drive that fails does not stop the others.

    Args:
        contender: the model.
        plan: what to judge on; its settings of the network are the contender's.
        pool: who does it.
        report: told the finished share.
        keep: folder of what was judged: found there if it was judged the same way before, and kept there as it ends.

    Raises:
        CheckpointError: the model cannot be read.
        OccupancyError: the folder cannot be written to.
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    _load(contender)
    plan = replace(plan, settings=replace(plan.settings, network=contender.network))
    kept = None if keep is None else KeptDrives(keep, _settings(contender, plan))
    drives: dict[str, JudgedDrive] = {}
    jobs = [_Job(contender, plan, kind, seed) for kind in plan.worlds for seed in plan.seeds]
    for job in jobs:
        found, tally = kept.find(job.name) if kept is not None else (False, None)
        if found:
            drives[job.name] = JudgedDrive(job.name, tally)
    missing = [job for job in jobs if job.name not in drives]
    for outcome in run_jobs(pool, _judge, missing, report):
        job = missing[outcome.index]
        drives[job.name] = JudgedDrive(job.name, outcome.result, outcome.failure)
        if kept is not None and not outcome.failure:
            kept.keep(job.name, outcome.result)
    return [drives[job.name] for job in jobs]


def sum_of(drives: Sequence[JudgedDrive]) -> Tally:
    """The tally of all drives, in their order."""
    return sum((drive.tally for drive in drives if drive.tally is not None), Tally())


def _settings(contender: Contender, plan: EvaluationPlan) -> dict[str, object]:
    """All that a drive's tally depends on: the bytes of models, settings, and this release; not which drives there are besides."""
    files = [find_model(contender.model)]
    if contender.network.depth_model:
        files.append(Path(contender.network.depth_model).expanduser())
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    how = {key: value for key, value in asdict(plan).items() if key not in ("worlds", "seeds", "settings")}
    return {"models": digests, "release": RELEASE, "plan": how, "settings": to_mapping(plan.config())}


def _judge(job: _Job, report: Report) -> Tally | None:
    return judge_world(mapper_of(_load(job.contender)), job.kind, job.seed, job.plan)


@lru_cache(maxsize=1)
def _load(contender: Contender) -> Predictor:
    return Predictor.load(contender.model, contender.network)
