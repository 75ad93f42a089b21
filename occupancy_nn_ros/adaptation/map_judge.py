# SPDX-License-Identifier: Apache-2.0
"""How good the fused map of a network is, by pictures that nothing was learned from: a score that needs no truth.

Keyframes that were kept from training are fused into a map as ``play`` does it, and the map is looked at from where their pictures were
taken. A ray that ends in an occupied voxel says how far the surface is, and neighbouring pictures show whether they fit each other by that
depth; a ray that ends in nothing matches nothing. Where views agree on depth, the map has to be free up to there, and occupied there:
without that, a map that claims less of everything would win, since what it loses first has no texture that would tell.

Depth of single pictures would not do: a network whose depth is right but unsure fits pictures well and carves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.adaptation.photometric import Neighbours, Picture
from occupancy_nn_ros.adaptation.verdict import MapErrors
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.mapping.queries import cast_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.network.checkpoint import Checkpoint
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.training.shards import Shard, read_shard
from occupancy_nn_ros.values import CameraModel, FloatArray, Keyframe, PosedImage, VoxelState

AROUND = 6
"""Keyframes before and after whose pictures are compared, and before, that are matched with."""

MOST_KEYFRAMES = 40
"""Of each recording the last so many are fused and looked at."""

PARTS, LEAST_COMPARED = 4, 0.1
"""Along each side, so many parts of a picture give an error each, if this share of their cells can be compared."""

WAY_POINTS = 32
"""Places on the way to an agreed depth at which the map is asked."""

INSIDE = 0.05
"""Of a voxel's edge: so far behind a surface the map is asked for it, since matter begins where voxels meet."""

REMEMBER_MIB = 256
"""At least: what a robot has left behind is looked at too."""

KEYFRAME_NS = 300_000_000
"""Shards hold no stamps; keyframes of a robot that moves are about so far apart."""


@dataclass(frozen=True)
class HeldOut:
    """Keyframes of a recording that nothing was learned from.

    Attributes:
        shards: of the recording, in order.
        first: number of the first of these keyframes; those before it were learned from.
    """

    shards: tuple[Path, ...]
    first: int


@dataclass(frozen=True)
class _Moment:
    """One keyframe of a shard."""

    shard: Shard
    index: int

    @property
    def pictures(self) -> list[Picture]:
        poses = self.shard.T_map_cam[self.index].astype(np.float64)
        looks = zip(self.shard.images[self.index], self.shard.K, poses, strict=True)
        return [Picture(image, K.astype(np.float64), pose) for image, K, pose in looks]

    @property
    def T_map_base(self) -> FloatArray:
        return np.asarray(self.shard.T_map_base[self.index], dtype=np.float64)

    @property
    def agreed_m(self) -> FloatArray:
        """Depth (V, h, w) that views agree on, 0 or NaN where they do not."""
        return np.asarray(np.nan_to_num(self.shard.depth_m[self.index]), dtype=np.float64)

    def keyframe(self, stamp_ns: int) -> Keyframe:
        images = []
        for view, picture in enumerate(self.pictures):
            height, width = picture.image.shape[:2]
            model = CameraModel(width, height, picture.K, "none", np.zeros(0))
            images.append(PosedImage(f"camera{view}", stamp_ns, picture.image, model, picture.T_map_cam))
        return Keyframe(stamp_ns, self.T_map_base, images=tuple(images))


class MapJudge:
    """Looks at maps of some recordings' held-out keyframes."""

    def __init__(self, held_out: Sequence[HeldOut], config: Config) -> None:
        """Read what is needed of the recordings.

        Args:
            held_out: the keyframes, recording by recording.
            config: settings to map with; poses are those of the shards.

        Raises:
            TrainingError: a shard is corrupt.
        """
        network = replace(config.network, align_poses=False)
        kept = replace(config.map, remember_mib=max(config.map.remember_mib, REMEMBER_MIB))
        self.config = replace(config, source="network", network=network, map=kept)
        self._drives = [_read(item) for item in held_out]

    @property
    def keyframes(self) -> int:
        """How many are looked at."""
        return sum(len(moments) - first for moments, first in self._drives)

    def errors(self, checkpoint: Checkpoint) -> MapErrors:
        """Fuse the maps of a network, and look at them."""
        looked = list[MapErrors]()
        for moments, first in self._drives:
            fused = self._fuse(checkpoint, moments, first)
            for number in range(first, len(moments)):
                around = moments[max(0, number - AROUND) : number] + moments[number + 1 : number + 1 + AROUND]
                looked.append(_look(fused, moments[number], around))
        names = ("pictures", "space", "missed")
        pictures, space, missed = (np.concatenate([getattr(one, name) for one in looked]) for name in names)
        return MapErrors(pictures, space, missed, looked[-1].looks)

    def _fuse(self, checkpoint: Checkpoint, moments: Sequence[_Moment], first: int) -> RollingMap:
        """The map of the keyframes from ``first`` on, which are matched with those before as well."""
        predictor = Predictor(checkpoint, self.config.network)
        pipeline = OccupancyPipeline(self.config, predictor)
        for number, moment in enumerate(moments):
            keyframe = moment.keyframe((number + 1) * KEYFRAME_NS)
            if number < first:
                predictor.observe(keyframe)
            else:
                pipeline.step(keyframe)
        return pipeline.map


def _read(item: HeldOut) -> tuple[list[_Moment], int]:
    """The keyframes to look at after ``AROUND`` others, and the number of the first to look at."""
    moments = list[_Moment]()
    passed = 0
    for path in item.shards:
        shard = read_shard(path)
        moments += [_Moment(shard, index) for index in range(len(shard.images))]
        extra = max(0, min(len(moments), item.first - passed) - AROUND)
        moments, passed = moments[extra:], passed + extra  # a long recording is not held in memory
    first = max(item.first - passed, len(moments) - MOST_KEYFRAMES)
    begin = max(0, first - AROUND)
    return moments[begin:], first - begin


def _look(fused: RollingMap, moment: _Moment, around: Sequence[_Moment]) -> MapErrors:
    """Errors of a map in one keyframe's pictures, which are compared with each other and with those around."""
    fused.move_to(moment.T_map_base)
    own, others = moment.pictures, [picture for other in around for picture in other.pictures]
    pictures, space, missed, looks = list[float](), list[float](), list[float](), []
    for view, (picture, agreed_m) in enumerate(zip(own, moment.agreed_m, strict=True)):
        neighbours = Neighbours(picture, [*own[:view], *own[view + 1 :], *others])
        depths_m = surface_depths(fused, picture)
        pictures += by_parts(np.where(neighbours.comparable(), neighbours.mismatch(depths_m), np.nan))
        space += by_parts(blocked_shares(fused, picture, agreed_m))
        missed += by_parts(missed_places(fused, picture, agreed_m))
        looks.append(depths_m[0].astype(np.float32))
    return MapErrors(np.array(pictures), np.array(space), np.array(missed), np.stack(looks))


def surface_depths(fused: RollingMap, picture: Picture) -> FloatArray:
    """Depth (3, h, w) at the front, in the middle and at the back of the voxels that end rays through cells; NaN where none does."""
    ways = picture.ways()
    turned, origin = ways @ picture.T_map_cam[:3, :3].T, picture.T_map_cam[:3, 3]
    length = np.linalg.norm(ways, axis=1)
    hits = cast_rays(fused, origin, turned, fused.config.size_xy_m / 2, unknown="free")
    edge = fused.window.voxel_size_m
    faces = np.where(turned > 0, (hits.voxel + 1) * edge - origin, hits.voxel * edge - origin)
    with np.errstate(divide="ignore", invalid="ignore"):
        back = np.where(turned == 0, np.inf, faces / turned).min(axis=1)
    front = np.where(hits.hit, hits.distance_m / length, np.nan)
    depths = np.stack([front, (front + back) / 2, np.where(hits.hit, back, np.nan)])
    return depths.reshape(3, *picture.cells)


def blocked_shares(fused: RollingMap, picture: Picture, agreed_m: FloatArray) -> FloatArray:
    """Share (h, w) of the way to depths (h, w), but for the last voxel, that is not free or lies behind what is occupied.

    NaN where the depth is 0.
    """
    ways = picture.ways() @ picture.T_map_cam[:3, :3].T
    edge = fused.window.voxel_size_m
    until = agreed_m.reshape(-1) - edge / np.linalg.norm(ways, axis=1)
    usable = np.flatnonzero(until > 0)
    steps = (np.arange(WAY_POINTS) + 0.5) / WAY_POINTS
    points = picture.T_map_cam[:3, 3] + ways[usable, None] * (until[usable, None, None] * steps[:, None])
    state = fused.query(points.reshape(-1, 3))[1].reshape(len(usable), WAY_POINTS)
    behind = np.logical_or.accumulate(state == VoxelState.OCCUPIED, axis=1)
    shares = np.full(agreed_m.size, np.nan)
    shares[usable] = (behind | (state != VoxelState.FREE)).mean(axis=1)
    return shares.reshape(agreed_m.shape)


def missed_places(fused: RollingMap, picture: Picture, agreed_m: FloatArray) -> FloatArray:
    """1 (h, w) where the voxel at a depth (h, w) is not occupied, 0 where it is, NaN where the depth is 0."""
    ways = picture.ways() @ picture.T_map_cam[:3, :3].T
    depth_m = agreed_m.reshape(-1) + INSIDE * fused.window.voxel_size_m
    known = np.flatnonzero(agreed_m.reshape(-1) > 0)
    missed = np.full(agreed_m.size, np.nan)
    state = fused.query(picture.T_map_cam[:3, 3] + ways[known] * depth_m[known, None])[1]
    missed[known] = state != VoxelState.OCCUPIED
    return missed.reshape(agreed_m.shape)


def by_parts(errors: npt.NDArray[np.floating]) -> list[float]:
    """Means (PARTS^2,) over parts of a picture's errors (h, w), NaN where too few are known."""
    rows = np.array_split(errors, PARTS, axis=0)
    tiles = [tile for row in rows for tile in np.array_split(row, PARTS, axis=1)]
    return [float(np.nanmean(tile)) if np.isfinite(tile).mean() > LEAST_COMPARED else np.nan for tile in tiles]
