# SPDX-License-Identifier: Apache-2.0
"""Predicted depth as the depth images of pinhole cameras: a pixel for each cell of the network's depth distributions."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedDepth


def depth_images(keyframe: Keyframe, views: Views, depths_m: np.ndarray) -> tuple[PosedDepth, ...]:
    """Depths (V, h, w) in metres as a depth image for each of the keyframe's images; 0 where there is none."""
    models = depth_models(views.K.cpu().numpy(), views.images.shape[-1], depths_m.shape[1:])
    return tuple(
        PosedDepth(image.camera, image.stamp_ns, depth_m, model, image.T_map_cam)
        for image, depth_m, model in zip(keyframe.images, depths_m, models, strict=True)
    )


def depth_models(K: np.ndarray, width: int, shape: tuple[int, int]) -> list[CameraModel]:
    """Pinhole models of depth images (rows, columns) of rectified images.

    Args:
        K: (V, 3, 3) for the rectified images.
        width: their pixels.
        shape: of the depth images.
    """
    rows, columns = shape
    K = K.astype(np.float64)
    K[:, :2, 2] += 0.5  # pixel centres lie at integers
    K[:, :2] /= width / columns
    K[:, :2, 2] -= 0.5
    return [CameraModel(columns, rows, matrix, "none", np.zeros(0)) for matrix in K]
