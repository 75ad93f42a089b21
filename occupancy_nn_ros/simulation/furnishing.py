# SPDX-License-Identifier: Apache-2.0
"""Homes, kitchens, offices, halls and yards furnished by rules: along walls, around tables, on tops, on the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.simulation.assets import AssetRecord
from occupancy_nn_ros.simulation.builder import WorldBuilder
from occupancy_nn_ros.simulation.furniture import Furniture, label_of

GAP_M = 0.03
WALL_M = 0.1
"""Half a wall's thickness, and how far from the middle of walls furniture stands."""

ROOM_CATEGORIES = {
    "home": ("Living room", "Bedroom"),
    "kitchen": ("Kitchen",),
    "office": ("Office", "Living room"),
    "hall": ("Miscellaneous", "Office"),
}
"""What a kind of room is furnished with, where the furniture offers it."""


@dataclass(frozen=True)
class Side:
    """One wall of a room seen from inside: a start, a direction along it and the way inwards (yaw of what faces the room)."""

    start: tuple[float, float]
    along: float
    length: float

    @property
    def inward(self) -> float:
        """Yaw of what stands with its back to the wall."""
        return self.along + np.pi / 2

    def place(self, along_m: float, away_m: float) -> tuple[float, float]:
        """A point on the floor."""
        c, s = np.cos(self.along), np.sin(self.along)
        return float(self.start[0] + along_m * c - away_m * s), float(self.start[1] + along_m * s + away_m * c)


class Furnisher:
    """Furnishes one world piece by piece."""

    def __init__(self, build: WorldBuilder, furniture: Furniture) -> None:
        """Take the world to furnish and what with."""
        self.build, self.rng, self.furniture = build, build.rng, furniture

    def furnish(self, kind: str, bounds: tuple[float, float, float, float]) -> None:
        """Furnish a room of a kind of ``ROOM_CATEGORIES`` within walls."""
        x0, y0, x1, y1 = bounds
        categories = ROOM_CATEGORIES[kind]
        sides = (
            Side((x0, y0), 0.0, x1 - x0), Side((x1, y0), np.pi / 2, y1 - y0),
            Side((x1, y1), np.pi, x1 - x0), Side((x0, y1), -np.pi / 2, y1 - y0),
        )  # fmt: skip
        for side in sides:
            self.line(side, categories, share=float(self.rng.uniform(0.2, 0.95)), flush=kind == "kitchen")
            self.hang(side)
        area = (x1 - x0) * (y1 - y0)
        for _ in range(int(area * self.rng.uniform(0.03, 0.1)) + 1):
            self.group(self._somewhere(bounds, 1.0), categories)
        for _ in range(int(area * self.rng.uniform(0.03, 0.12))):
            self.scatter(self._somewhere(bounds, 0.4), ("lounge", "chair", "plant", "standing", "animal"), 2.5)
        for _ in range(int(area * self.rng.uniform(0.02, 0.12))):
            self.scatter(self._somewhere(bounds, 0.3), ("clutter",), 0.6)
        for _ in range(int(self.rng.integers(0, 3))):
            self.scatter(self._somewhere(bounds, 0.6), ("person",), 2.0)
        for _ in range(int(self.rng.integers(0, 4))):
            self.cable(self._somewhere(bounds, 0.5))

    def line(self, side: Side, categories: tuple[str, ...], share: float, *, flush: bool) -> None:
        """Furniture along a wall with its back to it, next to each other or with gaps, and things on its tops."""
        pieces = self.furniture.of("standing", *categories, most_m=3.0) + self.furniture.of(
            "lounge", *categories, most_m=2.4
        )
        at = float(self.rng.uniform(0.3, 1.2))
        while at < side.length - 0.6:
            piece = self._pick(pieces)
            depth, width, _ = piece.size_m
            if at + width > side.length - 0.3:
                break
            x, y = side.place(at + width / 2, WALL_M + GAP_M + depth / 2)
            if self.rng.random() < share and self.build.place(x, y, 0.35 * min(depth, width)):
                self.put(piece, x, y, 0.0, side.inward)
                for aside in np.arange(-width / 2, width / 2 + 0.1, 0.5):
                    self.build.claim(*side.place(at + width / 2 + aside, WALL_M + depth / 2), depth / 2)
                self.dress(piece, x, y, side.inward, int(self.rng.integers(0, 5)))
            at += width + (GAP_M if flush else float(self.rng.uniform(0.05, 1.5)))

    def hang(self, side: Side) -> None:
        """Cupboards, screens, lamps and switches on a wall."""
        pieces = self.furniture.of("hung")
        for _ in range(int(self.rng.integers(0, 6)) if pieces else 0):
            piece = self._pick(pieces)
            depth, width, _ = piece.size_m
            x, y = side.place(float(self.rng.uniform(0.3, max(0.4, side.length - 0.3))), WALL_M + depth / 2 + 0.005)
            del width
            self.put(piece, x, y, piece.elevation_m, side.inward)

    def group(self, place: tuple[float, float], categories: tuple[str, ...]) -> None:
        """A table with chairs around it, pushed in or drawn back, and things on it."""
        table = self._pick(self.furniture.of("table", *categories, most_m=2.6))
        depth, width, height = table.size_m
        x, y = place
        if not self.build.place(x, y, max(depth, width) / 2 + 0.35):
            return
        yaw = float(self.rng.choice([0.0, np.pi / 2, np.pi, -np.pi / 2]) + self.rng.normal(0, 0.15))
        self.put(table, x, y, 0.0, yaw)
        self.dress(table, x, y, yaw, int(self.rng.integers(1, 9)))
        chair = self._pick(self.furniture.of("chair", *categories))
        if height < 0.55:
            return
        for angle, reach in ((0.0, depth / 2), (np.pi / 2, width / 2), (np.pi, depth / 2), (-np.pi / 2, width / 2)):
            if self.rng.random() < 0.75:
                away = reach + float(self.rng.uniform(-0.1, 0.5))
                cx, cy = x + away * np.cos(yaw + angle), y + away * np.sin(yaw + angle)
                seat = chair if self.rng.random() < 0.8 else self._pick(self.furniture.of("chair", *categories))
                self.put(seat, float(cx), float(cy), 0.0, float(yaw + angle + np.pi + self.rng.normal(0, 0.3)))

    def dress(self, piece: AssetRecord, x: float, y: float, yaw: float, count: int) -> None:
        """Small things on a piece's top, where it has one below eye level."""
        depth, width, height = piece.size_m
        if not 0.2 <= piece.top_m <= 1.3 or piece.top_m > height + 0.01:
            return
        for _ in range(count):
            thing = self._pick(self.furniture.of("clutter"))
            if max(thing.size_m[:2]) > min(depth, width):
                continue
            ahead, left = self.rng.uniform(-0.4, 0.4, 2) * (depth, width)
            px = x + ahead * np.cos(yaw) - left * np.sin(yaw)
            py = y + ahead * np.sin(yaw) + left * np.cos(yaw)
            self.put(thing, float(px), float(py), piece.top_m, float(self.rng.uniform(-np.pi, np.pi)))

    def scatter(self, place: tuple[float, float], roles: tuple[str, ...], most_m: float) -> None:
        """One piece of any of the roles, turned anyhow."""
        pieces = [piece for role in roles for piece in self.furniture.of(role, most_m=most_m)]
        if not pieces:
            return
        piece = self._pick(pieces)
        x, y = place
        if self.build.place(x, y, float(np.hypot(*piece.size_m[:2])) / 2):
            self.put(piece, x, y, 0.0, float(self.rng.uniform(-np.pi, np.pi)))

    def cable(self, place: tuple[float, float]) -> None:
        """A cable or a duct that lies on the floor: thin, low and long."""
        x, y = place
        heading, texture = float(self.rng.uniform(-np.pi, np.pi)), self.build.texture()
        half = float(self.rng.uniform(0.006, 0.03))
        for _ in range(int(self.rng.integers(2, 7))):
            reach = float(self.rng.uniform(0.15, 0.4))
            x, y = x + reach * float(np.cos(heading)), y + reach * float(np.sin(heading))
            self.build.box((x, y, half), (reach, half, half), "object", yaw=heading, texture=texture)
            x, y = x + reach * float(np.cos(heading)), y + reach * float(np.sin(heading))
            heading += float(self.rng.normal(0, 0.5))

    def put(self, piece: AssetRecord, x: float, y: float, z: float, yaw: float) -> None:
        """Put a piece on a floor or top, up to an eighth larger or smaller than it is."""
        scale = float(self.rng.uniform(0.88, 1.12)) if z == 0 else 1.0
        self.build.mesh(piece, (x, y, z), yaw, scale, label_of(piece))

    def _pick(self, pieces: list[AssetRecord]) -> AssetRecord:
        return pieces[int(self.rng.integers(len(pieces)))]

    def _somewhere(self, bounds: tuple[float, float, float, float], margin: float) -> tuple[float, float]:
        x0, y0, x1, y1 = bounds
        x = self.rng.uniform(min(x0 + margin, x1 - 0.1), max(x1 - margin, x0 + 0.1))
        return float(x), float(self.rng.uniform(min(y0 + margin, y1 - 0.1), max(y1 - margin, y0 + 0.1)))
