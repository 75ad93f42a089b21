# SPDX-License-Identifier: Apache-2.0
"""How long a map takes to show what appears before the cameras, and to forget it when it has left.

A robot drives slowly through a simulated world. At one moment a person stands in its view, some seconds later no more.
Time counts from the last keyframe without the change, so that a map which needs one look takes one period.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.config import Config, GridConfig
from occupancy_nn_ros.evaluation.tally import ChangeTimes
from occupancy_nn_ros.evaluation.truth import RATE_HZ, planned_drive, rendered
from occupancy_nn_ros.geometry.cameras import project
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.mapping.slices import FREE, LETHAL, band, occupancy_slice
from occupancy_nn_ros.simulation.builder import WorldBuilder
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.simulation.world import Mover, World
from occupancy_nn_ros.values import FloatArray, Keyframe, MapView

BEFORE, PRESENT, AFTER = 7, 9, 12
"""Keyframes without the person, with, and again without."""

SPEED_M_S = 0.3
NEAREST_M, FURTHEST_M = 1.0, 3.0
"""How far from the robot the person may stand."""

CLEARANCE_M = 0.5
HEIGHTS_M = (0.3, 1.0, 1.6)
BURIED = (0.0, 0.0, -10.0)
"""Where the person waits: under the ground, which no camera sees through."""

CHANGES_PROTOCOL = (
    f"changes: a person {NEAREST_M:g} to {FURTHEST_M:g} m away appears and leaves {PRESENT / RATE_HZ:g} s later, "
    f"robot at {SPEED_M_S:g} m/s; seconds from the last keyframe before the change"
)


class Watched(Protocol):
    """A map that is timed."""

    def step(self, keyframe: Keyframe) -> object:
        """Fuse a keyframe."""

    def view(self, frame_id: str) -> MapView | None:
        """A copy of the map, or None before the first keyframe."""


@dataclass(frozen=True)
class ChangeScene:
    """A world with a person who is there for a while, and a drive past it."""

    world: World
    drive: Drive


def plan_change(world: World, rig: Rig) -> ChangeScene | None:
    """Put a person into a world where the rig's cameras see one all the time; None if there is no such place.

    Raises:
        SimulationError: the world has no free floor to drive on.
    """
    drive = slow_drive(world, (BEFORE + PRESENT + AFTER) / RATE_HZ)
    spot = _spot(world, rig, drive)
    return None if spot is None else ChangeScene(_with_person(world, spot, drive), drive)


def react(scene: ChangeScene, rig: Rig, config: Config, watched: Sequence[tuple[Watched, bool, ChangeTimes]]) -> None:
    """Drive through the scene and time each map.

    Args:
        scene: from :func:`plan_change`.
        rig: the robot's cameras.
        config: of the maps; its 2D grid is judged.
        watched: empty maps, whether each takes depth images rather than pictures, and where its times go.
    """
    stamps = scene.drive.stamps_s
    watches = [_StopWatch(times) for _, _, times in watched]
    with WorldRenderer(scene.world) as renderer:
        for index, frame in enumerate(rendered(renderer, rig, scene.drive, moving=True)):
            for (grid, from_depth, _), watch in zip(watched, watches, strict=True):
                grid.step(frame.depths if from_depth else frame.images)
                view = grid.view("odom")
                if view is None:
                    continue
                if index == BEFORE - 1:
                    watch.begin(footprint(scene.world, view, config.grid, stamps), view, config.grid)
                elif index >= BEFORE:
                    watch.look(view, config.grid, index, stamps)
    for watch in watches:
        watch.stop()


def footprint(world: World, view: MapView, grid: GridConfig, stamps_s: FloatArray) -> npt.NDArray[np.int64]:
    """Lattice columns (N, 2) in whose height band the person stands, and nothing else does."""
    layers = band(view, grid)
    without, present = (
        (world.occupancy(view.window, float(stamps_s[index])) > 0)[:, :, layers].any(axis=2) for index in (0, BEFORE)
    )
    return np.asarray(np.argwhere(present & ~without) + np.array(view.window.origin[:2]), dtype=np.int64)


@dataclass
class _StopWatch:
    """Follows the cells where the person will stand, as far as the map calls them free before."""

    times: ChangeTimes
    cells: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    marked_s: float = np.inf
    cleared_s: float = np.inf

    def begin(self, cells: npt.NDArray[np.int64], view: MapView, grid: GridConfig) -> None:
        self.cells = cells[_values(cells, view, grid) == FREE]

    def look(self, view: MapView, grid: GridConfig, index: int, stamps_s: FloatArray) -> None:
        values = _values(self.cells, view, grid)
        if index < BEFORE + PRESENT and (values == LETHAL).any():
            self.marked_s = min(self.marked_s, float(stamps_s[index] - stamps_s[BEFORE - 1]))
        if index >= BEFORE + PRESENT and (values == FREE).all():
            self.cleared_s = min(self.cleared_s, float(stamps_s[index] - stamps_s[BEFORE + PRESENT - 1]))

    def stop(self) -> None:
        if len(self.cells):
            self.times.mark_s.append(self.marked_s)
            if np.isfinite(self.marked_s):
                self.times.clear_s.append(self.cleared_s)


def _values(cells: npt.NDArray[np.int64], view: MapView, grid: GridConfig) -> npt.NDArray[np.int8]:
    """Occupancy grid at lattice columns (N, 2), (N,)."""
    x, y = (cells - np.array(view.window.origin[:2])).T
    return np.asarray(occupancy_slice(view, grid).values[x, y], dtype=np.int8)


def slow_drive(world: World, duration_s: float) -> Drive:
    """The judged drive, at ``SPEED_M_S``.

    Raises:
        SimulationError: the world has no free floor to drive on.
    """
    fast = planned_drive(world, duration_s)
    travelled = np.linalg.norm(np.diff(fast.T_map_base[:, :3, 3], axis=0), axis=1).sum()
    slower = min(1.0, SPEED_M_S * float(fast.stamps_s[-1]) / max(float(travelled), 1e-6))
    return Drive(fast.stamps_s, np.stack([fast.pose(float(t) * slower) for t in fast.stamps_s]))


def _spot(world: World, rig: Rig, drive: Drive) -> FloatArray | None:
    """Of the places (x, y) that suit, the one whose mean distance from the robot is nearest to the middle; or None."""
    poses = drive.T_map_base[BEFORE - 1 :]
    steps = np.arange(-FURTHEST_M, FURTHEST_M + 0.01, 0.25)
    x, y = np.meshgrid(steps, steps, indexing="ij")
    places = np.stack([x.reshape(-1), y.reshape(-1)], axis=1) + poses[len(poses) // 2][:2, 3]
    away = np.linalg.norm(places[:, None] - poses[None, :, :2, 3], axis=2)
    places, away = (a[((away > NEAREST_M) & (away < FURTHEST_M)).all(axis=1)] for a in (places, away))
    for index in np.argsort(np.abs(away.mean(axis=1) - (NEAREST_M + FURTHEST_M) / 2), kind="stable"):
        if _is_clear(world, places[index]) and all(is_seen(world, rig, pose, places[index]) for pose in poses):
            return np.asarray(places[index])
    return None


def _is_clear(world: World, place: FloatArray) -> bool:
    body = np.array([[*place, z] for z in HEIGHTS_M[1:]])
    feet = np.array([[*place, HEIGHTS_M[0]]])
    return bool((world.signed_distance(body) > CLEARANCE_M).all() and (world.signed_distance(feet) > 0.25).all())


def is_seen(world: World, rig: Rig, T_map_base: FloatArray, place: FloatArray) -> bool:
    """Whether some camera looks at the middle of a person there, and nothing stands between."""
    target = np.array([*place, HEIGHTS_M[1]])
    for camera in rig.cameras:
        T_map_cam = T_map_base @ camera.T_base_cam
        local = invert(T_map_cam) @ np.array([*target, 1.0])
        if not project(camera.model, local[None, :3])[1][0]:
            continue
        between = T_map_cam[:3, 3] + np.linspace(0.1, 1, 30)[:, None] * (target - T_map_cam[:3, 3])
        if (world.signed_distance(between) > 0.1).all():
            return True
    return False


def _with_person(world: World, place: FloatArray, drive: Drive) -> World:
    """The world with everything at rest but a person who comes out of the ground and sinks into it again."""
    build = WorldBuilder(np.random.default_rng([world.seed, 41]))
    stamps, instant = drive.stamps_s, 1e-3
    times = [float(stamps[BEFORE]), float(stamps[BEFORE + PRESENT])]
    keys = (0.0, times[0] - instant, times[0], times[1] - 2 * instant, times[1] - instant)
    path = Mover(keys, (BURIED, BURIED, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), BURIED))
    build.add_person(float(place[0]), float(place[1]), 0.0, path)
    person = tuple(replace(solid, mover=len(world.movers)) for solid in build.solids)
    still = tuple(
        Mover((0.0,), ((float(p[0]), float(p[1]), float(p[2])),)) for p in (m.position(0) for m in world.movers)
    )
    return replace(world, solids=(*world.solids, *person), movers=(*still, path))
