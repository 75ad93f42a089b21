# SPDX-License-Identifier: Apache-2.0
"""How well pictures fit each other by the depth that a network sees: a score that needs no truth.

A pixel at a depth is a point of space, and other pictures show the same there if the depth is right. Patches are compared by normalised
correlation, which exposure does not change, and the best of several other views counts, since something may hide the point from some
(Godard et al. 2019). Pixels without texture, and those that match as well without any motion, such as the robot's own body, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.network.depth import pixel_rays, sure_depth
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.network.patches import image_patches, patches_at
from occupancy_nn_ros.network.views import choose_sources, invert_rigid, normalize_images
from occupancy_nn_ros.training.dataset import make_sample
from occupancy_nn_ros.training.shards import DEPTH_STRIDE, Shard, read_shard
from occupancy_nn_ros.training.step import observe_sample

AROUND = 3
"""Keyframes before and after whose pictures are compared."""

SOURCES = 4
MOST_FRAMES = 40
PARTS, LEAST_COMPARED, LEAST_PARTS = 4, 0.1, 8
"""Along each side, so many parts of a picture give a difference each, if this share of their pixels can be compared; with fewer
differences in all nothing is said."""

LEAST_TEXTURE = 0.3
"""Squared length of an interpolated patch: with less, noise begins to outweigh contrast."""

NOISE = 0.1
"""Lengths of patches, multiplied, below which correlation says nothing."""


@dataclass(frozen=True)
class HeldOut:
    """Keyframes of a shard, from the first on, that nothing was learned from."""

    shard: Path
    first: int


@dataclass(frozen=True)
class Comparison:
    """Photometric errors of two networks at the same pixels of the same pictures.

    Attributes:
        before, after: mean of (1 - correlation) / 2, from 0 to 1.
        pixels: how many were compared.
        frames: in how many keyframes.
        differences: after less before in each part of each picture.
    """

    before: float
    after: float
    pixels: int
    frames: int
    differences: tuple[float, ...]

    @property
    def improved(self) -> bool:
        """Whether the second is better, by more than two standard errors of the differences."""
        if len(self.differences) < LEAST_PARTS or not self.after < self.before:
            return False
        error = float(np.std(self.differences, ddof=1)) / len(self.differences) ** 0.5
        return bool(np.mean(self.differences) < -2 * error)


def compare(before: OccupancyNetwork, after: OccupancyNetwork, held_out: Sequence[HeldOut]) -> Comparison:
    """Score two networks on keyframes, at most ``MOST_FRAMES`` of them, evenly chosen.

    Raises:
        TrainingError: a shard is corrupt.
    """
    opened = [(read_shard(item.shard), item.first) for item in held_out]
    every = [(shard, frame) for shard, first in opened for frame in range(max(1, first), len(shard.images))]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST_FRAMES)).round().astype(int))
    sums, differences = np.zeros(3), list[float]()
    for number in chosen:
        shard, frame = every[number]
        errors = [frame_errors(shard, frame, predicted_depth(network, shard, frame)) for network in (before, after)]
        both = np.isfinite(errors[0]) & np.isfinite(errors[1])
        sums += np.array([errors[0][both].sum(), errors[1][both].sum(), both.sum()])
        differences += _by_parts(np.where(both, errors[1] - errors[0], np.nan))
    first, second, count = (float(value) for value in sums)
    pixels = max(1.0, count)
    return Comparison(first / pixels, second / pixels, int(count), len(chosen), tuple(differences))


def _by_parts(difference: np.ndarray) -> list[float]:
    """Means (V * PARTS^2,) over parts of pictures (V, h, w), of those in which enough was compared."""
    tiles = [
        tile
        for view in difference
        for row in np.array_split(view, PARTS, axis=0)
        for tile in np.array_split(row, PARTS, axis=1)
    ]
    return [float(np.nanmean(tile)) for tile in tiles if np.isfinite(tile).mean() > LEAST_COMPARED]


@torch.inference_mode()
def predicted_depth(network: OccupancyNetwork, shard: Shard, frame: int) -> Tensor:
    """Most likely depth (V, H / 4, W / 4) of every pixel, as seen with keyframes of the past alone."""
    network.eval()
    device = next(network.parameters()).device
    sample = make_sample(shard, frame, np.random.default_rng(0), augment=False)
    scene = observe_sample(network, sample, device)
    return sure_depth(scene.depth_logits[-1], scene.nearer, network.bins[-1], 0.0).cpu()


@torch.inference_mode()
def frame_errors(shard: Shard, frame: int, depth_m: Tensor) -> np.ndarray:
    """Photometric error (V, h, w) of depths (V, h, w) of a keyframe's pictures, NaN where nothing can be compared."""
    views = shard.images.shape[1]
    frames = [
        frame,
        *(n for n in range(frame - AROUND, frame + AROUND + 1) if n != frame and 0 <= n < len(shard.images)),
    ]
    images = torch.from_numpy(np.concatenate([shard.images[n] for n in frames]))
    poses = np.concatenate([shard.T_map_cam[n] for n in frames]).astype(np.float64)
    poses[:, :3, 3] -= shard.T_map_base[frame, :3, 3]
    T_world_cam = torch.from_numpy(poses).float()
    K = torch.from_numpy(np.tile(shard.K, (len(frames), 1, 1))).float()
    patches = image_patches(normalize_images(images))
    sources = choose_sources(T_world_cam[:views], T_world_cam, SOURCES, torch.arange(views))
    errors = []
    for view in range(views):
        reference = patches_at(patches[view], *depth_m.shape[1:])
        best, still = (torch.full(depth_m.shape[1:], -torch.inf) for _ in range(2))
        for source in (int(s) for s in sources[view] if s >= 0):
            T_source_ref = invert_rigid(T_world_cam[source]) @ T_world_cam[view]
            place, seen = _project(depth_m[view], T_source_ref, K[view], K[source])
            sampled = functional.grid_sample(patches[source, None], place, padding_mode="border", align_corners=False)
            match = _correlation(reference, sampled[0])
            best = torch.where(seen, torch.maximum(best, match), best)
            still = torch.maximum(still, _correlation(reference, patches_at(patches[source], *depth_m.shape[1:])))
        texture = reference.square().sum(dim=0) > LEAST_TEXTURE
        usable = texture & torch.isfinite(best) & (still < best.clamp(min=0.9))
        errors.append(torch.where(usable, (1 - best) / 2, torch.nan))
    return torch.stack(errors).numpy()


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
    place = (pixels + 0.5) / size * 2 - 1
    seen = (local[2] > 0.05) & (place.abs() < 1).all(dim=0)
    return place.T.reshape(1, h, w, 2), seen.view(h, w)
