# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as (4, 4) float64 matrices: ``T_target_source`` maps points of source into target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.values import FloatArray

MAX_SKEW = 1e-3
"""Rotations written with three decimals pass; what is scaled or sheared does not."""

MAX_COORDINATE_M = 1e9
"""Beyond, lattice indices overflow; no map frame is that large."""


def make_transform(translation: npt.ArrayLike, quaternion_xyzw: npt.ArrayLike) -> FloatArray:
    """Transform from a translation in metres and a quaternion, which need not be of unit length.

    Raises:
        TransformError: NaN, infinity, an absurd distance, or a quaternion of about zero length.
    """
    t, q = np.asarray(translation, dtype=np.float64), np.asarray(quaternion_xyzw, dtype=np.float64)
    if not (np.isfinite(t).all() and np.isfinite(q).all()):
        raise TransformError(f"translation {t.tolist()} or rotation {q.tolist()} is not finite")
    if np.abs(t).max() > MAX_COORDINATE_M:
        raise TransformError(f"translation {t.tolist()} is beyond {MAX_COORDINATE_M:.0e} m")
    largest = np.abs(q).max()
    if largest < 1e-3:
        raise TransformError(f"rotation {q.tolist()} has no length, expected a unit quaternion")
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(q / largest).as_matrix()
    matrix[:3, 3] = t
    return matrix


def check_rigid(matrix: npt.ArrayLike, name: str) -> None:
    """Check that a matrix moves and turns points, and does nothing else.

    Raises:
        TransformError: another shape, not finite, an absurd distance, scaled, sheared or mirrored; says which, by ``name``.
    """
    values = np.asarray(matrix)
    if values.shape != (4, 4) or values.dtype.kind not in "fiu":
        raise TransformError(f"{name} is {values.dtype} {values.shape}, expected numbers (4, 4)")
    if not np.isfinite(values).all() or np.abs(values[:3, 3]).max() > MAX_COORDINATE_M:
        raise TransformError(
            f"{name} has position {values[:3, 3].tolist()}, expected finite numbers within {MAX_COORDINATE_M:.0e} m"
        )
    turn = values[:3, :3]
    off = float(np.abs(turn.T @ turn - np.eye(3)).max())
    if off > MAX_SKEW or np.linalg.det(turn) < 0 or np.abs(values[3] - (0, 0, 0, 1)).max() > 0:
        raise TransformError(
            f"{name} is no rigid transform: {values.tolist()}, expected a rotation and (0, 0, 0, 1) below it"
        )


def quaternion(matrix: FloatArray) -> FloatArray:
    """Unit quaternion (x, y, z, w) of a transform's rotation, w not negative."""
    q = np.asarray(Rotation.from_matrix(matrix[:3, :3]).as_quat(), dtype=np.float64)
    return -q if q[3] < 0 else q


def invert(matrix: FloatArray) -> FloatArray:
    """Inverse of a rigid transform: ``T_source_target`` from ``T_target_source``."""
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def interpolate(first: FloatArray, second: FloatArray, fraction: float) -> FloatArray:
    """Between two transforms as tf2 does it: translation linear, rotation along the great arc; fraction 0 to 1."""
    turn = Rotation.from_matrix(first[:3, :3].T @ second[:3, :3]).as_rotvec()
    between = np.eye(4)
    between[:3, :3] = first[:3, :3] @ Rotation.from_rotvec(fraction * turn).as_matrix()
    between[:3, 3] = (1 - fraction) * first[:3, 3] + fraction * second[:3, 3]
    return between


def rotation_angle(first: FloatArray, second: FloatArray) -> float:
    """Angle in radians between the rotations of two transforms, 0 to pi."""
    cosine = (np.trace(first[:3, :3].T @ second[:3, :3]) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)))


def has_moved(before: FloatArray, now: FloatArray, least_m: float, least_rad: float) -> bool:
    """Whether a frame has gone, or turned, at least so far from one transform (4, 4) to another."""
    gone = float(np.linalg.norm(now[:3, 3] - before[:3, 3]))
    return gone >= least_m or rotation_angle(before, now) >= least_rad


def axis_angle(first: FloatArray, second: FloatArray) -> float:
    """Angle in radians between the z axes of two transforms, of cameras their optical axes, 0 to pi."""
    return float(np.arccos(np.clip(first[:3, 2] @ second[:3, 2], -1.0, 1.0)))


def check_transform(matrix: FloatArray) -> None:
    """Check that a matrix is a rigid transform.

    Raises:
        TransformError: wrong shape, not finite, not a rotation, or a last row other than 0 0 0 1.
    """
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise TransformError(f"transform is {matrix.tolist()}, expected 4x4 finite numbers")
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4 or np.linalg.det(rotation) < 0:
        raise TransformError(f"rotation {rotation.tolist()} is not orthonormal and right-handed")
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-9:
        raise TransformError(f"last row is {matrix[3].tolist()}, expected 0 0 0 1")
