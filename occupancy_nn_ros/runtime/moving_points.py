# SPDX-License-Identifier: Apache-2.0
"""What changed in a map, voxel by voxel, as it is sent: each with the velocity of the thing that it belongs to."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.mapping.moving import Movement, MovingCluster
from occupancy_nn_ros.messages.moving import MovingPoints
from occupancy_nn_ros.runtime.cloud_frame import CloudFrame
from occupancy_nn_ros.values import FloatArray

BEHIND_M = 1.0
"""Voxels that are free again belong to the thing whose voxels are nearest, if these are no further away."""


def moving_points(movement: Movement, frame: CloudFrame) -> MovingPoints:
    """All voxels that appeared or vanished, in a cloud's frame."""
    clusters = movement.clusters
    parts = [cluster.points_m for cluster in clusters]
    owners = [np.full(len(part), n) for n, part in enumerate(parts)]
    points = np.concatenate([*parts, movement.vanished_m.reshape(-1, 3)])
    owner = np.concatenate([*owners, _owners(movement.vanished_m, clusters)]).astype(np.int64)
    # One more row for voxels of nothing.
    velocity = np.array([*([*c.velocity_m_s, 0.0] for c in clusters), [np.nan] * 3])
    velocity[np.isnan(velocity[:, 0]), 2] = np.nan
    std = np.array([*(c.std_m_s for c in clusters), np.nan], dtype=np.float32)
    track = np.array([*(c.track for c in clusters), 0], dtype=np.uint32)
    turned = velocity if frame.T_frame_map is None else velocity @ frame.T_frame_map[:3, :3].T
    has_appeared = np.arange(len(points)) < len(points) - len(movement.vanished_m)
    return MovingPoints(frame.place(points), turned.astype(np.float32)[owner], std[owner], track[owner], has_appeared)


def _owners(vanished_m: FloatArray, clusters: tuple[MovingCluster, ...]) -> FloatArray:
    """Index (M,) of the cluster that each vanished voxel belongs to, -1 for none."""
    if not clusters or not len(vanished_m):
        return np.full(len(vanished_m), -1.0)
    away = np.stack(
        [np.linalg.norm(vanished_m[:, None, :2] - c.points_m[None, :, :2], axis=2).min(axis=1) for c in clusters]
    )
    return np.where(away.min(axis=0) <= BEHIND_M, away.argmin(axis=0), -1.0)
