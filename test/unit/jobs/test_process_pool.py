# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine: a killed one costs its job, closing leaves nothing behind."""

import os

import pytest
from pool_jobs import die_once, wait_with_a_file

from occupancy_nn_ros.compute.threads import available_cores
from occupancy_nn_ros.jobs.process_pool import ProcessPool
from occupancy_nn_ros.jobs.run import run_jobs


@pytest.fixture
def pool():
    pool = ProcessPool(2, 3)
    yield pool
    pool.close()


def test_a_killed_process_costs_the_job_that_it_had(pool, tmp_path):
    outcomes = list(run_jobs(pool, die_once, [str(tmp_path / "mark"), None, None]))
    results = {outcome.index: outcome.result for outcome in outcomes}
    assert results[0] == "second attempt"
    share = max(1, available_cores() // 2)
    assert results[1][1:] == results[2][1:] == (share, share)
    assert os.getpid() not in (results[1][0], results[2][0])


def test_what_runs_when_the_pool_closes_tidies_up(pool, tmp_path):
    def stop(share):
        if share == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(run_jobs(pool, wait_with_a_file, [str(tmp_path / "held")], stop))
    assert (tmp_path / "held").exists()
    pool.close()
    assert not (tmp_path / "held").exists()


def test_no_more_processes_than_jobs():
    assert ProcessPool(8, 1).free_workers() == ["0"]
    assert ProcessPool(0, 0).free_workers() == ["0"]
