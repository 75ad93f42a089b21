# SPDX-License-Identifier: Apache-2.0
"""Furniture of a world as MuJoCo meshes, one for each material of each piece and size."""

from __future__ import annotations

import struct

import numpy as np

from occupancy_nn_ros.simulation.assets import AssetPart, load_asset
from occupancy_nn_ros.simulation.world import Solid, World

LEAST_OPACITY = 0.25
"""Of what an asset calls invisible: panes show reflections and dust."""


def part_count(solid: Solid) -> int:
    """Geometries that show a solid of shape ``mesh``."""
    return len(load_asset(solid.asset).parts)


def mesh_files(world: World) -> dict[str, bytes]:
    """Files that :func:`mesh_assets` names: meshes and their pictures."""
    files: dict[str, bytes] = {}
    for name in sorted({solid.asset for solid in world.solids if solid.shape == "mesh"}):
        for number, part in enumerate(load_asset(name).parts):
            files[f"{name}-{number}.msh"] = _msh(part)
            if len(part.picture):
                files[f"{name}-{number}.png"] = part.picture.tobytes()
    return files


def mesh_assets(world: World) -> str:
    """Meshes, textures and materials as elements of MuJoCo's ``asset``."""
    solids = [solid for solid in world.solids if solid.shape == "mesh"]
    elements = [
        f"<mesh name='{_mesh_name(solid, number)}' file='{solid.asset}-{number}.msh' inertia='shell' "
        f"scale='{' '.join(f'{s:.5f}' for s in _scale(solid))}'/>"
        for solid in {(s.asset, s.half): s for s in solids}.values()
        for number in range(part_count(solid))
    ]
    for name in sorted({solid.asset for solid in solids}):
        for number, part in enumerate(load_asset(name).parts):
            look = f"rgba='{' '.join(f'{c:.4f}' for c in _color(part))}' specular='{part.shine:.3f}' shininess='0.4'"
            if len(part.picture):
                elements.append(f"<texture name='{name}-{number}' type='2d' file='{name}-{number}.png'/>")
                look += f" texture='{name}-{number}'"
            elements.append(f"<material name='{name}-{number}' {look}/>")
    return "".join(elements)


def mesh_geoms(solid: Solid) -> str:
    """A solid of shape ``mesh`` as geometries; the asset's origin is in the middle of its lower side."""
    x, y, z = solid.center
    place = f"pos='{x:.5f} {y:.5f} {z - solid.half[2]:.5f}'"
    quat = f"quat='{np.cos(solid.yaw / 2):.6f} 0 0 {np.sin(solid.yaw / 2):.6f}'"
    return "".join(
        f"<geom type='mesh' mesh='{_mesh_name(solid, number)}' material='{solid.asset}-{number}' {place} {quat} "
        "contype='0' conaffinity='0'/>"
        for number in range(part_count(solid))
    )


def _mesh_name(solid: Solid, number: int) -> str:
    return f"{solid.asset}-{number}-" + "-".join(f"{half:.5f}" for half in solid.half)


def _scale(solid: Solid) -> tuple[float, ...]:
    return tuple(half / own for half, own in zip(solid.half, solid.asset_half, strict=True))


def _color(part: AssetPart) -> np.ndarray:
    return np.array([*part.color[:3], max(LEAST_OPACITY, float(part.color[3]))])


def _msh(part: AssetPart) -> bytes:
    """MuJoCo's own format: counts, then positions, normals, texture coordinates and triangles."""
    counts = struct.pack("<4i", len(part.vertices_m), len(part.normals), len(part.texcoords), len(part.faces))
    texcoords = part.texcoords * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    arrays = (part.vertices_m.astype("<f4"), part.normals.astype("<f4"), texcoords.astype("<f4"))
    return counts + b"".join(a.tobytes() for a in arrays) + part.faces.astype("<i4").tobytes()
