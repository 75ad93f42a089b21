# SPDX-License-Identifier: Apache-2.0
"""Keyframes with their scans become frames of shards, and frames become shard files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size
from occupancy_nn_ros.labelling.space_votes import Scan, rays_of
from occupancy_nn_ros.labelling.targets import PinholeView, cell_depths, draw_points, visible_points
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.runtime.predictor import CANVAS_MULTIPLE
from occupancy_nn_ros.training.shards import FRAMES, OCCUPIED, write_shard
from occupancy_nn_ros.values import CameraModel, FloatArray, Keyframe, PosedImage

EDGES = (1, 2, 2)
"""Edges of label cubes in voxels, drawn for each keyframe."""

Arrays = dict[str, np.ndarray]


class ShardWriter:
    """Gathers frames into shards, whose origin is where the first keyframe's base was: far out, float32 is too coarse.

    Attributes:
        keyframes: frames so far.
        free, occupied: labelled points in them.
    """

    def __init__(self, folder: Path, name: str, bag: Path) -> None:
        self.folder, self.name, self.bag = folder, name, bag
        self.keyframes = self.free = self.occupied = 0
        self._origin_m: FloatArray | None = None
        self._waiting: list[Arrays] = []
        self._shards: list[str] = []

    def add(self, frame: Arrays) -> None:
        """Take a frame of arrays as in a shard, with its own K, and float64 coordinates of the map frame."""
        if self._origin_m is None:
            self._origin_m = frame["T_map_base"][:3, 3].round()
        moved = {name: frame[name].copy() for name in ("T_map_cam", "T_map_base", "points_m")}
        moved["points_m"] -= self._origin_m
        for name in ("T_map_cam", "T_map_base"):
            moved[name][..., :3, 3] -= self._origin_m
        self._waiting.append({**frame, **{name: array.astype(np.float32) for name, array in moved.items()}})
        self.keyframes += 1
        self.free += int((frame["labels"] == 0).sum())
        self.occupied += int((frame["labels"] == OCCUPIED).sum())
        if len(self._waiting) == FRAMES + 2:  # two are left, the least that makes a shard
            self._write(FRAMES)

    def finish(self) -> tuple[str, ...]:
        """Write what waits; the names of all shards."""
        if len(self._waiting) > FRAMES:
            self._write(FRAMES // 2)
        self._write(len(self._waiting))
        return tuple(self._shards)

    def _write(self, count: int) -> None:
        frames, self._waiting = self._waiting[:count], self._waiting[count:]
        arrays = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
        arrays["K"] = arrays["K"][0]
        shard = f"{self.name}_{len(self._shards):03d}.safetensors"
        write_shard(self.folder / shard, arrays, {"bag": str(self.bag), "origin_m": str(self._origin_m)})
        self._shards.append(shard)


class FrameMaker:
    """Makes a shard's frame of a keyframe: rectified pictures, depth, points with labels."""

    def __init__(self, voxel_size_m: float, scale: float, seed: int) -> None:
        self.voxel_size_m, self.seed = voxel_size_m, seed
        self._pixels = round(ModelConfig().canvas_pixels * scale**2)
        self.count = 0
        self._rectifiers: dict[str, Rectifier] = {}
        self._canvas: tuple[int, int] | None = None

    def make(self, keyframe: Keyframe, scans: Sequence[Scan], space: RollingMap) -> Arrays:
        """The frame's arrays.

        Args:
            keyframe: its pictures, in the same order each time.
            scans: what was measured at its moment.
            space: what is known around it.

        Raises:
            CalibrationError: pictures of another size than camera_info says, or other intrinsics than before.
        """
        rng = np.random.default_rng([self.seed, self.count])
        self.count += 1
        edge = self.voxel_size_m * int(rng.choice(EDGES))
        rays = rays_of(scans, rng)
        points, labels = draw_points(space, rays, edge, rng)
        images = keyframe.images
        rectifiers = [self._rectifier(image) for image in images]
        views = [PinholeView(r.K, i.T_map_cam, r.mask) for r, i in zip(rectifiers, images, strict=True)]
        return {
            "K": np.stack([view.K for view in views]).astype(np.float32),
            "images": np.stack([r(image.image).image for r, image in zip(rectifiers, images, strict=True)]),
            "T_map_cam": np.stack([view.T_map_cam for view in views]),
            "T_map_base": keyframe.T_map_base,
            "depth_m": cell_depths(views, space, rays),
            "points_m": points,
            "edge_m": np.asarray(edge, dtype=np.float32),
            "labels": labels,
            "visible": visible_points(views, space, points, edge),
        }

    def _rectifier(self, image: PosedImage) -> Rectifier:
        model = image.model
        if self._canvas is None:
            self._canvas = canvas_size(model, self._pixels, CANVAS_MULTIPLE)
        known = self._rectifiers.get(image.camera)
        if known is None:
            known = self._rectifiers[image.camera] = Rectifier(model, *self._canvas)
        if not _same_model(known.model, model):
            raise CalibrationError(f"camera '{image.camera}' changes its intrinsics, expected the same all along")
        return known


def _same_model(first: CameraModel, second: CameraModel) -> bool:
    kinds = [(model.width, model.height, model.distortion_model) for model in (first, second)]
    return kinds[0] == kinds[1] and np.array_equal(first.K, second.K) and np.array_equal(first.D, second.D)
