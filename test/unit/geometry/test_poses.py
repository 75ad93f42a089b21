# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.geometry import poses

numbers = st.floats(-100, 100)
vectors = st.tuples(numbers, numbers, numbers)
quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
transforms = st.builds(poses.make_transform, vectors, quaternions)


def skew(v):
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def test_quarter_turn_about_z_maps_x_to_y():
    half = np.sqrt(0.5)
    matrix = poses.make_transform((1, 2, 3), (0, 0, half, half))
    np.testing.assert_allclose(matrix @ (1, 0, 0, 1), (1, 3, 3, 1), atol=1e-12)
    np.testing.assert_allclose(matrix @ (0, 0, 5, 1), (1, 2, 8, 1), atol=1e-12)


def test_quaternion_need_not_be_of_unit_length():
    huge = poses.make_transform((0, 0, 0), (1e300, 0, 0, 1e300))
    np.testing.assert_allclose(huge, poses.make_transform((0, 0, 0), (1, 0, 0, 1)), atol=1e-12)
    expected = poses.make_transform((0, 0, 0), (0.1, 0.2, 0.3, 0.4))
    np.testing.assert_allclose(poses.make_transform((0, 0, 0), (0.2, 0.4, 0.6, 0.8)), expected, atol=1e-12)


@given(vectors, quaternions)
def test_matrix_agrees_with_the_quaternion_product(translation, q):
    """Twin: p' = q p q* by hand."""
    x, y, z, w = np.array(q) / np.linalg.norm(q)
    point = np.array([0.3, -1.2, 2.0])
    turned = point + 2 * np.cross((x, y, z), np.cross((x, y, z), point) + w * point)
    matrix = poses.make_transform(translation, q)
    np.testing.assert_allclose(matrix @ [*point, 1], [*(turned + translation), 1], atol=1e-9)


@given(transforms)
def test_quaternion_round_trip_and_sign(matrix):
    q = poses.quaternion(matrix)
    assert q[3] >= 0
    assert abs(np.linalg.norm(q) - 1) < 1e-9
    np.testing.assert_allclose(poses.make_transform(matrix[:3, 3], q), matrix, atol=1e-9)


@given(transforms, transforms)
def test_invert_and_compose(first, second):
    np.testing.assert_allclose(poses.invert(first), np.linalg.inv(first), atol=1e-7)
    np.testing.assert_allclose(first @ poses.invert(first), np.eye(4), atol=1e-9)
    both = poses.invert(second) @ poses.invert(first)
    np.testing.assert_allclose(poses.invert(first @ second), both, atol=1e-7)
    poses.check_transform(first @ second)


@settings(max_examples=15)
@given(vectors, st.tuples(*[st.floats(-1.5, 1.5)] * 3), transforms, st.floats(0, 1))
def test_interpolate_agrees_with_the_matrix_exponential(translation, turn, first, fraction):
    """Twin: R1 expm(f logm(R1' R2)) for turns below pi."""
    second = first.copy()
    second[:3, :3] = first[:3, :3] @ expm(skew(np.array(turn)))
    second[:3, 3] = translation
    between = poses.interpolate(first, second, fraction)
    rotation = first[:3, :3] @ expm(fraction * np.real(logm(first[:3, :3].T @ second[:3, :3])))
    np.testing.assert_allclose(between[:3, :3], rotation, atol=1e-6)
    place = (1 - fraction) * first[:3, 3] + fraction * np.array(translation)
    np.testing.assert_allclose(between[:3, 3], place, atol=1e-9)


def test_interpolate_takes_the_short_way_round():
    first = poses.make_transform((0, 0, 0), Rotation.from_euler("z", 170, degrees=True).as_quat())
    second = poses.make_transform((2, 0, 0), Rotation.from_euler("z", -170, degrees=True).as_quat())
    middle = poses.interpolate(first, second, 0.25)
    assert Rotation.from_matrix(middle[:3, :3]).as_euler("zyx", degrees=True)[0] == pytest.approx(175)
    assert middle[0, 3] == pytest.approx(0.5)


@pytest.mark.parametrize("angle", [0.0, 0.1, 1.0, 2.5, np.pi])
def test_rotation_angle(angle):
    first = poses.make_transform((1, 2, 3), (0.5, 0.5, 0.5, 0.5))
    turn = poses.make_transform((9, 9, 9), Rotation.from_rotvec(np.array([0.6, 0, 0.8]) * angle).as_quat())
    assert poses.rotation_angle(first, first @ turn) == pytest.approx(angle, abs=1e-6)


@pytest.mark.parametrize(
    ("translation", "q"),
    [
        ((np.nan, 0, 0), (0, 0, 0, 1)),
        ((0, np.inf, 0), (0, 0, 0, 1)),
        ((0, 0, 0), (0, 0, np.nan, 1)),
        ((0, 0, 0), (0, 0, 0, 0)),
        ((0, 0, 0), (1e-5, 0, 0, 1e-5)),
        ((1e10, 0, 0), (0, 0, 0, 1)),
    ],
)
def test_unusable_numbers_are_refused(translation, q):
    with pytest.raises(TransformError, match=r"finite|length|beyond"):
        poses.make_transform(translation, q)


def test_check_transform_refuses_what_is_not_rigid():
    good = poses.make_transform((1, 2, 3), (0.5, 0.5, 0.5, 0.5))
    poses.check_transform(good)
    scaled, mirrored, projective, missing = good.copy(), good.copy(), good.copy(), good.copy()
    scaled[:3, :3] *= 1.01
    mirrored[:3, 0] *= -1
    projective[3, 0] = 0.1
    missing[0, 3] = np.nan
    for bad in (scaled, mirrored, projective, missing, np.eye(3)):
        with pytest.raises(TransformError):
            poses.check_transform(bad)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2, np.pi])
def test_the_angle_between_axes_does_not_count_turns_about_them(angle):
    first = poses.make_transform((1, 2, 3), Rotation.from_euler("xyz", (0.4, -0.2, 1.0)).as_quat())
    turn = np.eye(4)
    turn[:3, :3] = (Rotation.from_rotvec((angle, 0, 0)) * Rotation.from_rotvec((0, 0, 0.7))).as_matrix()
    assert poses.axis_angle(first, first @ turn) == pytest.approx(angle, abs=1e-6)
