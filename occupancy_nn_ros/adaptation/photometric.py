# SPDX-License-Identifier: Apache-2.0
"""How well pictures fit each other by depths that are said of one of them: a score that needs no truth.

A pixel at a depth is a point of space, and other pictures show the same there if the depth is right. Patches are compared by normalised
correlation, which exposure does not change. Of several other views those that fit best count, since something may hide the point from
some (Godard et al. 2019). Pixels without texture, and those that match as well without any motion, such as the robot's own body, tell
nothing. Which these are does not depend on the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.network.depth import pixel_rays
from occupancy_nn_ros.network.patches import image_patches, patches_at
from occupancy_nn_ros.network.views import choose_sources, invert_rigid, normalize_images
from occupancy_nn_ros.training.shards import DEPTH_STRIDE
from occupancy_nn_ros.values import Float32Array, FloatArray, UInt8Array

SOURCES, BEST = 6, 2
"""So many views are compared with, and so many of them count: those that fit best, since something may hide the point from others."""

NO_MATCH = 1.0
"""Mismatch of what does not correlate, and of what no other picture shows."""

LEAST_TEXTURE = 0.3
"""Squared length of an interpolated patch: with less, noise begins to outweigh contrast."""

NOISE = 0.1
"""Lengths of patches, multiplied, below which correlation says nothing."""

STILL = 0.9
"""Pixels that correlate with the same pixels of another picture by more than this do not tell depth."""


@dataclass(frozen=True)
class Picture:
    """A pinhole picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        K: (3, 3) intrinsics, pixel centres at integers.
        T_map_cam: (4, 4) float64.
    """

    image: UInt8Array
    K: FloatArray
    T_map_cam: FloatArray

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the cells whose depth is asked about: ``DEPTH_STRIDE`` pixels each way."""
        height, width = self.image.shape[:2]
        return height // DEPTH_STRIDE, width // DEPTH_STRIDE

    def ways(self) -> FloatArray:
        """Rays (h * w, 3) with z = 1 through the centres of cells, camera frame."""
        K = torch.from_numpy(np.asarray(self.K, dtype=np.float64))
        return np.asarray(pixel_rays(K[None], *self.cells, DEPTH_STRIDE)[0].T)


class Neighbours:
    """A picture, and those of the pictures around it that show the same from other places."""

    def __init__(self, picture: Picture, others: Sequence[Picture]) -> None:
        """Choose which of the others to compare with, all of one size."""
        self.picture = picture
        poses = _local([picture, *others])
        chosen = choose_sources(poses[:1], poses, SOURCES, torch.zeros(1, dtype=torch.int64))[0]
        numbers = [int(number) for number in chosen if number > 0]
        used = [picture, *(others[number - 1] for number in numbers)]
        patches = image_patches(normalize_images(torch.from_numpy(np.stack([one.image for one in used]))))
        self._reference = patches_at(patches[0], *picture.cells)
        self._patches = patches[1:]
        self._T_source_ref = [invert_rigid(poses[number]) @ poses[0] for number in numbers]
        self._K = torch.from_numpy(np.stack([one.K for one in used])).float()

    def comparable(self) -> npt.NDArray[np.bool_]:
        """Cells (h, w) whose depth pictures can tell of."""
        still = torch.zeros(self.picture.cells)
        for patches in self._patches:
            still = torch.maximum(still, _correlation(self._reference, patches_at(patches, *self.picture.cells)))
        told = self._reference.square().sum(dim=0) > LEAST_TEXTURE
        return np.asarray(told & (still < STILL) & bool(len(self._patches)))

    def mismatch(self, depths_m: FloatArray) -> Float32Array:
        """One less the correlation (h, w) at the best of some depths (D, h, w), NaN for none: 0 to ``NO_MATCH``."""
        best = torch.zeros(self.picture.cells)
        for depth_m in torch.from_numpy(np.asarray(depths_m, dtype=np.float32)):
            best = torch.maximum(best, self._match(depth_m))
        return np.asarray(NO_MATCH - best)

    def _match(self, depth_m: Tensor) -> Tensor:
        """Correlation (h, w) at depths (h, w) with the views that fit best, 0 to 1."""
        matches = [torch.zeros(self.picture.cells)] * BEST
        for patches, T_source_ref, K in zip(self._patches, self._T_source_ref, self._K[1:], strict=True):
            place, seen = _project(depth_m, T_source_ref, self._K[0], K)
            sampled = functional.grid_sample(patches[None], place, padding_mode="border", align_corners=False)
            matches.append(torch.where(seen, _correlation(self._reference, sampled[0]), 0.0))
        return torch.stack(matches).topk(BEST, dim=0).values.mean(dim=0)


def _local(pictures: Sequence[Picture]) -> Tensor:
    """Poses (N, 4, 4) float32 relative to where the first picture was taken."""
    poses = np.stack([picture.T_map_cam for picture in pictures]).astype(np.float64)
    poses[:, :3, 3] -= poses[0, :3, 3]
    return torch.from_numpy(poses).float()


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Of patches (C, h, w) without their means, which interpolation has shortened; small where one has no contrast."""
    lengths = (first.square().sum(dim=0) * second.square().sum(dim=0)).sqrt()
    return (first * second).sum(dim=0) / lengths.clamp(min=NOISE)


def _project(depth_m: Tensor, T_source_ref: Tensor, K: Tensor, K_source: Tensor) -> tuple[Tensor, Tensor]:
    """Where a source sees the points at depths (h, w): x and y from -1 to 1 (1, h, w, 2), and whether it does (h, w)."""
    h, w = depth_m.shape
    points = pixel_rays(K[None], h, w, DEPTH_STRIDE)[0] * depth_m.reshape(1, -1)
    local = T_source_ref[:3, :3] @ points + T_source_ref[:3, 3:]
    pixels = (K_source @ local)[:2] / local[2].clamp(min=1e-3)
    size = depth_m.new_tensor([[w * DEPTH_STRIDE], [h * DEPTH_STRIDE]])
    place = torch.nan_to_num((pixels + 0.5) / size * 2 - 1, nan=2.0)
    seen = (local[2] > 0.05) & (place.abs() < 1).all(dim=0)
    return place.T.reshape(1, h, w, 2), seen.view(h, w)
