# SPDX-License-Identifier: Apache-2.0
"""Changes of training samples that keep their geometry true: mirrored, turned, in other colours and textures."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.values import FloatArray, UInt8Array

HORIZONTAL_FLIP = np.diag([1.0, -1.0, 1.0, 1.0])
IMAGE_FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])

Augmented = tuple[UInt8Array, np.ndarray, FloatArray, FloatArray, FloatArray]


def flip_or_turn(
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


def random_filter(images: UInt8Array, rng: np.random.Generator) -> UInt8Array:
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
