# SPDX-License-Identifier: Apache-2.0
"""What the map knows to be free, as rays from a camera: a cloud by which layers that clear along rays let go of what went away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.mapping.queries import cast_rays, query_map
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.messages.sensors import encode_point_cloud
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, VoxelState

RAYS_ACROSS = 64
"""With a field of view of 70 degrees these are closer than 0.2 m up to 10 m."""

NEAR_M = 1.0
"""So far a ray may go through what is unknown: no camera sees the space right before it."""

STOPS_SHORT = 1.9
"""VoxelLayer ends each ray two cells before its point: points lie nearly as far behind the last free voxel, which is then cleared."""


@dataclass(frozen=True)
class FreeSource:
    """A map, and a camera's frame of the keyframe that it holds.

    Attributes:
        map: the map.
        frame: places the camera.
    """

    map: RollingMap
    frame: RawFrame

    @property
    def stamp_ns(self) -> int:
        """When the frame was taken."""
        return self.frame.stamp_ns


def encode_free_cloud(source: FreeSource) -> bytes:
    """A PointCloud2 of :func:`free_endpoints` in the camera's frame, whose origin is where the rays begin, or its stereo pair's."""
    frame = source.frame
    points = np.zeros((0, 3), np.float32)
    if frame.model is not None:
        points = free_endpoints(source.map, frame.T_map_sensor, frame.model)
    if frame.T_frame_sensor is not None:
        points = (points @ frame.T_frame_sensor[:3, :3].T + frame.T_frame_sensor[:3, 3]).astype(np.float32)
    return encode_point_cloud(frame.stamp_ns, frame.frame_id, points)


def free_endpoints(map_: RollingMap, T_map_cam: FloatArray, model: CameraModel) -> Float32Array:
    """Points (N, 3) in metres, camera frame: each lies :data:`STOPS_SHORT` voxels behind the last free voxel of a camera's ray.

    A ray goes on until the first voxel that is not known to be free, or for half of the window. One that meets no free voxel
    within :data:`NEAR_M`, or an occupied one before it, is left out.
    """
    ways = _rays(model)
    turned, origin = ways @ T_map_cam[:3, :3].T, T_map_cam[:3, 3]
    edge = map_.window.voxel_size_m
    start_m = _first_free_m(map_, origin, turned, edge)
    kept = np.isfinite(start_m)
    ways, turned, start_m = ways[kept], turned[kept], start_m[kept]
    if not len(ways):
        return np.zeros((0, 3), np.float32)
    reach_m = map_.config.size_xy_m / 2
    hits = cast_rays(map_, origin + turned * start_m[:, None], turned, reach_m, unknown="keep")
    end_m = start_m + hits.distance_m + STOPS_SHORT * edge
    return np.asarray(ways * end_m[:, None], dtype=np.float32)


def _rays(model: CameraModel) -> FloatArray:
    """Unit vectors (N, 3) through pixels on a raster, camera frame."""
    columns = min(RAYS_ACROSS, model.width)
    rows = max(1, round(columns * model.height / model.width))
    u = (np.arange(columns) + 0.5) * model.width / columns - 0.5
    v = (np.arange(rows) + 0.5) * model.height / rows - 0.5
    tangents = unproject(model, np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2))
    ways = np.column_stack([tangents, np.ones(len(tangents))])[np.isfinite(tangents).all(axis=1)]
    return np.asarray(ways / np.linalg.norm(ways, axis=1, keepdims=True))


def _first_free_m(map_: RollingMap, origin_m: FloatArray, ways: FloatArray, edge: float) -> FloatArray:
    """How far along each ray (N,) the first free voxel lies, NaN where there is none before an occupied one and the end."""
    steps = np.arange(0.0, NEAR_M + edge, edge / 2)
    points = origin_m + ways[:, None] * steps[:, None]
    state = query_map(map_, points.reshape(-1, 3), "nearest", "keep")[1].reshape(len(ways), len(steps))
    is_known = state != VoxelState.UNKNOWN
    first = np.argmax(is_known, axis=1)
    is_free = state[np.arange(len(ways)), first] == VoxelState.FREE
    return np.where(is_known.any(axis=1) & is_free, steps[first], np.nan)
