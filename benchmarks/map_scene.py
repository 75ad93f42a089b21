# SPDX-License-Identifier: Apache-2.0
"""The workload that mappers are timed and judged on: one scene, one drive, depth images and LiDAR sweeps.

Boxes, upright cylinders and a ground plane, indoors and out; a closed loop of 60 poses; at each pose one 640 x 480
depth image (z-depth, up to 20 m) and one sweep of 64 beams x 1024 columns (range, up to 40 m). 0 means no return.
Every surface lies in the middle of a 0.1 m voxel, so that true labels do not hang on rounding. Needs numpy alone; the
same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SEED = 20240611
POSES = 60
DEPTH_WIDTH, DEPTH_HEIGHT, DEPTH_FOCAL, DEPTH_MAX = 640, 480, 320.0, 20.0
LIDAR_BEAMS, LIDAR_COLUMNS, LIDAR_MAX = 64, 1024, 40.0
LIDAR_LOWEST, LIDAR_HIGHEST = np.deg2rad(-25.0), np.deg2rad(15.0)
NEAREST = 0.3
CAMERA_Z, LIDAR_Z, GROUND_Z = 1.0, 1.2, -0.05
FOOT = GROUND_Z - 0.5
"""Solids begin below the ground."""

Array = npt.NDArray[np.float64]

HOUSE = (-12.0, 12.0, 2.0, 16.0, 3.0, 0.3)
"""The building that the northern half of the loop runs through: x0 x1 y0 y1, height, wall thickness."""

FACADES = (
    (-34, -27, FOOT, -20, -22, 7.0), (-14, -27, FOOT, 6, -23, 5.5), (12, -27, FOOT, 33, -21, 8.5),
    (-35, -16, FOOT, -29, 8, 6.0), (28, -15, FOOT, 35, -2, 4.5), (29, 4, FOOT, 35, 22, 7.5),
    (-30, 20, FOOT, -16, 27, 6.5), (-8, 21, FOOT, 14, 26, 5.0), (-26, -19.2, FOOT, 24, -19.0, 1.1),
)  # fmt: skip
TABLES = ((-9.5, 3.3), (-5.5, 3.4), (-3.0, 14.5), (5.5, 14.6), (9.5, 12.8), (2.0, 3.2))
LAMPS = ((-22, -6), (-22, 6), (22, -6), (22, 6), (-8, -14), (8, -14), (0, -6))
BODY_FROM_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)


@dataclass(frozen=True)
class Scene:
    """Solids.

    Attributes:
        boxes: (N, 6) lowest and highest corner.
        cylinders: (M, 5) axis x y, radius, lowest and highest z.
    """

    boxes: Array
    cylinders: Array


def build_scene() -> Scene:
    """The scene, snapped to the middles of 0.1 m voxels."""
    rng = np.random.default_rng(SEED)
    boxes, cylinders = _house()
    boxes += FACADES
    boxes += _cars(rng)
    cylinders += _trees(rng)
    cylinders += [(x, y, 0.08, FOOT, 5.0) for x, y in LAMPS]
    round_ones = np.asarray(cylinders, dtype=np.float64)
    return Scene(_snap(boxes), np.column_stack([round_ones[:, :3], _snap(round_ones[:, 3:])]))


def _snap(values: npt.ArrayLike) -> Array:
    """Nearest coordinates of the form k * 0.1 + 0.05."""
    return np.asarray(np.round(np.asarray(values, dtype=np.float64) * 10.0 - 0.5) / 10.0 + 0.05)


def _house() -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    x0, x1, y0, y1, h, w = HOUSE
    boxes: list[tuple[float, ...]] = [
        (x0, y0, FOOT, x1, y0 + w, h), (x0, y1 - w, FOOT, x1, y1, h),
        (x0, y0, FOOT, x0 + w, 5.8, h), (x0, 9.2, FOOT, x0 + w, y1, h),
        (x1 - w, y0, FOOT, x1, 5.8, h), (x1 - w, 9.2, FOOT, x1, y1, h),
        (x0, 5.8, 2.2, x0 + w, 9.2, h), (x1 - w, 5.8, 2.2, x1, 9.2, h),
        (x0, y0, h, x1, y1, h + 0.3),
        (-0.1, y0, FOOT, 0.2, 8.6, h), (-0.1, 11.4, FOOT, 0.2, y1, h), (-0.1, 8.6, 2.2, 0.2, 11.4, h),
        (-7.0, 12.0, FOOT, -1.0, 12.2, h), (3.0, 4.9, FOOT, 8.0, 5.1, h),
    ]  # fmt: skip
    cylinders: list[tuple[float, ...]] = []
    for x in (-8.5, -4.0, 4.0, 8.5):
        cylinders += [(x, 4.5, 0.3, FOOT, h), (x, 13.2, 0.3, FOOT, h)]
    for x, y in TABLES:
        boxes.append((x - 0.8, y - 0.5, 0.65, x + 0.8, y + 0.5, 0.75))
        cylinders += [(x + dx, y + dy, 0.06, FOOT, 0.7) for dx in (-0.7, 0.7) for dy in (-0.4, 0.4)]
    boxes += [(-11.6, 10.5, FOOT, -11.2, 14.5, 1.9), (11.2, 10.5, FOOT, 11.6, 14.0, 1.9)]
    boxes.append((-6.5, 15.2, FOOT, -4.5, 15.7, 1.5))
    return boxes, cylinders


def _clear_of_road(x: float, y: float, distance: float) -> bool:
    loop = _loop(np.linspace(0, 2 * np.pi, 720))
    return bool(np.min(np.linalg.norm(loop - [x, y], axis=1)) >= distance)


def _cars(rng: np.random.Generator) -> list[tuple[float, ...]]:
    boxes: list[tuple[float, ...]] = []
    while len(boxes) < 9 * 4:
        x, y = rng.uniform(-26, 26), rng.uniform(-18, 0)
        if _clear_of_road(x, y, 4.0):
            boxes.append((x - 2.1, y - 0.9, 0.15, x + 2.1, y + 0.9, 0.85))
            boxes.append((x - 1.1, y - 0.8, 0.85, x + 1.2, y + 0.8, 1.45))
            boxes += [(x + s - 0.3, y - 0.85, FOOT, x + s + 0.3, y + 0.85, 0.2) for s in (-1.4, 1.4)]
    return boxes


def _trees(rng: np.random.Generator) -> list[tuple[float, ...]]:
    x0, x1, y0, y1 = HOUSE[:4]
    cylinders: list[tuple[float, ...]] = []
    while len(cylinders) < 14 * 2:
        x, y = rng.uniform(-28, 28), rng.uniform(-20, 20)
        if not _clear_of_road(x, y, 3.0) or (x0 - 3 < x < x1 + 3 and y0 - 3 < y < y1 + 3):
            continue
        trunk = rng.uniform(0.15, 0.35)
        cylinders.append((x, y, trunk, FOOT, 2.6))
        cylinders.append((x, y, rng.uniform(0.9, 1.8), 2.5, rng.uniform(4.0, 6.0)))
    return cylinders


def _loop(t: Array) -> Array:
    return np.stack([18.0 * np.cos(t), 10.0 * np.sin(t)], axis=-1)


def poses(z: float) -> Array:
    """Poses (60, 4, 4) of the body on the loop in the map, x forward along it."""
    t = np.arange(POSES) * 2 * np.pi / POSES
    ahead = np.stack([-18.0 * np.sin(t), 10.0 * np.cos(t)], axis=-1)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    T = np.tile(np.eye(4), (POSES, 1, 1))
    T[:, :2, 0] = ahead
    T[:, 0, 1], T[:, 1, 1] = -ahead[:, 1], ahead[:, 0]
    T[:, :2, 3] = _loop(t)
    T[:, 2, 3] = z
    return T


def cast(scene: Scene, origin: Array, directions: Array, reach: float) -> npt.NDArray[np.float32]:
    """Distance (N,) to the first solid along each direction (N, 3), in units of its length; infinite without one."""
    o, d = origin.astype(np.float32), directions.astype(np.float32).copy()
    d[np.abs(d) < 1e-9] = 1e-9
    inverse = np.float32(1.0) / d
    best = np.full(len(d), np.inf, np.float32)
    ground = (np.float32(GROUND_Z) - o[2]) * inverse[:, 2]
    best = np.where(ground > 0, ground, best)
    for box in scene.boxes.astype(np.float32):
        near, far = np.full(len(d), 0, np.float32), best
        for axis in range(3):
            a, b = (box[axis] - o[axis]) * inverse[:, axis], (box[3 + axis] - o[axis]) * inverse[:, axis]
            near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
        best = np.where((near <= far) & (near > 0), near, best)
    for cylinder in scene.cylinders.astype(np.float32):
        _cast_cylinder(cylinder, o, d, inverse, best)
    best[best > reach] = np.inf
    return best


def _cast_cylinder(
    cylinder: npt.NDArray[np.float32], o: npt.NDArray[np.float32], d: npt.NDArray[np.float32],
    inverse: npt.NDArray[np.float32], best: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    """Shorten ``best`` where rays meet a cylinder."""
    x, y, radius, low, high = cylinder
    flat = d[:, 0] ** 2 + d[:, 1] ** 2
    ox, oy = o[0] - x, o[1] - y
    aside = np.abs(d[:, 0] * oy - d[:, 1] * ox)
    near_it = np.flatnonzero(aside * aside <= flat * radius * radius)
    if not len(near_it):
        return
    ds, inverse_z = d[near_it], inverse[near_it, 2]
    b = ox * ds[:, 0] + oy * ds[:, 1]
    root = np.sqrt(np.maximum(b * b - flat[near_it] * (ox * ox + oy * oy - radius * radius), 0))
    first, last = (-b - root) / flat[near_it], (-b + root) / flat[near_it]
    z0, z1 = (low - o[2]) * inverse_z, (high - o[2]) * inverse_z
    near, far = np.maximum(first, np.minimum(z0, z1)), np.minimum(last, np.maximum(z0, z1))
    hit = (near <= far) & (near > 0) & (near < best[near_it])
    best[near_it[hit]] = near[hit]


def depth_rays() -> Array:
    """Rays (H * W, 3) of the pixels in the camera's frame with z = 1, so that a distance along them is a depth."""
    u, v = np.meshgrid(np.arange(DEPTH_WIDTH), np.arange(DEPTH_HEIGHT))
    x, y = (u - (DEPTH_WIDTH - 1) / 2) / DEPTH_FOCAL, (v - (DEPTH_HEIGHT - 1) / 2) / DEPTH_FOCAL
    return np.stack([x, y, np.ones(u.shape)], -1).reshape(-1, 3)


def lidar_angles() -> tuple[Array, Array]:
    """Elevations of the beams and azimuths of the columns in radians."""
    azimuth = -np.pi + 2 * np.pi * (np.arange(LIDAR_COLUMNS) + 0.5) / LIDAR_COLUMNS
    return np.linspace(LIDAR_LOWEST, LIDAR_HIGHEST, LIDAR_BEAMS), azimuth


def lidar_rays() -> Array:
    """Unit rays (64 * 1024, 3) in the LiDAR's frame, beam after beam."""
    e, a = np.meshgrid(*lidar_angles(), indexing="ij")
    return np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1).reshape(-1, 3)


def points_of(T: Array, rays: Array, distance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Points (N, 3) of one frame's returns, mapped by ``T``."""
    distance = distance.reshape(-1)
    seen = distance > 0
    points = rays[seen] * distance[seen, None]
    return np.asarray(points @ T[:3, :3].T + T[:3, 3], dtype=np.float32)


def load_workload(folder: Path, report: Callable[[str], None]) -> dict[str, npt.NDArray[np.generic]]:
    """The frames from ``folder``, made there first if it has none (half a minute)."""
    path = folder / "workload.npz"
    if not path.exists():
        report(f"making the workload in {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_generate())  # type: ignore[arg-type]
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _generate() -> dict[str, npt.NDArray[np.generic]]:
    scene, rng = build_scene(), np.random.default_rng(SEED + 1)
    T_camera, T_lidar = poses(CAMERA_Z) @ BODY_FROM_CAMERA, poses(LIDAR_Z)
    depth = np.zeros((POSES, DEPTH_HEIGHT, DEPTH_WIDTH), np.float32)
    lidar = np.zeros((POSES, LIDAR_BEAMS, LIDAR_COLUMNS), np.float32)
    depth_true, lidar_true = depth.copy(), lidar.copy()
    sensors = (
        (T_camera, depth_rays(), DEPTH_MAX, depth_true, depth),
        (T_lidar, lidar_rays(), LIDAR_MAX, lidar_true, lidar),
    )
    for n in range(POSES):
        for T, rays, reach, true, noisy in sensors:
            t = cast(scene, T[n, :3, 3], rays @ T[n, :3, :3].T, reach)
            seen = np.isfinite(t)
            t = np.where(seen, t, np.float32(0))
            sigma = 0.005 + 0.0002 * t**2 if true is depth_true else np.full_like(t, 0.015)
            measured = t + sigma * rng.standard_normal(len(t)).astype(np.float32)
            true[n] = t.reshape(true.shape[1:])
            kept = seen & (measured > NEAREST) & (measured < reach)
            noisy[n] = np.where(kept, measured, 0).reshape(noisy.shape[1:])
    return {
        "T_world_cam": T_camera, "T_world_lidar": T_lidar, "depth": depth, "lidar": lidar,
        "depth_true": depth_true, "lidar_true": lidar_true,
    }  # fmt: skip
