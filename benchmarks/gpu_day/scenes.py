# SPDX-License-Identifier: Apache-2.0
"""What is computed on in a GPU day: the demo drive's keyframes, and views of any number and size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.resources import resource_path
from occupancy_nn_ros.runtime.player import read_keyframes
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedImage


def demo_keyframes(count: int) -> list[Keyframe]:
    """The first keyframes of the demo drive, decoded."""
    return list(islice(read_keyframes(resource_path("demo/drive.mcap")), count))


def surround_keyframes(cameras: int, width: int, height: int, rng: np.random.Generator) -> Iterator[Keyframe]:
    """Keyframes without end of a rig of cameras around a robot that drives; smooth textures that move."""
    model = CameraModel(
        width, height, np.array([[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]]), "none",
        np.zeros(0),
    )  # fmt: skip
    rows = rng.integers(0, 256, (height // 16 + 2, width // 4, 3), dtype=np.uint8)
    texture = np.repeat(np.repeat(rows, 16, axis=0), 16, axis=1)
    n = 0
    while True:
        base = make_transform((0.15 * n, 0.02 * n, 0), (0, 0, 0, 1))
        images = []
        for index in range(cameras):
            yaw = 2 * np.pi * index / cameras
            turn = make_transform((0.3 * np.cos(yaw), 0.3 * np.sin(yaw), 0.6), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))
            pose = base @ turn @ make_transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
            start = (8 * n + 64 * index) % (texture.shape[1] - width)
            picture = np.ascontiguousarray(texture[:height, start : start + width])
            images.append(PosedImage(f"camera{index}", n * 100_000_000, picture, model, pose))
        yield Keyframe(n * 100_000_000, base, tuple(images))
        n += 1
