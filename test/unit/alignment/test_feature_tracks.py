# SPDX-License-Identifier: Apache-2.0
"""Corners are followed to where they are, whatever the exposure does between two pictures of a camera."""

import cv2
import numpy as np
import pytest
import textured_walls as walls

from occupancy_nn_ros.alignment.feature_tracks import FeatureTracks, evened

RAMP = np.linspace(-1, 1, walls.HEIGHT)[:, None]
EXPOSURES = {
    "steady": lambda n, grey: grey,
    "15 % darker, then brighter": lambda n, grey: grey * (1.15 if n else 0.85),
    "30 % darker, then brighter": lambda n, grey: grey * (1.3 if n else 0.7),
    "light that flickers over the rows": lambda n, grey: grey * (1 + (0.3 if n else -0.3) * RAMP),
    "vignetting of half": lambda n, grey: grey * (1 - 0.25 * (RAMP**2 + np.linspace(-1, 1, walls.WIDTH) ** 2)),
}


def where(pixels, seen_from, depth, pose):
    """Where points at pixels (N, 2) and depths (N,) of one pose are seen from another."""
    K = walls.MODEL.K
    rays = np.column_stack([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(len(pixels))])
    points = (rays * depth[:, None]) @ seen_from[:3, :3].T + seen_from[:3, 3]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    return local[:, :2] / local[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]


def followed(exposure, noise, rng):
    """Share of the corners that are found again a moment later, and by how much they miss, in pixels."""
    poses = [walls.pose(time_s) for time_s in (0.7, 1.05)]
    greys = [exposure(n, cv2.cvtColor(walls.picture(T), cv2.COLOR_RGB2GRAY).astype(float)) for n, T in enumerate(poses)]
    before, now = (np.clip(grey + rng.normal(0, noise, grey.shape), 0, 255).astype(np.uint8) for grey in greys)
    tracks = FeatureTracks()
    tracks.add_keyframe()
    tracks.detect(0, before, np.full(before.shape, 255, np.uint8))
    tracks.add_keyframe()
    pixels = tracks.pixels[:, 0]
    columns, rows = pixels.round().astype(int).T
    true = where(pixels, poses[0], walls.depth(poses[0], 1)[rows, columns], poses[1])
    expected = true + rng.normal(0, 1.5, true.shape)
    asked = tracks.follow(np.arange(len(pixels)), evened(before), evened(now), expected)
    seen = tracks.seen[:, 1]
    return seen.sum() / asked, np.linalg.norm(tracks.pixels[seen, 1] - true[seen], axis=1)


@pytest.mark.parametrize("noise", [0.0, 4.0], ids=["without noise", "with noise"])
@pytest.mark.parametrize("kind", EXPOSURES)
def test_corners_are_followed_through_changes_of_exposure(kind, noise, rng):
    share, miss_px = followed(EXPOSURES[kind], noise, rng)
    assert share > 0.85
    assert np.median(miss_px) < 0.2 and np.quantile(miss_px, 0.8) < 0.5


def test_an_evened_image_is_the_same_in_any_light(rng):
    grey = cv2.cvtColor(walls.picture(walls.pose(0.0)), cv2.COLOR_RGB2GRAY)
    bright = evened(grey).astype(int)
    for gain, offset in ((0.5, 0), (0.8, 30), (0.4, 100)):
        dim = evened(np.round(grey * gain + offset).astype(np.uint8)).astype(int)
        assert np.abs(dim - bright).mean() < 1.5
    assert abs(bright.mean() - 128) < 3


def test_what_has_no_contrast_stays_without(rng):
    """Noise of one grey level is not made a texture of; an image of one grey is one."""
    assert (evened(np.full((60, 80), 77, np.uint8)) == 128).all()
    noisy = evened((100 + rng.integers(-1, 2, (60, 80))).astype(np.uint8))
    assert noisy.std() < 8
