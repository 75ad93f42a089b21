# SPDX-License-Identifier: Apache-2.0
"""Every job ends once, with its result or a reason, whatever becomes of the workers."""

from collections import Counter

import pytest
from fake_pool import FakePool
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.errors import BagError, TrainingError
from occupancy_nn_ros.jobs.release import source_digest
from occupancy_nn_ros.jobs.run import MOST_DEATHS, Ended, Progress, do_job, one_line, run_jobs


def square(number, report):
    report(0.25)
    if number == 13:
        raise TrainingError("13 is refused")
    return number**2


@given(st.integers(0, 9), st.integers(1, 4), st.lists(st.integers(0, 8), max_size=8))
def test_every_job_ends_once_and_deaths_cost_only_the_job_that_the_worker_had(jobs, workers, deaths):
    pool = FakePool(workers, [job for job in deaths if job < jobs])
    expected = Counter(deaths)
    shares = []
    outcomes = sorted(run_jobs(pool, square, list(range(jobs)), shares.append), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(jobs))
    for outcome in outcomes:
        killed = expected[outcome.index] >= MOST_DEATHS
        assert outcome.result == (None if killed else outcome.index**2)
        assert outcome.failure == ("its process ended 3 times, perhaps for want of memory" if killed else "")
        assert pool.begun[outcome.index] == min(MOST_DEATHS, expected[outcome.index] + 1)
    assert pool.most <= workers
    assert (shares[-1] == 1.0) if jobs else (shares == [])
    assert all(0 <= share <= 1 for share in shares)


def test_a_failure_is_a_line_and_stops_no_other_job():
    outcomes = {outcome.index: outcome for outcome in run_jobs(FakePool(), square, [13, 2])}
    assert (outcomes[0].result, outcomes[0].failure) == (None, "13 is refused")
    assert (outcomes[1].result, outcomes[1].failure) == (4, "")


def fail(error, report):
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BagError("x.mcap is cut off", advice="mcap recover x.mcap"), "x.mcap is cut off; mcap recover x.mcap"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ValueError("two\nlines"), "ValueError: two lines (test_run.py:"),
        (MemoryError(), "MemoryError (test_run.py:"),
    ],
)
def test_what_is_expected_speaks_for_itself_and_what_is_not_says_where(error, line):
    ended = do_job(4, fail, error, print)
    assert isinstance(ended, Ended) and ended.job == 4 and ended.result is None
    assert ended.failure.startswith(line) and "\n" not in ended.failure
    assert one_line(KeyError("a")) == "KeyError: 'a'"


def tell(shares, report):
    for share in shares:
        report(share)


def test_progress_is_told_now_and_then():
    sent = []
    do_job(7, tell, [0.1, 0.2, 0.3], sent.append)
    assert sent == [Progress(7, 0.1)]


def test_another_release_is_told_by_any_change_of_its_code(tmp_path):
    for name, text in (("a.py", "x = 1\n"), ("b/c.py", "y = 2\n"), ("notes.txt", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = source_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert source_digest(tmp_path) == before and len(before) == 8
    (tmp_path / "b" / "c.py").write_text("y = 3\n")
    changed = source_digest(tmp_path)
    (tmp_path / "b" / "c.py").rename(tmp_path / "b" / "d.py")
    assert len({before, changed, source_digest(tmp_path)}) == 3
