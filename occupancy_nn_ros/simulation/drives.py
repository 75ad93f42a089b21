# SPDX-License-Identifier: Apache-2.0
"""Paths through the free space of a world: smooth, collision-free, driven or hand-held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import FloatArray, LatticeWindow

CELL_M = 0.2
CLEARANCE_M = 0.45


@dataclass(frozen=True)
class Drive:
    """Poses over time.

    Attributes:
        stamps_s: (F,) seconds from the start.
        T_map_base: (F, 4, 4).
    """

    stamps_s: FloatArray
    T_map_base: FloatArray

    def pose(self, time_s: float) -> FloatArray:
        """Pose at any time, held outside the recorded span; shape (4, 4)."""
        upper = int(np.clip(np.searchsorted(self.stamps_s, time_s), 1, len(self.stamps_s) - 1))
        span = self.stamps_s[upper] - self.stamps_s[upper - 1]
        fraction = float(np.clip((time_s - self.stamps_s[upper - 1]) / span, 0, 1))
        before, after = self.T_map_base[upper - 1], self.T_map_base[upper]
        pose = np.eye(4)
        pose[:3, 3] = (1 - fraction) * before[:3, 3] + fraction * after[:3, 3]
        turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
        pose[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(fraction * turn).as_matrix()
        return pose


def plan_drive(world: World, seed: int, duration_s: float, rate_hz: float, *, handheld: bool = False) -> Drive:
    """A random drive through free space.

    Args:
        world: where to drive.
        seed: the same seed gives the same drive.
        duration_s: length.
        rate_hz: poses per second.
        handheld: six degrees of freedom at 0.7 to 1.4 m height, looking up to a right angle away from where it goes,
            instead of a wheeled base on the floor.

    Raises:
        SimulationError: the world has no free floor to drive on.
    """
    rng = np.random.default_rng([seed, 5])
    stamps = np.arange(0.0, duration_s, 1.0 / rate_hz)
    speed = float(rng.uniform(0.4, 1.2)) * (0.5 if handheld else 1.0)
    path = _free_path(world, rng, speed * duration_s + 1.0)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    spline = CubicSpline(travelled, path)
    along = np.minimum(speed * stamps, travelled[-1])
    xy, tangent = spline(along), spline(along, 1)
    heading = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    if len(heading) > 5:
        heading = np.convolve(np.pad(heading, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    poses = np.tile(np.eye(4), (len(stamps), 1, 1))
    poses[:, :2, 3] = xy
    if handheld:
        sway = _wobble(rng, stamps)
        poses[:, 2, 3] = rng.uniform(0.7, 1.4) + 0.12 * sway[:, 0]
        gaze = heading + rng.uniform(-np.pi / 2, np.pi / 2) + 0.6 * sway[:, 1]
        angles = np.stack([gaze, 0.15 + 0.2 * sway[:, 2], 0.12 * sway[:, 3]], axis=1)
        poses[:, :3, :3] = Rotation.from_euler("ZYX", angles).as_matrix()
    else:
        poses[:, :3, :3] = Rotation.from_euler("z", heading[:, None]).as_matrix().reshape(-1, 3, 3)
    return Drive(stamps, poses)


def _wobble(rng: np.random.Generator, stamps: FloatArray) -> FloatArray:
    """Four smooth random signals of about unit range, (F, 4)."""
    total = np.zeros((len(stamps), 4))
    for frequency in (0.11, 0.23, 0.47):
        total += np.sin(2 * np.pi * frequency * stamps[:, None] + rng.uniform(0, 2 * np.pi, 4)) * rng.uniform(
            0.2, 0.6, 4
        )
    return total


def _free_path(world: World, rng: np.random.Generator, length_m: float) -> FloatArray:
    """Waypoints (N, 2) through cells with clearance, along shortest paths between random goals."""
    x0, y0, x1, y1 = world.bounds
    low = (int(np.floor(x0 / CELL_M)), int(np.floor(y0 / CELL_M)), 0)
    shape = (int((x1 - x0) / CELL_M) + 1, int((y1 - y0) / CELL_M) + 1, 7)
    occupied = world.occupancy(LatticeWindow(CELL_M, low, shape)).any(axis=2)
    clearance = distance_transform_edt(np.pad(~occupied, 1))[1:-1, 1:-1] * CELL_M
    free = clearance > CLEARANCE_M
    if free.sum() < 20:
        raise SimulationError(f"world {world.name} {world.seed} has {int(free.sum())} free cells, expected at least 20")
    cells = np.argwhere(free)
    graph = _grid_graph(free, clearance)
    current = int(rng.integers(len(cells)))
    walked = [cells[current]]
    total = 0.0
    for _ in range(60):
        distances, predecessors = dijkstra(graph, indices=[current], return_predecessors=True)
        distance, previous = distances[0], predecessors[0]
        reachable = np.flatnonzero(np.isfinite(distance) & (distance > 2.0))
        if not len(reachable):
            current = int(rng.integers(len(cells)))
            if total == 0.0:
                walked = [cells[current]]
            continue
        goal = int(rng.choice(reachable))
        hops = [goal]
        while hops[-1] != current:
            hops.append(int(previous[hops[-1]]))
        leg = cells[hops[::-1]][1:]
        walked += list(leg)
        total += len(leg) * CELL_M
        current = goal
        if total > length_m:
            break
    if total < 1.0:
        raise SimulationError(f"world {world.name} {world.seed} has no connected free floor to drive on")
    points = (np.array(walked) + np.array(low[:2]) + 0.5) * CELL_M
    kernel = np.ones(5) / 5
    smooth = np.stack([np.convolve(np.pad(points[:, a], 2, mode="edge"), kernel, mode="valid") for a in (0, 1)], axis=1)
    thin = smooth[::2]
    moving = np.concatenate([[True], np.linalg.norm(np.diff(thin, axis=0), axis=1) > 1e-3])
    return np.asarray(thin[moving])


def _grid_graph(free: np.ndarray, clearance: np.ndarray) -> csr_matrix:
    """Eight-connected graph over the free cells whose edges cost more near obstacles."""
    index = np.full(free.shape, -1)
    index[free] = np.arange(int(free.sum()))
    rows, columns, costs = [], [], []
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
        a = index[: free.shape[0] - dx, max(0, -dy) : free.shape[1] - max(0, dy)]
        b = index[dx:, max(0, dy) : free.shape[1] - max(0, -dy)]
        near = clearance[dx:, max(0, dy) : free.shape[1] - max(0, -dy)]
        both = (a >= 0) & (b >= 0)
        rows.append(a[both])
        columns.append(b[both])
        costs.append(np.hypot(dx, dy) * CELL_M * (1 + 0.5 / near[both]))
    row, column, cost = np.concatenate(rows), np.concatenate(columns), np.concatenate(costs)
    size = int(free.sum())
    graph = coo_matrix((np.r_[cost, cost], (np.r_[row, column], np.r_[column, row])), shape=(size, size))
    return graph.tocsr()
