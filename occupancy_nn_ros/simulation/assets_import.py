# SPDX-License-Identifier: Apache-2.0
"""Turns installed libraries of furniture and photographs into assets of real size, with exact solid matter."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.assets import Asset, AssetPart, AssetRecord, read_index, write_asset, write_index
from occupancy_nn_ros.simulation.catalogs import CatalogModel, CatalogTexture, Library
from occupancy_nn_ros.simulation.mesh_grid import make_grid
from occupancy_nn_ros.simulation.obj_files import Part, read_obj
from occupancy_nn_ros.values import FloatArray

LIBRARY_FOLDERS = (Path("/usr/share/sweethome3d"), Path("/usr/local/share/sweethome3d"))
LIBRARY_SUFFIXES = (".sh3f", ".sh3t", ".jar")
PICTURE_SIDE = 256
TEXTURE_SIDE = 512
MOST_TRIANGLES = 40_000
MOST_PARTS = 24
MOST_EXTENT_M = 8.0
LEAST_EXTENT_M = 0.04
LEAST_HEIGHT_M = 0.02
CELLS_ALONG = 96
FINEST_CELL_M, COARSEST_CELL_M = 0.015, 0.04


@dataclass(frozen=True)
class Imported:
    """What became of one entry of a library: a record, or the reason why there is none."""

    name: str
    record: AssetRecord | None
    reason: str = ""


def find_libraries() -> list[Path]:
    """Libraries of Debian's packages sweethome3d-furniture and sweethome3d, where they are installed."""
    return sorted(
        path
        for folder in LIBRARY_FOLDERS
        for path in folder.rglob("*")
        if path.suffix in LIBRARY_SUFFIXES and path.is_file()
    )


def import_libraries(paths: list[Path], folder: Path) -> Iterator[Imported]:
    """Import libraries into a folder, entry by entry; what is there already is kept.

    Raises:
        SimulationError: a library cannot be read, or the folder's list is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {record.name: record for record in read_index(folder)}
    try:
        for path in paths:
            with Library(path) as library:
                entries: list[CatalogModel | CatalogTexture] = [*library.models(), *library.textures()]
                for entry in entries:
                    imported = _import(library, entry, folder, known)
                    if imported.record is not None:
                        known[imported.name] = imported.record
                    yield imported
    finally:
        write_index(folder, list(known.values()))
        read_index.cache_clear()


def _import(
    library: Library, entry: CatalogModel | CatalogTexture, folder: Path, known: dict[str, AssetRecord]
) -> Imported:
    if entry.name in known:
        return Imported(entry.name, known[entry.name])
    try:
        if isinstance(entry, CatalogTexture):
            return Imported(entry.name, _import_texture(library, entry, folder))
        write_asset(folder, entry.name, make_asset(library, entry))
    except SimulationError as error:
        return Imported(entry.name, None, str(error))
    width, depth, height = entry.size_m
    record = AssetRecord(
        entry.name, "model", entry.title, entry.category, (depth, width, height), entry.elevation_m, entry.top_m,
        entry.creator, entry.license, library.path.name,
    )  # fmt: skip
    return Imported(entry.name, record)


def _import_texture(library: Library, entry: CatalogTexture, folder: Path) -> AssetRecord:
    picture = _decode(library.read(entry.path), entry.path)
    (folder / f"{entry.name}.png").write_bytes(_encode(picture, TEXTURE_SIDE))
    return AssetRecord(
        entry.name, "texture", entry.name, entry.category, (*entry.size_m, 0.0), 0.0, 0.0,
        entry.creator, entry.license, library.path.name,
    )  # fmt: skip


def make_asset(library: Library, model: CatalogModel) -> Asset:
    """A piece of furniture in its catalogue's size, that looks along x.

    Raises:
        SimulationError: damaged, or too large, small or detailed for worlds.
    """
    extent = max(model.size_m)
    if not LEAST_EXTENT_M <= extent <= MOST_EXTENT_M or model.size_m[2] < LEAST_HEIGHT_M:
        raise SimulationError(f"its size is {model.size_m} m, expected up to {MOST_EXTENT_M} m, and not flat")
    folder = posixpath.dirname(model.path)
    text = library.read(model.path).decode("latin-1")
    parts = read_obj(text, lambda name: library.read(posixpath.join(folder, name)).decode("latin-1"))
    triangles = sum(len(part.corners) for part in parts)
    if triangles > MOST_TRIANGLES or len(parts) > MOST_PARTS:
        raise SimulationError(
            f"it has {triangles} triangles of {len(parts)} materials, expected at most {MOST_TRIANGLES} of {MOST_PARTS}"
        )
    placed = _place(parts, model)
    cell = float(np.clip(extent / CELLS_ALONG, FINEST_CELL_M, COARSEST_CELL_M))
    grid = make_grid(np.concatenate([corners for corners, _ in placed]), cell)
    return Asset(
        tuple(
            _drawable(part, corners, normals, library, folder)
            for part, (corners, normals) in zip(parts, placed, strict=True)
        ),
        grid,
    )


def _place(parts: list[Part], model: CatalogModel) -> list[tuple[FloatArray, FloatArray]]:
    """Corners of each part in metres, forward, left and up from the middle of the lower side, and their normals."""
    forward_left_up = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    to_world = forward_left_up @ model.rotation
    turned = [part.corners @ to_world.T for part in parts]
    everything = np.concatenate([corners.reshape(-1, 3) for corners in turned])
    low, high = everything.min(axis=0), everything.max(axis=0)
    if (high - low).min() <= 0:
        raise SimulationError(f"its extent is {high - low}, expected a body")
    width, depth, height = model.size_m
    scale = np.array([depth, width, height]) / (high - low)
    below = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    placed = []
    for part, corners in zip(parts, turned, strict=True):
        normals = part.normals.astype(np.float64) @ to_world.T / scale
        length = np.linalg.norm(normals, axis=2, keepdims=True)
        placed.append(((corners - below) * scale, normals / np.maximum(length, 1e-12)))
    return placed


def _drawable(part: Part, corners: FloatArray, normals: FloatArray, library: Library, folder: str) -> AssetPart:
    """Corners that are the same in all respects are stored once."""
    rows = np.concatenate([corners, normals, part.texcoords], axis=2).reshape(-1, 8).astype(np.float32)
    unique, inverse = np.unique(rows.round(6), axis=0, return_inverse=True)
    picture, color = np.zeros(0, np.uint8), part.material.color
    if part.material.picture:
        try:
            data = library.read(posixpath.normpath(posixpath.join(folder, part.material.picture)))
            picture = np.frombuffer(_encode(_decode(data, part.material.picture), PICTURE_SIDE), np.uint8)
            color = (1.0, 1.0, 1.0)
        except SimulationError:
            pass  # a model without its picture still has its colour
    return AssetPart(
        unique[:, :3], unique[:, 3:6], unique[:, 6:], inverse.reshape(-1, 3).astype(np.int32),
        np.array([*color, part.material.opacity], np.float32), part.material.shine, picture,
    )  # fmt: skip


def _decode(data: bytes, name: str) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise SimulationError(f"{name} is no picture")
    return np.asarray(picture)


def _encode(picture: np.ndarray, side: int) -> bytes:
    """PNG of a picture, scaled to at most a side."""
    scale = side / max(picture.shape[:2])
    if scale < 1:
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return bytes(cv2.imencode(".png", picture)[1])
