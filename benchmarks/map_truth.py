# SPDX-License-Identifier: Apache-2.0
"""True labels of the workload's voxels, from its solids and the noise-free rays, and how a map is judged by them.

Near surfaces (the voxel, grown by one on each side, touches a solid), a voxel is occupied if a solid overlaps it and a
ray ends in it, free if a ray crosses it and no solid overlaps it; others are not judged. Further away, a voxel that a
ray crosses is free.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import map_scene as scene
import numpy as np
import numpy.typing as npt

LOW, HIGH = np.array([-40.0, -32.0, -1.0]), np.array([40.0, 32.0, 9.0])
FREE_SAMPLES = 400_000

Cells = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def load_truth(
    folder: Path, sensor: str, edge: float, report: Callable[[str], None]
) -> dict[str, npt.NDArray[np.generic]]:
    """Judged voxels: ``band_idx`` (N, 3) and ``band_occ`` (N,) near surfaces, ``free_idx`` (M, 3) elsewhere."""
    path = folder / f"gt_{sensor}_{edge}.npz"
    if not path.exists():
        report(f"finding the true labels for {sensor} at {edge} m")
        np.savez(path, **_label(scene.load_workload(folder, report), sensor, edge))  # type: ignore[arg-type]
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def judge(
    classify: Callable[[Cells], npt.NDArray[np.int8]], truth: dict[str, npt.NDArray[np.generic]]
) -> dict[str, float]:
    """Occupied IoU near surfaces and share of free voxels called free.

    Args:
        classify: state (N,) of voxels (N, 3): 1 occupied, 0 free, -1 unknown, -2 outside a map that cannot hold them.
        truth: from :func:`load_truth`.
    """
    occupied, said = truth["band_occ"].astype(bool), classify(truth["band_idx"].astype(np.int32))
    inside = said != -2
    occupied, hit = occupied[inside], said[inside] == 1
    both, wrong, missed = int((hit & occupied).sum()), int((hit & ~occupied).sum()), int((~hit & occupied).sum())
    free = classify(truth["free_idx"].astype(np.int32))
    free = free[free != -2]
    return {"iou": both / max(both + wrong + missed, 1), "free_right": float((free == 0).mean())}


def _label(data: dict[str, npt.NDArray[np.generic]], sensor: str, edge: float) -> dict[str, npt.NDArray[np.generic]]:
    shape = tuple(int(n) for n in np.round((HIGH - LOW) / edge))
    solid, band = (solid_voxels(edge, shape, grow) for grow in (0.0, edge))
    crossed, ends = _observe(data, sensor, edge, shape)
    occupied, free = solid & ends, crossed & ~solid
    near, away = np.argwhere(band & (occupied | free)), np.argwhere(free & ~band)
    if len(away) > FREE_SAMPLES:
        away = away[np.random.default_rng(0).choice(len(away), FREE_SAMPLES, replace=False)]
    offset = np.round(LOW / edge).astype(int)
    labels = occupied[tuple(near.T)]
    return {
        "band_idx": (near + offset).astype(np.int32), "band_occ": labels, "free_idx": (away + offset).astype(np.int32),
    }  # fmt: skip


def solid_voxels(edge: float, shape: tuple[int, ...], grow: float) -> Bools:
    """Which voxels, grown by ``grow``, overlap a solid."""
    grid = np.zeros(shape, bool)
    faces = [LOW[a] + edge * np.arange(shape[a]) for a in range(3)]
    lows, highs = [f - grow for f in faces], [f + edge + grow for f in faces]

    def span(axis: int, low: float, high: float) -> slice:
        return slice(int(np.searchsorted(highs[axis], low, "right")), int(np.searchsorted(lows[axis], high, "left")))

    solids = scene.build_scene()
    grid[:, :, span(2, -1e9, scene.GROUND_Z)] = True
    for box in solids.boxes:
        grid[span(0, box[0], box[3]), span(1, box[1], box[4]), span(2, box[2], box[5])] = True
    for x, y, radius, z0, z1 in solids.cylinders:
        sx, sy = span(0, x - radius, x + radius), span(1, y - radius, y + radius)
        dx = np.maximum(np.maximum(lows[0][sx] - x, x - highs[0][sx]), 0)
        dy = np.maximum(np.maximum(lows[1][sy] - y, y - highs[1][sy]), 0)
        disc = dx[:, None] ** 2 + dy[None, :] ** 2 <= radius * radius
        grid[sx, sy, span(2, z0, z1)] |= disc[:, :, None]
    return grid


def _observe(
    data: dict[str, npt.NDArray[np.generic]], sensor: str, edge: float, shape: tuple[int, ...]
) -> tuple[Bools, Bools]:
    """Which voxels a noise-free ray crosses, and in which one ends."""
    crossed, ends = np.zeros(shape, bool), np.zeros(shape, bool)
    if sensor == "depth":
        rays, poses = scene.depth_rays(), data["T_world_cam"].astype(np.float64)
        every_other = np.zeros((scene.DEPTH_HEIGHT, scene.DEPTH_WIDTH), bool)
        every_other[::2, ::2] = True  # dense enough to mark crossed voxels
        use = every_other.reshape(-1)
    else:
        rays, poses = scene.lidar_rays(), data["T_world_lidar"].astype(np.float64)
        use = np.ones(len(rays), bool)
    for T, image in zip(poses, data[f"{sensor}_true"].astype(np.float32), strict=True):
        distance = image.reshape(-1)
        _mark(ends, scene.points_of(T, rays, distance).astype(np.float64), edge)
        seen = use & (distance > 0)
        _mark_way(crossed, T, (rays[seen] @ T[:3, :3].T).astype(np.float32), distance[seen], edge)
    return crossed, ends


def _mark_way(
    crossed: Bools,
    T: npt.NDArray[np.float64],
    ways: npt.NDArray[np.float32],
    distance: npt.NDArray[np.float32],
    edge: float,
) -> None:
    origin = T[:3, 3].astype(np.float32)
    step = 0.5 * edge / np.linalg.norm(ways, axis=1)
    count = np.floor((distance - 1e-3) / step).astype(int)
    order = np.argsort(-count)
    ways, step, count = ways[order], step[order], count[order]
    for k in range(1, int(count[0]) + 1):
        m = int(np.searchsorted(-count, -k, "right"))
        _mark(crossed, origin + ways[:m] * (k * step[:m, None]).astype(np.float32), edge)


def _mark(grid: Bools, points: npt.NDArray[np.floating], edge: float) -> None:
    cells = np.floor((points - LOW.astype(points.dtype)) / points.dtype.type(edge)).astype(np.int32)
    inside = cells[np.all((cells >= 0) & (cells < grid.shape), axis=1)]
    grid[tuple(inside.T)] = True
