# SPDX-License-Identifier: Apache-2.0
"""What a robot's own body costs a map when its cameras see it, and what masks and boxes save.

A box that is fixed to the robot stands before its cameras in every picture, as it would be rendered; the world is there without it, so
that what the map marks of it is made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.evaluation.metrics import Counts, Mask, count, with_border
from occupancy_nn_ros.evaluation.truth import EverSeen, TrueKeyframe, WorldTruth, in_range, rendered, seen_voxels
from occupancy_nn_ros.mapping.ray_integration import pixel_tangents
from occupancy_nn_ros.mapping.slices import LETHAL, band, occupancy_slice
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig, RigCamera
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import Float32Array, FloatArray, Keyframe, UInt8Array, VoxelState

RANGE_M, EVERY = 3.0, 3
"""Cells within this of the robot are judged, in every so many keyframes."""

TILE_M = 0.05
"""The body is chequered, with tiles of this edge."""


@dataclass(frozen=True)
class BodyPicture:
    """What a camera sees of the robot's own body, always the same.

    Attributes:
        mask: (H, W) where it is seen.
        image: (H, W, 3) RGB.
        depth_m: (H, W) along the optical axis.
    """

    mask: Mask
    image: UInt8Array
    depth_m: Float32Array


def body_picture(camera: RigCamera, box_m: FloatArray) -> BodyPicture:
    """A chequered box before a camera.

    Args:
        camera: where it is on the robot.
        box_m: (2, 3) lowest and highest corner in the base frame.
    """
    model, pose = camera.model, camera.T_base_cam
    tangents = pixel_tangents(model).astype(np.float64)
    rays = np.column_stack([tangents, np.ones(len(tangents))]) @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = (box_m[:, None] - pose[:3, 3]) / rays  # (2, N, 3)
        near, far = sides.min(axis=0).max(axis=1), sides.max(axis=0).min(axis=1)
        mask = (near < far) & (near > 0)
    points = pose[:3, 3] + rays * np.where(mask, near, 0.0)[:, None]
    tile = np.floor(np.nan_to_num(points) / TILE_M + 0.01).astype(np.int64).sum(axis=1)
    image = np.where((tile % 2 == 0)[:, None], (200, 160, 40), (40, 50, 70)).astype(np.uint8)
    shape = model.height, model.width
    depth = np.where(mask, near, 0.0).astype(np.float32)
    return BodyPicture(mask.reshape(shape), image.reshape(*shape, 3), depth.reshape(shape))


def with_body(frame: TrueKeyframe, bodies: Mapping[str, BodyPicture]) -> TrueKeyframe:
    """A keyframe as cameras with the robot in their pictures take it."""
    images = tuple(
        replace(image, image=np.where(bodies[image.camera].mask[..., None], bodies[image.camera].image, image.image))
        for image in frame.images.images
    )
    depths = tuple(
        replace(depth, depth_m=np.where(bodies[depth.camera].mask, bodies[depth.camera].depth_m, depth.depth_m))
        for depth in frame.depths.depths
    )
    return TrueKeyframe(replace(frame.images, images=images), replace(frame.depths, depths=depths))


def with_masks(keyframe: Keyframe, bodies: Mapping[str, BodyPicture]) -> Keyframe:
    """The keyframe of cameras that have a mask of the body."""
    images = tuple(replace(i, model=replace(i.model, mask=bodies[i.camera].mask)) for i in keyframe.images)
    depths = tuple(replace(d, model=replace(d.model, mask=bodies[d.camera].mask)) for d in keyframe.depths)
    return replace(keyframe, images=images, depths=depths)


@dataclass
class BodyScore:
    """Cells of the 2D grid within ``RANGE_M``.

    Attributes:
        cells: lethal cells against obstacles.
        looks: grids that were judged.
    """

    cells: Counts = field(default_factory=Counts)
    looks: int = 0

    def figures(self) -> dict[str, float]:
        """Shares of obstacles missed and of free cells marked, and how many are marked in a look; NaN where nothing was judged."""
        c = self.cells
        obstacles, free = c.tp + c.fn, c.fp + c.tn
        return {
            "missed": c.fn / obstacles if obstacles else float("nan"),
            "phantom": c.fp / free if free else float("nan"),
            "phantoms_per_look": c.fp / self.looks if self.looks else float("nan"),
        }


@dataclass(frozen=True)
class Looker:
    """A map that is judged.

    Attributes:
        grid: the map.
        from_depth: whether it takes depth images rather than pictures.
        sees_body: whether the body is in them.
        is_masked: whether its cameras have masks.
        score: where its figures go.
    """

    grid: OccupancyPipeline
    from_depth: bool
    sees_body: bool
    is_masked: bool
    score: BodyScore


def watch_body(world: World, drive: Drive, rig: Rig, box_m: FloatArray, lookers: list[Looker]) -> None:
    """Drive through a still world with a box before the cameras, and judge each map.

    Args:
        world: what stands there.
        drive: where the robot goes.
        rig: its cameras.
        box_m: (2, 3) lowest and highest corner of the box in the base frame.
        lookers: empty maps of the same settings.
    """
    bodies = {camera.name: body_picture(camera, box_m) for camera in rig.cameras}
    config = lookers[0].grid.config
    truth, ever = WorldTruth(world), EverSeen(world, config.voxel_size_m)
    with WorldRenderer(world) as renderer:
        for index, clean in enumerate(rendered(renderer, rig, drive)):
            seen_with = with_body(clean, bodies)
            for looker in lookers:
                frame = seen_with if looker.sees_body else clean
                keyframe = frame.depths if looker.from_depth else frame.images
                looker.grid.step(with_masks(keyframe, bodies) if looker.is_masked else keyframe)
            view = lookers[0].grid.view("odom")
            if view is None:
                continue
            near = in_range(view.window, view.T_map_base, RANGE_M)
            ever.add(view.window, seen_voxels(view.window, clean.depths.depths, RANGE_M + 1.0) & near)
            if index % EVERY == EVERY - 1:
                for looker in lookers:
                    _judge(looker, truth, with_border(ever.mask(view.window)), config)


def _judge(looker: Looker, truth: WorldTruth, seen: Mask, config: Config) -> None:
    view = looker.grid.view("odom")
    if view is None:
        return
    layers = band(view, config.grid)
    solid = np.asarray((truth.view(view).state == VoxelState.OCCUPIED)[:, :, layers].any(axis=2))
    judged = np.asarray((seen & in_range(view.window, view.T_map_base, RANGE_M))[:, :, layers].any(axis=2))
    looker.score.cells += count(occupancy_slice(view, config.grid).values == LETHAL, solid, judged)
    looker.score.looks += 1
