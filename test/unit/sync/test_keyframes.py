# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.config import KeyframeConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.sync.keyframes import KeyframePolicy

S = 1_000_000_000
CONFIG = KeyframeConfig(distance_m=0.5, angle_rad=0.2, min_period_s=0.1, max_period_s=2.0)


def at(x=0.0, yaw=0.0):
    return make_transform((x, 0, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))


@pytest.mark.parametrize(
    ("seconds", "x", "yaw", "expected"),
    [
        (0.05, 5.0, 1.0, False),  # too soon, however far
        (0.1, 0.5, 0.0, True),
        (0.5, 0.49, 0.19, False),
        (0.5, 0.51, 0.0, True),
        (0.5, -0.51, 0.0, True),
        (0.5, 0.0, 0.21, True),
        (0.5, 0.0, -0.21, True),
        (1.99, 0.0, 0.0, False),
        (2.0, 0.0, 0.0, True),
    ],
)
def test_motion_rotation_or_time(seconds, x, yaw, expected):
    policy = KeyframePolicy(CONFIG)
    assert policy.is_keyframe(0, at())
    policy.accept(0, at())
    assert policy.is_keyframe(round(seconds * S), at(x, yaw)) is expected


def test_judging_changes_nothing_until_accepted():
    policy = KeyframePolicy(CONFIG)
    policy.accept(0, at())
    assert policy.is_keyframe(S, at(0.6))
    assert policy.is_keyframe(S, at(0.6))
    policy.accept(S, at(0.6))
    assert not policy.is_keyframe(S + S // 2, at(0.7))


def test_ten_hertz_limit_passes_frames_at_exactly_ten_hertz():
    policy = KeyframePolicy(CONFIG)
    accepted = 0
    for n in range(20):
        stamp, pose = n * 100_000_000 - (n % 2), at(n * 1.0)  # a nanosecond of jitter
        if policy.is_keyframe(stamp, pose):
            policy.accept(stamp, pose)
            accepted += 1
    assert accepted == 20


def test_a_robot_that_stands_still_has_a_keyframe_a_second_at_three_hertz():
    policy = KeyframePolicy(KeyframeConfig())
    stamps = [frame * 333_333_333 for frame in range(91)]  # three of them are 1 ns short of a second
    taken = []
    for stamp in stamps:
        if policy.is_keyframe(stamp, at()):
            policy.accept(stamp, at())
            taken.append(stamp)
    assert taken == stamps[::3]


def test_reset_makes_the_next_set_a_keyframe():
    policy = KeyframePolicy(CONFIG)
    policy.accept(10 * S, at())
    assert not policy.is_keyframe(S, at())
    policy.reset()
    assert policy.is_keyframe(S, at())
