# SPDX-License-Identifier: Apache-2.0
"""How many cores are free, from the kernel's counters."""

import os

import pytest

from occupancy_nn_ros.compute.free_cores import CoreTimes, FreeCores, core_times
from occupancy_nn_ros.compute.threads import heed_load, run_each, use_threads

STAT = """cpu  1000 500 300 90000 40 10 20 30 0 0
cpu0 400 200 100 45000 20 5 10 15 0 0
cpu1 600 300 200 45000 20 5 10 15 0 0
intr 1 2 3
"""


class Machine:
    """Counters of a machine whose processes compute at given rates."""

    def __init__(self, cores=4):
        self.cores, self.wall, self.everybody, self.itself = cores, 0.0, 0.0, 0.0

    def run(self, seconds, others, itself):
        self.wall += seconds
        self.everybody += seconds * (others + itself)
        self.itself += seconds * itself

    def times(self):
        return CoreTimes(self.cores, self.wall, self.everybody, self.itself)


def test_counters_are_read_for_the_cores_that_may_be_used(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    stat.write_text(STAT)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    both, one = core_times(stat, [0, 1]), core_times(stat, [1])
    assert (both.cores, one.cores) == (2, 1)
    assert both.everybody == pytest.approx((1000 + 300 + 10 + 20 + 30) * tick)  # neither idle nor of low priority
    assert one.everybody == pytest.approx((600 + 200 + 5 + 10 + 15) * tick)
    monkeypatch.setattr(os, "getpriority", lambda *_: 5)
    assert core_times(stat, [1]).everybody == pytest.approx((600 + 300 + 200 + 5 + 10 + 15) * tick)


@pytest.mark.parametrize("text", ["", "cpu0 1 2\n", "cpu0 a b c d e f g h\n"])
def test_without_counters_all_cores_count_as_free(tmp_path, text):
    stat = tmp_path / "stat"
    stat.write_text(text)
    assert core_times(stat, [0]) is None
    assert core_times(tmp_path / "nothing", [0]) is None
    assert FreeCores(lambda: None).count(6) == 6


def test_what_others_compute_is_not_free_and_what_this_process_computes_is():
    machine = Machine()
    judge = FreeCores(machine.times)
    assert judge.count(4) == 4
    machine.run(3.0, others=0.1, itself=3.5)
    assert judge.count(4) == 4
    machine.run(3.0, others=2.0, itself=2.0)
    assert judge.count(4) == 2
    machine.run(3.0, others=4.0, itself=0.0)
    assert judge.count(4) == 1
    machine.run(3.0, others=0.0, itself=1.0)
    assert judge.count(4) == 4


def test_half_a_core_changes_nothing_and_neither_does_a_moment():
    machine = Machine()
    judge = FreeCores(machine.times)
    machine.run(3.0, others=1.0, itself=1.0)
    assert judge.count(4) == 3
    for others in (0.5, 1.5, 0.3, 1.7):
        machine.run(3.0, others=others, itself=1.0)
        assert judge.count(4) == 3
    machine.run(1.0, others=4.0, itself=0.0)
    assert judge.count(4) == 3
    machine.run(1.0, others=4.0, itself=0.0)
    assert judge.count(4) == 1


def test_a_container_gets_no_more_than_its_share_whatever_is_free():
    machine = Machine(cores=64)
    judge = FreeCores(machine.times)
    machine.run(3.0, others=50.0, itself=2.0)
    assert judge.count(2) == 2
    machine.run(3.0, others=63.0, itself=1.0)
    assert judge.count(2) == 1


def test_threads_inside_an_operation_are_no_more_than_free_cores_unless_a_number_was_asked_for(monkeypatch):
    import torch

    machine = Machine()
    monkeypatch.setattr("occupancy_nn_ros.compute.threads.available_cores", lambda: 4)
    try:
        use_threads(0)
        heed_load(FreeCores(machine.times))
        machine.run(3.0, others=2.0, itself=1.0)
        assert run_each(lambda _: torch.get_num_threads(), ["part"]) == [2]
        assert run_each(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
        use_threads(3)
        assert run_each(lambda _: torch.get_num_threads(), ["part"]) == [3]
    finally:
        heed_load(None)
        use_threads(0)
