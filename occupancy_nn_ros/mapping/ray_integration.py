# SPDX-License-Identifier: Apache-2.0
"""Depth images and LiDAR sweeps into the map: rays carve free space, their ends mark hits, and a hit wins over passes.

Of the rays of one scan that end in the same voxel one is followed, since the others pass almost the same voxels.
Shortly before its end a ray runs along the surface that it ends on; there it tells little, so that known surfaces are
not carved at grazing angles, and other voxels count as seen free once at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from occupancy_nn_ros.compute.capture import can_capture
from occupancy_nn_ros.compute.compiled import run_split, use_kernels
from occupancy_nn_ros.compute.transfers import upload
from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.mapping import ray_device, ray_reference
from occupancy_nn_ros.mapping.captured_rays import integrate_captured
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.marks import GRAZE, PASS, Marks
from occupancy_nn_ros.mapping.ray_kernels import collect_depth, collect_points, walk
from occupancy_nn_ros.mapping.ray_statistics import RayStatistics
from occupancy_nn_ros.mapping.ray_update import RayRule, apply_marks
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, LatticeWindow, PosedCloud, PosedDepth

GRAZE_SHARE = 0.05
"""Share of a hitting ray before its end where it grazes: a sensor 1.2 m up crosses the top 6 cm of the ground there."""

DEPTH_SURFACE, CLOUD_SURFACE = 1.0, 0.0
"""Log-odds above which a voxel is a surface that grazing rays leave alone. A far pixel of a depth image may be off by
a voxel, so that there one hit is not enough."""


def integrate_depth(grid: RollingMap, depth: PosedDepth, weight: float = 1.0) -> RayStatistics:
    """Integrate a depth image; pixels that are 0, negative or NaN were not measured.

    Args:
        grid: the map, changed in place.
        depth: the image.
        weight: scales what its rays add, and how fast they clear what stood there; more than 0.

    Raises:
        ValueError: the weight is not positive, the image's size is not the camera model's, or the pose is not finite; the
            map stays as it was.
    """
    if not weight > 0.0:
        raise ValueError(f"weight is {weight}, expected more than 0")
    model, shape = depth.model, depth.shape
    if shape != (model.height, model.width):
        raise ValueError(f"depth image is {shape}, the camera model says {(model.height, model.width)}")
    pose = np.ascontiguousarray(depth.T_map_cam, dtype=np.float64)
    if not np.isfinite(pose).all():
        raise ValueError("the camera's pose is not finite")
    edge, origin = _frame(grid.window)
    into_window = pose.copy()
    into_window[:3] /= edge
    into_window[:3, 3] -= origin
    tangents = pixel_tangents(model)
    rule = _rule(grid, depth.stamp_ns, DEPTH_SURFACE, weight)
    if grid.device.type != "cpu":
        pixels = _pixels_on(grid.device, depth), tangents_on(grid.device, model)
        return RayStatistics(ray_device.integrate_pixels(grid, pixels, into_window, GRAZE_SHARE, rule))
    image = np.ascontiguousarray(depth.depth_m, dtype=np.float32).reshape(-1)
    if use_kernels(grid.device):
        rays, marks = np.empty((len(image), 7)), grid.marks()
        count, measured, broken = collect_depth(image, tangents, into_window, _limits(grid), marks, rays)
        hits, passes = _carve(grid, marks, rays[:count], rule)
    else:
        points, measured, broken = ray_reference.depth_points(image, tangents, into_window)
        hits, passes = ray_reference.integrate(grid, into_window[None, :3, 3], points, GRAZE_SHARE, rule)
    return RayStatistics((measured - broken, broken, 0, hits, passes))


def integrate_depths(grid: RollingMap, depths: Sequence[PosedDepth], weight: float = 1.0) -> None:
    """Integrate depth images one after the other, as :func:`integrate_depth`; those that a network left on a GPU by one launch."""
    there = [depth for depth in depths if isinstance(depth, DeviceDepth) and depth.pose is not None]
    if there and len(there) == len(depths) and can_capture(grid.device):
        rig = [
            (depth, tangents_on(grid.device, depth.model), _rule(grid, depth.stamp_ns, DEPTH_SURFACE, weight))
            for depth in there
        ]
        if integrate_captured(grid, rig, GRAZE_SHARE):
            return
    for depth in depths:
        integrate_depth(grid, depth, weight)


def integrate_cloud(grid: RollingMap, cloud: PosedCloud) -> RayStatistics:
    """Integrate a LiDAR sweep seen from one place.

    Raises:
        ValueError: the points are not (N, 3), or the pose is not finite; the map stays as it was.
    """
    pose = np.ascontiguousarray(cloud.T_map_sensor, dtype=np.float64)
    if not np.isfinite(pose).all():
        raise ValueError("the sensor's pose is not finite")
    return _integrate_points(grid, pose[None, :3, 3].copy(), np.ascontiguousarray(cloud.points_m), pose, cloud.stamp_ns)


def integrate_rays(grid: RollingMap, origins_m: npt.ArrayLike, ends_m: npt.ArrayLike, stamp_ns: int) -> RayStatistics:
    """Integrate rays of one scan.

    Args:
        grid: the map, changed in place.
        origins_m: (3,) or (N, 3) in the map frame; with one origin, rays that end in the same voxel are merged.
        ends_m: (N, 3); a ray longer than ``max_range_m`` carves up to there and marks no hit.
        stamp_ns: time of the scan.

    Raises:
        ValueError: the shapes do not fit; the map stays as it was.
    """
    ends = np.ascontiguousarray(ends_m, dtype=np.float64)
    origins = np.ascontiguousarray(origins_m, dtype=np.float64).reshape(-1, 3)
    return _integrate_points(grid, origins, ends, np.eye(4), stamp_ns)


def _integrate_points(
    grid: RollingMap, origins: FloatArray, points: npt.NDArray[Any], pose: FloatArray, stamp_ns: int
) -> RayStatistics:
    if points.ndim != 2 or points.shape[1] != 3 or len(origins) not in (1, len(points)):
        found = f"origins {origins.shape} and ends {points.shape}"
        raise ValueError(f"rays have {found}, expected (1, 3) or (N, 3), and (N, 3)")
    rule = _rule(grid, stamp_ns, CLOUD_SURFACE)
    if grid.device.type != "cpu":
        scan = origins, upload(points, grid.device)
        return RayStatistics(ray_device.integrate_points(grid, scan, pose, GRAZE_SHARE, rule))
    if use_kernels(grid.device):
        rays, marks = np.empty((len(points), 7)), grid.marks()
        frame, limits = _frame(grid.window), _limits(grid)
        count, broken, short = collect_points(origins, points, pose, frame, limits, marks, rays)
        hits, passes = _carve(grid, marks, rays[:count], rule)
    else:
        ends = ray_reference.moved(pose, points.astype(np.float64))
        usable, broken, short = ray_reference.usable_rays(origins, ends)
        edge, low = _frame(grid.window)
        starts = (origins if len(origins) == 1 else origins[usable]) / edge - low
        hits, passes = ray_reference.integrate(grid, starts, ends[usable] / edge - low, GRAZE_SHARE, rule)
    return RayStatistics((len(points) - broken - short, broken, short, hits, passes))


def _carve(grid: RollingMap, marks: Marks, rays: FloatArray, rule: RayRule) -> tuple[int, int]:
    """Walk collected rays and update the marked voxels; returns voxels hit and passed."""
    for value in (PASS, GRAZE):
        run_split(walk, len(rays), rays, marks, GRAZE_SHARE, value, least=512)
    log_odds, seen_ms = grid.log_odds.numpy(), grid.seen_ms.numpy()
    parts = run_split(apply_marks, len(marks.flags), marks, log_odds, seen_ms, rule, least=4096)
    return sum(hits for hits, _ in parts), sum(passes for _, passes in parts)


def _rule(grid: RollingMap, stamp_ns: int, surface: float, weight: float = 1.0) -> RayRule:
    config = grid.config
    clamps = (config.log_odds_min, config.log_odds_max)
    # What counts half clears half as fast, too.
    times = (config.clear_in_view_s * 1000.0 / weight, grid.time_ms(stamp_ns))
    return RayRule(weight * config.hit_log_odds, weight * config.pass_log_odds, *clamps, surface, *times)


def _frame(window: LatticeWindow) -> tuple[float, tuple[float, float, float]]:
    i, j, k = window.origin
    return window.voxel_size_m, (float(i), float(j), float(k))


def _limits(grid: RollingMap) -> tuple[float, float, float, float]:
    x, y, z = grid.window.shape
    return float(x), float(y), float(z), grid.config.max_range_m / grid.window.voxel_size_m


@lru_cache(maxsize=32)  # distortion takes long to undo
def pixel_tangents(model: CameraModel) -> Float32Array:
    """Tangents x / z and y / z (H * W, 2) of the rays through all pixels of a camera, NaN where there is none or a mask."""
    width, height = model.width, model.height
    v, u = np.divmod(np.arange(width * height), width)
    tangents = np.ascontiguousarray(unproject(model, np.stack([u, v], axis=1)), dtype=np.float32)
    if model.mask is not None:
        tangents[model.mask.reshape(-1)] = np.nan
    return tangents


@lru_cache(maxsize=32)
def tangents_on(device: torch.device, model: CameraModel) -> torch.Tensor:
    """:func:`pixel_tangents` on a GPU, where they stay."""
    return upload(pixel_tangents(model), device)


def _pixels_on(device: torch.device, depth: PosedDepth) -> torch.Tensor:
    """A depth image's pixels (H * W,) float32 on a GPU; they may be there already."""
    if isinstance(depth, DeviceDepth):
        return depth.pixels.to(device, torch.float32).reshape(-1)
    return upload(np.ascontiguousarray(depth.depth_m, dtype=np.float32).reshape(-1), device)
