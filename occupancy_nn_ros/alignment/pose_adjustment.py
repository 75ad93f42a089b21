# SPDX-License-Identifier: Apache-2.0
"""Poses and depths that agree best with where features were seen: a small bundle adjustment (Triggs et al. 2000).

Each keyframe has one correction (6,): a shift in metres and a rotation vector about the middle of its cameras, both along
the axes of the map. A feature has one unknown, its inverse depth where it was first seen (Civera et al. 2008). What is
known of the poses beforehand is a Gaussian around none. The features are eliminated (Schur's complement).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.alignment.feature_tracks import FeatureTracks
from occupancy_nn_ros.values import FloatArray

PIXEL_NOISE = 1.0
"""Standard deviation in pixels of where a feature is found, for the balance with what is known of the poses. It is found
better, but what a lens model or a rolling shutter leaves over is the same for many features."""

DOUBTFUL = 2.0
"""Errors of this many standard deviations count half (Cauchy's weight)."""

LOST_PX = 3.0
"""A feature further away than this from where it should be was confused with another."""

ITERATIONS = 4
SMOOTHNESS = 0.25
"""From one keyframe to the next, corrections change by this share of what they may be."""

SCALE_SHARE = 0.1
"""The extent of the path is trusted ten times more than single poses: images do not tell it, the mean of many poses does."""

SHORTEST_PATH_M = 0.05
REACH_M = 1.9
"""A shift of so many metres times an angle moves pixels as much as the angle does, at usual depths: 1 cm goes with 0.3 degrees."""

MOST_SIGMAS = 2.5
"""Corrections end at this many standard deviations."""

INVERSE_RANGE = (1e-3, 5.0)
LONGEST_STEP = 0.3
NEAREST_M = 0.05


@dataclass(frozen=True)
class PoseWindow:
    """W keyframes with V cameras each.

    Attributes:
        K: (W, V, 3, 3) intrinsics.
        T_map_cam: (W, V, 4, 4) poses as they were given.
        center_m: (W, 3) middle of the cameras of each.
    """

    K: FloatArray
    T_map_cam: FloatArray
    center_m: FloatArray

    def corrected(self, corrections: FloatArray) -> FloatArray:
        """Poses (W, V, 4, 4) after corrections (W, 6); those without one are the same bit for bit."""
        poses, moved = self.T_map_cam.copy(), corrections.any(axis=1)
        turn = Rotation.from_rotvec(corrections[moved, 3:]).as_matrix()
        center = self.center_m[moved]
        poses[moved, :, :3, :3] = turn[:, None] @ poses[moved, :, :3, :3]
        arms = self.T_map_cam[moved, :, :3, 3] - center[:, None]
        poses[moved, :, :3, 3] = np.einsum("wij,wvj->wvi", turn, arms) + (center + corrections[moved, :3])[:, None]
        return poses


@dataclass(frozen=True)
class Adjustment:
    """The best agreement found.

    Attributes:
        corrections: (W, 6).
        inverse_depth: (N,) of all features.
        feature, keyframe: (M,) the sightings that were compared: all but the first of each feature.
        error_px: (M,) by how much each misses.
    """

    corrections: FloatArray
    inverse_depth: FloatArray
    feature: npt.NDArray[np.int64]
    keyframe: npt.NDArray[np.int64]
    error_px: FloatArray

    @property
    def median_px(self) -> float:
        """Median of the errors, NaN without any."""
        return float(np.median(self.error_px)) if len(self.error_px) else float("nan")


@dataclass(frozen=True)
class _State:
    """What is adjusted: corrections (W, 6), inverse_depth (N,)."""

    corrections: FloatArray
    inverse_depth: FloatArray


@dataclass(frozen=True)
class _Geometry:
    """Where the sightings come from, at a state; M of each.

    Attributes:
        error_px: (M, 2).
        way, shift, ahead: (M, 3) ray of the camera that saw the feature first, way from the second camera to that one, and the
            feature seen from the second, times its inverse depth, along the map's axes.
        local: (M, 3) the last in the second camera's frame.
        there, here: (M, 4, 4) poses of the first and the second camera.
    """

    error_px: FloatArray
    way: FloatArray
    shift: FloatArray
    ahead: FloatArray
    local: FloatArray
    there: FloatArray
    here: FloatArray


@dataclass(frozen=True)
class _Linear:
    """Weighted errors in standard deviations, and their derivatives by all corrections and by the feature's inverse depth."""

    error: FloatArray  # (M, 2)
    by_pose: FloatArray  # (M, 2, 6 W)
    by_depth: FloatArray  # (M, 2)


def adjust(window: PoseWindow, tracks: FeatureTracks, sigma_rad: float, start: FloatArray) -> Adjustment:
    """Find the poses and depths that the features ask for.

    Args:
        window: the poses.
        tracks: the features.
        sigma_rad: standard deviation of rotations, that of shifts is ``REACH_M`` times it; 0: only depths are found.
        start: (W, 6) corrections to begin with.
    """
    problem = _Sightings(window, tracks)
    limit = MOST_SIGMAS * _sigma(sigma_rad)
    state = _State(np.clip(start, -limit, limit), tracks.inverse_depth.copy())
    for _ in range(ITERATIONS if len(problem.feature) else 0):
        moved, nearer = problem.step(state, sigma_rad)
        inverse = state.inverse_depth.copy()
        change = np.clip(nearer, -LONGEST_STEP, LONGEST_STEP)
        inverse[problem.features] = np.clip(inverse[problem.features] + change, *INVERSE_RANGE)
        state = _State(np.clip(state.corrections + moved, -limit, limit), inverse)
    error = np.linalg.norm(problem.geometry(state).error_px, axis=1)
    return Adjustment(state.corrections, state.inverse_depth, problem.feature, problem.keyframe, error)


class _Sightings:
    """All sightings of features but their first ones, each compared with the first of the same feature."""

    def __init__(self, window: PoseWindow, tracks: FeatureTracks) -> None:
        self.window = window
        first, later = tracks.first, tracks.seen.copy()
        later[np.arange(len(first)), first] = False
        self.feature, self.keyframe = np.nonzero(later)
        self.begin = np.flatnonzero(np.diff(self.feature, prepend=-1))
        self.features = self.feature[self.begin]
        self.origin, self.camera = first[self.feature], tracks.camera[self.feature]
        self.pixels = tracks.pixels[self.feature, self.keyframe]
        self.start = tracks.pixels[self.feature, self.origin]
        self.K = window.K[self.keyframe, self.camera]
        self.K_start = window.K[self.origin, self.camera]

    def geometry(self, state: _State) -> _Geometry:
        """Where everything is at a state."""
        poses = self.window.corrected(state.corrections)
        there, here = poses[self.origin, self.camera], poses[self.keyframe, self.camera]
        tangents = (self.start - self.K_start[:, :2, 2]) / focal_lengths(self.K_start)
        rays = np.column_stack([tangents, np.ones(len(tangents))])
        way = np.einsum("nij,nj->ni", there[:, :3, :3], rays)
        shift = there[:, :3, 3] - here[:, :3, 3]
        ahead = way + state.inverse_depth[self.feature, None] * shift  # features at infinity are no special case
        local = np.einsum("nji,nj->ni", here[:, :3, :3], ahead)
        z = np.maximum(local[:, 2:], 1e-2)
        error = focal_lengths(self.K) * local[:, :2] / z + self.K[:, :2, 2] - self.pixels
        return _Geometry(error, way, shift, ahead, local, there, here)

    def linearize(self, state: _State, *, poses: bool) -> _Linear:
        """Errors and derivatives at a state, weighted; those by poses only if they are asked for."""
        at = self.geometry(state)
        error = at.error_px / PIXEL_NOISE
        trusted = 1 / (1 + (error**2).sum(axis=1) / DOUBTFUL**2)
        weight = np.sqrt(np.where(at.local[:, 2] > NEAREST_M, trusted, 0.0))[:, None]
        by_point = _projection_slope(focal_lengths(self.K), at.local) @ at.here[:, :3, :3].transpose(0, 2, 1)
        by_depth = (by_point @ at.shift[..., None])[..., 0]
        by_pose = self._by_pose(at, state, by_point) if poses else np.zeros((len(weight), 2, 0))
        return _Linear(error * weight, by_pose * weight[..., None], by_depth * weight)

    def _by_pose(self, at: _Geometry, state: _State, by_point: FloatArray) -> FloatArray:
        """Derivatives (M, 2, 6 W) by the corrections of both keyframes of each sighting."""
        inverse, center = state.inverse_depth[self.feature, None], self.window.center_m
        arm_there = at.way + inverse * (at.there[:, :3, 3] - center[self.origin])
        arm_here = at.ahead + inverse * (at.here[:, :3, 3] - center[self.keyframe])
        moving, rows = by_point * inverse[..., None], np.arange(len(by_point))
        by_pose = np.zeros((len(rows), 2, len(center), 6))
        by_pose[rows, :, self.origin] = np.concatenate([moving, -by_point @ _cross(arm_there)], axis=2)
        by_pose[rows, :, self.keyframe] += np.concatenate([-moving, by_point @ _cross(arm_here)], axis=2)
        return by_pose.reshape(len(rows), 2, -1)

    def step(self, state: _State, sigma_rad: float) -> tuple[FloatArray, FloatArray]:
        """Steps of the corrections (W, 6) and of the inverse depths of ``features``."""
        linear = self.linearize(state, poses=sigma_rad != 0)
        curve = self._sum((linear.by_depth**2).sum(axis=1)) + 1e-3  # a feature at infinity stays where it is
        slope = self._sum((linear.by_depth * linear.error).sum(axis=1))
        if sigma_rad == 0:
            return np.zeros_like(state.corrections), -slope / curve
        both = self._sum((linear.by_pose * linear.by_depth[..., None]).sum(axis=1))
        flat, shared = linear.by_pose.reshape(-1, both.shape[1]), both / curve[:, None]
        prior = _prior(self.window.center_m, _sigma(sigma_rad))
        matrix = flat.T @ flat - shared.T @ both + prior
        side = shared.T @ slope - flat.T @ linear.error.reshape(-1) - prior @ state.corrections.reshape(-1)
        step = np.linalg.solve(matrix, side)
        return np.asarray(step.reshape(-1, 6)), -(slope + both @ step) / curve

    def _sum(self, values: FloatArray) -> FloatArray:
        """Sums over the sightings of each feature."""
        return np.asarray(np.add.reduceat(values, self.begin, axis=0))


def _sigma(angle_rad: float) -> FloatArray:
    """Standard deviations (6,) of shift and rotation."""
    return np.repeat([REACH_M * angle_rad, angle_rad], 3)


def _prior(center_m: FloatArray, sigma: FloatArray) -> FloatArray:
    """Inverse covariance (6 W, 6 W) of the corrections: each is small, they change slowly, and the path does not grow."""
    count = len(center_m)
    prior = np.diag(np.tile(sigma**-2, count))
    change = np.eye(6 * count)[6:] - np.eye(6 * count)[:-6]
    prior += (change.T * np.tile((SMOOTHNESS * sigma) ** -2, count - 1)) @ change
    spread = center_m - center_m.mean(axis=0)
    extent = float(np.linalg.norm(spread))
    if extent > SHORTEST_PATH_M:
        growth = np.zeros((count, 6))
        growth[:, :3] = spread / extent
        prior += np.outer(growth, growth) / (SCALE_SHARE * sigma[0]) ** 2
    return np.asarray(prior)


def focal_lengths(K: FloatArray) -> FloatArray:
    """Focal lengths (M, 2) of intrinsics (M, 3, 3)."""
    return np.stack([K[:, 0, 0], K[:, 1, 1]], axis=1)


def _projection_slope(focal: FloatArray, local: FloatArray) -> FloatArray:
    """Derivatives (M, 2, 3) of pixels, in standard deviations, by points of the camera's frame; focal lengths (M, 2)."""
    z = np.maximum(local[:, 2], 1e-2)
    slope = np.zeros((len(z), 2, 3))
    for axis in range(2):
        slope[:, axis, axis] = focal[:, axis] / z / PIXEL_NOISE
        slope[:, axis, 2] = -focal[:, axis] * local[:, axis] / z**2 / PIXEL_NOISE
    return slope


def _cross(vectors: FloatArray) -> FloatArray:
    """Matrices (M, 3, 3) whose product with b is the cross product of vectors (M, 3) and b."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    rows = ([zero, -z, y], [z, zero, -x], [-y, x, zero])
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)
