# SPDX-License-Identifier: Apache-2.0
"""The map as shaded cubes seen obliquely from above, painted back to front without OpenGL."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import Float32Array, FloatArray, MapView, UInt8Array, VoxelState
from occupancy_nn_ros.visualization.colors import ColorBy, voxel_colors

SIZE = (1400, 1000)
BACKGROUND = (246, 246, 248)
SCALE = 2
"""Painted this many times larger, then reduced, for smooth edges."""

# Each face of a cube: the neighbour that would hide it, its four corners, how bright it is.
FACES = (
    ((0, 0, 1), ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)), 1.0),
    ((1, 0, 0), ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)), 0.80),
    ((-1, 0, 0), ((0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)), 0.72),
    ((0, 1, 0), ((0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)), 0.66),
    ((0, -1, 0), ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)), 0.60),
)


def draw_voxels(
    view: MapView, file: Path | str, *, path_m: FloatArray | None = None, color_by: ColorBy = "height", yaw_deg: float = -55.0,
    pitch_deg: float = 48.0, cut_above_m: float = 2.0,
) -> None:  # fmt: skip
    """Write a picture of the occupied voxels.

    Args:
        view: the map.
        file: PNG to write.
        path_m: (K, 3) robot positions, map frame.
        color_by: ``height`` or ``class``.
        yaw_deg: where the viewer stands, from the map's x axis.
        pitch_deg: how steeply the viewer looks down.
        cut_above_m: what lies higher above the base is left out, or a ceiling would hide the room.

    Raises:
        OSError: the file cannot be written.
    """
    picture = render_voxels(
        view, path_m=path_m, color_by=color_by, yaw_deg=yaw_deg, pitch_deg=pitch_deg, cut_above_m=cut_above_m
    )
    if not cv2.imwrite(str(file), picture[..., ::-1]):
        raise OSError(f"cannot write {file}")


def render_voxels(
    view: MapView, *, path_m: FloatArray | None = None, color_by: ColorBy = "height", yaw_deg: float = -55.0,
    pitch_deg: float = 48.0, cut_above_m: float = 2.0,
) -> UInt8Array:  # fmt: skip
    """RGB picture (H, W, 3) of the occupied voxels, as :func:`draw_voxels` writes it."""
    canvas = np.full((SIZE[1] * SCALE, SIZE[0] * SCALE, 3), BACKGROUND, np.uint8)
    occupied = view.state == VoxelState.OCCUPIED
    top = int((view.T_map_base[2, 3] + cut_above_m) / view.window.voxel_size_m) - view.window.origin[2]
    occupied[:, :, max(1, top) :] = False
    if occupied.any():
        R = _view_rotation(yaw_deg, pitch_deg)
        quads, shades, cells = _visible_faces(occupied, R)
        colors = voxel_colors(view, cells, color_by).astype(np.float32)
        to_pixels = _fit(quads.reshape(-1, 3) @ R.T)
        _paint(canvas, quads, R, to_pixels, np.clip(colors * shades[:, None], 0, 255))
        if path_m is not None:
            _draw_path(canvas, view, path_m, R, to_pixels)
    return np.asarray(cv2.resize(canvas, SIZE, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _view_rotation(yaw_deg: float, pitch_deg: float) -> FloatArray:
    """Rows: picture right, picture down, depth away from the viewer."""
    yaw, pitch = np.deg2rad(yaw_deg), np.deg2rad(pitch_deg)
    away = np.array([-np.cos(yaw) * np.cos(pitch), -np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    return np.stack([right, np.cross(away, right), away])


def _visible_faces(
    occupied: npt.NDArray[np.bool_], R: FloatArray
) -> tuple[Float32Array, Float32Array, npt.NDArray[np.int64]]:
    """Faces that look at the viewer and touch no other cube: corners (F, 4, 3) in voxels, shades (F,), cells (F, 3)."""
    padded = np.pad(occupied, 1)
    quads, shades, cells = [], [], []
    for normal, corners, shade in FACES:
        if np.dot(R[2], normal) >= 0:
            continue
        x, y, z = (1 + n for n in normal)
        hidden = padded[x : x + occupied.shape[0], y : y + occupied.shape[1], z : z + occupied.shape[2]]
        here = np.argwhere(occupied & ~hidden)
        quads.append((here[:, None] + np.array(corners)).astype(np.float32))
        shades.append(np.full(len(here), shade, np.float32))
        cells.append(here)
    return np.concatenate(quads), np.concatenate(shades), np.concatenate(cells)


def _fit(projected: FloatArray) -> tuple[float, FloatArray]:
    """Scale and offset that fit projected points into the canvas with a margin."""
    low, high = projected[:, :2].min(axis=0), projected[:, :2].max(axis=0)
    room = np.array(SIZE) * SCALE * 0.94
    scale = float((room / np.maximum(high - low, 1)).min())
    return scale, np.array(SIZE) * SCALE / 2 - scale * (low + high) / 2


def _paint(
    canvas: UInt8Array, quads: Float32Array, R: FloatArray, to_pixels: tuple[float, FloatArray], colors: Float32Array
) -> None:
    projected = quads @ R.T.astype(np.float32)
    pixels = np.round(projected[..., :2] * to_pixels[0] + to_pixels[1]).astype(np.int32)
    outline = to_pixels[0] > 8
    for index in np.argsort(-projected[..., 2].mean(axis=1), kind="stable"):
        r, g, b = (float(v) for v in colors[index])
        cv2.fillConvexPoly(canvas, pixels[index], (r, g, b))
        if outline:
            cv2.polylines(canvas, [pixels[index]], True, (r * 0.82, g * 0.82, b * 0.82), 1)


def _draw_path(
    canvas: UInt8Array, view: MapView, path_m: FloatArray, R: FloatArray, to_pixels: tuple[float, FloatArray]
) -> None:
    if len(path_m) < 2:
        return
    local = (path_m - view.window.origin_m) / view.window.voxel_size_m
    pixels = np.round((local @ R.T)[:, :2] * to_pixels[0] + to_pixels[1]).astype(np.int32)
    cv2.polylines(canvas, [pixels], False, (208, 28, 139), 3 * SCALE, cv2.LINE_AA)
