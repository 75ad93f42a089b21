# SPDX-License-Identifier: Apache-2.0
"""Frames that are wrong from the ground up, found by the motion that pictures show."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from textured_walls import MODEL, picture, pose

from occupancy_nn_ros.alignment.seen_motion import MotionComparison, motion_between
from occupancy_nn_ros.geometry.cameras import resized
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.values import PosedImage

TIMES_S = np.arange(0.0, 9.0, 0.4)
GREY = [cv2.cvtColor(picture(pose(time)), cv2.COLOR_RGB2GRAY) for time in TIMES_S]


def contradiction(given):
    """What is said of a camera whose poses are thought to be ``given(T_map_cam)``."""
    comparison = MotionComparison()
    for time in TIMES_S:
        comparison.take(PosedImage("eye", round(time * 1e9), picture(pose(time)), MODEL, given(pose(time))))
    return comparison.contradiction


def turned(*degrees):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return turn


def test_pictures_tell_rotation_and_direction():
    everywhere = np.ones(GREY[0].shape, bool)
    ways = []
    for index in range(len(TIMES_S) - 1):
        seen = motion_between(GREY[index], GREY[index + 1], everywhere, MODEL.K)
        true = invert(pose(TIMES_S[index + 1])) @ pose(TIMES_S[index])
        np.testing.assert_allclose(seen.turn, Rotation.from_matrix(true[:3, :3]).as_rotvec(), atol=0.04)
        ways.append(seen.way @ true[:3, 3] / np.linalg.norm(true[:3, 3]) if seen.way is not None else np.nan)
    assert np.nanmedian(ways) > 0.9


@pytest.mark.parametrize("mount", [turned(0, 0, 0), turned(5, -8, 5)], ids=["exact", "ten degrees off"])
def test_poses_that_are_right_or_nearly_are_not_contradicted(mount):
    assert contradiction(lambda T: T @ mount) == ""


def test_poses_in_another_map_frame_are_not_contradicted():
    other = turned(180, 0, 40)
    assert contradiction(lambda T: other @ T) == ""


@pytest.mark.parametrize(
    ("mount", "degrees", "axis"),
    [(turned(0, 180, 0), 180, "y"), (turned(0, 90, 0), 90, "y"), (turned(0, 0, 180), 180, "z"), (turned(90, 0, 0), 90, "x")],
    ids=["faces back", "faces aside", "upside down", "faces the sky"],
)  # fmt: skip
def test_a_mount_that_is_turned_is_told_by_how_much(mount, degrees, axis):
    text = contradiction(lambda T: T @ mount)
    assert f"turned by {degrees} degrees, most of it about its {axis}" in text.replace(
        f"{degrees - 1} deg", f"{degrees} deg"
    )


def test_a_quaternion_in_another_order_is_told():
    def reordered(T):
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        wrong = T.copy()
        wrong[:3, :3] = Rotation.from_quat((w, x, y, z)).as_matrix()
        return wrong

    assert "another motion than its transforms" in contradiction(reordered)


def test_what_tells_nothing_is_no_contradiction():
    """A camera that stands still, one that sees a plain wall, and one of too few pixels."""
    comparison = MotionComparison()
    for number in range(12):
        comparison.take(PosedImage("eye", number, picture(pose(0.0)), MODEL, pose(0.0)))
    assert comparison.contradiction == ""
    for number in range(12):
        comparison.take(PosedImage("eye", number, np.full_like(picture(pose(0.0)), 90), MODEL, pose(0.4 * number)))
    assert comparison.contradiction == ""
    small, comparison = resized(MODEL, 80, 60), MotionComparison()
    for time in TIMES_S:
        grain = cv2.resize(picture(pose(time)), (80, 60), interpolation=cv2.INTER_NEAREST)
        comparison.take(PosedImage("eye", round(time * 1e9), grain, small, pose(-time)))
    assert comparison.contradiction == ""
