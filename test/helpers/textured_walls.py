# SPDX-License-Identifier: Apache-2.0
"""Two textured walls across the map's z axis before a hand-held camera: exact pictures and exact depth."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.values import CameraModel

WIDTH, HEIGHT = 352, 256
MODEL = CameraModel(WIDTH, HEIGHT, np.array([[280.0, 0, 176], [0, 280, 128], [0, 0, 1]]), "none", np.zeros(0))
PIXELS_PER_M = 60
DEPTHS_M, LEFT_M, TOP_M = (4.5, 2.5), (-9.0, 0.5), -6.0


def _texture(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (720, 1080, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 1.8) * 6 - 640).clip(0, 255).astype(np.uint8)


WALLS = [(_texture(n), depth, left) for n, (depth, left) in enumerate(zip(DEPTHS_M, LEFT_M, strict=True))]


def picture(T_map_cam):
    """What the camera sees, (HEIGHT, WIDTH, 3) uint8; the nearer wall covers the further one."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for wall, depth, left in WALLS:
        to_map = np.array([[1 / PIXELS_PER_M, 0, left], [0, 1 / PIXELS_PER_M, TOP_M], [0, 0, depth], [0, 0, 1]])
        homography = MODEL.K @ (invert(T_map_cam) @ to_map)[:3]
        covered = cv2.warpPerspective(np.full(wall.shape[:2], 255, np.uint8), homography, (WIDTH, HEIGHT)) > 254
        image[covered] = cv2.warpPerspective(wall, homography, (WIDTH, HEIGHT))[covered]
    return image


def depth(T_map_cam, stride):
    """Exact depth (HEIGHT / stride, WIDTH / stride) at the centres of cells."""
    v, u = np.mgrid[0 : HEIGHT // stride, 0 : WIDTH // stride] * stride + (stride - 1) / 2
    K = MODEL.K
    ways = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1) @ T_map_cam[:3, :3].T
    far, near = ((z - T_map_cam[2, 3]) / ways[..., 2] for z in DEPTHS_M)
    is_near = T_map_cam[0, 3] + near * ways[..., 0] > LEFT_M[1]
    return np.where(is_near, near, far).astype(np.float32)


def pose(time_s):
    """Where the camera is: swaying, by half a metre at most."""
    transform = np.eye(4)
    angles = [0.12 * np.sin(1.1 * time_s), 0.15 * np.sin(0.8 * time_s), 0.1 * np.sin(1.7 * time_s)]
    transform[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    transform[:3, 3] = (0.5 * np.sin(0.5 * time_s), 0.2 * np.sin(0.9 * time_s), 0.2 * np.sin(0.4 * time_s))
    return transform
