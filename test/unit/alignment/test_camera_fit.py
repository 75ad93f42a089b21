# SPDX-License-Identifier: Apache-2.0
"""Focal length, mounting and delay of a camera, found again from matches made with others."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.alignment.camera_fit import Matches, fit_camera, misses
from occupancy_nn_ros.geometry.poses import invert


def camera(time_s):
    """T_map_cam of a hand-held camera at a time."""
    pose = np.eye(4)
    angles = [0.4 * np.sin(0.9 * time_s), 0.5 * np.sin(0.6 * time_s), 0.3 * np.sin(1.3 * time_s)]
    pose[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    pose[:3, 3] = (0.4 * np.sin(0.7 * time_s), 0.2 * np.cos(time_s), 0.15 * time_s)
    return pose


def motion(time_s):
    before, after = camera(time_s - 0.01), camera(time_s + 0.01)
    turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
    return np.concatenate([after[:3, 3] - before[:3, 3], turn]) / 0.02


def made_with(focal=1.0, turn=(0.0, 0.0, 0.0), delay=0.0, noise_px=0.2, seed=0):
    """Matches of a camera that is really ``focal`` times longer, turned, and late, beside what is known of it."""
    rng = np.random.default_rng(seed)
    mount = np.eye(4)
    mount[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    rows = []
    for start in np.arange(0.0, 9.0, 0.3):
        points = np.column_stack([rng.uniform(-2, 2, 60), rng.uniform(-1.5, 1.5, 60), rng.uniform(2, 6, 60)])
        true = [camera(time + delay) @ mount for time in (start, start + 0.5)]
        world = points @ true[0][:3, :3].T + true[0][:3, 3]
        local = [world @ T[:3, :3].T + T[:3, 3] for T in map(invert, true)]
        seen = [p[:, :2] / p[:, 2:] * focal + rng.normal(0, noise_px / 300, (60, 2)) for p in local]
        inside = (np.abs(np.concatenate(seen, axis=1)) < 0.7).all(axis=1) & (local[1][:, 2] > 0.5)
        rows += [(a, b, start, start + 0.5) for a, b in zip(seen[0][inside], seen[1][inside], strict=True)]
    first, second, times, later = (np.array(column) for column in zip(*rows, strict=True))
    poses = [np.stack([what(time) for time in column]) for what in (camera, motion) for column in (times, later)]
    return Matches(first, second, *poses, focal_px=300.0)


@pytest.mark.parametrize(
    ("focal", "turn", "delay"),
    [(1.02, (0, 0, 0), 0.0), (0.95, (0, 0, 0), 0.0), (1.0, (0, 0, 0), 0.04), (1.0, (0, 0, 0), -0.06), (1.03, (0.01, -0.015, 0.008), 0.02)],
)  # fmt: skip
def test_what_is_wrong_is_found_and_named(focal, turn, delay):
    fit = fit_camera(made_with(focal, turn, delay))
    assert fit.focal == pytest.approx(focal, abs=0.004)
    assert fit.turn_rad == pytest.approx(turn, abs=0.003)
    assert fit.delay_s == pytest.approx(delay, abs=0.004)
    assert fit.best_px < 0.3 < fit.given_px
    assert (fit.names_focal, fit.names_turn, fit.names_delay) == (focal != 1, any(turn), delay != 0)


def test_nothing_is_named_where_all_is_right():
    fit = fit_camera(made_with())
    assert not (fit.is_better or fit.names_focal or fit.names_turn or fit.names_delay)
    assert fit.given_px == pytest.approx(fit.best_px, rel=0.1)


def test_half_of_the_matches_confused_change_little():
    matches = made_with(1.03, noise_px=0.3)
    wrong = np.random.default_rng(1).random(len(matches)) < 0.3
    matches.second[wrong] += np.random.default_rng(2).normal(0, 0.1, (int(wrong.sum()), 2))
    assert fit_camera(matches).focal == pytest.approx(1.03, abs=0.006)


def test_noise_of_the_poses_is_not_taken_for_calibration():
    matches = made_with()
    rng = np.random.default_rng(3)
    for poses in (matches.T_first, matches.T_second):
        for pose in poses.reshape(-1, 4, 4)[::1]:
            pose[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(rng.normal(0, np.deg2rad(0.3), 3)).as_matrix()
    fit = fit_camera(matches)
    assert not (fit.names_focal or fit.names_turn or fit.names_delay)


def test_too_few_matches_say_nothing():
    few = made_with()
    part = Matches(
        *(
            getattr(few, name)[:50]
            for name in ("first", "second", "T_first", "T_second", "motion_first", "motion_second")
        ),
        300.0,
    )
    assert fit_camera(part) is None
    assert np.abs(misses(part, np.zeros(5))).max() < 2.0


def test_matches_can_be_joined():
    matches = made_with()
    both = Matches.joined([matches, matches])
    assert len(both) == 2 * len(matches)
    assert np.array_equal(both.T_second[: len(matches)], matches.T_second)
