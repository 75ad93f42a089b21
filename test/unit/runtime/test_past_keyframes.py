# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are kept, in whose memory, and which are due again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.network.matching import MatchMaps
from occupancy_nn_ros.runtime.past_keyframes import PastKeyframe, PastKeyframes, Queue, is_elsewhere

HERE = np.eye(4)


def entry(n, x_m=None, value=0.0):
    base = make_transform((0.1 * n if x_m is None else x_m, 0, 0), (0, 0, 0, 1))
    maps = MatchMaps(*(torch.full((2, 4, 4), float(value)) for _ in range(3)))
    return PastKeyframe([maps], torch.eye(3)[None], base[None], base, n)


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=40))
def test_each_item_is_due_once_when_so_many_came_after_it(after, takes):
    queue, told, count = Queue[int](after), [], 0
    for take in takes:
        queue.add(count)
        count += 1
        if take:
            item = queue.due()
            assert item is None or item <= count - 1 - after
            told += [] if item is None else [item]
    assert told == sorted(set(told))
    if all(takes):
        assert told == list(range(max(0, count - after)))


@pytest.mark.parametrize("after", [0, -1])
def test_nothing_is_due_after_nothing(after):
    queue = Queue[int](after)
    for n in range(3):
        queue.add(n)
        assert queue.due() is None


def test_elsewhere_is_five_centimetres_or_a_fifth_of_a_radian_away():
    turned = [make_transform((0, 0, 0), (0, 0, np.sin(a / 2), np.cos(a / 2))) for a in (0.19, 0.21)]
    moved = [make_transform((x, 0, 0), (0, 0, 0, 1)) for x in (0.049, 0.051)]
    assert [is_elsewhere(T, HERE) for T in (*turned, *moved)] == [False, True, False, True]


def test_the_oldest_makes_room_and_gives_its_memory():
    past = PastKeyframes(2)
    first = entry(0, value=0)
    assert past.keep(first) and not past.keep(entry(1, x_m=0.02)) and past.keep(entry(1, value=1))
    assert past.keep(entry(2, value=2))
    assert [p.stamp_ns for p in past.beside(9, torch.Size((2, 4, 4)))] == [1, 2] and len(past) == 2
    newest = past.of(2)
    assert newest.match[0].features.data_ptr() == first.match[0].features.data_ptr()
    assert float(newest.match[0].details.mean()) == 2 and past.of(0) is None


def test_a_keyframe_is_not_beside_itself_nor_beside_those_of_another_shape():
    past = PastKeyframes(4)
    for n in range(3):
        past.keep(entry(n))
    assert [p.stamp_ns for p in past.beside(1, torch.Size((2, 4, 4)))] == [0, 2]
    assert past.beside(1, torch.Size((3, 4, 4))) == []


def test_better_poses_reach_the_keyframes_of_their_moments():
    past = PastKeyframes(4)
    for n in range(2):
        past.keep(entry(n))
    better = np.eye(4)[None] * 2
    past.move({1: better, 7: better})
    np.testing.assert_array_equal(past.of(1).T_map_cam, better)
    np.testing.assert_array_equal(past.of(0).T_map_cam, np.eye(4)[None])


def test_nothing_is_kept_where_nothing_is_to_be():
    past = PastKeyframes(0)
    assert not past.keep(entry(0)) and past.beside(1, torch.Size((2, 4, 4))) == []
