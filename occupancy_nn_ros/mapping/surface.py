# SPDX-License-Identifier: Apache-2.0
"""The surface between free and occupied space as triangles, by marching cubes over log-odds. Needs the ``mesh`` extra."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.mapping.atomic_file import replace_file
from occupancy_nn_ros.values import FloatArray, MapView, UInt8Array, VoxelState

MAX_LOG_ODDS = 4.0
"""Log-odds are cut here: a single very sure voxel must not push the surface away from its neighbours."""


@dataclass(frozen=True)
class SurfaceMesh:
    """Triangles.

    Attributes:
        vertices_m: (V, 3) float64 in the map frame.
        triangles: (T, 3) int32 indices of vertices, counter-clockwise seen from free space.
    """

    vertices_m: FloatArray
    triangles: npt.NDArray[np.int32]


def import_marching_cubes() -> Any:
    """scikit-image's marching cubes.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingDependencyError(
            f"a mesh needs scikit-image ({error}): pip install 'occupancy-nn-ros[mesh]'"
        ) from None
    return marching_cubes


def surface_mesh(view: MapView) -> SurfaceMesh:
    """Where occupied-probability crosses one half between known voxels; nothing beside unknown ones.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    marching_cubes = import_marching_cubes()
    known = view.state != VoxelState.UNKNOWN
    probability = np.clip(view.probability.astype(np.float64), 1e-6, 1 - 1e-6)
    log_odds = np.where(known, np.clip(np.log(probability / (1 - probability)), -MAX_LOG_ODDS, MAX_LOG_ODDS), 0.0)
    if min(log_odds.shape) < 2 or not (log_odds[known] > 0).any() or not (log_odds[known] < 0).any():
        return SurfaceMesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    try:
        # A cube of eight voxels is looked at where its mask, at its highest corner, is set.
        vertices, triangles, _, _ = marching_cubes(log_odds, 0.0, mask=_all_known(known), gradient_direction="ascent")
    except (ValueError, RuntimeError):  # no surface among the cubes that are known
        return SurfaceMesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    edge = view.window.voxel_size_m
    placed = (vertices + np.asarray(view.window.origin) + 0.5) * edge
    return SurfaceMesh(np.asarray(placed, dtype=np.float64), triangles.astype(np.int32))


def save_mesh(mesh: SurfaceMesh, path: Path, frame_id: str, colors: UInt8Array | None = None) -> None:
    """Write a binary PLY mesh, with a colour (V, 3) for each vertex if given.

    Raises:
        MapFileError: the file cannot be written.
    """
    layout = [("position", "<f4", 3)] + ([("color", "u1", 3)] if colors is not None else [])
    vertices = np.empty(len(mesh.vertices_m), np.dtype(layout))
    vertices["position"] = mesh.vertices_m
    if colors is not None:
        vertices["color"] = colors
    faces = np.empty(len(mesh.triangles), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, mesh.triangles
    properties = "".join(f"property float {name}\n" for name in "xyz")
    if colors is not None:
        properties += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment frame {frame_id}\nelement vertex {len(vertices)}\n{properties}"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    replace_file(path, (header.encode("utf-8"), vertices.tobytes(), faces.tobytes()))


def _all_known(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which voxels are the highest corner of a cube of eight known ones."""
    cubes = np.zeros_like(known)
    corner = known[1:, 1:, 1:].copy()
    for x in (slice(None, -1), slice(1, None)):
        for y in (slice(None, -1), slice(1, None)):
            for z in (slice(None, -1), slice(1, None)):
                corner &= known[x, y, z]
    cubes[1:, 1:, 1:] = corner
    return cubes
