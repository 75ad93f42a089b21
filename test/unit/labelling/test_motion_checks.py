# SPDX-License-Identifier: Apache-2.0
"""Recordings whose cameras hardly move, or are mounted otherwise than told, are refused with the reason."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from textured_walls import MODEL, picture, pose

from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.labelling.motion_checks import CalibrationCheck, check_motion
from occupancy_nn_ros.values import Keyframe, PosedDepth, PosedImage

BAG = Path("drive.mcap")


def keyframes(turned_deg, period_s=0.25):
    """A camera that is told to be mounted ``turned_deg`` beside what it is."""
    mount = np.eye(4)
    mount[:3, :3] = Rotation.from_euler("y", turned_deg, degrees=True).as_matrix()
    for time_s in np.arange(0, 20) * period_s:
        stamp = 10**12 + round(time_s * 1e9)
        image = PosedImage("front", stamp, picture(pose(time_s)), MODEL, pose(time_s) @ mount)
        yield Keyframe(stamp, pose(time_s), (image,))


def test_a_mounting_that_is_off_by_degrees_is_named():
    check = CalibrationCheck()
    assert len(list(check.watch(keyframes(4.0)))) == 20
    with pytest.raises(BagError, match=r"camera 'front' of drive.mcap: .*mounting is off by .* degrees") as raised:
        check.judge(BAG)
    assert "calibrate-cameras" in raised.value.advice


def test_a_mounting_that_faces_the_other_way_is_refused():
    """No feature is found where it should be, and so no angle either; the motion in the pictures tells."""
    check = CalibrationCheck()
    assert len(list(check.watch(keyframes(180.0, 0.45)))) == 20
    with pytest.raises(
        BagError, match=r"camera 'front' of drive.mcap: its pictures show another motion than its transforms"
    ):
        check.judge(BAG)


def test_a_right_one_passes():
    check = CalibrationCheck()
    assert [keyframe.stamp_ns for keyframe in check.watch(keyframes(0.0))] == [k.stamp_ns for k in keyframes(0.0)]
    check.judge(BAG)
    CalibrationCheck().judge(BAG)  # nor does nothing at all


@pytest.mark.parametrize(("step_m", "refused"), [(0.0, True), (0.01, True), (0.02, False)])
def test_motion_is_that_of_the_camera_that_moves_most(step_m, refused):
    def depths(n):
        poses = [np.eye(4), np.eye(4)]
        poses[1][0, 3] = n * step_m
        return tuple(PosedDepth(f"c{v}", n, np.zeros((4, 4), np.float32), MODEL, T) for v, T in enumerate(poses))

    moments = [depths(n) for n in range(10)]
    if not refused:
        check_motion(BAG, moments)
        return
    with pytest.raises(BagError, match=rf"move by {9 * step_m:.2f} m in all, expected at least 0.15 m"):
        check_motion(BAG, moments)
