# SPDX-License-Identifier: Apache-2.0
"""Things that move: surfaces that are seen where the map had been free for a while, and where they go.

A map that is sure of its walls marks who walks by late, or never. So what one look sees is compared with the map before it: a surface
amid space that was free for some time, with free space around it, is something that moves (Schmid et al. 2023). Voxels that touch form a
cluster. Clusters are matched between looks by their nearest centroids, and a velocity is fitted to the centroids of the last looks,
with its standard deviation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, find_objects, generate_binary_structure, label

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.queries import crop
from occupancy_nn_ros.mapping.slices import band_mask
from occupancy_nn_ros.values import FloatArray, LatticeWindow, MapView, VoxelState

RANGE_M = 8.0
"""Further from the robot nothing is looked for."""

FREE_S = 0.3
"""Space must have been free for so long that what appears in it cannot be a surface that was not seen well before."""

LEAST_AREA_M2, LEAST_HEIGHT_M = 0.2, 0.35
"""A cluster of fewer voxels than would cover this, or lower, is noise: a child's legs are more."""

LARGEST_M = 2.5
"""A cluster that is longer is no thing that moves but a pose that jumped."""

FASTEST_M_S, SLACK_M = 2.5, 0.4
"""Clusters of two looks are one thing where its centroid has moved no further than this allows."""

LEAST_LOOKS, FIT_S = 3, 1.1
"""Looks that a velocity needs, and how far back they may lie."""

NEVER_MS = -(1 << 30)
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MovingCluster:
    """One thing that moves, as far as it can be told.

    Attributes:
        track: its number, the same from look to look.
        points_m: (N, 3) centres of its voxels in the map frame.
        velocity_m_s: (2,) along x and y, NaN before it was seen often enough.
        std_m_s: standard deviation of each component, NaN likewise.
    """

    track: int
    points_m: FloatArray
    velocity_m_s: FloatArray
    std_m_s: float


@dataclass(frozen=True)
class Movement:
    """What changed by one look at the map.

    Attributes:
        clusters: what is seen to move.
        vanished_m: (M, 3) centres of voxels that it left.
    """

    clusters: tuple[MovingCluster, ...]
    vanished_m: FloatArray


@dataclass
class _Track:
    number: int
    seen: deque[tuple[float, FloatArray]] = field(default_factory=lambda: deque(maxlen=16))

    def expected(self, time_s: float) -> FloatArray:
        """Where it should be, (2,)."""
        velocity, std = self.velocity(0.0)
        steady = np.isfinite(std) and std < FASTEST_M_S / 2
        last_s, last = self.seen[-1]
        return np.asarray(last + (velocity * (time_s - last_s) if steady else 0.0))

    def velocity(self, edge_m: float) -> tuple[FloatArray, float]:
        """Slope of its centroids over time and the slope's standard deviation; a centroid is off by a quarter voxel at least."""
        newest = self.seen[-1][0]
        kept = [(t, c) for t, c in self.seen if newest - t <= FIT_S]
        if len(kept) < LEAST_LOOKS:
            return np.full(2, np.nan), float("nan")
        times = np.array([t for t, _ in kept])
        places = np.array([c for _, c in kept])
        away = times - times.mean()
        spread = float((away**2).sum())
        slope = away @ places / spread
        rest = places - places.mean(axis=0) - away[:, None] * slope
        error = max(float(np.sqrt((rest**2).sum() / (2 * len(kept) - 4 or 1))), edge_m / 4)
        return slope, error / float(np.sqrt(spread))


class MovementTracker:
    """Compares successive looks at a map. Not thread-safe: who maps owns it."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._window: LatticeWindow | None = None
        self._free_ms = self._moving_ms = np.zeros((0, 0, 0), np.int32)
        self._began_ns = 0
        self._newest_ns = 0
        self._tracks: list[_Track] = []
        self._count = 0

    def look(self, view: MapView, points_m: FloatArray, grid: GridConfig, within_s: float) -> Movement:
        """Take the next look.

        Args:
            view: the map, with this look in it.
            points_m: (N, 3) what this look sees of surfaces, in the map frame.
            grid: only its height band is looked at.
            within_s: how long ago something may have been where it is no more.
        """
        near = _near(view)
        if (
            self._window is None
            or view.stamp_ns < self._newest_ns
            or near.window.voxel_size_m != self._window.voxel_size_m
        ):
            self._begin(near)
        self._newest_ns = near.stamp_ns
        self._move_to(near.window)
        now = round((near.stamp_ns - self._began_ns) * 1e-6)
        open_space = (self._free_ms > NEVER_MS) & (self._free_ms <= now - round(FREE_S * 1000))
        open_space = binary_erosion(open_space, generate_binary_structure(3, 1), border_value=1)
        moving = _voxels_of(points_m, near.window) & open_space & band_mask(near, grid)
        vanished = ~moving & (self._moving_ms >= now - round(within_s * 1000)) & (near.state == VoxelState.FREE)
        self._moving_ms[moving] = now
        free = near.state == VoxelState.FREE
        self._free_ms = np.where(free, np.where(self._free_ms > NEVER_MS, self._free_ms, now), NEVER_MS).astype(
            np.int32
        )
        clusters = self._follow(_clusters(moving, near.window), near.window, now * 1e-3)
        return Movement(clusters, _centers(np.argwhere(vanished), near.window))

    def _begin(self, view: MapView) -> None:
        self._window, self._began_ns = view.window, view.stamp_ns
        self._free_ms, self._moving_ms = (np.full(view.window.shape, NEVER_MS, np.int32) for _ in range(2))
        self._tracks = []

    def _move_to(self, window: LatticeWindow) -> None:
        """Bring what is remembered to another window; nothing is known of what enters it."""
        old = self._window
        if old is None or old == window:
            return
        low = np.maximum(old.origin, window.origin)
        high = np.maximum(np.minimum(np.add(old.origin, old.shape), np.add(window.origin, window.shape)), low)
        there = tuple(slice(int(a), int(b)) for a, b in zip(low - old.origin, high - old.origin, strict=True))
        here = tuple(slice(int(a), int(b)) for a, b in zip(low - window.origin, high - window.origin, strict=True))
        moved = []
        for times in (self._free_ms, self._moving_ms):
            fresh = np.full(window.shape, NEVER_MS, np.int32)
            fresh[here] = times[there]
            moved.append(fresh)
        (self._free_ms, self._moving_ms), self._window = moved, window

    def _follow(self, found: list[FloatArray], window: LatticeWindow, time_s: float) -> tuple[MovingCluster, ...]:
        """Match clusters, the points (N, 3) of each, with those of the looks before."""
        edge = window.voxel_size_m
        places = [points[:, :2].mean(axis=0) for points in found]
        pairs = []
        for t, track in enumerate(self._tracks):
            gate = SLACK_M + FASTEST_M_S * (time_s - track.seen[-1][0])
            expected = track.expected(time_s)
            away = [float(np.linalg.norm(place - expected)) for place in places]
            pairs += [(d, t, c) for c, d in enumerate(away) if d <= gate]
        owner: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, t, c in sorted(pairs):
            if t not in taken and c not in owner:
                taken.add(t)
                owner[c] = self._tracks[t]
        clusters = []
        for c, points in enumerate(found):
            track = owner.get(c) or self._new_track()
            track.seen.append((time_s, places[c]))
            clusters.append(MovingCluster(track.number, points, *track.velocity(edge)))
        self._tracks = [track for track in self._tracks if time_s - track.seen[-1][0] <= FIT_S]
        return tuple(clusters)

    def _new_track(self) -> _Track:
        self._count += 1
        self._tracks.append(_Track(self._count))
        return self._tracks[-1]


def _near(view: MapView) -> MapView:
    """The part of a map within range of the robot, all of its height."""
    low, high = view.window.origin_m, view.window.origin_m + np.array(view.window.shape) * view.window.voxel_size_m
    x, y = view.T_map_base[:2, 3]
    low[:2] = np.maximum(low[:2], (x - RANGE_M, y - RANGE_M))
    high[:2] = np.minimum(high[:2], (x + RANGE_M, y + RANGE_M))
    return crop(view, low, high)


def _voxels_of(points_m: FloatArray, window: LatticeWindow) -> BoolArray:
    """Voxels (X, Y, Z) that hold any of the points (N, 3)."""
    cells = window.index_of(points_m.reshape(-1, 3))
    cells = cells[((cells >= 0) & (cells < window.shape)).all(axis=1)]
    held = np.zeros(window.shape, np.bool_)
    held[tuple(cells.T)] = True
    return held


def _clusters(moving: BoolArray, window: LatticeWindow) -> list[FloatArray]:
    """Voxel centres (N, 3) of each cluster of touching voxels that has the size of a thing."""
    edge = window.voxel_size_m
    labels, _ = label(moving, structure=generate_binary_structure(3, 3))
    found = []
    for number, part in enumerate(find_objects(labels), 1):
        size = np.array([s.stop - s.start for s in part]) * edge
        if size[2] < LEAST_HEIGHT_M or max(size[0], size[1]) > LARGEST_M:
            continue
        cells = np.argwhere(labels[part] == number)
        if len(cells) * edge**2 >= LEAST_AREA_M2:
            found.append(_centers(cells + [s.start for s in part], window))
    return found


def _centers(cells: npt.NDArray[np.int64], window: LatticeWindow) -> FloatArray:
    """Centres (N, 3) in the map frame of voxels at window indices (N, 3)."""
    return np.asarray((cells + window.origin + 0.5) * window.voxel_size_m, dtype=np.float64).reshape(-1, 3)
