# SPDX-License-Identifier: Apache-2.0
"""How far time has come, source by source."""

import pytest

from occupancy_nn_ros.sync.newest_stamps import NewestStamps

S = 1_000_000_000


def test_the_newest_stamp_of_all_sources():
    stamps = NewestStamps()
    assert stamps.newest_ns == 0
    for source, stamp in (("a", 5 * S), ("b", 7 * S), ("a", 6 * S), ("b", 4 * S)):
        stamps.add(source, stamp)
    assert stamps.newest_ns == 7 * S
    assert stamps.furthest_apart(["a", "b", "silent"]) == ("a", "b", 1 * S)
    stamps.clear()
    assert stamps.newest_ns == 0 and stamps.furthest_apart(["a", "b"]) is None


def test_a_jump_back_is_more_than_a_second_of_one_source():
    stamps = NewestStamps()
    assert stamps.jumped_back_from("a", 3 * S) is None
    stamps.add("a", 10 * S)
    assert stamps.jumped_back_from("a", 9 * S) is None
    assert stamps.jumped_back_from("a", 9 * S - 1) == 10 * S
    assert stamps.jumped_back_from("b", 1 * S) is None


def test_one_source_is_not_apart_from_itself():
    stamps = NewestStamps()
    stamps.add("a", 10 * S)
    assert stamps.furthest_apart(["a"]) is None and stamps.furthest_apart([]) is None


@pytest.mark.parametrize(
    ("stamps", "told"),
    [
        ([0, 1, 2, 3, 4, 5, 6], []),
        ([0, 1, 2, 3, 1, 2, 3, 4, 5], [3]),  # set back by three periods after 3
        ([0, 1, 2, 3, 1.4, 2.4, 3.4, 4.4], [2.6]),
        ([0, 2, 1, 4, 3, 6, 5], []),  # pairs swapped
        ([0, 1, 2, 5, 3, 4, 6, 7], []),  # two late ones, which were missing
        ([0, 1, 2, 2, 3, 3, 4], []),  # each twice
        ([0, 1, 2, 3, 1, 4, 5, 2, 6], []),  # stray ones
    ],
)
def test_a_clock_that_was_set_back_is_no_message_out_of_order(stamps, told):
    newest, found = NewestStamps(), []
    for stamp in stamps:
        back = newest.stepped_back("a", round(stamp * S // 10))
        found += [back / S * 10] if back else []
        newest.add("a", round(stamp * S // 10))
    assert found == pytest.approx(told)
