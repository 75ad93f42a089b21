# SPDX-License-Identifier: Apache-2.0
"""Where a simulated keyframe is supervised: at surfaces, in the space before them, at edges and low things, anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from occupancy_nn_ros.simulation.rendering import RenderedView
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.values import Float32Array, FloatArray

ANYWHERE_SHARE = 3 / 8
"""Share of the points that lie anywhere in the window; the others lie along rays."""

THIN_SHARE = 0.25
"""Share of the points along rays whose pixels are ``thin_pixels``."""

NEAR_SURFACE_SHARE = 0.65
"""Share of the points along rays that lie around their end; the others lie before it."""

THIN_RANGE_M = 4.0
EDGE_STEP = 0.06
LOW_M = (0.03, 0.35)
EDGE_PIXELS = 5

LOW_WINDOW, HIGH_WINDOW = (-8.0, -8.0, -1.4), (8.0, 8.0, 2.4)
"""The window around the base that is supervised."""


def sample_points(
    rig: Rig,
    views: Sequence[RenderedView],
    poses: FloatArray,
    T_map_base: FloatArray,
    rng: np.random.Generator,
    count: int,
) -> Float32Array:
    """Points (count, 3) in the map frame.

    Args:
        rig: the cameras.
        views: what each sees, all of one size.
        poses: (V, 4, 4) T_map_cam.
        T_map_base: (4, 4), around which the window lies.
        rng: source of randomness.
        count: how many.
    """
    base = T_map_base[:3, 3]
    along = count - int(count * ANYWHERE_SHARE)
    view, v, u = _choose_pixels(rig, views, poses, rng, along)
    depth = np.stack([item.depth_m for item in views])[view, v, u]
    near_surface = rng.random(along) < NEAR_SURFACE_SHARE
    noise = rng.normal(0, 1, along) * rng.choice([0.06, 0.2, 0.5], along)
    depth = np.where(near_surface, depth + noise, depth * rng.uniform(0.05, 1.0, along))
    seen = _place(rig, poses, view, v, u, np.clip(depth, 0.1, 11.0))
    inside = (np.abs(seen[:, :2] - base[:2]) < 8.2).all(axis=1) & (np.abs(seen[:, 2] - base[2] - 0.6) < 2.2)
    anywhere = base + rng.uniform(LOW_WINDOW, HIGH_WINDOW, (count, 3))
    points = anywhere.copy()
    points[count - along :][inside] = seen[inside]
    return points.astype(np.float32)


def thin_pixels(depth_m: Float32Array, height_m: FloatArray) -> np.ndarray:
    """Pixels within ``THIN_RANGE_M`` at edges of depth, where thin things are, or on what is low, such as kerbs; (H, W) bool.

    Args:
        depth_m: (H, W), 0 where far.
        height_m: (H, W) of what each pixel sees above the floor.
    """
    filled = np.where(depth_m > 0, depth_m, 100.0).astype(np.float32)
    kernel = np.ones((EDGE_PIXELS, EDGE_PIXELS), np.uint8)
    edge = cv2.dilate(filled, kernel) > filled * (1 + EDGE_STEP)
    low = (height_m > LOW_M[0]) & (height_m < LOW_M[1])
    return np.asarray((filled < THIN_RANGE_M) & (edge | low), dtype=bool)


def _choose_pixels(
    rig: Rig, views: Sequence[RenderedView], poses: FloatArray, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """View, row and column of pixels: any of them, and a share of thin ones where there are such."""
    depth = np.stack([item.depth_m for item in views])
    height, width = depth.shape[1:]
    view = rng.integers(len(views), size=count)
    u, v = rng.integers(width, size=count), rng.integers(height, size=count)
    rows, columns = (grid.reshape(-1) for grid in np.mgrid[0:height, 0:width])
    masks = []
    for index in range(len(views)):
        points = _place(rig, poses, np.full(rows.shape, index), rows, columns, depth[index].reshape(-1))
        masks.append(thin_pixels(depth[index], points[:, 2].reshape(height, width)))
    thin = np.argwhere(np.stack(masks))
    if len(thin):
        chosen = int(count * THIN_SHARE)
        view[:chosen], v[:chosen], u[:chosen] = thin[rng.integers(len(thin), size=chosen)].T
    return view, v, u


def _place(
    rig: Rig, poses: FloatArray, view: np.ndarray, v: np.ndarray, u: np.ndarray, depth_m: np.ndarray
) -> FloatArray:
    """Points (N, 3) in the map frame of pixels at a depth."""
    K = np.stack([camera.model.K for camera in rig.cameras])[view]
    rays = np.stack([(u - K[:, 0, 2]) / K[:, 0, 0], (v - K[:, 1, 2]) / K[:, 1, 1], np.ones(len(u))], axis=1)
    turned = np.einsum("nij,nj->ni", poses[view][:, :3, :3], rays * depth_m[:, None])
    return np.asarray(turned + poses[view][:, :3, 3])
