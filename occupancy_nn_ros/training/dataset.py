# SPDX-License-Identifier: Apache-2.0
"""Training samples from shards: a keyframe, its past, points with labels; augmented, and the same for the same step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.simulation.measurement_errors import (
    EXACT,
    MeasurementErrors,
    delayed_poses,
    measured_intrinsics,
    measured_mounts,
    measured_poses,
    random_errors,
)
from occupancy_nn_ros.simulation.sensor_effects import random_cameras, random_shots, take_pictures
from occupancy_nn_ros.training.augmentation import flip_or_turn, random_filter
from occupancy_nn_ros.training.shards import Shard, check_frame, open_shard
from occupancy_nn_ros.values import FloatArray

MOST_VIEWS = 3
ALL_VIEWS_SHARE = 0.25
"""Share of samples of larger rigs that may have more than ``MOST_VIEWS`` current views."""

FILTERED_SHARE = 0.2
"""Share of samples whose pictures go through a random filter."""

CLEAN_SHARE = 0.75
"""Share of the samples of exact robots whose pictures stay as they are in the shard."""

MOST_SHAKING = 0.5
"""Largest standard deviation of a shaking camera's angular velocity, rad/s."""


@dataclass(frozen=True)
class Sample:
    """One training example; the frame of all coordinates is turned at random and centred on the base.

    Attributes:
        images: (V + P, H, W, 3) uint8, the V current views first.
        K: (V + P, 3, 3) float32.
        T_world_cam: (V + P, 4, 4) float32.
        views: V.
        depth_m: (V, H / 4, W / 4) float32, 0 where far, NaN where not known.
        points: (N, 3) float32.
        edge_m: scalar.
        labels: (N,) int64: 0 free, class id, 254 occupied by something of no known class, 255 ignored.
    """

    images: Tensor
    K: Tensor
    T_world_cam: Tensor
    views: int
    depth_m: Tensor
    points: Tensor
    edge_m: float
    labels: Tensor


class Samples(Protocol):
    """Training samples by number."""

    def sample(self, step: int) -> Sample:
        """The sample of one step."""


class SampleSource:
    """Draws augmented samples; what a step gets depends only on the seed and the step, so training resumes exactly."""

    def __init__(
        self, paths: Sequence[Path], seed: int, *, augment: bool = True, measurement_errors: bool = True
    ) -> None:
        """Take the shards to draw from.

        Args:
            paths: of the shards.
            seed: of everything that is random.
            augment: whether samples are changed at random.
            measurement_errors: whether that includes poses and calibration, which those of recordings need not.

        Raises:
            TrainingError: there are none.
        """
        if not paths:
            raise TrainingError("no training shards, expected at least one .safetensors file in the data folder")
        self.paths, self.seed, self.augment = sorted(paths), seed, augment
        self.measurement_errors = augment and measurement_errors

    def sample(self, step: int) -> Sample:
        """The sample of one step.

        Raises:
            TrainingError: the shard is corrupt.
        """
        rng = np.random.default_rng([self.seed, step])
        path = self.paths[int(rng.integers(len(self.paths)))]
        shard = open_shard(path)
        frame = int(rng.integers(1, len(shard.images)))
        check_frame(path, shard, frame)
        errors = random_errors(rng) if self.measurement_errors else EXACT
        clean = self.measurement_errors and errors == EXACT and rng.random() < CLEAN_SHARE
        return make_sample(shard, frame, rng, augment=self.augment, errors=errors, clean=clean)


def make_sample(
    shard: Shard,
    frame: int,
    rng: np.random.Generator,
    *,
    augment: bool,
    errors: MeasurementErrors = EXACT,
    clean: bool = False,
) -> Sample:
    """Cut one keyframe and up to three past ones out of a shard.

    Args:
        shard: one drive.
        frame: number of the keyframe.
        rng: source of randomness.
        augment: whether it is changed at random: mirrored, turned, other cameras.
        errors: how wrong its poses and intrinsics are.
        clean: whether an augmented sample keeps the shard's own pictures, without a camera's faults.
    """
    views = shard.images.shape[1]
    keep = _choose_views(views, rng) if augment else np.arange(views)
    gap = int(rng.integers(1, 3)) if augment else 1
    past = [frame - gap * n for n in (1, 2, 3) if frame - gap * n >= 0]
    if augment and rng.random() < 0.08:
        past = []
    frames = [frame, *past]
    images = np.concatenate([shard.images[f, keep] for f in frames])
    poses, K = _told(shard, frames, keep, errors, rng)
    base = shard.T_map_base[frame, :3, 3].astype(np.float64)
    poses[:, :3, 3] -= base
    points = shard.points_m[frame].astype(np.float64) - base
    depth = np.stack([shard.depth_m[frame, v] for v in keep]).astype(np.float32)
    if augment:
        images, depth, poses, K, points = flip_or_turn(images, depth, poses, K, points, rng)
    if augment and not clean:
        if rng.random() < FILTERED_SHARE:
            images = random_filter(images, rng)
        cameras = random_cameras(rng, len(keep), float(images.mean()) / 255)
        shots = random_shots(rng, len(images), _shaking(rng))
        images = take_pictures(images, K[:, 0, 0].tolist(), cameras * len(frames), shots, rng)
    return Sample(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        K=torch.from_numpy(K).float(),
        T_world_cam=torch.from_numpy(poses).float(),
        views=len(keep),
        depth_m=torch.from_numpy(np.ascontiguousarray(depth)),
        points=torch.from_numpy(points).float(),
        edge_m=float(shard.edge_m[frame]),
        labels=torch.from_numpy(shard.labels[frame].astype(np.int64)),
    )


def _choose_views(views: int, rng: np.random.Generator) -> np.ndarray:
    """Leave cameras out: a rig of many teaches little more than a few of its cameras do, and takes longer."""
    most = views if rng.random() < ALL_VIEWS_SHARE else min(views, MOST_VIEWS)
    count = int(rng.integers(1, most + 1)) if views > 2 and rng.random() < 0.5 else most
    return np.sort(rng.permutation(views)[:count])


def _told(
    shard: Shard, frames: Sequence[int], keep: np.ndarray, errors: MeasurementErrors, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Poses (F * V, 4, 4) in the map frame and intrinsics (F * V, 3, 3) of the views, frame by frame, as they are measured.

    The first frame's base is where it truly is, and all others are told in relation to it.
    """
    bases = shard.T_map_base.astype(np.float64)
    views = shard.T_map_cam[frames[0]][keep].astype(np.float64)
    mounts = measured_mounts(np.linalg.inv(bases[frames[0]]) @ views, errors, rng)
    late = delayed_poses(bases, errors.delay)[list(frames)]
    late = bases[frames[0]] @ np.linalg.inv(late[0]) @ late
    poses = measured_poses(late, errors, rng)[:, None] @ mounts
    K = measured_intrinsics(shard.K[keep].astype(np.float64), errors, rng)
    return poses.reshape(-1, 4, 4), np.tile(K, (len(frames), 1, 1))


def _shaking(rng: np.random.Generator) -> float:
    """How much the cameras shake: half of them not at all."""
    return float(rng.uniform(0, MOST_SHAKING) * (rng.random() < 0.5))
