# SPDX-License-Identifier: Apache-2.0
"""Worlds of imported furniture: homes of several rooms, offices, halls; and the same of pieces that training never sees."""

from __future__ import annotations

from collections.abc import Callable

from occupancy_nn_ros.simulation.builder import WorldBuilder
from occupancy_nn_ros.simulation.building import Bounds, door_wall, inner, shell, walkers
from occupancy_nn_ros.simulation.furnishing import Furnisher
from occupancy_nn_ros.simulation.furniture import load_furniture

LEAST_ROOM_M = 2.6


def _rooms(build: WorldBuilder, bounds: Bounds, height: float, most: int) -> list[Bounds]:
    """Cut a floor into rooms by walls with doors, the longest room first."""
    rooms = [bounds]
    for _ in range(most - 1):
        rooms.sort(key=lambda room: max(room[2] - room[0], room[3] - room[1]))
        x0, y0, x1, y1 = rooms[-1]
        if max(x1 - x0, y1 - y0) < 2 * LEAST_ROOM_M:
            break
        rooms.pop()
        share, texture = float(build.rng.uniform(0.4, 0.6)), build.texture()
        if x1 - x0 > y1 - y0:
            x = x0 + share * (x1 - x0)
            door_wall(build, (x, y0), (x, y1), height, texture)
            rooms += [(x0, y0, x, y1), (x, y0, x1, y1)]
        else:
            y = y0 + share * (y1 - y0)
            door_wall(build, (x0, y), (x1, y), height, texture)
            rooms += [(x0, y0, x1, y), (x0, y, x1, y1)]
    return rooms


def _furnished(
    kinds: tuple[str, ...], size_m: tuple[float, float], height_m: tuple[float, float], rooms: int, *, heldout: bool
) -> Callable[[WorldBuilder], Bounds]:
    """A layout of rooms furnished as any of ``kinds``."""

    def layout(build: WorldBuilder) -> Bounds:
        rng = build.rng
        width, depth = (float(side) for side in rng.uniform(*size_m, 2))
        bounds = (-width / 2, -depth / 2, width / 2, depth / 2)
        height = float(rng.uniform(*height_m))
        shell(build, bounds, height, ceiling=bool(rng.random() < 0.85))
        furnisher = Furnisher(build, load_furniture(heldout=heldout))
        for room in _rooms(build, bounds, height, int(rng.integers(1, rooms + 1))):
            furnisher.furnish(str(rng.choice(kinds)), room)
        walkers(build, inner(bounds, 1.0), int(rng.integers(0, 2)))
        return bounds

    return layout


def _pair(
    name: str, kinds: tuple[str, ...], size_m: tuple[float, float], height_m: tuple[float, float], rooms: int
) -> dict[str, Callable[[WorldBuilder], Bounds]]:
    return {
        name: _furnished(kinds, size_m, height_m, rooms, heldout=False),
        f"{name}_heldout": _furnished(kinds, size_m, height_m, rooms, heldout=True),
    }


FURNISHED: dict[str, Callable[[WorldBuilder], Bounds]] = {
    **_pair("home", ("home", "kitchen", "home"), (4.5, 10.0), (2.3, 3.0), 4),
    **_pair("office", ("office", "office", "kitchen"), (5.0, 12.0), (2.5, 3.4), 3),
    **_pair("hall", ("hall",), (8.0, 16.0), (3.0, 6.0), 2),
}
"""Layouts of furniture by name; they need imported assets."""
