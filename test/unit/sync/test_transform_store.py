# SPDX-License-Identifier: Apache-2.0
"""A tree behind the transform tree gets what was accepted, in an order that it can keep, and nothing else."""

import numpy as np
import pytest

from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.sync.pose_track import AHEAD_NS
from occupancy_nn_ros.values import StampedTransform

S = 1_000_000_000
CACHE_NS = 10 * S


class KeepsWhatComes:
    """A store as tf2's buffer is: the newest stamp of a frame pushes older ones out, and the last parent holds."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.tree, self.put_so_far, self.newest = PoseBuffer(10**18), [], {}

    def put(self, transform, *, is_static):
        newest = self.newest.get(transform.source_frame, transform.stamp_ns)
        assert is_static or transform.stamp_ns >= newest - CACHE_NS, "older than all that tf2 would keep"
        self.newest[transform.source_frame] = max(newest, transform.stamp_ns)
        self.put_so_far.append((transform.source_frame, transform.stamp_ns))
        self.tree.set_transform(transform, is_static=is_static)

    def lookup(self, target, source, stamp_ns):
        return self.tree.lookup(target, source, stamp_ns)


def moved(x, yaw=0.0):
    return make_transform((x, 0.1 * x, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))


@pytest.fixture
def store():
    return KeepsWhatComes()


@pytest.fixture
def robot(store):
    """base moves in odom from 0 to 4 s, the camera is fixed on it; the sensors are at 4 s."""
    buffer = PoseBuffer(CACHE_NS, store)
    buffer.advance(0)
    buffer.set_transform(StampedTransform(0, "base", "cam", moved(0.3)), is_static=True)
    for n in range(41):
        buffer.set_transform(StampedTransform(n * S // 10, "odom", "base", moved(0.01 * n)))
        buffer.advance(n * S // 10)
    return buffer


def test_the_store_answers(robot, store):
    got = robot.lookup("odom", "cam", 2 * S + 50_000_000)
    np.testing.assert_allclose(got, moved(0.205) @ moved(0.3), atol=1e-12)
    assert len(store.put_so_far) == 42
    robot.lookup("odom", "cam", 3 * S)
    assert len(store.put_so_far) == 42  # nothing is put twice


def test_nothing_of_a_clock_that_runs_ahead_is_put_before_the_sensors_come_there(robot, store):
    robot.set_transform(StampedTransform(3600 * S, "odom", "base", moved(9)))
    robot.lookup("odom", "base", 4 * S)
    assert max(stamp for _, stamp in store.put_so_far) == 4 * S
    robot.advance(3600 * S - AHEAD_NS)
    np.testing.assert_array_equal(robot.lookup("odom", "base", 3600 * S), moved(9))


def test_what_came_before_the_first_sensor_is_judged_once_its_time_is_known(store):
    buffer = PoseBuffer(CACHE_NS, store)
    for stamp in (9 * S, 0, S):
        buffer.set_transform(StampedTransform(stamp, "odom", "base", moved(0.1)))
    buffer.advance(S)
    buffer.lookup("odom", "base", S)
    assert [stamp for _, stamp in store.put_so_far] == [0, S]


def test_the_other_of_two_parents_is_not_put_and_preferring_it_fills_the_store_anew(robot, store):
    robot.lookup("odom", "base", 4 * S)
    for n in range(38, 42):
        robot.set_transform(StampedTransform(n * S // 10, "map", "base", moved(-0.1)))
    robot.lookup("odom", "base", 4 * S)
    assert len(store.put_so_far) == 42
    robot.prefer(("cam", "base", "map"))
    np.testing.assert_allclose(robot.lookup("map", "cam", 4 * S), moved(-0.1) @ moved(0.3), atol=1e-12)
    with pytest.raises(TransformError):
        robot.lookup("odom", "cam", 4 * S)


def test_a_jump_is_not_interpolated_by_the_store_either(robot):
    robot.set_transform(StampedTransform(4_100_000_000, "odom", "base", moved(30)))
    with pytest.raises(TransformError, match="too much to know it"):
        robot.lookup("odom", "cam", 4_050_000_000)
    np.testing.assert_array_equal(robot.lookup("odom", "base", 4_100_000_000), moved(30))


def test_frames_dated_ahead_on_purpose_hold_from_when_they_were_sent(robot, store):
    for n in range(3):
        robot.set_transform(StampedTransform(5 * S + n * S // 10, "map", "odom", moved(2)))
    np.testing.assert_allclose(robot.lookup("map", "base", 4 * S), moved(2) @ moved(0.4), atol=1e-12)


def test_turning_time_back_empties_the_store_of_what_moves(robot, store):
    robot.lookup("odom", "base", 4 * S)
    robot.rewind(0)
    robot.set_transform(StampedTransform(0, "odom", "base", moved(7)))
    np.testing.assert_allclose(robot.lookup("odom", "cam", 0), moved(7) @ moved(0.3), atol=1e-12)
    assert store.put_so_far == [("cam", 0), ("base", 0)]


def test_a_second_sample_of_a_stamp_replaces_the_first(robot):
    robot.lookup("odom", "base", 4 * S)
    robot.set_transform(StampedTransform(4 * S, "odom", "base", moved(0.41)))
    np.testing.assert_array_equal(robot.lookup("odom", "base", 4 * S), moved(0.41))


def test_a_static_frame_that_begins_to_move_is_forgotten_as_a_static_one(robot):
    robot.lookup("odom", "cam", 4 * S)
    robot.set_transform(StampedTransform(4 * S, "base", "cam", moved(1)))
    np.testing.assert_allclose(robot.lookup("base", "cam", 4 * S), moved(1), atol=1e-12)
    with pytest.raises(TransformError):
        robot.lookup("base", "cam", 2 * S)


def test_what_nobody_asks_for_does_not_pile_up(robot, store):
    robot.lookup("odom", "base", 4 * S)
    for n in range(12_000):
        robot.set_transform(StampedTransform(4 * S + n * 2_000_000, "odom", "base", moved(0.4)))
        robot.advance(4 * S + n * 2_000_000)
    robot.lookup("odom", "base", 27 * S)
    assert len(store.put_so_far) == 5001 + 1  # what a cache of 10 s holds, and the camera


def test_same_answers_and_refusals_with_and_without_a_store(store):
    """Random transforms of two parents and several clocks, in any order."""
    rng = np.random.default_rng(3)
    alone, fed = PoseBuffer(CACHE_NS), PoseBuffer(CACHE_NS, store)
    frames, now_ns, answers = ["map", "odom", "base", "head", "cam"], 0, 0
    for _ in range(1500):
        now_ns += int(rng.integers(0, S // 10))
        child = int(rng.integers(1, 5))
        parent = child - 1 if rng.random() < 0.95 else int(rng.integers(0, child))
        stray = int(rng.choice([0, 0, 0, 0, S, -2 * S, -30 * S, 100 * S]))
        stamp = max(0, now_ns + stray + int(rng.integers(-S // 5, S // 5)))
        T = moved(0.01 * rng.standard_normal(), 0.01 * rng.standard_normal())
        for buffer in (alone, fed):
            buffer.set_transform(StampedTransform(stamp, frames[parent], frames[child], T), is_static=child == 4)
            buffer.advance(now_ns)
        target, source = rng.choice(frames, 2)
        asked = max(0, now_ns - int(rng.integers(0, 2 * S)))
        try:
            expected = alone.lookup(target, source, asked)
        except TransformError as error:
            with pytest.raises(type(error)):
                fed.lookup(target, source, asked)
        else:
            np.testing.assert_allclose(fed.lookup(target, source, asked), expected, atol=1e-12)
            answers += 1
    assert 300 < answers < 1400
