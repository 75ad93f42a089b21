# SPDX-License-Identifier: Apache-2.0
"""Wavefront OBJ and MTL files as triangles, one part for each material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.values import Float32Array, FloatArray

MOST_TRIANGLES = 200_000


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        color: (red, green, blue) in [0, 1].
        opacity: 1 for solid, 0 for invisible.
        shine: share of light that is mirrored, 0 to 1.
        picture: path of its texture beside the MTL file, empty for none.
    """

    color: tuple[float, float, float] = (0.7, 0.7, 0.7)
    opacity: float = 1.0
    shine: float = 0.0
    picture: str = ""


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        corners: (T, 3, 3) positions.
        normals: (T, 3, 3) unit normals at the corners.
        texcoords: (T, 3, 2), zero where the file gives none.
        material: how they look.
    """

    corners: FloatArray
    normals: Float32Array
    texcoords: Float32Array
    material: Material


def read_obj(text: str, read_file: Callable[[str], str]) -> list[Part]:
    """Parts of an OBJ file; faces of more than three corners are cut into fans.

    Args:
        text: the file.
        read_file: text of a file that it names (its MTL file), relative to it.

    Raises:
        SimulationError: no faces, faces that name missing points, or more than ``MOST_TRIANGLES``.
    """
    values: dict[str, list[list[str]]] = {"v": [], "vt": [], "vn": []}
    faces: dict[str, list[tuple[str, str, str]]] = {}
    materials: dict[str, Material] = {}
    current, count = "", 0
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in values:
            values[words[0]].append(words[1:4])
        elif words[0] == "f":
            fan = [(words[1], words[n], words[n + 1]) for n in range(2, len(words) - 1)]
            if fan:
                faces.setdefault(current, []).extend(fan)
            count += len(fan)
        elif words[0] == "usemtl":
            current = " ".join(words[1:])
        elif words[0] == "mtllib":
            materials.update(read_mtl(read_file(" ".join(words[1:]))))
        if count > MOST_TRIANGLES:
            raise SimulationError(f"model has more than {MOST_TRIANGLES} triangles")
    if not count:
        raise SimulationError("model has no faces")
    try:
        arrays = {key: _numbers(rows, 2 if key == "vt" else 3) for key, rows in values.items()}
        parts = [_part(triangles, arrays, materials.get(name, Material())) for name, triangles in faces.items()]
    except (ValueError, IndexError) as error:
        raise SimulationError(f"model is damaged: {error}") from None
    return [part for part in parts if len(part.corners)]


def read_mtl(text: str) -> dict[str, Material]:
    """Materials of an MTL file by name; what is not understood is left out."""
    found: dict[str, dict[str, object]] = {}
    current: dict[str, object] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        try:
            if words[0] == "newmtl":
                current = found.setdefault(" ".join(words[1:]), {})
            elif words[0] == "Kd":
                current["color"] = tuple(float(np.clip(float(w), 0, 1)) for w in words[1:4])
            elif words[0] == "Ks":
                current["shine"] = float(np.clip(np.mean([float(w) for w in words[1:4]]), 0, 1))
            elif words[0] == "d":
                current["opacity"] = float(words[-1])
            elif words[0] == "map_Kd":
                current["picture"] = line.strip().split(maxsplit=1)[1].replace("\\", "/")
        except ValueError:
            continue
    return {name: Material(**values) for name, values in found.items()}  # type: ignore[arg-type]


def _numbers(rows: list[list[str]], width: int) -> FloatArray:
    flat = [value for row in rows for value in (row + ["0"] * width)[:width]]
    return np.array(flat, dtype=np.float64).reshape(-1, width)


def _part(triangles: list[tuple[str, str, str]], arrays: dict[str, FloatArray], material: Material) -> Part:
    corners = [corner.split("/") for triangle in triangles for corner in triangle]
    points = arrays["v"][_indices([c[0] for c in corners], len(arrays["v"]))].reshape(-1, 3, 3)
    pictured = all(len(c) > 1 and c[1] for c in corners)
    texcoords = np.zeros((len(points), 3, 2))
    if pictured:
        texcoords = arrays["vt"][_indices([c[1] for c in corners], len(arrays["vt"]))].reshape(-1, 3, 2)
    flat = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals = np.repeat(flat[:, None], 3, axis=1)
    if all(len(c) > 2 and c[2] for c in corners):
        normals = arrays["vn"][_indices([c[2] for c in corners], len(arrays["vn"]))].reshape(-1, 3, 3)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    normals = np.where(length > 0, normals / np.maximum(length, 1e-30), np.array([0.0, 1.0, 0.0]))
    kept = np.linalg.norm(flat, axis=1) > 0
    return Part(
        points[kept], normals[kept].astype(np.float32), texcoords[kept].astype(np.float32),
        material if pictured else Material(material.color, material.opacity, material.shine),
    )  # fmt: skip


def _indices(words: list[str], count: int) -> np.ndarray:
    """OBJ counts from 1, and from the end backwards with negative numbers."""
    index = np.array(words, dtype=np.int64)
    index = np.where(index < 0, count + index, index - 1)
    if len(index) and (index.min() < 0 or index.max() >= count):
        raise IndexError(f"a face names point {int(index.max()) + 1}, expected 1 to {count}")
    return index
