# SPDX-License-Identifier: Apache-2.0
"""How many threads there may be, and that work split over them is the same work."""

import os
import threading

import pytest
import torch

from occupancy_nn_ros.compute.threads import (
    available_cores,
    parts_worth,
    run_each,
    threads,
    torch_threads,
    use_threads,
)


@pytest.fixture
def two_threads():
    use_threads(2)
    yield
    use_threads(0)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("100000 100000", 1), ("10000 100000", 1), ("250000 100000", 2), ("max 100000", 16), ("?", 16)],
)
def test_no_more_threads_than_the_control_group_gives_time_for(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert available_cores(tmp_path) == expected


def test_the_first_version_of_control_groups_and_none(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_cores(tmp_path) == 3
    group = tmp_path / "cpu"
    group.mkdir()
    (group / "cpu.cfs_period_us").write_text("100000")
    for quota, expected in (("200000", 2), ("-1", 3), ("900000", 3)):
        (group / "cpu.cfs_quota_us").write_text(quota)
        assert available_cores(tmp_path) == expected


def test_threads_are_those_asked_for_or_the_cores_there_are(two_threads):
    assert threads() == 2
    use_threads(0)
    assert threads() == available_cores()


def test_results_come_in_order_from_several_threads_without_gradients(two_threads):
    meet = threading.Barrier(2, timeout=20)  # passes only if two calls run at once

    def work(n):
        meet.wait()
        return n * n, torch.is_inference_mode_enabled(), torch.get_num_threads()

    assert run_each(work, range(4)) == [(n * n, True, 1) for n in range(4)]


def test_a_single_part_gets_all_threads_inside_and_leaves_torch_as_it_was(two_threads):
    with torch_threads(1):
        assert run_each(lambda _: torch.get_num_threads(), ["part"]) == [2]
        assert torch.get_num_threads() == 1


def test_what_a_call_raises_is_raised_after_all_have_ended(two_threads):
    done = []

    def work(n):
        if n == 0:
            raise ValueError("first")
        done.append(n)

    with pytest.raises(ValueError, match="first"):
        run_each(work, range(3))
    assert sorted(done) == [1, 2]


def test_work_inside_one_of_several_threads_is_split_no_further():
    use_threads(3)
    try:
        assert parts_worth(100, 10) == 3 and parts_worth(19, 10) == 1
        assert run_each(lambda _: parts_worth(100, 10), range(2)) == [1, 1]
        assert run_each(lambda _: parts_worth(100, 10), range(1)) == [3]
        assert parts_worth(100, 10) == 3
    finally:
        use_threads(0)
