# SPDX-License-Identifier: Apache-2.0
"""Worlds on two levels, and drives to where they meet: stairs down, a loading dock, a ramp.

The upper level is a platform of ground on which the robot starts; ``z = 0`` is the lower one. Beyond the edge at ``x = EDGE_X_M`` lie
stairs, a drop or a ramp; walls stand everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.builder import TEXTURES, WorldBuilder
from occupancy_nn_ros.simulation.building import Bounds, Place, scatter
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.world import GROUND, World
from occupancy_nn_ros.values import FloatArray

EDGE_X_M = 2.0
BACK_X_M, END_X_M, SIDE_Y_M = -5.0, 9.0, 3.0
SPEED_M_S = 0.5
KEEP_OFF_M = 0.8
"""How near to the edge the robot drives."""


@dataclass(frozen=True)
class Terrain:
    """A world with ground on two levels.

    Attributes:
        world: what stands and lies in it.
        level_m: height of the upper level, on which the robot starts.
        path: (N, 2) where it drives.
    """

    world: World
    level_m: float
    path: FloatArray

    def heights(self, places: FloatArray) -> FloatArray:
        """Height of the ground at places (N, 2), exact to a millimetre: a ray from above, as long as the way is free."""
        ground = replace(self.world, solids=tuple(s for s in self.world.solids if s.label == GROUND))
        points = np.column_stack([places, np.full(len(places), self.level_m + 0.3)])
        for _ in range(200):
            distance = ground.signed_distance(points)
            if float(distance.max()) < 5e-4:
                break
            points[:, 2] -= np.maximum(distance, 0)
        return np.asarray(points[:, 2])

    def drive(self, rate_hz: float) -> Drive:
        """Along the path on the ground, pitched as it is."""
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(self.path, axis=0), axis=1))])
        stamps = np.arange(0.0, along[-1] / SPEED_M_S, 1.0 / rate_hz)
        xy = np.stack([np.interp(stamps * SPEED_M_S, along, self.path[:, a]) for a in (0, 1)], axis=1)
        ahead, behind = (
            np.stack(
                [np.interp(np.clip(stamps * SPEED_M_S + d, 0, along[-1]), along, self.path[:, a]) for a in (0, 1)],
                axis=1,
            )
            for d in (0.25, -0.25)
        )
        step = ahead - behind
        rise = self.heights(ahead) - self.heights(behind)
        poses = np.tile(np.eye(4), (len(stamps), 1, 1))
        angles = np.stack([np.arctan2(step[:, 1], step[:, 0]), -np.arctan2(rise, np.linalg.norm(step, axis=1))], axis=1)
        poses[:, :3, :3] = Rotation.from_euler("ZY", angles).as_matrix()
        poses[:, :2, 3], poses[:, 2, 3] = xy, self.heights(xy)
        return Drive(stamps, poses)


def build_terrain(kind: str, seed: int, *, photos: bool = False) -> Terrain:
    """A random terrain of a kind (see ``TERRAINS``), perhaps with photographic textures; the same for the same seed.

    Raises:
        SimulationError: unknown kind, and names the known ones.
    """
    if kind not in TERRAINS:
        raise SimulationError(f"unknown terrain '{kind}', expected one of {', '.join(TERRAINS)}")
    rng = np.random.default_rng([seed, list(TERRAINS).index(kind), 13])
    build = WorldBuilder(rng)
    level, path = TERRAINS[kind](build)
    _platform(build, level)
    _walls(build, level)
    _furnish(build, level, path)
    bounds: Bounds = (BACK_X_M, -SIDE_Y_M, END_X_M, SIDE_Y_M)
    texture = int(rng.integers(TEXTURES))
    family = "photo" if photos else "train"
    world = World(kind, seed, tuple(build.solids), bounds, ground_texture=texture, texture_family=family)
    return Terrain(world, level, path)


def _stairs(build: WorldBuilder) -> tuple[float, FloatArray]:
    """Six to eight steps down in the middle of the edge; walls beside them, or the bare drop."""
    rng = build.rng
    rise, tread, steps = float(rng.uniform(0.15, 0.18)), float(rng.uniform(0.26, 0.32)), int(rng.integers(6, 9))
    half_width, texture = float(rng.uniform(1.0, 1.6)), build.texture()
    for n in range(1, steps):
        top = (steps - n) * rise
        center = (EDGE_X_M + (n - 0.5) * tread, 0.0, top / 2)
        build.box(center, (tread / 2, half_width, top / 2), "ground", texture=texture)
    level = steps * rise
    if rng.random() < 0.5:
        for side in (-1, 1):
            y = side * (half_width + SIDE_Y_M) / 2
            build.box(
                (EDGE_X_M + 0.08, y, level / 2 + 0.5), (0.08, (SIDE_Y_M - half_width) / 2, level / 2 + 0.5), "structure"
            )
    return level, _along_the_edge(rng)


def _dock(build: WorldBuilder) -> tuple[float, FloatArray]:
    """A loading dock: the whole edge drops by a metre or so."""
    return float(build.rng.uniform(0.7, 1.3)), _along_the_edge(build.rng)


def _ramp(build: WorldBuilder) -> tuple[float, FloatArray]:
    """A ramp of 1 : 6 to 1 : 12, as wide as the platform, that the robot drives down."""
    rng = build.rng
    level, ratio = float(rng.uniform(0.4, 0.6)), float(rng.uniform(6, 12))
    pitch = float(np.arctan(1 / ratio))
    length, thick = level * float(np.hypot(1, ratio)), 0.1
    # The middle of its upper face lies halfway down.
    x, z = EDGE_X_M + level * ratio / 2 - thick * np.sin(pitch), level / 2 - thick * np.cos(pitch)
    build.box((float(x), 0.0, float(z)), (length / 2, SIDE_Y_M, thick), "ground")
    build.solids[-1] = replace(build.solids[-1], pitch=pitch)
    y = float(rng.uniform(-0.8, 0.8))
    return level, np.array([[0.0, y], [EDGE_X_M + 0.5 * level * ratio, y]])


TERRAINS: dict[str, Callable[[WorldBuilder], tuple[float, FloatArray]]] = {
    "stairs": _stairs,
    "dock": _dock,
    "ramp": _ramp,
}


def _along_the_edge(rng: np.random.Generator) -> FloatArray:
    """Straight to the edge, and then along it."""
    y, side = float(rng.uniform(-0.5, 0.5)), float(rng.choice([-1.0, 1.0]))
    x = EDGE_X_M - KEEP_OFF_M
    turn = np.linspace(0, np.pi / 2, 7)
    bend = np.column_stack([x - 0.6 + 0.6 * np.sin(turn), y + side * 0.6 * (1 - np.cos(turn))])
    return np.concatenate([[[-1.5, y]], bend, [[x, y + side * 1.6]]])


def _platform(build: WorldBuilder, level: float) -> None:
    middle, half = (BACK_X_M + EDGE_X_M) / 2, (EDGE_X_M - BACK_X_M) / 2
    build.box((middle, 0.0, level / 2), (half, SIDE_Y_M, level / 2), "ground")


def _walls(build: WorldBuilder, level: float) -> None:
    height = level + 2.6
    corners = [(BACK_X_M, -SIDE_Y_M), (END_X_M, -SIDE_Y_M), (END_X_M, SIDE_Y_M), (BACK_X_M, SIDE_Y_M)]
    for n in range(4):
        build.wall(corners[n], corners[(n + 1) % 4], height, 0.2, build.texture())


def _furnish(build: WorldBuilder, level: float, path: FloatArray) -> None:
    """Things on the platform, beside the robot's way."""
    for x, y in path:
        build.claim(float(x), float(y), 0.7)
    for x in np.arange(path[0, 0], path[1, 0], 0.5):
        build.claim(float(x), float(path[0, 1]), 0.7)
    things: list[tuple[Place, float]] = [
        (build.add_barrel, 0.4), (build.add_cabinet, 0.7), (build.add_pole, 0.2), (build.add_person, 0.4),
    ]  # fmt: skip
    first = len(build.solids)
    scatter(build, (BACK_X_M, -SIDE_Y_M, EDGE_X_M - 0.5, SIDE_Y_M), things, 8)
    for n in range(first, len(build.solids)):
        x, y, z = build.solids[n].center
        build.solids[n] = replace(build.solids[n], center=(x, y, z + level))
