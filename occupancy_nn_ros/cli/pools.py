# SPDX-License-Identifier: Apache-2.0
"""Who does the independent jobs of a command, processes of this machine or the workers of a cluster, and what failed of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from occupancy_nn_ros.jobs.run import WorkerPool


def add_pool(parser: argparse.ArgumentParser, what: str) -> None:
    """``--processes`` and ``--cluster``.

    Args:
        parser: takes the options.
        what: what is done at once, such as "recordings labelled".
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--processes", type=int, metavar="N", help=f"{what} at once on this machine (default: all cores)"
    )
    group.add_argument(
        "--cluster", metavar="ADDRESS",
        help="do it on the workers of this Dask scheduler, such as tcp://host:8786; they see the same folders",
    )  # fmt: skip


@contextmanager
def open_pool(args: argparse.Namespace, jobs: int, shared: Path | None = None) -> Iterator[WorkerPool]:
    """The pool that the options describe, for so many jobs whose results go into the shared folder.

    Raises:
        MissingDependencyError: Dask is not installed.
        ClusterError: no scheduler answers.
    """
    from occupancy_nn_ros.compute.threads import available_cores
    from occupancy_nn_ros.jobs.dask_pool import DaskPool
    from occupancy_nn_ros.jobs.process_pool import ProcessPool

    pool: WorkerPool
    pool = DaskPool(args.cluster, shared) if args.cluster else ProcessPool(args.processes or available_cores(), jobs)
    try:
        yield pool
    finally:
        pool.close()


def say_what_failed(failed: Mapping[str, str], what: str) -> None:
    """One line on standard error for each reason, with the names of those that it holds for."""
    for reason in dict.fromkeys(failed.values()):
        names = [name for name, why in failed.items() if why == reason]
        some = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
        print(f"{len(names)} {what} failed ({some}): {reason}", file=sys.stderr)
