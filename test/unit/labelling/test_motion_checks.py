# SPDX-License-Identifier: Apache-2.0
"""Recordings whose cameras hardly move, or are mounted otherwise than told, are refused with the reason."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.labelling.motion_checks import CalibrationCheck, check_motion
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedDepth, PosedImage

MODEL = CameraModel(352, 256, np.array([[280.0, 0, 176], [0, 280, 128], [0, 0, 1]]), "none", np.zeros(0))
PIXELS_PER_M = 60
BAG = Path("drive.mcap")


def wall(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (720, 1080, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 1.8) * 6 - 640).clip(0, 255).astype(np.uint8)


WALLS = [(wall(0), 4.5, -9.0), (wall(1), 2.5, 0.5)]


def picture(T_map_cam):
    """Two walls across the map's z axis, each with its depth and its left edge."""
    image = np.zeros((256, 352, 3), np.uint8)
    for texture, depth, left in WALLS:
        to_map = np.array([[1 / PIXELS_PER_M, 0, left], [0, 1 / PIXELS_PER_M, -6.0], [0, 0, depth], [0, 0, 1]])
        homography = MODEL.K @ (invert(T_map_cam) @ to_map)[:3]
        covered = cv2.warpPerspective(np.full(texture.shape[:2], 255, np.uint8), homography, (352, 256)) > 254
        image[covered] = cv2.warpPerspective(texture, homography, (352, 256))[covered]
    return image


def pose(time_s):
    transform = np.eye(4)
    angles = [0.12 * np.sin(1.1 * time_s), 0.15 * np.sin(0.8 * time_s), 0.1 * np.sin(1.7 * time_s)]
    transform[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    transform[:3, 3] = (0.5 * np.sin(0.5 * time_s), 0.2 * np.sin(0.9 * time_s), 0.2 * np.sin(0.4 * time_s))
    return transform


def keyframes(turned_deg):
    """A camera that is told to be mounted ``turned_deg`` beside what it is."""
    mount = np.eye(4)
    mount[:3, :3] = Rotation.from_euler("y", turned_deg, degrees=True).as_matrix()
    for time_s in np.arange(0, 5, 0.25):
        stamp = 10**12 + round(time_s * 1e9)
        image = PosedImage("front", stamp, picture(pose(time_s)), MODEL, pose(time_s) @ mount)
        yield Keyframe(stamp, pose(time_s), (image,))


def test_a_mounting_that_is_off_by_degrees_is_named():
    check = CalibrationCheck()
    assert len(list(check.watch(keyframes(4.0)))) == 20
    with pytest.raises(BagError, match=r"camera 'front' of drive.mcap: .*mounting is off by .* degrees") as raised:
        check.judge(BAG)
    assert "calibrate-cameras" in raised.value.advice


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
