# SPDX-License-Identifier: Apache-2.0
"""Pictures of two walls whose depth is exact: they fit each other by it, and by no other depth."""

import numpy as np
import pytest
import textured_walls as walls

from occupancy_nn_ros.adaptation.photometric import NO_MATCH, Neighbours, Picture
from occupancy_nn_ros.training.shards import DEPTH_STRIDE

FRAMES, MIDDLE = 8, 4
POSES = [walls.pose(0.4 * n) for n in range(FRAMES)]


@pytest.fixture(scope="module")
def images():
    return [walls.picture(pose) for pose in POSES]


def neighbours(images):
    pictures = [Picture(image, walls.MODEL.K, pose) for image, pose in zip(images, POSES, strict=True)]
    return Neighbours(pictures.pop(MIDDLE), pictures)


@pytest.fixture(scope="module")
def around(images):
    return neighbours(images)


TRUE = walls.depth(POSES[MIDDLE], DEPTH_STRIDE)


def test_true_depth_fits_and_any_other_does_not(around):
    told = around.comparable()
    true = around.mismatch(TRUE[None])
    assert told.mean() > 0.7 and np.median(true[told]) < 0.03
    for factor in (0.7, 0.85, 1.15, 1.4):
        assert np.median(true[told]) < 0.3 * np.median(around.mismatch(factor * TRUE[None])[told])


def test_the_best_of_some_depths_counts(around):
    several = around.mismatch(np.stack([0.8 * TRUE, TRUE, 1.3 * TRUE]))
    each = [around.mismatch(factor * TRUE[None]) for factor in (0.8, 1.0, 1.3)]
    np.testing.assert_allclose(several, np.min(each, axis=0), atol=1e-6)


def test_no_depth_matches_nothing(around):
    depths = np.where(np.arange(TRUE.shape[1]) < 30, np.nan, TRUE)
    mismatch = around.mismatch(depths[None])
    assert (mismatch[:, :30] == NO_MATCH).all()
    np.testing.assert_array_equal(mismatch[:, 30:], around.mismatch(TRUE[None])[:, 30:])


def test_what_no_other_picture_shows_matches_nothing(around):
    assert (around.mismatch(np.full((1, *TRUE.shape), 0.01)) == NO_MATCH).mean() > 0.9


def test_exposure_changes_nothing_but_rounding(images, around):
    gains = np.linspace(0.5, 1.0, FRAMES)
    darker = neighbours([(image * gain + 10).astype(np.uint8) for image, gain in zip(images, gains, strict=True)])
    both = around.comparable() & darker.comparable()
    assert both.mean() > 0.6
    assert np.abs(around.mismatch(TRUE[None]) - darker.mismatch(TRUE[None]))[both].mean() < 0.02


def test_what_moves_with_the_camera_tells_nothing(images, rng):
    body = rng.integers(0, 255, (64, walls.WIDTH, 3), dtype=np.uint8)
    told = neighbours([np.concatenate([image[:-64], body]) for image in images]).comparable()
    assert not told[-12:].any() and told[:40].mean() > 0.7


def test_what_has_no_texture_tells_nothing(images):
    plain = [image.copy() for image in images]
    for image in plain:
        image[:, : walls.WIDTH // 2] = 128
    assert not neighbours(plain).comparable()[:, : walls.WIDTH // 8 - 4].any()


def test_a_picture_alone_tells_nothing(images):
    alone = Neighbours(Picture(images[0], walls.MODEL.K, POSES[0]), [])
    assert not alone.comparable().any() and (alone.mismatch(TRUE[None]) == NO_MATCH).all()
