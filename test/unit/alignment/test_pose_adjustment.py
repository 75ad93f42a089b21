# SPDX-License-Identifier: Apache-2.0
"""Corrections of poses from where features are seen, where the truth is known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.alignment.feature_tracks import FeatureTracks
from occupancy_nn_ros.alignment.pose_adjustment import PoseWindow, _Sightings, _State, adjust
from occupancy_nn_ros.geometry.poses import invert

K = np.array([[280.0, 0, 176], [0, 280, 128], [0, 0, 1]])
SIGMA = 0.0105


def window_and_tracks(noise, keyframes=9, features=80, seed=0, cameras=1):
    """A camera that moves sideways before random points, its true poses, and poses that are wrong by ``noise`` (W, 6)."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (keyframes, cameras, 1, 1))
    poses[:, :, 0, 3] = 0.12 * np.arange(keyframes)[:, None]
    poses[:, :, 1, 3] = 0.05 * np.sin(np.arange(keyframes))[:, None] + 0.3 * np.arange(cameras)
    points = np.column_stack(
        [rng.uniform(-2, 3, features), rng.uniform(-1.2, 1.2, features), rng.uniform(2, 5, features)]
    )
    pixels, camera, inverse = [], [], []
    for view in range(cameras):
        local = np.stack([points @ T[:3, :3].T + T[:3, 3] for T in map(invert, poses[:, view])], axis=1)
        seen = local[..., :2] / local[..., 2:] * 280 + [176, 128]
        inside = ((seen > 0) & (seen < [352, 256])).all(axis=2)
        rows = inside.sum(axis=1) > 1
        pixels.append(np.where(inside[..., None], seen, np.nan)[rows])
        camera += [view] * int(rows.sum())
        inverse.append(1 / local[rows, inside[rows].argmax(axis=1), 2])
    tracks = FeatureTracks(np.concatenate(pixels), np.array(camera), np.concatenate(inverse))
    true = PoseWindow(np.tile(K, (keyframes, cameras, 1, 1)), poses, poses[:, :, :3, 3].mean(axis=1))
    given = true.corrected(noise)
    return true, PoseWindow(true.K, given, given[:, :, :3, 3].mean(axis=1)), tracks


def noise(seed, keyframes=9):
    return np.random.default_rng(seed).normal(size=(keyframes, 6)) * np.repeat([0.01, np.deg2rad(0.3)], 3)


def steps(poses):
    """From each keyframe to the next: shift in metres and turn in radians."""
    between = [invert(a) @ b for a, b in zip(poses[:-1, 0], poses[1:, 0], strict=True)]
    return np.array([T[:3, 3] for T in between]), np.array(
        [Rotation.from_matrix(T[:3, :3]).as_rotvec() for T in between]
    )


@pytest.mark.parametrize("cameras", [1, 2])
def test_most_of_the_noise_between_keyframes_is_found(cameras):
    true, given, tracks = window_and_tracks(noise(1), cameras=cameras)
    tracks.inverse_depth = np.full(len(tracks.camera), 0.4)
    found = adjust(given, tracks, SIGMA, np.zeros((9, 6)))
    before, after = steps(given.T_map_cam), steps(given.corrected(found.corrections))
    right = steps(true.T_map_cam)
    for old, new, true_step, share in zip(
        before, after, right, (0.75, 0.5), strict=True
    ):  # a step aside looks like a turn
        assert np.sqrt(((new - true_step) ** 2).mean()) < share * np.sqrt(((old - true_step) ** 2).mean())
    assert found.median_px < 0.3
    assert adjust(given, tracks, 0.0, np.zeros((9, 6))).median_px > 1.0


def test_exact_poses_are_left_where_they_are():
    true, _, tracks = window_and_tracks(np.zeros((9, 6)))
    found = adjust(true, tracks, SIGMA, np.zeros((9, 6)))
    assert np.abs(found.corrections).max() < 1e-6
    assert found.median_px < 1e-6


def test_depths_alone_are_found_without_moving_a_pose():
    true, _, tracks = window_and_tracks(np.zeros((9, 6)))
    right = tracks.inverse_depth.copy()
    tracks.inverse_depth = np.full(len(right), 0.4)
    found = adjust(true, tracks, 0.0, np.zeros((9, 6)))
    assert not found.corrections.any()
    assert np.median(np.abs(found.inverse_depth - right)) < 1e-3


def test_corrections_are_bounded():
    _, given, tracks = window_and_tracks(20 * noise(2))
    found = adjust(given, tracks, 0.002, np.zeros((9, 6)))
    assert np.abs(found.corrections[:, 3:]).max() <= 2.5 * 0.002 + 1e-12
    assert np.abs(found.corrections[:, :3]).max() <= 2.5 * 1.9 * 0.002 + 1e-12


def test_confused_features_hardly_matter():
    true, given, tracks = window_and_tracks(noise(3))
    wrong = np.random.default_rng(4).random(tracks.pixels.shape[:2]) < 0.1
    tracks.pixels[wrong] += 30.0
    found = adjust(given, tracks, SIGMA, np.zeros((9, 6)))
    before, after, right = (
        steps(poses)[1] for poses in (given.T_map_cam, given.corrected(found.corrections), true.T_map_cam)
    )
    assert np.abs(after - right).mean() < 0.5 * np.abs(before - right).mean()


def test_derivatives_are_those_of_the_errors():
    _, given, tracks = window_and_tracks(noise(5), features=12)
    problem, state = _Sightings(given, tracks), _State(noise(6), tracks.inverse_depth)
    point = problem.linearize(state, poses=True)
    error = problem.geometry(state).error_px
    weight = np.linalg.norm(point.error, axis=1) / np.maximum(np.linalg.norm(error, axis=1), 1e-12)
    for index in (0, 4, 8, 13, 27, 52):
        moved = state.corrections.copy().reshape(-1)
        moved[index] += 1e-6
        slope = (problem.geometry(_State(moved.reshape(-1, 6), state.inverse_depth)).error_px - error) / 1e-6
        # A turn is added to the rotation vector, the derivative turns after it: equal to the size of the correction.
        assert point.by_pose[..., index] == pytest.approx(slope * weight[:, None], rel=0.03, abs=2.0)
    nearer = problem.geometry(_State(state.corrections, state.inverse_depth + 1e-6)).error_px
    assert point.by_depth == pytest.approx((nearer - error) / 1e-6 * weight[:, None], rel=1e-3, abs=1e-2)


def test_poses_without_a_correction_are_the_same_bit_for_bit():
    _, given, _ = window_and_tracks(noise(7), cameras=2)
    corrections = noise(8)
    corrections[2:5] = 0
    poses = given.corrected(corrections)
    assert np.array_equal(poses[2:5], given.T_map_cam[2:5])
    moved = poses[0, :, :3, 3].mean(axis=0) - given.T_map_cam[0, :, :3, 3].mean(axis=0)
    assert moved == pytest.approx(corrections[0, :3], abs=1e-12)
