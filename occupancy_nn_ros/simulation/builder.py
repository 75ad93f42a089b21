# SPDX-License-Identifier: Apache-2.0
"""Furniture and other recurring things, placed into a world without overlap."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.simulation.assets import AssetRecord
from occupancy_nn_ros.simulation.world import Mover, Solid
from occupancy_nn_ros.values import SEMANTIC_CLASSES

LABELS = {name: index + 1 for index, name in enumerate(SEMANTIC_CLASSES)}
TEXTURES = 24
"""Textures in one world."""

Vector = tuple[float, float, float]


class WorldBuilder:
    """Collects solids and movers; every ``add_*`` places one thing at (x, y) with a yaw."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Start an empty world with its own source of randomness."""
        self.rng = rng
        self.solids: list[Solid] = []
        self.movers: list[Mover] = []
        self._taken: list[tuple[float, float, float]] = []

    def texture(self) -> int:
        """A random texture index."""
        return int(self.rng.integers(TEXTURES))

    def place(self, x: float, y: float, radius: float) -> bool:
        """Claim a disc of floor; False if something already stands there."""
        if any(np.hypot(x - a, y - b) < radius + r for a, b, r in self._taken):
            return False
        self.claim(x, y, radius)
        return True

    def claim(self, x: float, y: float, radius: float) -> None:
        """Keep a disc of floor from being built on, whatever stands there."""
        self._taken.append((x, y, radius))

    def box(self, center: Vector, half: Vector, label: str, *, yaw: float = 0.0, texture: int | None = None) -> None:
        """Add a box."""
        self._add("box", center, half, label, yaw, texture)

    def cylinder(
        self, center: Vector, radius: float, half_height: float, label: str, *, texture: int | None = None
    ) -> None:
        """Add an upright cylinder."""
        self._add("cylinder", center, (radius, radius, half_height), label, 0.0, texture)

    def sphere(self, center: Vector, radius: float, label: str, *, texture: int | None = None, mover: int = -1) -> None:
        """Add a sphere."""
        self._add("sphere", center, (radius, radius, radius), label, 0.0, texture, mover)

    def mesh(self, piece: AssetRecord, place: Vector, yaw: float, scale: float, label: str) -> None:
        """Add furniture that stands on ``place`` and looks along ``yaw``, scaled."""
        a, b, c = (side / 2 for side in piece.size_m)
        half, center = (a * scale, b * scale, c * scale), (place[0], place[1], place[2] + c * scale)
        self.solids.append(Solid("mesh", center, half, yaw, LABELS[label], 0, -1, piece.name, (a, b, c)))

    def wall(
        self, start: tuple[float, float], end: tuple[float, float], height: float, thickness: float, texture: int
    ) -> None:
        """Add a straight wall between two points on the floor."""
        length, angle = np.hypot(end[0] - start[0], end[1] - start[1]), np.arctan2(end[1] - start[1], end[0] - start[0])
        if length < 0.05:
            return
        center = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, height / 2)
        half = (float(length) / 2 + thickness / 2, thickness / 2, height / 2)
        self.box(center, half, "structure", yaw=float(angle), texture=texture)

    def add_table(self, x: float, y: float, yaw: float) -> None:
        """A table top on four legs, with things on it."""
        rng = self.rng
        a, b, height, texture = rng.uniform(0.4, 1.0), rng.uniform(0.3, 0.5), rng.uniform(0.5, 1.0), self.texture()
        self.box((x, y, height), (a, b, rng.uniform(0.02, 0.05)), "object", yaw=yaw, texture=texture)
        for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            px, py = self._turned(x, y, yaw, i * (a - 0.06), j * (b - 0.06))
            self.cylinder((px, py, height / 2), rng.uniform(0.02, 0.05), height / 2, "object", texture=texture)
        for _ in range(int(rng.integers(0, 5))):
            px, py = self._turned(x, y, yaw, rng.uniform(-a, a) * 0.8, rng.uniform(-b, b) * 0.8)
            self._small_thing(px, py, height + 0.04)

    def add_chair(self, x: float, y: float, yaw: float) -> None:
        """A seat on four legs with a back."""
        seat, half, texture = self.rng.uniform(0.4, 0.5), self.rng.uniform(0.19, 0.27), self.texture()
        self.box((x, y, seat), (half, half, 0.03), "object", yaw=yaw, texture=texture)
        bx, by = self._turned(x, y, yaw, -half, 0.0)
        self.box((bx, by, seat + 0.25), (0.025, half, 0.25), "object", yaw=yaw, texture=texture)
        for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            px, py = self._turned(x, y, yaw, i * (half - 0.03), j * (half - 0.03))
            self.cylinder((px, py, seat / 2), 0.022, seat / 2, "object", texture=texture)

    def add_dining_set(self, x: float, y: float, yaw: float) -> None:
        """A large table full of things, with chairs around it, pushed in or drawn back."""
        rng = self.rng
        a, b, height, texture = rng.uniform(0.5, 1.1), rng.uniform(0.4, 0.6), rng.uniform(0.68, 0.8), self.texture()
        self.box((x, y, height), (a, b, 0.025), "object", yaw=yaw, texture=texture)
        for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            px, py = self._turned(x, y, yaw, i * (a - 0.07), j * (b - 0.07))
            self.box((px, py, height / 2), (0.04, 0.04, height / 2), "object", yaw=yaw, texture=texture)
        self._clutter(x, y, yaw, (a, b), height + 0.025, int(rng.integers(2, 12)))
        wood = self.texture()
        for angle, reach in ((0.0, a), (np.pi / 2, b), (np.pi, a), (-np.pi / 2, b)):
            if rng.random() < 0.8:
                out, aside = reach + float(rng.uniform(-0.1, 0.45)), float(rng.uniform(-0.2, 0.2))
                px, py = self._turned(x, y, yaw + angle, out, aside)
                self.add_slatted_chair(px, py, yaw + angle + np.pi + float(rng.normal(0, 0.25)), wood)

    def add_slatted_chair(self, x: float, y: float, yaw: float, texture: int) -> None:
        """A chair that one can look through: slats between two posts."""
        rng = self.rng
        seat, half = float(rng.uniform(0.42, 0.48)), float(rng.uniform(0.19, 0.24))
        self.box((x, y, seat), (half, half, 0.025), "object", yaw=yaw, texture=self.texture())
        top = seat + float(rng.uniform(0.35, 0.55))
        for side in (-1, 1):
            bx, by = self._turned(x, y, yaw, -half, side * (half - 0.02))
            self.box((bx, by, top / 2), (0.02, 0.02, top / 2), "object", yaw=yaw, texture=texture)
            fx, fy = self._turned(x, y, yaw, half - 0.02, side * (half - 0.02))
            self.box((fx, fy, seat / 2), (0.02, 0.02, seat / 2), "object", yaw=yaw, texture=texture)
        bx, by = self._turned(x, y, yaw, -half, 0.0)
        for z in np.linspace(seat + 0.12, top - 0.03, int(rng.integers(2, 5))):
            self.box((bx, by, float(z)), (0.012, half, 0.03), "object", yaw=yaw, texture=texture)

    def add_counter(self, x: float, y: float, yaw: float, length: float) -> None:
        """A run of cupboards along a wall behind it, with a work top, things on it, and perhaps cupboards above."""
        rng = self.rng
        depth, height = float(rng.uniform(0.27, 0.35)), float(rng.uniform(0.8, 0.95))
        self.box((x, y, height / 2), (length / 2, depth, height / 2), "object", yaw=yaw)
        self.box((x, y, height + 0.02), (length / 2 + 0.02, depth + 0.02, 0.02), "object", yaw=yaw)
        self._clutter(x, y, yaw, (length / 2, depth), height + 0.04, int(rng.integers(2, 5 + int(4 * length))))
        if rng.random() < 0.6:
            wx, wy = self._turned(x, y, yaw, 0.0, depth - 0.17)
            low, half = float(rng.uniform(1.35, 1.6)), float(rng.uniform(0.2, 0.4))
            self.box((wx, wy, low + half), (length / 2, 0.17, half), "object", yaw=yaw)

    def _clutter(self, x: float, y: float, yaw: float, half: tuple[float, float], height: float, count: int) -> None:
        """Small things, books and papers spread over a surface."""
        for _ in range(count):
            px, py = self._turned(
                x, y, yaw, self.rng.uniform(-0.9, 0.9) * half[0], self.rng.uniform(-0.85, 0.85) * half[1]
            )
            if self.rng.random() < 0.4:
                size = (float(self.rng.uniform(0.07, 0.2)), float(self.rng.uniform(0.07, 0.15)), 0.006)
                self.box((px, py, height + 0.006), size, "object", yaw=float(self.rng.uniform(0, 3)))
            else:
                self._small_thing(px, py, height)

    def add_shelf(self, x: float, y: float, yaw: float) -> None:
        """Boards between two sides, partly filled."""
        rng = self.rng
        width, depth, height = rng.uniform(0.4, 1.2), rng.uniform(0.15, 0.3), rng.uniform(1.0, 2.2)
        texture = self.texture()
        for side in (-1, 1):
            px, py = self._turned(x, y, yaw, side * width, 0.0)
            self.box((px, py, height / 2), (0.025, depth, height / 2), "object", yaw=yaw, texture=texture)
        levels = int(rng.integers(3, 6))
        for level in range(levels):
            z = 0.05 + level * (height - 0.1) / (levels - 1)
            self.box((x, y, z), (width, depth, 0.02), "object", yaw=yaw, texture=texture)
            for _ in range(int(rng.integers(0, 4))):
                px, py = self._turned(x, y, yaw, rng.uniform(-0.8, 0.8) * width, 0.0)
                self._small_thing(px, py, z + 0.02)

    def add_cabinet(self, x: float, y: float, yaw: float) -> None:
        """A closed box: cabinet, fridge, counter or crate."""
        rng = self.rng
        a, b, h = rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.45), rng.uniform(0.3, 1.0)
        self.box((x, y, h), (a, b, h), "object", yaw=yaw)
        if h < 0.6 and rng.random() < 0.6:
            self._small_thing(x, y, 2 * h)

    def add_sofa(self, x: float, y: float, yaw: float) -> None:
        """A seat with back and arms."""
        length, texture = self.rng.uniform(0.5, 1.1), self.texture()
        self.box((x, y, 0.21), (0.4, length, 0.21), "object", yaw=yaw, texture=texture)
        bx, by = self._turned(x, y, yaw, -0.35, 0.0)
        self.box((bx, by, 0.42), (0.1, length, 0.42), "object", yaw=yaw, texture=texture)
        for side in (-1, 1):
            ax, ay = self._turned(x, y, yaw, 0.0, side * length)
            self.box((ax, ay, 0.3), (0.4, 0.09, 0.3), "object", yaw=yaw, texture=texture)

    def add_plant(self, x: float, y: float, yaw: float) -> None:
        """A pot or trunk with leaves."""
        del yaw
        rng = self.rng
        height, texture = rng.uniform(0.5, 1.5), self.texture()
        self.cylinder((x, y, 0.2), rng.uniform(0.12, 0.25), 0.2, "object")
        self.cylinder((x, y, height / 2), 0.03, height / 2, "vegetation", texture=texture)
        for _ in range(int(rng.integers(3, 7))):
            offset = rng.normal(0, 0.14, 3)
            center = (x + float(offset[0]), y + float(offset[1]), height + abs(float(offset[2])))
            self.sphere(center, float(rng.uniform(0.12, 0.28)), "vegetation", texture=texture)

    def add_tree(self, x: float, y: float, yaw: float) -> None:
        """A trunk with a crown."""
        del yaw
        rng = self.rng
        height, texture = rng.uniform(1.8, 3.5), self.texture()
        self.cylinder((x, y, height / 2), float(rng.uniform(0.08, 0.25)), height / 2, "vegetation")
        for _ in range(int(rng.integers(4, 9))):
            offset = rng.normal(0, 0.6, 3)
            center = (x + float(offset[0]), y + float(offset[1]), height + 0.4 + 0.5 * float(offset[2]))
            self.sphere(center, float(rng.uniform(0.4, 0.9)), "vegetation", texture=texture)

    def add_bush(self, x: float, y: float, yaw: float) -> None:
        """Low overlapping balls of leaves."""
        del yaw
        texture = self.texture()
        for _ in range(int(self.rng.integers(2, 6))):
            offset = self.rng.normal(0, 0.3, 2)
            radius = float(self.rng.uniform(0.25, 0.6))
            self.sphere(
                (x + float(offset[0]), y + float(offset[1]), radius * 0.7), radius, "vegetation", texture=texture
            )

    def add_pole(self, x: float, y: float, yaw: float) -> None:
        """A lamp post, sign or bollard."""
        height = float(self.rng.choice([0.45, 1.1, 2.0])) * float(self.rng.uniform(0.8, 1.2))
        self.cylinder((x, y, height), float(self.rng.uniform(0.04, 0.14)), height, "structure")
        if height > 1 and self.rng.random() < 0.5:
            self.box((x, y, 2 * height - 0.3), (0.03, 0.3, 0.25), "structure", yaw=yaw)

    def add_car(self, x: float, y: float, yaw: float) -> None:
        """A body, a cabin and wheels."""
        rng = self.rng
        length, width, texture = rng.uniform(1.8, 2.4), rng.uniform(0.8, 1.0), self.texture()
        self.box((x, y, 0.62), (length, width, 0.34), "vehicle", yaw=yaw, texture=texture)
        cx, cy = self._turned(x, y, yaw, float(rng.uniform(-0.4, 0.1)), 0.0)
        self.box((cx, cy, 1.2), (length * 0.5, width * 0.9, float(rng.uniform(0.22, 0.5))), "vehicle", yaw=yaw)
        for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            wx, wy = self._turned(x, y, yaw, i * length * 0.65, j * width * 0.9)
            self.box((wx, wy, 0.3), (0.3, 0.1, 0.3), "vehicle", yaw=yaw)

    def add_rack(self, x: float, y: float, yaw: float) -> None:
        """A pallet rack with goods."""
        rng = self.rng
        length, depth, height = rng.uniform(1.0, 1.6), rng.uniform(0.4, 0.6), rng.uniform(2.0, 4.0)
        texture = self.texture()
        for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            px, py = self._turned(x, y, yaw, i * length, j * depth)
            self.box((px, py, height / 2), (0.05, 0.05, height / 2), "structure", yaw=yaw, texture=texture)
        for level in np.arange(0.1, height, rng.uniform(0.9, 1.4)):
            self.box((x, y, float(level)), (length, depth, 0.06), "structure", yaw=yaw, texture=texture)
            for slot in (-0.66, 0.0, 0.66):
                if rng.random() < 0.75:
                    half = rng.uniform(0.15, 0.4)
                    px, py = self._turned(x, y, yaw, slot * length, 0.0)
                    self.box(
                        (px, py, float(level) + 0.06 + half), (0.28 * length, 0.85 * depth, half), "object", yaw=yaw
                    )

    def add_pile(self, x: float, y: float, yaw: float) -> None:
        """A stack of boxes on a pallet."""
        self.box((x, y, 0.07), (0.6, 0.45, 0.07), "object", yaw=yaw)
        z = 0.14
        for _ in range(int(self.rng.integers(1, 4))):
            half = float(self.rng.uniform(0.12, 0.4))
            size = (float(self.rng.uniform(0.25, 0.55)), float(self.rng.uniform(0.25, 0.42)), half)
            self.box((x, y, z + half), size, "object", yaw=yaw + float(self.rng.normal(0, 0.1)))
            z += 2 * half

    def add_heap(self, x: float, y: float, yaw: float) -> None:
        """Solids of any kind and size on each other, not always in the middle."""
        rng = self.rng
        z = 0.0
        for _ in range(int(rng.integers(1, 5))):
            half, reach = float(rng.uniform(0.05, 0.5)), float(rng.uniform(0.08, 0.6))
            px, py = self._turned(x, y, yaw, rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1))
            shape = rng.random()
            if shape < 0.6:
                size = (reach, float(rng.uniform(0.05, 0.6)), half)
                self.box((px, py, z + half), size, "object", yaw=float(rng.uniform(-np.pi, np.pi)))
            elif shape < 0.85:
                self.cylinder((px, py, z + half), reach, half, "object")
            else:
                self.sphere((px, py, z + half), half, "object")
            z += 2 * half

    def add_gate(self, x: float, y: float, yaw: float) -> None:
        """Two posts with a beam across, or a plank at any height."""
        rng = self.rng
        half, height, beam = rng.uniform(0.3, 0.9), rng.uniform(0.3, 2.2), rng.uniform(0.03, 0.2)
        texture = self.texture()
        for side in (-1, 1):
            px, py = self._turned(x, y, yaw, side * half, 0.0)
            self.cylinder((px, py, height / 2), float(rng.uniform(0.02, 0.1)), height / 2, "structure", texture=texture)
        self.box((x, y, height), (half, float(rng.uniform(0.02, 0.3)), beam / 2), "structure", yaw=yaw, texture=texture)

    def add_screen(self, x: float, y: float, yaw: float) -> None:
        """A wall that stands by itself, of one surface or of several panels."""
        rng = self.rng
        panels, height, thickness = int(rng.integers(1, 4)), rng.uniform(0.4, 3.0), rng.uniform(0.02, 0.15)
        half = float(rng.uniform(0.4, 1.2)) / panels
        for n in range(panels):
            px, py = self._turned(x, y, yaw, (2 * n + 1 - panels) * half, 0.0)
            self.box((px, py, height / 2), (half, thickness, height / 2), "structure", yaw=yaw)

    def add_barrel(self, x: float, y: float, yaw: float) -> None:
        """A barrel, bin or column stump."""
        del yaw
        half = float(self.rng.uniform(0.25, 0.6))
        self.cylinder((x, y, half), float(self.rng.uniform(0.15, 0.4)), half, "object")

    def add_person(self, x: float, y: float, yaw: float, path: Mover | None = None) -> None:
        """A person who stands, or walks along a path whose positions are relative to (x, y)."""
        mover = -1
        if path is not None:
            self.movers.append(path)
            mover = len(self.movers) - 1
        height, texture = self.rng.uniform(1.55, 1.9), self.texture()
        for side in (-1, 1):
            px, py = self._turned(x, y, yaw, 0.0, side * 0.1)
            self._add("cylinder", (px, py, 0.24 * height), (0.08, 0.08, 0.24 * height), "person", 0.0, texture, mover)
        torso = (x, y, 0.66 * height)
        self._add("cylinder", torso, (0.2, 0.2, 0.18 * height), "person", 0.0, self.texture(), mover)
        self.sphere((x, y, 0.93 * height), 0.12, "person", mover=mover)

    def _small_thing(self, x: float, y: float, z: float) -> None:
        half = float(self.rng.uniform(0.04, 0.16))
        if self.rng.random() < 0.5:
            self.cylinder((x, y, z + half), float(self.rng.uniform(0.03, 0.12)), half, "object")
        else:
            size = (float(self.rng.uniform(0.04, 0.2)), float(self.rng.uniform(0.03, 0.15)), half)
            self.box((x, y, z + half), size, "object", yaw=float(self.rng.uniform(0, 3)))

    def _turned(self, x: float, y: float, yaw: float, forward: float, left: float) -> tuple[float, float]:
        c, s = float(np.cos(yaw)), float(np.sin(yaw))
        return x + c * forward - s * left, y + s * forward + c * left

    def _add(
        self, shape: str, center: Vector, half: Vector, label: str, yaw: float, texture: int | None, mover: int = -1
    ) -> None:
        place: Vector = (float(center[0]), float(center[1]), float(center[2]))
        size: Vector = (float(half[0]), float(half[1]), float(half[2]))
        chosen = self.texture() if texture is None else texture
        self.solids.append(Solid(shape, place, size, float(yaw), LABELS[label], chosen, mover))  # type: ignore[arg-type]
