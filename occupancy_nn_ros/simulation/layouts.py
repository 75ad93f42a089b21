# SPDX-License-Identifier: Apache-2.0
"""Randomised worlds: indoor, workspace, warehouse, street, clutter, and held-out layouts with another logic and other textures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.builder import TEXTURES, WorldBuilder
from occupancy_nn_ros.simulation.building import Bounds, Place, door_wall, inner, scatter, shell, walkers
from occupancy_nn_ros.simulation.furnished_layouts import FURNISHED
from occupancy_nn_ros.simulation.world import World


def build_world(kind: str, seed: int, *, photos: bool = False) -> World:
    """A random world of a kind (see ``LAYOUTS`` and ``FURNISHED``), perhaps with photographic textures.

    It is the same for the same seed, furnished ones as long as the same assets are imported.

    Raises:
        SimulationError: unknown kind, and names the known ones; or it needs furniture, and none was imported.
    """
    known = LAYOUTS | FURNISHED
    if kind not in known:
        raise SimulationError(f"unknown world '{kind}', expected one of {', '.join(known)}")
    rng = np.random.default_rng([seed, list(known).index(kind)])
    builder = WorldBuilder(rng)
    bounds = known[kind](builder)
    family = "heldout" if kind.endswith("_heldout") else "photo" if photos else "train"
    return World(
        name=kind,
        seed=seed,
        solids=tuple(builder.solids),
        bounds=bounds,
        ground_texture=int(rng.integers(TEXTURES)),
        texture_family=f"real_{family}" if kind in FURNISHED else family,
        movers=tuple(builder.movers),
    )


def _furniture(build: WorldBuilder) -> list[tuple[Place, float]]:
    return [
        (build.add_table, 1.0), (build.add_chair, 0.4), (build.add_shelf, 0.9), (build.add_cabinet, 0.8),
        (build.add_sofa, 1.0), (build.add_plant, 0.4), (build.add_barrel, 0.4), (build.add_person, 0.4),
        (build.add_chair, 0.4), (build.add_cabinet, 0.8),
    ]  # fmt: skip


def _indoor(build: WorldBuilder) -> Bounds:
    """Rooms divided by walls with doors."""
    rng = build.rng
    w, d, height = float(rng.uniform(7, 16)), float(rng.uniform(6, 14)), float(rng.uniform(2.4, 3.6))
    bounds = (-w / 2, -d / 2, w / 2, d / 2)
    shell(build, bounds, height, ceiling=bool(rng.random() < 0.6))
    for _ in range(int(rng.integers(0, 3))):
        texture = build.texture()
        if rng.random() < 0.5:
            x = float(rng.uniform(-w / 2 + 2.5, w / 2 - 2.5))
            door_wall(build, (x, -d / 2), (x, d / 2), height, texture)
        else:
            y = float(rng.uniform(-d / 2 + 2.5, d / 2 - 2.5))
            door_wall(build, (-w / 2, y), (w / 2, y), height, texture)
    for _ in range(int(rng.integers(2, 9))):  # shelves and counters along the walls
        side, along = int(rng.integers(4)), float(rng.uniform(-0.4, 0.4))
        x, y = (
            (along * w, -d / 2 + 0.45),
            (along * w, d / 2 - 0.45),
            (-w / 2 + 0.45, along * d),
            (w / 2 - 0.45, along * d),
        )[side]
        if build.place(x, y, 0.7):
            place = (build.add_shelf, build.add_cabinet)[int(rng.integers(2))]
            place(x, y, 0.0 if side < 2 else np.pi / 2)
    scatter(build, inner(bounds, 0.5), _furniture(build), int(w * d * rng.uniform(0.08, 0.28)))
    walkers(build, inner(bounds, 1.0), int(rng.integers(0, 3)))
    return bounds


def _warehouse(build: WorldBuilder) -> Bounds:
    """Rows of racks with aisles between."""
    rng = build.rng
    w, d, height = float(rng.uniform(14, 24)), float(rng.uniform(12, 20)), float(rng.uniform(4, 7))
    bounds = (-w / 2, -d / 2, w / 2, d / 2)
    shell(build, bounds, height, ceiling=bool(rng.random() < 0.4))
    aisle, length = float(rng.uniform(2.4, 4.0)), float(rng.uniform(2.6, 3.4))
    for y in np.arange(-d / 2 + 2.5, d / 2 - 2, aisle + 1.0):
        for x in np.arange(-w / 2 + 3, w / 2 - 3, length):
            if rng.random() < 0.75 and build.place(float(x), float(y), 1.2):
                build.add_rack(float(x), float(y), 0.0)
    things: list[tuple[Place, float]] = [
        (build.add_pile, 0.8), (build.add_barrel, 0.4), (build.add_pole, 0.2), (build.add_person, 0.4),
        (build.add_cabinet, 0.8), (build.add_car, 2.0),
    ]  # fmt: skip
    scatter(build, inner(bounds, 1.0), things, int(rng.integers(10, 40)))
    walkers(build, inner(bounds, 2.0), int(rng.integers(0, 4)))
    return bounds


def _street(build: WorldBuilder) -> Bounds:
    """A road with pavements, facades, parked cars, poles, trees and people."""
    rng = build.rng
    length, road, pavement = float(rng.uniform(24, 36)), float(rng.uniform(3.0, 5.0)), float(rng.uniform(1.5, 3.5))
    for side in (-1, 1):
        kerb = side * (road + pavement / 2)
        build.box((0, kerb, 0.06), (length / 2, pavement / 2, 0.06), "ground")
        x = -length / 2
        while x < length / 2:
            width, height = float(rng.uniform(3, 9)), float(rng.uniform(3, 9))
            depth = float(rng.uniform(0.0, 1.2))
            y = side * (road + pavement + 1 + depth)
            build.box((x + width / 2, y, height / 2), (width / 2, 1.0, height / 2), "structure")
            x += width + (0.0 if rng.random() < 0.7 else float(rng.uniform(0.5, 3)))
        for x in np.arange(-length / 2 + 3, length / 2 - 3, 5.2):
            if rng.random() < 0.6 and build.place(float(x), side * (road - 0.9), 2.4):
                build.add_car(float(x), side * (road - 0.9), float(rng.normal(0, 0.05)))
        for _ in range(int(rng.integers(4, 14))):
            x, y = float(rng.uniform(-length / 2, length / 2)), side * (road + float(rng.uniform(0.3, pavement)))
            things = (
                build.add_pole,
                build.add_tree,
                build.add_bush,
                build.add_person,
                build.add_barrel,
                build.add_pole,
            )
            if build.place(x, y, 0.5):
                things[int(rng.integers(len(things)))](x, y, 0.0)
    bounds = (-length / 2 + 2, -road, length / 2 - 2, road)
    walkers(build, bounds, int(rng.integers(0, 4)))
    return bounds


def _indoor_heldout(build: WorldBuilder) -> Bounds:
    """An open-plan hall: columns, slanted partitions, round tables and counters in clusters."""
    rng = build.rng
    w, d, height = float(rng.uniform(9, 15)), float(rng.uniform(8, 13)), float(rng.uniform(2.6, 3.4))
    bounds = (-w / 2, -d / 2, w / 2, d / 2)
    shell(build, bounds, height, ceiling=bool(rng.random() < 0.6))
    for x in np.linspace(-w / 4, w / 4, int(rng.integers(1, 4))):
        for y in (-d / 4, d / 4):
            if build.place(float(x), y, 0.5):
                build.cylinder((float(x), y, height / 2), float(rng.uniform(0.15, 0.3)), height / 2, "structure")
    for _ in range(int(rng.integers(1, 5))):
        x, y, angle = float(rng.uniform(-w / 3, w / 3)), float(rng.uniform(-d / 3, d / 3)), float(rng.uniform(0, np.pi))
        reach = float(rng.uniform(0.8, 1.8))
        if build.place(x, y, reach):
            start = (x - reach * np.cos(angle), y - reach * np.sin(angle))
            build.wall(
                start, (2 * x - start[0], 2 * y - start[1]), float(rng.uniform(1.2, height)), 0.12, build.texture()
            )
    for _ in range(int(rng.integers(6, 14))):
        x, y = float(rng.uniform(-w / 2 + 1, w / 2 - 1)), float(rng.uniform(-d / 2 + 1, d / 2 - 1))
        if build.place(x, y, 1.2):
            build.cylinder((x, y, 0.74), float(rng.uniform(0.35, 0.7)), 0.03, "object")
            build.cylinder((x, y, 0.36), 0.06, 0.36, "object")
            for angle in np.arange(0, 2 * np.pi, 2 * np.pi / int(rng.integers(2, 5))):
                build.add_barrel(x + 0.9 * float(np.cos(angle)), y + 0.9 * float(np.sin(angle)), 0.0)
    scatter(build, inner(bounds, 0.7), _furniture(build), int(rng.integers(4, 12)))
    walkers(build, inner(bounds, 1.0), int(rng.integers(0, 3)))
    return bounds


def _warehouse_heldout(build: WorldBuilder) -> Bounds:
    """A yard of container stacks at odd angles with barrels and pallets between."""
    rng = build.rng
    w, d = float(rng.uniform(14, 22)), float(rng.uniform(14, 22))
    bounds = (-w / 2, -d / 2, w / 2, d / 2)
    shell(build, bounds, float(rng.uniform(3, 6)), ceiling=False)
    for _ in range(int(rng.integers(6, 14))):
        x, y = float(rng.uniform(-w / 2 + 2, w / 2 - 2)), float(rng.uniform(-d / 2 + 2, d / 2 - 2))
        if build.place(x, y, 2.2):
            yaw = float(rng.choice([0.0, np.pi / 2, np.pi / 4])) + float(rng.normal(0, 0.1))
            z = 0.0
            for _level in range(int(rng.integers(1, 4))):
                half = float(rng.uniform(0.4, 0.9))
                build.box(
                    (x, y, z + half),
                    (float(rng.uniform(1.0, 2.0)), float(rng.uniform(0.6, 1.1)), half),
                    "object",
                    yaw=yaw,
                )
                z += 2 * half
    things: list[tuple[Place, float]] = [
        (build.add_barrel, 0.4), (build.add_pile, 0.8), (build.add_pole, 0.2), (build.add_person, 0.4),
        (build.add_bush, 0.6),
    ]  # fmt: skip
    scatter(build, inner(bounds, 0.8), things, int(rng.integers(14, 40)))
    walkers(build, inner(bounds, 2.0), int(rng.integers(0, 3)))
    return bounds


def _street_heldout(build: WorldBuilder) -> Bounds:
    """A square: buildings around it, a fountain, kiosks, hedges, parked cars at angles."""
    rng = build.rng
    half = float(rng.uniform(8, 13))
    for angle in np.arange(0, 2 * np.pi, float(rng.uniform(0.3, 0.6))):
        x, y = (half + 2) * float(np.cos(angle)), (half + 2) * float(np.sin(angle))
        height = float(rng.uniform(1.2, 4))
        build.box(
            (x, y, height),
            (float(rng.uniform(0.6, 1.5)), float(rng.uniform(1.5, 3)), height),
            "structure",
            yaw=float(angle),
        )
    build.place(0, 0, 2.0)
    build.cylinder((0, 0, 0.3), float(rng.uniform(0.8, 1.6)), 0.3, "structure")
    build.cylinder((0, 0, 1.0), 0.25, 1.0, "structure")
    bounds = (-half * 0.8, -half * 0.8, half * 0.8, half * 0.8)
    things: list[tuple[Place, float]] = [
        (build.add_car, 2.3), (build.add_bush, 0.7), (build.add_tree, 0.7), (build.add_pole, 0.3),
        (build.add_person, 0.5), (build.add_table, 1.0), (build.add_cabinet, 0.8),
    ]  # fmt: skip
    scatter(build, bounds, things, int(rng.integers(16, 40)))
    walkers(build, bounds, int(rng.integers(0, 3)))
    return bounds


def _workspace(build: WorldBuilder) -> Bounds:
    """Kitchens, offices and labs: counters along the walls, tables with chairs around them, things on everything."""
    rng = build.rng
    w, d, height = float(rng.uniform(5, 10)), float(rng.uniform(4.5, 9)), float(rng.uniform(2.4, 3.2))
    bounds = (-w / 2, -d / 2, w / 2, d / 2)
    shell(build, bounds, height, ceiling=bool(rng.random() < 0.7))
    for side in range(4):  # the local x axis runs along the wall, which is on the left
        yaw = side * np.pi / 2
        span, away = (w, d / 2) if side % 2 == 0 else (d, w / 2)
        length = float(rng.uniform(0.3, 0.85)) * (span - 1.6)
        along, back = float(rng.uniform(-0.5, 0.5)) * (span - 1.6 - length), away - 0.48
        x, y = along * np.cos(yaw) - back * np.sin(yaw), along * np.sin(yaw) + back * np.cos(yaw)
        kind = rng.random()
        if kind < 0.65:
            build.add_counter(float(x), float(y), yaw, length)
            for at in np.arange(-length / 2 + 0.3, length / 2, 0.6):
                px, py = float(x + at * np.cos(yaw)), float(y + at * np.sin(yaw))
                build.claim(px, py, 0.45)
        elif kind < 0.9 and build.place(float(x), float(y), 1.0):
            build.add_shelf(float(x), float(y), yaw)
        _pictures(build, yaw, span, away - 0.12)
    scatter(build, inner(bounds, 0.8), [(build.add_dining_set, 1.2)], int(w * d * rng.uniform(0.05, 0.3)))
    things: list[tuple[Place, float]] = [
        (build.add_table, 1.0), (build.add_chair, 0.4),
        (build.add_cabinet, 0.8), (build.add_plant, 0.4), (build.add_barrel, 0.4), (build.add_person, 0.4),
    ]  # fmt: skip
    scatter(build, inner(bounds, 0.6), things, int(w * d * rng.uniform(0.1, 0.3)))
    walkers(build, inner(bounds, 1.0), int(rng.integers(0, 2)))
    return bounds


def _pictures(build: WorldBuilder, yaw: float, span: float, away: float) -> None:
    """Flat things on a wall: pictures, screens, notices."""
    for _ in range(int(build.rng.integers(0, 8))):
        along, z = float(build.rng.uniform(-0.42, 0.42)) * span, float(build.rng.uniform(0.9, 2.0))
        x, y = along * np.cos(yaw) - away * np.sin(yaw), along * np.sin(yaw) + away * np.cos(yaw)
        half = (float(build.rng.uniform(0.08, 0.4)), 0.02, float(build.rng.uniform(0.08, 0.3)))
        build.box((float(x), float(y), z), half, "object", yaw=yaw)


def _clutter(build: WorldBuilder) -> Bounds:
    """No place that anybody knows: free-standing walls, posts, gates, stacks and loose things at any angle."""
    rng = build.rng
    w, d = float(rng.uniform(8, 18)), float(rng.uniform(8, 18))
    bounds = (-w / 2, -d / 2, w / 2, d / 2)
    if rng.random() < 0.7:
        shell(build, bounds, float(rng.uniform(2, 6)), ceiling=bool(rng.random() < 0.4))
    things: list[tuple[Place, float]] = [
        (build.add_gate, 1.0), (build.add_screen, 1.3), (build.add_heap, 0.8), (build.add_heap, 0.8),
        (build.add_pole, 0.2), (build.add_shelf, 0.9), (build.add_person, 0.4), (build.add_chair, 0.4),
        (build.add_car, 2.2), (build.add_plant, 0.4),
    ]  # fmt: skip
    scatter(build, inner(bounds, 0.6), things, int(w * d * rng.uniform(0.1, 0.4)))
    walkers(build, inner(bounds, 1.0), int(rng.integers(0, 3)))
    return bounds


# The order is part of every world's seed: only ever append.
LAYOUTS: dict[str, Callable[[WorldBuilder], Bounds]] = {
    "indoor": _indoor,
    "indoor_heldout": _indoor_heldout,
    "street": _street,
    "street_heldout": _street_heldout,
    "warehouse": _warehouse,
    "warehouse_heldout": _warehouse_heldout,
    "workspace": _workspace,
    "clutter": _clutter,
}
