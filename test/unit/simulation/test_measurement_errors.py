# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.geometry.poses import rotation_angle
from occupancy_nn_ros.simulation.measurement_errors import (
    EXACT,
    MeasurementErrors,
    delayed_poses,
    measured_intrinsics,
    measured_mounts,
    measured_poses,
    random_errors,
)


def drive(count=200, step=0.2, turn=0.05):
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = step * np.arange(count)
    poses[:, :3, :3] = Rotation.from_euler("z", turn * np.arange(count)[:, None]).as_matrix().reshape(-1, 3, 3)
    return poses


def test_exact_measurements_are_the_truth():
    rng, poses = np.random.default_rng(0), drive(5)
    np.testing.assert_allclose(measured_poses(poses, EXACT, rng), poses, atol=1e-15)
    np.testing.assert_allclose(measured_mounts(poses, EXACT, rng), poses, atol=1e-15)
    np.testing.assert_array_equal(measured_intrinsics(poses[:, :3, :3], EXACT, rng), poses[:, :3, :3])
    np.testing.assert_allclose(delayed_poses(poses, 0.0), poses, atol=1e-15)


def test_errors_of_poses_have_the_size_that_was_asked_for():
    poses = drive(3000, turn=0.01)
    errors = MeasurementErrors(position_m=0.01, rotation_rad=0.005)
    told = measured_poses(poses, errors, np.random.default_rng(1))
    np.testing.assert_array_equal(told[0], poses[0])
    off = told[1:, :3, 3] - poses[1:, :3, 3]
    np.testing.assert_allclose(off.std(axis=0), 0.01, rtol=0.06)
    turns = Rotation.from_matrix(np.swapaxes(poses[1:, :3, :3], 1, 2) @ told[1:, :3, :3]).as_rotvec()
    np.testing.assert_allclose(turns.std(axis=0), 0.005, rtol=0.06)


def test_a_walk_adds_up_and_scale_stretches_the_way():
    errors = MeasurementErrors(position_m=0.01, walk=1.0)
    ends = [measured_poses(drive(101), errors, np.random.default_rng(n))[-1, :3, 3] for n in range(300)]
    np.testing.assert_allclose(np.std(ends, axis=0), 0.01 * 101**0.5, rtol=0.15)
    stretched = measured_poses(drive(11), MeasurementErrors(scale=0.02), np.random.default_rng(0))
    np.testing.assert_allclose(stretched[:, 0, 3], 1.02 * drive(11)[:, 0, 3])


@pytest.mark.parametrize("delay", [0.25, -0.25])
def test_late_pictures_are_told_poses_between_their_own_and_the_next(delay):
    poses = drive(4)
    told = delayed_poses(poses, delay)
    np.testing.assert_allclose(told[1, 0, 3], poses[1, 0, 3] + delay * 0.2)
    assert rotation_angle(poses[1], told[1]) == pytest.approx(0.25 * 0.05)
    held = -1 if delay > 0 else 0
    np.testing.assert_allclose(told[held], poses[held])


def test_intrinsics_are_wrong_alike_in_both_directions():
    K = np.tile(np.array([[200.0, 0, 127.5], [0, 210.0, 95.5], [0, 0, 1]]), (2000, 1, 1))
    told = measured_intrinsics(K, MeasurementErrors(focal=0.02, principal=0.01), np.random.default_rng(3))
    ratio = told[:, 0, 0] / 200
    np.testing.assert_allclose(told[:, 1, 1] / 210, ratio)
    assert (ratio - 1).std() == pytest.approx(0.02, rel=0.06)
    np.testing.assert_allclose((told - K)[:, (0, 1), 2].std(axis=0), (2.0, 2.1), rtol=0.06)


def test_random_robots_are_partly_exact_and_never_absurd():
    drawn = [random_errors(np.random.default_rng(n)) for n in range(400)]
    assert 0.25 < np.mean([errors == EXACT for errors in drawn]) < 0.42
    assert max(errors.position_m for errors in drawn) <= 0.015
    assert max(errors.focal for errors in drawn) <= 0.0226
