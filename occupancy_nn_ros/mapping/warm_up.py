# SPDX-License-Identifier: Apache-2.0
"""Compiles or loads every kernel before the first frame, which would otherwise wait for it.

Run as a module it does so when the package is installed: ``python -m occupancy_nn_ros.mapping.warm_up``.
"""

from __future__ import annotations

import numpy as np
import torch

from occupancy_nn_ros.compute.compiled import HAVE_KERNELS
from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.distance_field import distance_field
from occupancy_nn_ros.mapping.ray_integration import integrate_depth, integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.voxel_colors import add_colors
from occupancy_nn_ros.values import CameraModel, LatticeWindow, PosedDepth, PosedImage, Prediction


def warm_up() -> None:
    """Run everything that is compiled once on a tiny map.

    Takes some seconds the first time on a machine and well below one second afterwards, when the kernels come from
    disk.
    """
    if not HAVE_KERNELS:
        return
    grid = RollingMap(0.5, (8, 8, 4), MapConfig(forget_model="linear"))
    camera = CameraModel(4, 4, np.array([[4.0, 0.0, 1.5], [0.0, 4.0, 1.5], [0.0, 0.0, 1.0]]), "none", np.zeros(0))
    integrate_depth(grid, PosedDepth("", 0, np.ones((4, 4), np.float32), camera, np.eye(4)))
    grid.keep_colors()
    add_colors(grid, (PosedImage("", 0, np.zeros((4, 4, 3), np.uint8), camera, np.eye(4)),))  # while something is free
    integrate_rays(grid, np.zeros(3), np.ones((4, 3)), 0)
    integrate_rays(grid, np.zeros((4, 3)), np.ones((4, 3)), 0)
    for part in ((8, 8, 4), (8, 8, 3)):
        ones = torch.ones(part)
        window = LatticeWindow(0.5, grid.window.origin, part)
        grid.integrate(Prediction(window, ones, ones, torch.ones((grid.class_evidence.shape[-1], *part))), 1)
    grid.forget(2_000_000_000)
    corner = np.zeros((4, 4, 4), dtype=bool)
    corner[0, 0, 0] = True
    distance_field(corner, 1.0, 1.0)
    distance_field(corner[0], 1.0, 1.0)


if __name__ == "__main__":
    warm_up()
