# SPDX-License-Identifier: Apache-2.0
"""Scores a model on simulated drives side by side, each a job of its own; the sum is the same, whoever judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan, judge_world, mapper_of
from occupancy_nn_ros.evaluation.tally import Tally
from occupancy_nn_ros.jobs.run import Report, WorkerPool, run_jobs
from occupancy_nn_ros.runtime.predictor import Predictor


@dataclass(frozen=True)
class JudgedDrive:
    """What came of a drive: its tally, None where the world has no room to drive in or where it failed."""

    name: str
    tally: Tally | None
    failure: str = ""


@dataclass(frozen=True)
class _Job:
    """A drive to judge a model on."""

    model: str
    network: NetworkConfig
    plan: EvaluationPlan
    kind: str
    seed: int


def evaluate_model(
    model: str, network: NetworkConfig, plan: EvaluationPlan, pool: WorkerPool, report: Report | None = None
) -> list[JudgedDrive]:
    """Judge a model on every drive of a plan; a drive that fails does not stop the others.

    Args:
        model: name under models/, or path of a file that all workers see.
        network: settings of the predictor.
        plan: what to judge on.
        pool: who does it.
        report: told the finished share.

    Raises:
        CheckpointError: the model cannot be read.
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    path = str(Path(model).absolute()) if Path(model).exists() else model
    _load(path, network)
    jobs = [_Job(path, network, plan, kind, seed) for kind in plan.worlds for seed in plan.seeds]
    ended = sorted(run_jobs(pool, _judge, jobs, report), key=lambda outcome: outcome.index)
    return [
        JudgedDrive(f"{job.kind} {job.seed}", outcome.result, outcome.failure)
        for job, outcome in zip(jobs, ended, strict=True)
    ]


def sum_of(drives: Sequence[JudgedDrive]) -> Tally:
    """The tally of all drives, in their order."""
    return sum((drive.tally for drive in drives if drive.tally is not None), Tally())


def _judge(job: _Job, report: Report) -> Tally | None:
    return judge_world(mapper_of(_load(job.model, job.network)), job.kind, job.seed, job.plan)


@lru_cache(maxsize=1)
def _load(model: str, network: NetworkConfig) -> Predictor:
    return Predictor.load(model, network)
