# SPDX-License-Identifier: Apache-2.0
"""Simulated drives whose truth is known everywhere: what the sensors see, what is occupied, and what can be judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from occupancy_nn_ros.evaluation.metrics import Mask
from occupancy_nn_ros.geometry.depth_lookup import look_up_depth
from occupancy_nn_ros.simulation.drives import Drive, plan_drive
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import FloatArray, Keyframe, LatticeWindow, MapView, PosedDepth, PosedImage, VoxelState

RATE_HZ = 3.0


@dataclass(frozen=True)
class TrueKeyframe:
    """A keyframe as pictures, and the same moment as depth images."""

    images: Keyframe
    depths: Keyframe


def planned_drive(world: World, duration_s: float, *, handheld: bool = False) -> Drive:
    """The drive through a world that is judged; ``handheld`` swings and looks around.

    Raises:
        SimulationError: the world has no free floor to drive on.
    """
    return plan_drive(world, world.seed, duration_s, RATE_HZ, handheld=handheld)


def rendered(renderer: WorldRenderer, rig: Rig, drive: Drive, *, moving: bool = False) -> Iterator[TrueKeyframe]:
    """Render what a rig sees along a drive.

    Movers stand still, so that a fused map has one truth; with ``moving`` they are where they are at each moment.
    """
    for time_s, pose in zip(drive.stamps_s, drive.T_map_base, strict=True):
        stamp = round(float(time_s) * 1e9)
        if moving:
            renderer.set_time(float(time_s))
        images, depths = [], []
        for camera in rig.cameras:
            T_map_cam = pose @ camera.T_base_cam
            view = renderer.render(camera.model, T_map_cam, with_classes=False)
            images.append(PosedImage(camera.name, stamp, view.image, camera.model, T_map_cam))
            depths.append(PosedDepth(camera.name, stamp, view.depth_m, camera.model, T_map_cam))
        yield TrueKeyframe(Keyframe(stamp, pose, images=tuple(images)), Keyframe(stamp, pose, depths=tuple(depths)))


def camera_places(rig: Rig, drive: Drive) -> FloatArray:
    """Middle of the rig's cameras at each pose of a drive, (F, 3) in the map frame."""
    middle = np.mean([camera.T_base_cam[:, 3] for camera in rig.cameras], axis=0)
    return np.asarray((drive.T_map_base @ middle)[:, :3])


def seen_voxels(window: LatticeWindow, depths: tuple[PosedDepth, ...], range_m: float) -> Mask:
    """Voxels (X, Y, Z) whose centre lies before, or within a voxel behind, the surface that a depth image shows."""
    centers = window.centers_m().reshape(-1, 3).astype(np.float64)
    seen = np.zeros(len(centers), bool)
    for depth in depths:
        found = look_up_depth(depth, centers, nearest_m=0.05)
        in_range = np.hypot(found.local_m[:, 0], found.local_m[:, 2]) < range_m
        measured = np.where(found.measured_m > 0, found.measured_m, np.inf)
        seen[found.index[in_range & (found.local_m[:, 2] <= measured + 0.87 * window.voxel_size_m)]] = True
    return seen.reshape(window.shape)


def in_range(window: LatticeWindow, T_map_base: FloatArray, range_m: float) -> Mask:
    """Voxels (X, Y, Z) within a square of half edge ``range_m`` around the robot."""
    offset = np.abs(window.centers_m()[..., :2] - T_map_base[:2, 3])
    return np.asarray((offset <= range_m).all(axis=-1))


def bounding_part(mask: Mask) -> tuple[slice, ...]:
    """The smallest box of a grid that holds all of a mask; empty where the mask is."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(span[0]), int(span[-1]) + 1) if len(span) else slice(0, 0) for span in spans)


def sub_window(window: LatticeWindow, part: tuple[slice, ...]) -> LatticeWindow:
    """The window of a part of a grid."""
    i, j, k = (o + s.start for o, s in zip(window.origin, part, strict=True))
    x, y, z = (s.stop - s.start for s in part)
    return LatticeWindow(window.voxel_size_m, (i, j, k), (x, y, z))


def overlapping_parts(first: LatticeWindow, second: LatticeWindow) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What two windows share, as parts of each grid; both empty where they share nothing."""
    low = np.maximum(first.origin, second.origin)
    high = np.maximum(np.minimum(*(np.add(window.origin, window.shape) for window in (first, second))), low)
    parts = (
        tuple(slice(int(a), int(b)) for a, b in zip(low - window.origin, high - window.origin, strict=True))
        for window in (first, second)
    )
    here, there = parts
    return here, there


class WorldTruth:
    """Occupancy of a still world, computed again only when the window moves."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._labels: tuple[LatticeWindow, Any] | None = None

    def view(self, view: MapView) -> MapView:
        """The same window, every voxel known and with its class."""
        if self._labels is None or self._labels[0] != view.window:
            self._labels = (view.window, self.world.occupancy(view.window))
        labels = self._labels[1]
        state = np.where(labels > 0, VoxelState.OCCUPIED, VoxelState.FREE).astype(np.int8)
        return replace(view, state=state, classes=labels)


class EverSeen:
    """Voxels of a whole world that were seen during a drive."""

    def __init__(self, world: World, voxel_size_m: float) -> None:
        x0, y0, x1, y1 = world.bounds
        self.low = np.floor(np.array([x0 - 30, y0 - 30, -5]) / voxel_size_m).astype(int)
        high = np.ceil(np.array([x1 + 30, y1 + 30, 10]) / voxel_size_m).astype(int)
        self.seen = np.zeros(high - self.low, bool)

    def add(self, window: LatticeWindow, seen: Mask) -> None:
        """Note what was seen, (X, Y, Z) of a window."""
        self.seen[self._part(window)] |= seen

    def mask(self, window: LatticeWindow) -> Mask:
        """What has been seen of a window, (X, Y, Z)."""
        return self.seen[self._part(window)].copy()

    def _part(self, window: LatticeWindow) -> tuple[slice, ...]:
        start = np.array(window.origin) - self.low
        return tuple(slice(int(a), int(a) + n) for a, n in zip(start, window.shape, strict=True))
