# SPDX-License-Identifier: Apache-2.0
"""What matches between keyframes say about a camera's focal length, mounting and clock.

Under right poses and calibration, a feature of one image lies in another image on the line of all places at all depths from
``NEAREST_M`` to infinity. How far it misses that line is the error that is made small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.values import FloatArray

NEAREST_M = 0.4
NOISE_PX = 0.5
BOUNDS = np.array([0.15, 0.1, 0.1, 0.1, 0.25])
"""Largest log of the focal length's factor, turns about the three axes in radians, and delay in seconds."""

KNOWN = np.array([0.1, 0.05, 0.05, 0.05, 0.1])
"""Standard deviations of the same before anything is seen: what does not show in the matches stays at nothing."""

LEAST_MATCHES = 200
BEST_PX = 0.3
"""Median miss that exact poses leave; where it stays larger, the poses add their own errors to the fit."""

CLEARLY_BETTER = 0.85
EXPLAINED_PX = 1.0
"""Where half of the matches still miss by more than this, poses or matches are wrong, and nothing is said of the calibration."""

SURE_SIGMAS = 4.0
LEAST_FOCAL, LEAST_TURN_RAD, LEAST_DELAY_S = 0.008, float(np.deg2rad(0.3)), 0.006
"""What is smaller than this is not worth a word."""

TOGETHER = 20.0
"""So many matches of one pair of images share the errors of their two poses, and count as one."""


@dataclass(frozen=True)
class Matches:
    """Features that one camera saw in two images; M of each.

    Attributes:
        first, second: (M, 2) tangents x / z and y / z of their rays.
        T_first, T_second: (M, 4, 4) T_map_cam of the images.
        motion_first, motion_second: (M, 6) velocities of the camera: metres a second along the map's axes, radians a second
            along its own.
        focal_px: of the camera, to tell errors in pixels.
    """

    first: FloatArray
    second: FloatArray
    T_first: FloatArray
    T_second: FloatArray
    motion_first: FloatArray
    motion_second: FloatArray
    focal_px: float

    def __len__(self) -> int:
        """M."""
        return len(self.first)

    @classmethod
    def joined(cls, parts: Sequence[Matches]) -> Matches:
        """All of one camera's."""
        names = ("first", "second", "T_first", "T_second", "motion_first", "motion_second")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**arrays, focal_px=parts[0].focal_px)


@dataclass(frozen=True)
class CameraFit:
    """The calibration that fits a camera's matches best.

    Attributes:
        focal: factor by which its focal lengths should be multiplied.
        turn_rad: (3,) rotation vector, in the camera's frame, by which its mounting should be turned.
        delay_s: how much later than stamped the pictures were taken.
        sigma: (5,) standard deviations of the log of ``focal``, of ``turn_rad`` and of ``delay_s``; they grow with what still misses.
        given_px, best_px: median miss as things are, and with the fit.
        matches: how many there are.
    """

    focal: float
    turn_rad: FloatArray
    delay_s: float
    sigma: FloatArray
    given_px: float
    best_px: float
    matches: int

    @property
    def is_better(self) -> bool:
        """Whether the matches clearly ask for another calibration than the given one, and it explains them."""
        return self.best_px < min(CLEARLY_BETTER * self.given_px, EXPLAINED_PX)

    @property
    def names_focal(self) -> bool:
        """Whether the focal length is among what is wrong."""
        return self.is_better and abs(np.log(self.focal)) > max(LEAST_FOCAL, SURE_SIGMAS * self.sigma[0])

    @property
    def names_turn(self) -> bool:
        """Whether the mounting is."""
        angle = float(np.linalg.norm(self.turn_rad))
        return self.is_better and angle > max(LEAST_TURN_RAD, SURE_SIGMAS * float(self.sigma[1:4].max()))

    @property
    def names_delay(self) -> bool:
        """Whether the clock is."""
        return self.is_better and abs(self.delay_s) > max(LEAST_DELAY_S, SURE_SIGMAS * self.sigma[4])


def misses(matches: Matches, values: FloatArray) -> FloatArray:
    """How far (M, 2) in pixels second features miss the line on which they should be.

    Args:
        matches: what was seen.
        values: (5,) logarithm of the focal length's factor, turn (3,) in radians, delay in seconds.
    """
    turn, factor, delay = Rotation.from_rotvec(values[1:4]).as_matrix(), np.exp(values[0]), values[4]
    R_first, at_first = _moved(matches.T_first, matches.motion_first, delay, turn)
    R_second, at_second = _moved(matches.T_second, matches.motion_second, delay, turn)
    ray = np.column_stack([matches.first / factor, np.ones(len(matches))])
    far = np.einsum("nji,njk,nk->ni", R_second, R_first, ray)
    near = far + np.einsum("nji,nj->ni", R_second, at_first - at_second) / NEAREST_M
    start, end = (point[:, :2] / np.maximum(point[:, 2:], 0.1) * factor for point in (far, near))
    way, seen = end - start, matches.second - start
    share = np.clip((way * seen).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-12), 0, 1)
    return np.asarray((seen - share[:, None] * way) * matches.focal_px)


def fit_camera(matches: Matches) -> CameraFit | None:
    """Fit focal length, mounting and delay; None for too few matches."""
    if len(matches) < LEAST_MATCHES:
        return None

    def residuals(values: FloatArray) -> FloatArray:
        error = np.linalg.norm(misses(matches, values), axis=1) / NOISE_PX
        return np.concatenate([np.sqrt(np.log1p(error**2) / TOGETHER), values / KNOWN])  # Cauchy

    found = least_squares(residuals, np.zeros(5), bounds=(-BOUNDS, BOUNDS), x_scale=KNOWN, diff_step=np.full(5, 1e-4))
    slopes = np.asarray(found.jac)
    sigma = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    given, best = (float(np.median(np.linalg.norm(misses(matches, v), axis=1))) for v in (np.zeros(5), found.x))
    return CameraFit(
        focal=float(np.exp(found.x[0])),
        turn_rad=np.asarray(found.x[1:4]),
        delay_s=float(found.x[4]),
        sigma=np.asarray(sigma * max(1.0, best / BEST_PX)),
        given_px=given,
        best_px=best,
        matches=len(matches),
    )


def _moved(T: FloatArray, motion: FloatArray, delay_s: float, turn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rotations (M, 3, 3) and places (M, 3) of cameras a little later, turned on their mounts."""
    later = Rotation.from_rotvec(motion[:, 3:] * delay_s).as_matrix()
    return T[:, :3, :3] @ later @ turn, T[:, :3, 3] + motion[:, :3] * delay_s
