# SPDX-License-Identifier: Apache-2.0
"""A map as a file of another program, by the name's ending: its surface (.ply) or an OctoMap (.bt)."""

from __future__ import annotations

from pathlib import Path

from occupancy_nn_ros.mapping.exports import save_bt
from occupancy_nn_ros.mapping.surface import save_mesh, surface_mesh
from occupancy_nn_ros.values import MapView
from occupancy_nn_ros.visualization.colors import ColorBy, surface_colors

SURFACE, OCTOMAP = ".ply", ".bt"


def is_for_others(path: Path) -> bool:
    """Whether a file's name asks for another form than our own."""
    return path.suffix in (SURFACE, OCTOMAP)


def save_for_others(view: MapView, path: Path, color_by: ColorBy) -> None:
    """Write what the name asks for.

    Raises:
        MissingDependencyError: a surface is wanted and scikit-image is not installed.
        MapFileError: the file cannot be written, or an OctoMap would not reach as far.
    """
    if path.suffix == OCTOMAP:
        save_bt(view, path)
        return
    mesh = surface_mesh(view)
    save_mesh(mesh, path, view.frame_id, surface_colors(view, mesh.vertices_m, color_by))
