# SPDX-License-Identifier: Apache-2.0
"""The errors of poses in the benchmark are those that its table names."""

import sys
from pathlib import Path

import numpy as np
import pytest

from occupancy_nn_ros.geometry.poses import make_transform, rotation_angle

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import pose_errors


def straight(count=21, step_m=0.5):
    return np.stack([make_transform((step_m * n, 0, 0.3), (0, 0, 0, 1)) for n in range(count)])


def test_drift_is_measured_in_the_frame_of_the_last_pose():
    true = straight()
    told = pose_errors.drifted_poses(true, 0.03, 1.0)
    np.testing.assert_allclose(told[-1], true[-1], atol=1e-12)
    ways = np.linalg.norm(np.diff(told[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(ways, 0.5 * 1.03)
    assert np.rad2deg(rotation_angle(told[0], told[-1])) == pytest.approx(10.0)  # 10 m at a degree a metre
    np.testing.assert_allclose(told[:, 2, 3], 0.3, atol=1e-12)


def test_without_drift_poses_are_true():
    true = straight()
    np.testing.assert_allclose(pose_errors.drifted_poses(true, 0.0, 0.0), true, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in pose_errors.ERRORS if name.startswith("late")])
def test_late_stamps_give_the_poses_of_later_moments(name):
    """At half a metre in a third of a second, 1.5 m/s."""
    error = pose_errors.ERRORS[name]
    ms = float(error.name.split()[1])
    shift = (error.distort(straight()) - straight())[:-1, 0, 3]
    np.testing.assert_allclose(shift, 1.5 * ms / 1000)


def test_names_say_what_is_drawn():
    error = pose_errors.ERRORS["noise2"]
    assert error.name == "noise 1 cm, 0.3°"
    assert (error.errors.position_m, np.rad2deg(error.errors.rotation_rad)) == pytest.approx((0.01, 0.3))
    assert error.errors.mount_m == error.errors.focal == error.errors.walk == 0
