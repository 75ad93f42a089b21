# SPDX-License-Identifier: Apache-2.0
"""The colours of voxels as the cameras saw them: a running mean over looks at the faces that nothing hides."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.compute.compiled import run_split
from occupancy_nn_ros.geometry.cameras import project, resized
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.mapping.color_kernels import BoolArray, find_open_faces
from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.mapping.voxel_storage import COLOR_STEPS, VoxelStorage
from occupancy_nn_ros.values import FloatArray, LatticeWindow, PosedImage

LOOKS = 32
"""A look counts for one 32nd at least, so that colours follow light that changes."""

PATCH_COLUMNS = 160
"""Pictures are averaged down to about this width, so that a look is the mean of a patch and not one pixel's noise."""

Cells = npt.NDArray[np.int64]


def add_colors(grid: VoxelStorage, images: tuple[PosedImage, ...]) -> None:
    """Add one look of each camera at the occupied voxels; those that are not occupied forget their colour.

    Does nothing for a map that keeps no colours.

    Args:
        grid: the map, which holds already what these pictures told of it.
        images: one for each camera.
    """
    if grid.colors is None:
        return
    is_occupied = grid.log_odds >= np.log(grid.config.occupied_probability / (1 - grid.config.occupied_probability))
    is_occupied &= grid.seen_ms != NEVER
    grid.colors[..., 3].mul_(is_occupied)
    occupied = np.zeros(grid.window.shape, np.bool_)
    for stored, given in grid.overlap(grid.window):
        occupied[given] = is_occupied[stored].cpu().numpy()
    cells = np.argwhere(occupied)
    for image in images:
        near = cells[_within_range(grid, cells, image.T_map_cam[:3, 3])]
        looked, colors = _look(grid.window, occupied, near, image)
        if len(looked):
            _add(grid, grid.colors, looked, colors)


def _within_range(grid: VoxelStorage, cells: Cells, camera_m: FloatArray) -> BoolArray:
    centers = (cells + grid.window.origin + 0.5) * grid.window.voxel_size_m
    return np.asarray(((centers - camera_m) ** 2).sum(axis=1) <= grid.config.max_range_m**2)


def _look(window: LatticeWindow, occupied: BoolArray, cells: Cells, image: PosedImage) -> tuple[Cells, FloatArray]:
    """Cells (M, 3) of which the camera sees faces, and the mean colour (M, 3) of these faces' centres."""
    camera = np.asarray(image.T_map_cam[:3, 3] / window.voxel_size_m - window.origin, np.float64)
    cell, axis, faces = _faces_towards(camera, occupied, cells)
    pixels, shown = _pixels(image, faces * window.voxel_size_m + window.origin_m)
    cell, axis, faces, pixels = cell[shown], axis[shown], faces[shown], pixels[shown]
    is_open = np.zeros(len(cell), np.bool_)
    if len(cell):
        run_split(find_open_faces, len(cell), occupied, faces, axis, camera, is_open, least=2000)
    cell, (u, v) = cell[is_open], pixels[is_open].T
    sums, counts = np.zeros((len(cells), 3)), np.bincount(cell, minlength=len(cells))
    np.add.at(sums, cell, _patches(image)[v, u])
    looked = counts > 0
    return cells[looked], sums[looked] / counts[looked, None]


def _faces_towards(camera: FloatArray, occupied: BoolArray, cells: Cells) -> tuple[Cells, Cells, FloatArray]:
    """Faces that look towards the camera and touch no other occupied voxel: number of the cell, axis and centre of each."""
    side = (camera > cells + 1).astype(np.int64) - (camera < cells)
    cell, axis = np.nonzero(side)
    step = np.zeros((len(cell), 3), np.int64)
    step[np.arange(len(cell)), axis] = side[cell, axis]
    neighbour = cells[cell] + step
    inside = ((neighbour >= 0) & (neighbour < occupied.shape)).all(axis=1)
    free = np.ones(len(cell), np.bool_)
    free[inside] = ~occupied[tuple(neighbour[inside].T)]
    return cell[free], axis[free], np.asarray(cells[cell[free]] + 0.5 + step[free] / 2, np.float64)


def _pixels(image: PosedImage, points_m: FloatArray) -> tuple[Cells, BoolArray]:
    """Pixels (N, 2) of :func:`_patches` at map-frame points (N, 3), and which of them may be looked at."""
    width, height = _patch_size(image)
    model, T_cam_map = resized(image.model, width, height), invert(image.T_map_cam)
    uv, valid = project(model, points_m @ T_cam_map[:3, :3].T + T_cam_map[:3, 3])
    pixels = np.floor(np.where(valid[:, None], uv, -1.0) + 0.5)
    inside = valid & (pixels >= 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    found = np.where(inside[:, None], pixels, 0).astype(np.int64)
    return found, inside if model.mask is None else inside & ~model.mask[found[:, 1], found[:, 0]]


def _patch_size(image: PosedImage) -> tuple[int, int]:
    scale = min(1.0, PATCH_COLUMNS / image.model.width)
    return max(1, round(image.model.width * scale)), max(1, round(image.model.height * scale))


def _patches(image: PosedImage) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(image.image, _patch_size(image), interpolation=cv2.INTER_AREA), np.uint8)


def _add(grid: VoxelStorage, stored: Tensor, cells: Cells, colors: FloatArray) -> None:
    at = grid.storage_index(torch.from_numpy(cells + np.asarray(grid.window.origin)).to(grid.device))
    flat = stored.view(-1, 4)
    old = flat[at].to(torch.float32)
    looks = (old[:, 3:] + 1).clamp(max=LOOKS)
    new = torch.from_numpy(colors * COLOR_STEPS).to(grid.device, torch.float32)
    mean = old[:, :3] + (new - old[:, :3]) / looks
    flat[at] = torch.cat([mean, looks], dim=1).round().to(torch.int16)
