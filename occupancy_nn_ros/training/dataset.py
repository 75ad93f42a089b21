# SPDX-License-Identifier: Apache-2.0
"""Training samples from shards: a keyframe, its past, points with labels; augmented, and the same for the same step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.training.shards import Shard, check_frame, open_shard
from occupancy_nn_ros.values import FloatArray, UInt8Array

HORIZONTAL_FLIP = np.diag([1.0, -1.0, 1.0, 1.0])
IMAGE_FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])
MOST_VIEWS = 3
ALL_VIEWS_SHARE = 0.25
"""Share of samples of larger rigs that may have more than ``MOST_VIEWS`` current views."""

FILTERED_SHARE = 0.3
"""Share of samples whose pictures go through a random filter."""


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

    def __init__(self, paths: Sequence[Path], seed: int, *, augment: bool = True) -> None:
        """Take the shards to draw from.

        Raises:
            TrainingError: there are none.
        """
        if not paths:
            raise TrainingError("no training shards, expected at least one .safetensors file in the data folder")
        self.paths, self.seed, self.augment = sorted(paths), seed, augment

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
        return make_sample(shard, frame, rng, augment=self.augment)


def make_sample(shard: Shard, frame: int, rng: np.random.Generator, *, augment: bool) -> Sample:
    """Cut one keyframe and up to three past ones out of a shard."""
    views = shard.images.shape[1]
    keep = _choose_views(views, rng) if augment else np.arange(views)
    gap = int(rng.integers(1, 3)) if augment else 1
    past = [frame - gap * n for n in (1, 2, 3) if frame - gap * n >= 0]
    if augment and rng.random() < 0.08:
        past = []
    picks = [(frame, int(view)) for view in keep] + [(f, int(view)) for f in past for view in keep]
    images = np.stack([shard.images[f, v] for f, v in picks])
    poses = np.stack([shard.T_map_cam[f, v] for f, v in picks]).astype(np.float64)
    K = np.stack([shard.K[v] for _, v in picks]).astype(np.float64)
    base = shard.T_map_base[frame, :3, 3].astype(np.float64)
    poses[:, :3, 3] -= base
    points = shard.points_m[frame].astype(np.float64) - base
    depth = np.stack([shard.depth_m[frame, v] for v in keep]).astype(np.float32)
    if augment:
        images, depth, poses, K, points = _flip_or_turn(images, depth, poses, K, points, rng)
        if rng.random() < FILTERED_SHARE:
            images = _random_filter(images, rng)
        images = _photometric(images, len(keep), rng)
        poses = _pose_noise(poses, len(keep), rng)
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


Augmented = tuple[UInt8Array, np.ndarray, FloatArray, FloatArray, FloatArray]


def _flip_or_turn(
    images: UInt8Array,
    depth: np.ndarray,
    poses: FloatArray,
    K: FloatArray,
    points: FloatArray,
    rng: np.random.Generator,
) -> Augmented:
    """Mirror the world left to right half of the time, then turn it about the vertical."""
    if rng.random() < 0.5:
        images, depth = images[:, :, ::-1], depth[:, :, ::-1]
        poses = HORIZONTAL_FLIP @ poses @ IMAGE_FLIP
        points = points * np.array([1.0, -1.0, 1.0])
        K = K.copy()
        K[:, 0, 2] = images.shape[2] - 1 - K[:, 0, 2]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)).as_matrix()
    return images, depth, turn @ poses, K, points @ turn[:3, :3].T


def _random_filter(images: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """All images through one random convolution: other colours and textures in the same shapes (Xu et al. 2021).

    What one image shows still matches what another does. Mean and contrast stay, and some of the original is kept.
    """
    size, kept = int(rng.choice([1, 3, 5])), rng.uniform(0, 0.7)
    kernels = rng.standard_normal((3, size, size, 3)).astype(np.float32)
    pictures = images.astype(np.float32)
    filtered = np.empty_like(pictures)
    for picture, out in zip(pictures, filtered, strict=True):
        for channel in range(3):
            out[..., channel] = sum(cv2.filter2D(picture[..., c], -1, kernels[channel, ..., c]) for c in range(3))
    mean, spread = (what(filtered, axis=(0, 1, 2)) for what in (np.mean, np.std))
    wanted_mean, wanted_spread = pictures.mean(), pictures.std()
    filtered = (filtered - mean) / np.maximum(spread, 1e-3) * wanted_spread + wanted_mean
    return np.asarray(np.clip(kept * pictures + (1 - kept) * filtered, 0, 255), dtype=np.uint8)


def _photometric(images: UInt8Array, views: int, rng: np.random.Generator) -> UInt8Array:
    """Exposure, colour, contrast, noise and blur, mostly common to all images and a little of each camera's own."""
    table = np.arange(256) / 255.0
    common = rng.uniform(0.6, 1.5) * (1 + rng.uniform(-0.15, 0.15, 3))
    gamma, offset = rng.uniform(0.6, 1.6), rng.uniform(-0.08, 0.12)
    noise_level, blur = rng.uniform(0, 8) * (rng.random() < 0.6), rng.uniform(0.4, 1.1) * (rng.random() < 0.3)
    grey = rng.random() < 0.08
    own = 1 + rng.uniform(-0.08, 0.08, (views, 3))
    result = np.empty_like(images)
    for index, image in enumerate(images):
        gain = common * own[index % views] * (1 + rng.uniform(-0.04, 0.04))
        curves = np.clip(offset + gain * table[:, None] ** gamma, 0, 1) * 255
        out = cv2.LUT(np.ascontiguousarray(image), curves.reshape(1, 256, 3).astype(np.uint8))
        if grey:
            out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
        if blur:
            out = cv2.GaussianBlur(out, (0, 0), blur)
        if noise_level:
            noise = rng.standard_normal(out.shape, dtype=np.float32) * np.float32(noise_level)
            out = np.clip(out + noise, 0, 255).astype(np.uint8)
        result[index] = out
    return result


def _pose_noise(poses: FloatArray, views: int, rng: np.random.Generator) -> FloatArray:
    """Small errors in where past views stood, as odometry makes them."""
    if rng.random() < 0.5:
        return poses
    noisy = poses.copy()
    for index in range(views, len(poses)):
        noisy[index, :3, 3] += rng.normal(0, 0.006, 3)
        noisy[index, :3, :3] = poses[index, :3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.002, 3)).as_matrix()
    return noisy
