# SPDX-License-Identifier: Apache-2.0
"""Worlds made of solid primitives and furniture, so that occupancy is known exactly at any place, scale and time.

The ground fills everything below z = 0. Movers follow keyed paths. A world is stored as JSON beside its recording.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.assets import load_asset
from occupancy_nn_ros.values import SEMANTIC_CLASSES, Float32Array, FloatArray, LatticeWindow, UInt8Array

GROUND = SEMANTIC_CLASSES.index("ground") + 1
SUBSAMPLES = 4
"""A cube counts as occupied when one of this many cubed evenly spaced points inside it lies in a solid."""

VERSION = 1
MAX_SOLIDS = 100_000


@dataclass(frozen=True)
class Solid:
    """One primitive.

    Attributes:
        shape: ``box`` (half sizes x, y, z), ``cylinder`` (radius, radius, half height; upright), ``sphere``
            (radius three times) or ``mesh`` (half sizes x, y, z, to which its asset is scaled).
        center: (x, y, z) metres; for a mover relative to its path.
        half: half extents as above, metres.
        yaw: rotation about z, radians.
        label: class id, index into ``SEMANTIC_CLASSES`` plus 1.
        texture: index of the world's texture; a mesh has its own.
        mover: index into ``World.movers``, or -1 for what stands still.
        asset: name of a mesh's asset.
        asset_half: half sizes of the asset itself, metres.
        pitch: rotation of a box about its own y axis, before yaw; its x axis points down if it is positive, radians.
    """

    shape: Literal["box", "cylinder", "sphere", "mesh"]
    center: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    label: int
    texture: int
    mover: int = -1
    asset: str = ""
    asset_half: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pitch: float = 0.0


@dataclass(frozen=True)
class Mover:
    """A path over time: linear between keys, first and last positions held outside.

    Attributes:
        times_s: increasing key times.
        positions: (x, y, z) at each key.
    """

    times_s: tuple[float, ...]
    positions: tuple[tuple[float, float, float], ...]

    def position(self, time_s: float) -> FloatArray:
        """Where the mover is, shape (3,)."""
        keys = np.asarray(self.positions, dtype=np.float64)
        return np.array([np.interp(time_s, self.times_s, keys[:, axis]) for axis in range(3)])


@dataclass(frozen=True)
class World:
    """A world and how it looks.

    Attributes:
        name: the layout that made it.
        seed: the seed that made it; textures and lights are derived from it.
        solids: everything but the ground.
        movers: paths of moving things.
        bounds: (x_low, y_low, x_high, y_high) of where a robot may drive.
        ground_texture: texture index of the ground.
        texture_family: which family of textures it uses.
    """

    name: str
    seed: int
    solids: tuple[Solid, ...]
    bounds: tuple[float, float, float, float]
    ground_texture: int = 0
    texture_family: str = "train"
    movers: tuple[Mover, ...] = field(default=())

    def centers(self, time_s: float) -> FloatArray:
        """Centres of all solids at one time, (S, 3)."""
        centers = np.array([s.center for s in self.solids], dtype=np.float64).reshape(-1, 3)
        offsets = [m.position(time_s) for m in self.movers]
        for index, solid in enumerate(self.solids):
            if solid.mover >= 0:
                centers[index] += offsets[solid.mover]
        return centers

    def signed_distance(self, points_m: Float32Array | FloatArray, time_s: float = 0.0) -> Float32Array:
        """Exact distance of points (N, 3) to the nearest solid or the ground, (N,); negative inside.

        Inside overlapping solids it is the depth in the deepest one.
        """
        points = np.asarray(points_m, dtype=np.float32).reshape(-1, 3)
        nearest = points[:, 2].copy()
        for solid, center in zip(self.solids, self.centers(time_s), strict=True):
            np.minimum(nearest, _distance(solid, center, points), out=nearest)
        return nearest

    def occupied_cubes(self, points_m: Float32Array | FloatArray, edge_m: float, time_s: float = 0.0) -> UInt8Array:
        """Class id of the solid matter in cubes of an edge centred at points (N, 3), 0 where there is none, (N,) uint8.

        Where several classes share a cube, what stands on the ground wins over the ground.
        """
        points = np.asarray(points_m, dtype=np.float32).reshape(-1, 3)
        offset = (SUBSAMPLES - 1) / (2 * SUBSAMPLES) * edge_m
        labels = np.where(points[:, 2] - offset < 0, GROUND, 0).astype(np.uint8)
        reach = offset * 3**0.5
        order = np.argsort(points[:, 0], kind="stable")
        sorted_x = points[order, 0]
        for solid, center in zip(self.solids, self.centers(time_s), strict=True):
            radius, height = (extent + reach for extent in _extents(solid))
            low, high = np.searchsorted(sorted_x, [center[0] - radius, center[0] + radius])
            near = order[low:high]
            near = near[np.abs(points[near, 1] - center[1]) < radius]
            near = near[np.abs(points[near, 2] - center[2]) < height]
            if not len(near):
                continue
            distance = _distance(solid, center, points[near])
            inside = distance < 0
            labels[near[inside]] = solid.label
            maybe = near[~inside & (distance <= reach)]
            if len(maybe):
                labels[maybe[_reaches_into(solid, center, points[maybe], offset)]] = solid.label
        return labels

    def occupancy(self, window: LatticeWindow, time_s: float = 0.0) -> UInt8Array:
        """Class id in each voxel of a window, 0 where free, (X, Y, Z) uint8."""
        labels = self.occupied_cubes(window.centers_m().reshape(-1, 3), window.voxel_size_m, time_s)
        return labels.reshape(window.shape)

    def save(self, path: Path) -> None:
        """Write the world as JSON."""
        path.write_text(json.dumps({"version": VERSION, **asdict(self)}), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> World:
        """Read a world written by :meth:`save`.

        Raises:
            SimulationError: unreadable, of another version, or with values that make no world.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("version") != VERSION:
                raise SimulationError(f"{path} is of another version, expected {VERSION}")
            return cls._from_json(values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise SimulationError(f"{path} holds no world: {error}") from None

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> World:
        if len(values["solids"]) > MAX_SOLIDS:
            raise SimulationError(f"world has {len(values['solids'])} solids, expected at most {MAX_SOLIDS}")
        values["solids"] = tuple(_solid_from_json(solid, len(values["movers"])) for solid in values["solids"])
        values["movers"] = tuple(_mover_from_json(mover) for mover in values["movers"])
        values["bounds"] = tuple(values["bounds"])
        low_x, low_y, high_x, high_y = (float(v) for v in values["bounds"])
        if not (-1e6 < low_x < high_x < 1e6 and -1e6 < low_y < high_y < 1e6):
            raise SimulationError(f"bounds are {values['bounds']}, expected x and y low, x and y high")
        return cls(**values)


def _solid_from_json(values: dict[str, Any], movers: int) -> Solid:
    triples: dict[str, Any] = {key: tuple(values[key]) for key in ("center", "half", "asset_half") if key in values}
    solid = Solid(**{**values, **triples})
    numbers = np.array([*solid.center, *solid.half, *solid.asset_half, solid.yaw, solid.pitch], dtype=np.float64)
    is_shape = solid.shape in ("box", "cylinder", "sphere", "mesh") and len(solid.center) == len(solid.half) == 3
    if not is_shape or not np.isfinite(numbers).all() or min(*solid.half, *solid.asset_half) <= 0:
        raise SimulationError(f"solid {values} is not a shape with finite positive size")
    if not isinstance(solid.texture, int) or solid.texture < 0:
        raise SimulationError(f"solid {values} has texture {solid.texture!r}, expected an index")
    if not 1 <= solid.label <= len(SEMANTIC_CLASSES) or not -1 <= solid.mover < movers:
        raise SimulationError(f"solid {values} names an unknown class or mover")
    return solid


def _mover_from_json(values: dict[str, Any]) -> Mover:
    mover = Mover(tuple(values["times_s"]), tuple(tuple(p) for p in values["positions"]))
    times, places = np.array(mover.times_s, dtype=np.float64), np.array(mover.positions, dtype=np.float64)
    if (
        not len(times)
        or places.shape != (len(times), 3)
        or not (np.isfinite(times).all() and np.isfinite(places).all())
    ):
        raise SimulationError(f"mover with {len(times)} times and positions of shape {places.shape}, expected as many")
    if (np.diff(times) <= 0).any():
        raise SimulationError("times of a mover do not increase")
    return mover


def _distance(solid: Solid, center: FloatArray, points: Float32Array) -> Float32Array:
    """Signed distance of points (N, 3) to one solid: exact, but for meshes, which have that of the nearest cell."""
    local = points - center.astype(np.float32)
    if solid.shape == "sphere":
        return np.asarray(np.linalg.norm(local, axis=1) - np.float32(solid.half[0]), dtype=np.float32)
    if solid.shape == "mesh":
        return _mesh_distance(solid, local)
    if solid.shape == "cylinder":
        radial = np.hypot(local[:, 0], local[:, 1]) - np.float32(solid.half[0])
        outside = np.stack([radial, np.abs(local[:, 2]) - np.float32(solid.half[2])], axis=1)
    else:
        outside = np.abs(_turned_back(solid, local)) - np.asarray(solid.half, dtype=np.float32)
    inside = np.minimum(outside.max(axis=1), 0)
    return np.asarray(np.linalg.norm(np.maximum(outside, 0), axis=1) + inside, dtype=np.float32)


def _extents(solid: Solid) -> tuple[float, float]:
    """How far a solid reaches from its centre, horizontally and vertically, at most."""
    if solid.pitch:
        return (float(np.linalg.norm(solid.half)),) * 2
    return float(np.hypot(solid.half[0], solid.half[1])), solid.half[2]


def _turned_back(solid: Solid, local: Float32Array) -> Float32Array:
    """Points (N, 3) about a solid's centre, along its own axes."""
    c, s = np.float32(np.cos(solid.yaw)), np.float32(np.sin(solid.yaw))
    x, y, z = c * local[:, 0] + s * local[:, 1], c * local[:, 1] - s * local[:, 0], local[:, 2]
    if solid.pitch:
        c, s = np.float32(np.cos(solid.pitch)), np.float32(np.sin(solid.pitch))
        x, z = c * x - s * z, s * x + c * z
    return np.stack([x, y, z], axis=1)


def _mesh_distance(solid: Solid, local: Float32Array) -> Float32Array:
    """The asset's own distance, on the axes and in the size of its file; its origin is in the middle of its lower side."""
    shrunk = np.asarray(solid.asset_half, dtype=np.float32) / np.asarray(solid.half, dtype=np.float32)
    places = _turned_back(solid, local) * shrunk + np.array([0, 0, solid.asset_half[2]], dtype=np.float32)
    distance = load_asset(solid.asset).grid.distance(np.asarray(places, dtype=np.float32))
    return np.asarray(distance / shrunk.max(), dtype=np.float32)


def _reaches_into(solid: Solid, center: FloatArray, cubes: Float32Array, offset_m: float) -> npt.NDArray[np.bool_]:
    """Whether a solid has matter within ``offset_m`` along each axis of the middle of cubes (N, 3), (N,).

    Meshes may be thinner than the samples are apart, so each sample stands for the ball around it.
    """
    balls = offset_m / SUBSAMPLES if solid.shape == "mesh" else 0.0
    steps = np.linspace(balls - offset_m, offset_m - balls, SUBSAMPLES, dtype=np.float32)
    corners = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 3)
    samples = (cubes[:, None] + corners).reshape(-1, 3)
    return np.asarray((_distance(solid, center, samples) < balls).reshape(len(cubes), -1).any(axis=1))
