# SPDX-License-Identifier: Apache-2.0
"""What layouts are built of: outer walls, walls with doors, things and people at random places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from occupancy_nn_ros.simulation.builder import WorldBuilder
from occupancy_nn_ros.simulation.world import Mover

Bounds = tuple[float, float, float, float]
Place = Callable[[float, float, float], None]


def scatter(build: WorldBuilder, bounds: Bounds, things: list[tuple[Place, float]], count: int) -> None:
    """Place random things of given radius at free spots."""
    for _ in range(count):
        place, radius = things[int(build.rng.integers(len(things)))]
        x = float(build.rng.uniform(bounds[0] + radius, bounds[2] - radius))
        y = float(build.rng.uniform(bounds[1] + radius, bounds[3] - radius))
        if build.place(x, y, radius):
            place(x, y, float(build.rng.uniform(-np.pi, np.pi)))


def walkers(build: WorldBuilder, bounds: Bounds, count: int, duration_s: float = 120.0) -> None:
    """People who walk to and fro."""
    for _ in range(count):
        x, y = float(build.rng.uniform(bounds[0], bounds[2])), float(build.rng.uniform(bounds[1], bounds[3]))
        heading, reach = build.rng.uniform(-np.pi, np.pi), build.rng.uniform(1.0, 3.0)
        step = float(reach / build.rng.uniform(0.6, 1.4))
        times = np.arange(0.0, duration_s, step)
        far = (reach * np.cos(heading), reach * np.sin(heading), 0.0)
        positions = tuple((0.0, 0.0, 0.0) if n % 2 == 0 else tuple(map(float, far)) for n in range(len(times)))
        build.add_person(x, y, float(heading), Mover(tuple(map(float, times)), positions))  # type: ignore[arg-type]


def door_wall(
    build: WorldBuilder, start: tuple[float, float], end: tuple[float, float], height: float, texture: int
) -> None:
    """A wall with one doorway, lintel above it."""
    rng = build.rng
    a, b = np.array(start), np.array(end)
    length = float(np.linalg.norm(b - a))
    width, thickness = float(rng.uniform(0.9, 1.6)), float(rng.uniform(0.1, 0.25))
    if length < width + 1:
        return
    at = float(rng.uniform(0.5, length - width - 0.5))
    along = (b - a) / length
    p, q = a + along * at, a + along * (at + width)
    build.wall(start, (float(p[0]), float(p[1])), height, thickness, texture)
    build.wall((float(q[0]), float(q[1])), end, height, thickness, texture)
    middle = (p + q) / 2
    top = min(2.1, height - 0.2)
    center = (float(middle[0]), float(middle[1]), (top + height) / 2)
    yaw = float(np.arctan2(along[1], along[0]))
    build.box(center, (width / 2, thickness / 2, (height - top) / 2), "structure", yaw=yaw, texture=texture)
    build.place(float(middle[0]), float(middle[1]), 0.9)


def shell(build: WorldBuilder, bounds: Bounds, height: float, *, ceiling: bool) -> None:
    """Four outer walls, perhaps with different surfaces, and perhaps a ceiling."""
    x0, y0, x1, y1 = bounds
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    texture = build.texture()
    for n in range(4):
        surface = texture if build.rng.random() < 0.6 else build.texture()
        build.wall(corners[n], corners[(n + 1) % 4], height, 0.2, surface)
    if ceiling:
        center = ((x0 + x1) / 2, (y0 + y1) / 2, height + 0.1)
        build.box(center, ((x1 - x0) / 2 + 0.2, (y1 - y0) / 2 + 0.2, 0.1), "structure")


def inner(bounds: Bounds, margin: float) -> Bounds:
    """What lies at least a margin inside of bounds."""
    return bounds[0] + margin, bounds[1] + margin, bounds[2] - margin, bounds[3] - margin
