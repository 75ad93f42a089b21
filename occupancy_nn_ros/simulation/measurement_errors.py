# SPDX-License-Identifier: Apache-2.0
"""How what a robot measures of its cameras differs from the truth: poses, mounting, focal length, principal point, time.

Labels stay true; the network is told what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.values import FloatArray

Rng = np.random.Generator


@dataclass(frozen=True)
class MeasurementErrors:
    """Standard deviations, but for the two that are said to be common.

    Attributes:
        position_m: of each pose of odometry, along each axis.
        rotation_rad: of each pose of odometry, about each axis.
        scale: common factor less 1 by which odometry measures ways too long.
        walk: growth of an error that odometry keeps, as a share of the above for each keyframe.
        mount_m: of where a camera is on the robot, along each axis.
        mount_rad: of how it is turned, about each axis.
        focal: of a camera's focal length, as a share of it.
        principal: of its principal point, as a share of the focal length.
        delay: common delay of pictures beside poses, in keyframe periods.
    """

    position_m: float = 0.0
    rotation_rad: float = 0.0
    scale: float = 0.0
    walk: float = 0.0
    mount_m: float = 0.0
    mount_rad: float = 0.0
    focal: float = 0.0
    principal: float = 0.0
    delay: float = 0.0


EXACT = MeasurementErrors()

REALISTIC = MeasurementErrors(
    position_m=0.01, rotation_rad=np.deg2rad(0.3), scale=0.01, walk=0.3, mount_m=0.003, mount_rad=np.deg2rad(0.2),
    focal=0.01, principal=0.005,
)  # fmt: skip
"""What visual or wheel odometry and a careful calibration leave."""

ALIGNED_SHARE = 0.5
"""Share of the robots that do not measure exactly whose poses were aligned with what the pictures show."""


def random_errors(rng: Rng) -> MeasurementErrors:
    """Errors of a random robot.

    A third measures exactly, the others from nearly so to half again what is realistic. Poses of half of these are as alignment leaves
    them: it mends turns and shifts that matches show, and leaves how long a way was.
    """
    if rng.random() < 0.33:
        return EXACT
    size = rng.uniform(0.1, 1.5)
    left_m, left_rad = (0.6, 0.3) if rng.random() < ALIGNED_SHARE else (1.0, 1.0)
    return MeasurementErrors(
        position_m=float(left_m * size * rng.uniform(0.3, 1) * REALISTIC.position_m),
        rotation_rad=float(left_rad * size * rng.uniform(0.3, 1) * REALISTIC.rotation_rad),
        scale=float(size * rng.normal(0, 0.01)),
        walk=float(rng.uniform(0, 0.5)),
        mount_m=float(size * REALISTIC.mount_m),
        mount_rad=float(size * rng.uniform(0.3, 1) * REALISTIC.mount_rad),
        focal=float(size * REALISTIC.focal * rng.choice([0.5, 1.5])),
        principal=float(size * REALISTIC.principal),
        delay=float(rng.uniform(-0.15, 0.15) * (rng.random() < 0.4)),
    )


def delayed_poses(poses: FloatArray, delay: float) -> FloatArray:
    """Poses (F, 4, 4) of a row as they are told when pictures come ``delay`` periods late; the ends are held."""
    told = poses.copy()
    for index in range(len(poses)):
        other = poses[min(index + 1, len(poses) - 1) if delay > 0 else max(index - 1, 0)]
        told[index, :3, 3] += abs(delay) * (other[:3, 3] - poses[index, :3, 3])
        turn = Rotation.from_matrix(poses[index, :3, :3].T @ other[:3, :3]).as_rotvec()
        told[index, :3, :3] = poses[index, :3, :3] @ Rotation.from_rotvec(abs(delay) * turn).as_matrix()
    return told


def measured_poses(poses: FloatArray, errors: MeasurementErrors, rng: Rng) -> FloatArray:
    """Poses (F, 4, 4) of a base as odometry tells them beside that of the first, which is taken for exact.

    Errors are drawn for each pose, and a part of them adds up from one pose to the next.
    """
    told = poses.copy()
    shift, turn = np.zeros(3), np.zeros(3)
    for index in range(1, len(poses)):
        steps = rng.normal(0, 1, (2, 2, 3))
        shift += errors.walk * errors.position_m * steps[0, 0]
        turn += errors.walk * errors.rotation_rad * steps[0, 1]
        moved = (1 + errors.scale) * (poses[index, :3, 3] - poses[0, :3, 3])
        told[index, :3, 3] = poses[0, :3, 3] + moved + shift + errors.position_m * steps[1, 0]
        error = Rotation.from_rotvec(turn + errors.rotation_rad * steps[1, 1]).as_matrix()
        told[index, :3, :3] = poses[index, :3, :3] @ error
    return told


def measured_mounts(mounts: FloatArray, errors: MeasurementErrors, rng: Rng) -> FloatArray:
    """Where cameras are on the robot, (V, 4, 4), as a calibration tells."""
    told = mounts.copy()
    told[:, :3, 3] += rng.normal(0, 1, (len(mounts), 3)) * errors.mount_m
    errors_rad = rng.normal(0, 1, (len(mounts), 3)) * errors.mount_rad
    told[:, :3, :3] = mounts[:, :3, :3] @ Rotation.from_rotvec(errors_rad).as_matrix()
    return told


def measured_intrinsics(K: FloatArray, errors: MeasurementErrors, rng: Rng) -> FloatArray:
    """Intrinsics (V, 3, 3) as a calibration tells; both focal lengths of a camera are wrong alike."""
    told = K.copy()
    told[:, (0, 1), (0, 1)] *= 1 + errors.focal * rng.normal(0, 1, (len(K), 1))
    told[:, :2, 2] += errors.principal * K[:, (0, 1), (0, 1)] * rng.normal(0, 1, (len(K), 2))
    return told
