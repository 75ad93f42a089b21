# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.simulation.sensor_effects import (
    CameraCharacter,
    Shot,
    random_cameras,
    random_shots,
    take_pictures,
)

STILL = Shot(1.0, np.zeros(2))
PERFECT = CameraCharacter(gain=np.ones(3))


def scene(height=60, width=80, seed=0):
    """Smooth blobs of all colours, which survive interpolation."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 7 + n) + np.cos(y / 5 - n) for n in range(3)]
    return (128 + 30 * np.stack(waves, axis=-1)).astype(np.uint8)


def take(image, camera, shot=STILL, focal=100.0, seed=0):
    return take_pictures(image[None], [focal], [camera], [shot], np.random.default_rng(seed))[0]


def test_a_perfect_camera_changes_nothing():
    np.testing.assert_array_equal(take(scene(), PERFECT), scene())


def test_noise_grows_with_the_root_of_the_light():
    camera = CameraCharacter(gain=np.ones(3), shot_noise=10.0, read_noise=2.0)
    for level in (40, 90, 160):
        flat = np.full((200, 200, 3), level, np.uint8)
        expected = (2.0**2 + 10.0**2 * level / 255) ** 0.5
        assert take(flat, camera).astype(float).std() == pytest.approx(expected, rel=0.05)


def test_exposure_white_balance_and_corners():
    flat = np.full((41, 61, 3), 100, np.uint8)
    out = take(flat, CameraCharacter(gain=np.array([1.2, 1.0, 0.5])), Shot(1.1, np.zeros(2)))
    np.testing.assert_allclose(out[20, 30], (132, 110, 55), atol=1)
    dark = take(flat, CameraCharacter(gain=np.ones(3), vignetting=0.4)).astype(float)
    assert dark[20, 30, 0] == pytest.approx(100, abs=1.5) and dark[0, 0, 0] == pytest.approx(60, abs=2)


@pytest.mark.parametrize(("turning", "axis"), [((0.0, 0.8), 1), ((-0.8, 0.0), 0)])
def test_rows_of_a_rolling_shutter_are_late(turning, axis):
    """A camera that turns right sees things move left: by focal * speed * time in the last row, half before the middle."""
    image = scene(height=61)
    camera, focal = CameraCharacter(gain=np.ones(3), readout_s=0.05), 100.0
    out = take(image, camera, Shot(1.0, np.array(turning)), focal).astype(int)
    middle, shift = 30, 100.0 * 0.8 * 0.05 * 20 / 61
    np.testing.assert_allclose(out[middle], image[middle], atol=1)
    rows, columns = np.arange(61)[:, None] + np.zeros(80), np.arange(80) + np.zeros((61, 1))
    moved = (rows, columns + shift) if axis else (rows + shift, columns)
    waves = [np.sin(moved[1] / 7 + n) + np.cos(moved[0] / 5 - n) for n in range(3)]
    expected = 128 + 30 * np.stack(waves, axis=-1)
    assert np.abs(out[middle + 20, 8:-8] - expected[middle + 20, 8:-8]).max() < 5
    assert np.abs(out[middle + 20, 8:-8] - image[middle + 20, 8:-8].astype(int)).max() > 5


def test_motion_blurs_along_its_direction_and_keeps_the_light():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 250
    out = take(dot, CameraCharacter(gain=np.ones(3), exposure_s=0.05), Shot(1.0, np.array([0.0, 2.0])), focal=80.0)
    extent = np.argwhere(out[..., 0] > 5).astype(int)
    assert np.ptp(extent[:, 1]) == pytest.approx(8, abs=1.1) and np.ptp(extent[:, 0]) == 0
    assert float(out[..., 0].sum()) == pytest.approx(250, rel=0.1)


def test_distortion_moves_corners_and_not_the_middle():
    image = scene(61, 81)
    out = take(image, CameraCharacter(gain=np.ones(3), radial=0.03)).astype(int)
    assert np.abs(out[30, 40] - image[30, 40].astype(int)).max() <= 1
    assert np.abs(out - image)[(0, -1), :].max() > 3


def test_jpeg_keeps_colours_in_place():
    out = take(scene(), CameraCharacter(gain=np.ones(3), jpeg_quality=90)).astype(int)
    assert 0 < np.abs(out - scene()).mean() < 3


def test_random_cameras_of_a_rig_are_alike_and_reproducible():
    images = np.stack([scene(seed=n) for n in range(6)])
    taken = []
    for _ in range(2):
        rng = np.random.default_rng(4)
        cameras, shots = random_cameras(rng, 3, 0.5), random_shots(rng, 6, 0.3)
        taken.append(take_pictures(images, [90.0] * 6, cameras * 2, shots, rng))
    np.testing.assert_array_equal(*taken)
    assert len({camera.jpeg_quality for camera in cameras}) == 1
    assert np.ptp([camera.gain.mean() for camera in cameras]) > 0


def test_automatic_exposure_keeps_pictures_between_black_and_white():
    for light in (8, 60, 120, 220):
        means = []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            (camera,) = random_cameras(rng, 1, light / 255)
            means.append(take_pictures(np.full((1, 20, 20, 3), light, np.uint8), [50], [camera], [STILL], rng).mean())
        assert 40 < np.median(means) < 215
