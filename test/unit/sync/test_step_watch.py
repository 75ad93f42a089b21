# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.sync.step_watch import StepWatch

TENTH = 100_000_000


def watch(of, count=60, period_ns=TENTH // 2):
    found = StepWatch()
    for n in range(count):
        x, yaw = of(n)
        found.add(n * period_ns, make_transform((x, 0, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2))))
    return found


@pytest.mark.parametrize(
    "of",
    [
        lambda n: (0.05 * n, 0.02 * n),
        lambda n: (1.0 * n, 0),  # a car
        lambda n: (0.3 * np.sin(0.3 * n), 0.8 * np.sin(0.4 * n)),  # a head that nods, an arm
        lambda n: (0.01 * np.random.default_rng(n).normal(), 0),
    ],
)
def test_motion_is_motion(of):
    found = watch(of)
    assert not found.are_two and found.jumps == 0 and found.steps == 59


def test_two_publishers_by_turns():
    assert watch(lambda n: (0.05 * n + 0.08 * (n % 2), 0)).are_two
    assert watch(lambda n: (0.05 * n, 0.06 * (n % 2))).are_two
    assert not watch(lambda n: (0.08 * (n % 2), 0), period_ns=4 * TENTH).are_two  # slow: it may have been there


def test_jumps_are_counted_with_the_largest():
    found = watch(lambda n: (0.05 * n + (n > 20) * 1.0 - (n > 40) * 2.5, (n > 40) * 0.7))
    assert found.jumps == 2
    assert found.largest_m == pytest.approx(2.45) and found.largest_rad == pytest.approx(0.7)


def test_what_does_not_follow_is_not_looked_at():
    found = watch(lambda n: (0.05 * n, 0))
    found.add(0, make_transform((99, 0, 0), (0, 0, 0, 1)))
    found.forget()
    found.add(10**12, make_transform((50, 0, 0), (0, 0, 0, 1)))
    assert found.jumps == 0


@pytest.mark.parametrize(
    ("before_m", "after_m", "pause_s", "jumps"),
    [(3.0, 0.0, 60, 1), (3.0, 0.0, 0.5, 1), (3.0, 4.0, 60, 0), (0.2, 0.0, 60, 0), (3.0, 0.05, 60, 0)],
)
def test_odometry_that_begins_anew_after_a_pause_has_jumped(before_m, after_m, pause_s, jumps):
    """Restarted, carried and restarted, or two drives in one recording: it is back at its origin to the centimetre."""
    found = watch(lambda n: (before_m * n / 59, 0.01 * n))
    start = found.newest_ns + round(pause_s * 1e9)
    for n in range(10):
        found.add(start + n * TENTH, make_transform((after_m + 0.03 * n, 0, 0), (0, 0, 0, 1)))
    assert found.jumps == jumps
