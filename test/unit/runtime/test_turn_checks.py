# SPDX-License-Identifier: Apache-2.0
"""Pictures that do not turn as their camera's frame does: turned over, mirrored, at rest, or turning alone."""

import numpy as np
import pytest
import textured_walls
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.runtime.turn_checks import AT_REST, TIMES, TURNS_ALONE, WORDS, TurnChecks
from occupancy_nn_ros.values import PosedImage

UPRIGHT, TURNED, MIRRORED, FLIPPED = np.s_[:], np.s_[::-1, ::-1], np.s_[:, ::-1], np.s_[::-1]


def pose(step, axis="y", turn=0.1):
    """Step by step along the optical axis, swaying by 0.1 rad about an axis of the camera."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler(axis, turn * (step % 4 if step % 8 < 4 else 4 - step % 4)).as_matrix()
    T[2, 3] = 0.02 * step
    return T


def watch(way=UPRIGHT, axis="y", frame=pose, seen=pose, steps=14, exposure=lambda n: 1.0):
    """What is refused of the pictures, and the doubt that is left."""
    checks, refused = TurnChecks(), []
    for n in range(steps):
        picture = textured_walls.picture(seen(n, axis))[way] * exposure(n)
        T = frame(n, axis)
        try:
            checks.check(PosedImage("eye", n, np.ascontiguousarray(picture.astype(np.uint8)), textured_walls.MODEL, T))
        except ImplausibleError as error:
            refused.append((error.reason, error.spoils_map, str(error)))
    return refused, checks.doubt


@pytest.mark.parametrize("axis", ["y", "x", "z"])
def test_pictures_that_turn_as_their_frame_are_taken(axis):
    assert watch(axis=axis, exposure=lambda n: 0.6 if n % 2 else 1.0) == ([], "")


@pytest.mark.parametrize(
    ("way", "axis", "words"),
    [
        (TURNED, "y", "turned by 180 degrees"), (MIRRORED, "y", "mirrored left to right"),
        (TURNED, "x", "turned by 180 degrees"), (FLIPPED, "x", "flipped upside down"),
    ],
)  # fmt: skip
def test_pictures_that_are_turned_over_are_refused_after_five_turns(way, axis, words):
    refused, doubt = watch(way, axis)
    assert doubt == ""
    assert [spoils for _, spoils, _ in refused] == [True] + [False] * (14 - 1 - TIMES)
    assert {reason for reason, _, _ in refused} == {"picture is mirrored or turned over"}
    assert all(words in text for _, _, text in refused)


def test_what_a_turn_does_not_tell_is_not_refused():
    assert watch(FLIPPED, "y") == ([], "")
    assert watch(MIRRORED, "x") == ([], "")


def test_a_frame_that_turns_alone_is_told():
    """Wheels that slip on the spot, or another robot's transforms."""
    assert watch(seen=lambda n, axis: pose(0, axis)) == ([], WORDS[AT_REST])


def test_pictures_that_turn_alone_are_told():
    """Odometry that hangs: the map would be smeared around the robot."""
    assert watch(frame=lambda n, axis: pose(0, axis)) == ([], WORDS[TURNS_ALONE])


def test_beside_a_wall_the_picture_may_run_against_the_turn():
    """A camera that looks aside and passes near things tells nothing of its turns."""

    def passing(n, axis):
        T = pose(n, axis)
        T[0, 3] = 0.25 * n
        return T

    assert watch(TURNED, frame=passing, seen=passing) == ([], "")


def test_a_robot_at_rest_before_which_things_change_is_not_doubted():
    rng = np.random.default_rng(0)
    checks = TurnChecks()
    for n in range(10):
        picture = textured_walls.picture(np.eye(4))
        start = int(rng.integers(0, 200))
        picture[40:220, start : start + 150] = rng.integers(0, 255, (180, 150, 3))  # who walks by, close
        checks.check(PosedImage("eye", n, picture, textured_walls.MODEL, np.eye(4)))
    assert checks.doubt == ""
