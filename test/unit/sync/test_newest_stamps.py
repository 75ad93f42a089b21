# SPDX-License-Identifier: Apache-2.0
"""How far time has come, source by source."""

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
