# SPDX-License-Identifier: Apache-2.0
"""Poses of keyframes corrected by their images: a camera before a textured wall and a textured board nearer by."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.alignment.pose_alignment import PoseAlignment, PoseQuality, disagreement_of
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedImage

CAMERA = CameraModel(352, 256, np.array([[280.0, 0, 176], [0, 280, 128], [0, 0, 1]]), "none", np.zeros(0))
PIXELS_PER_M = 80


def texture(seed):
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 255, (640, 960, 3)).astype(np.float32), (0, 0), 2.0) * 6 - 640


WALLS = [(texture(n).clip(0, 255).astype(np.uint8), depth) for n, depth in ((0, 4.0), (1, 2.2))]


def picture(T_map_cam):
    """What the camera sees of a wall at z = 4 m, and of one at 2.2 m that begins to the right of x = 0.6 m."""
    image = np.zeros((256, 352, 3), np.uint8)
    for (wall, depth), left in zip(WALLS, (-6.0, 0.6), strict=True):
        to_map = np.array([[1 / PIXELS_PER_M, 0, left], [0, 1 / PIXELS_PER_M, -4.0], [0, 0, depth], [0, 0, 1]])
        homography = CAMERA.K @ (invert(T_map_cam) @ to_map)[:3]
        seen = cv2.warpPerspective(wall, homography, (352, 256), flags=cv2.INTER_LINEAR)
        covered = cv2.warpPerspective(np.full(wall.shape[:2], 255, np.uint8), homography, (352, 256)) > 254
        image[covered] = seen[covered]
    return image


def true_pose(index):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("yx", [0.02 * np.sin(index), 0.01 * index]).as_matrix()
    pose[:3, 3] = (0.1 * index - 0.5, 0.02 * np.cos(index), 0.0)
    return pose


def wrong(pose, seed):
    rng = np.random.default_rng([seed, 9])
    off = np.eye(4)
    off[:3, :3] = Rotation.from_rotvec(rng.normal(0, np.deg2rad(0.3), 3)).as_matrix()
    off[:3, 3] = rng.normal(0, 0.01, 3)
    return pose @ off


def keyframe(index, pose, images=None):
    picture_of = picture(true_pose(index)) if images is None else images
    image = PosedImage("front", index * 10**9, picture_of, CAMERA, pose)
    return Keyframe(index * 10**9, np.eye(4), images=(image,))


@pytest.fixture(scope="module")
def pictures():
    return [picture(true_pose(index)) for index in range(12)]


def test_exact_poses_stay_as_they_are_bit_for_bit(pictures):
    alignment = PoseAlignment()
    for index, image in enumerate(pictures):
        given = keyframe(index, true_pose(index), image)
        assert alignment.align(given) is given
    assert alignment.quality.agrees
    assert alignment.quality.given_px < 0.3


def test_noise_of_a_centimetre_and_a_third_of_a_degree_is_more_than_halved(pictures):
    alignment, before, after = PoseAlignment(), [], []
    for index, image in enumerate(pictures):
        given = keyframe(index, wrong(true_pose(index), index), image)
        before.append(given.images[0].T_map_cam)
        assert np.array_equal(alignment.align(given).T_map_base, given.T_map_base)
        after = [alignment.poses().get(n * 10**9) for n in range(index + 1)]
    assert not alignment.quality.agrees
    recent = range(3, 11)
    errors = []
    for poses in (before, [None if p is None else p[0] for p in after]):
        turns = []
        for n in recent:
            step, right = (invert(pair[n]) @ pair[n + 1] for pair in (poses, [true_pose(m) for m in range(12)]))
            turns.append(Rotation.from_matrix(step[:3, :3].T @ right[:3, :3]).magnitude())
        errors.append(np.sqrt(np.mean(np.square(turns))))
    assert errors[1] < 0.5 * errors[0]


def test_a_jump_of_the_poses_begins_anew(pictures):
    alignment = PoseAlignment()
    for index, image in enumerate(pictures):
        pose = true_pose(index)
        pose[0, 3] += 0.8 if index >= 8 else 0.0
        given = keyframe(index, pose, image)
        corrected = alignment.align(given)
        assert np.abs(corrected.images[0].T_map_cam - pose).max() < 0.06
    assert set(alignment.poses()) == {n * 10**9 for n in range(8, 12)}


def test_without_features_poses_stay(pictures):
    alignment = PoseAlignment()
    for index in range(7):
        given = keyframe(index, wrong(true_pose(index), index), np.full_like(pictures[0], 128))
        assert alignment.align(given) is given
    assert alignment.quality is None


def test_keyframes_without_images_and_with_fewer_cameras(pictures):
    alignment = PoseAlignment()
    empty = Keyframe(0, np.eye(4))
    assert alignment.align(empty) is empty
    first = keyframe(1, true_pose(1), pictures[1])
    both = replace(first, images=first.images * 2)
    alignment.align(both)
    alignment.align(keyframe(2, true_pose(2), pictures[2]))
    assert set(alignment.poses()) == {2 * 10**9}


def test_poses_that_stay_wrong_are_named_and_good_ones_are_not(pictures):
    wrong_ones, right_ones = PoseAlignment(), PoseAlignment()
    said = []
    for index in range(len(pictures) * 2):
        number = index if index < len(pictures) else 2 * len(pictures) - 1 - index  # there and back again
        right = keyframe(index, true_pose(number), pictures[number])
        right_ones.align(right)
        off = right.images[0].T_map_cam @ np.block(
            [[Rotation.from_euler("y", (-1) ** index, degrees=True).as_matrix(), np.zeros((3, 1))], [np.eye(4)[3:]]]
        )
        wrong_ones.align(replace(right, images=(replace(right.images[0], T_map_cam=off),)))
        said.append(wrong_ones.disagreement)
    assert right_ones.disagreement == ""
    assert not any(said[:11])
    assert said[-1].startswith("poses and pictures disagree: features miss by")


def test_keyframes_that_tell_nothing_do_not_count():
    nothing, wrong_one, right_one = (
        PoseQuality(np.nan, np.nan, 0.0),
        PoseQuality(3.0, 0.5, 0.01),
        PoseQuality(0.4, 0.3, 0.0),
    )
    assert disagreement_of([]) == disagreement_of([nothing]) == ""
    assert disagreement_of([nothing, right_one, right_one, wrong_one]) == ""
    assert "miss by 3.0 px where 0.5 px" in disagreement_of([nothing, wrong_one, nothing, wrong_one, right_one])
    assert (
        disagreement_of([PoseQuality(3.0, 2.5, 0.01)] * 3) == ""
    )  # matches that miss under any poses are wrong themselves
