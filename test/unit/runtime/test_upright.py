# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from box_room import at

from occupancy_nn_ros.runtime.upright import STEPS, Upright

CAMERA = at(0.1, 0, 0.5, pitch=10)


def drive(tilt, steps=40, camera=CAMERA, turn=0.0):
    """The doubt after so many poses, 0.15 m apart, of a robot whose map is tilted by some degrees."""
    checks = Upright()
    for n in range(steps):
        T = at(pitch=tilt(n)) @ at(0.15 * n, 0, 0, turn * n)
        checks.look(T, T @ camera)
    return checks.doubt


@pytest.mark.parametrize("turn", [0.0, 12.0])
def test_a_map_that_is_not_aligned_with_gravity_is_told(turn):
    assert drive(lambda n: 25.0, turn=turn).startswith("the robot's z axis is 25 degrees and more off the map's")
    assert drive(lambda n: 170.0).startswith("the robot's z axis is 170 degrees")


@pytest.mark.parametrize(
    "tilt", [lambda n: 0.0, lambda n: 10.0, lambda n: 30.0 * (n % 15 > 2), lambda n: 20.0 * np.sin(n / 4)]
)
def test_ramps_and_a_body_that_nods_are_not_told(tilt):
    assert drive(tilt) == ""


def test_a_robot_that_is_its_camera_and_one_that_has_hardly_moved_are_not_told():
    assert drive(lambda n: 25.0, camera=np.eye(4)) == ""
    assert drive(lambda n: 25.0, steps=STEPS - 1) == ""
