# SPDX-License-Identifier: Apache-2.0
"""What a recording's range sensors tell of the space around a keyframe: free, occupied or unknown.

A recording is cut into short slices of time. In each, the map engine carves rays and marks hits as it does live; then
every voxel that the slice knows gets one vote. A voxel is known where the votes of all slices lean clearly to one side:
space hidden now is known if it was seen at another time, and what only passed through is outvoted. What the scans at
the keyframe's own moment see differently is a thing that moves: there the moment decides, and around it only what the
moment sees is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation, uniform_filter

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.mapping.map_memory import check_memory
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth, pixel_tangents
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth, Prediction, VoxelState

Scan = PosedDepth | PosedCloud
States = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

REACH_M, BELOW_M, ABOVE_M = 8.0, 1.6, 2.4
"""How far around the base labels are made: horizontally, below and above."""

SLICE_NS = 500_000_000
LEAST_VOTES, MOST_VOTES = 3, 20
"""Votes by which one side must lead, and how far it can get ahead. One who walks by is in a voxel for two slices at most."""

TOUCHED = 2
"""State of a voxel at a moment: hit, but not in its core."""

REMEMBER_MIB = 2048
"""Memory for the votes of places out of reach; about 50 million known voxels."""

AS_IF_CLASSES = 24
"""Both windows and the work on them take as much memory as one map with this many classes."""

THING_VOXELS = 4
"""So many voxels of 27 must differ from the votes for a thing that moves; fewer are noise."""

MOVER_REACH_M = 0.5
"""Around what moves, its hidden part may reach this far."""

WELL_INSIDE = 0.375
"""Hits at most this share of the edge from a cube's centre, on each axis, lie in its core. Matter that only touches a cube
does not count, as in simulated worlds: a voxel is occupied if its core was hit, and not known if only the rest was."""

MOST_RAYS = 60_000
"""Rays of one scan that are looked at one by one."""


class SpaceVotes:
    """Votes of a recording's time slices for free or occupied, in memory bounded by the places visited."""

    def __init__(self, voxel_size_m: float, config: MapConfig) -> None:
        """Allocate windows as large as labels reach.

        Raises:
            ConfigError: they do not fit into the free memory.
        """
        forever = replace(config, below_m=BELOW_M, above_m=ABOVE_M, forget_model="off", forget_beyond_m=0.0)
        margin = 1.0 / (1.0 + math.exp(-(LEAST_VOTES - 0.5)))
        voting = replace(
            forever, log_odds_min=-float(MOST_VOTES), log_odds_max=float(MOST_VOTES), clear_in_view_s=1e6,
            occupied_probability=margin, free_probability=1 - margin, remember_mib=REMEMBER_MIB,
        )  # fmt: skip
        side = 2 * math.ceil(REACH_M / voxel_size_m)
        shape = (side, side, round((BELOW_M + ABOVE_M) / voxel_size_m))
        check_memory(shape, AS_IF_CLASSES, torch.device("cpu"))
        self._look = _Look(RollingMap(voxel_size_m, shape, replace(forever, remember_mib=0), num_classes=0))
        self._votes = RollingMap(voxel_size_m, shape, voting, num_classes=0)
        self._slice_ns: int | None = None

    def add(self, scan: Scan, T_map_base: FloatArray) -> None:
        """Take one scan; scans come about in order of time.

        Raises:
            TrainingError: the recording covers more space than fits into ``REMEMBER_MIB``.
        """
        if self._slice_ns is None or abs(scan.stamp_ns - self._slice_ns) >= SLICE_NS:
            self.finish_slice()
            self._slice_ns = scan.stamp_ns
            self._look.begin(T_map_base)
            self._votes.move_to(T_map_base)
            self._check_store()
        self._look.add(scan)

    def finish_slice(self) -> None:
        """Count the votes of the scans since the last slice."""
        if self._slice_ns is None:
            return
        state = self._look.state()
        state[state == TOUCHED] = VoxelState.UNKNOWN
        vote = torch.from_numpy(np.where(state == VoxelState.FREE, -1.0, 1.0).astype(np.float32))
        known = torch.from_numpy((state != VoxelState.UNKNOWN).astype(np.float32))
        self._votes.integrate(Prediction(self._look.grid.window, vote, known), self._slice_ns)
        self._slice_ns = None

    def settle(self, scans: Sequence[Scan], T_map_base: FloatArray) -> RollingMap:
        """What is known around a base at the moment of some scans: a map, valid until the next call."""
        self.finish_slice()
        self._votes.move_to(T_map_base)
        self._look.begin(T_map_base)
        for scan in scans:
            self._look.add(scan)
        grid = self._look.grid
        return self._fill(reconcile(states_of(self._votes), self._look.state(), grid.window.voxel_size_m))

    def settle_without(self, doubts: Sequence[Scan], T_map_base: FloatArray) -> RollingMap:
        """What the votes tell around a base, less the surroundings of what some scans saw that the votes deny.

        For scans too coarse to overrule votes, but good enough to tell that something is there: a map, valid until the next call.
        """
        self.finish_slice()
        self._votes.move_to(T_map_base)
        self._look.begin(T_map_base)
        state, window = states_of(self._votes), self._look.grid.window
        cells = window.index_of(rays_of(doubts, np.random.default_rng(0)).ends)
        hit = np.zeros(window.shape, bool)
        hit[tuple(cells[((cells >= 0) & (cells < window.shape)).all(axis=1)].T)] = True
        moved = _things(hit, hit)
        if moved.any():
            state[_around(moved, window.voxel_size_m)] = VoxelState.UNKNOWN
        return self._fill(state)

    def _fill(self, state: States) -> RollingMap:
        """The states as a map."""
        grid = self._look.grid
        log_odds = torch.from_numpy(np.where(state == VoxelState.OCCUPIED, 4.0, -4.0).astype(np.float32))
        known, none = torch.from_numpy(state != VoxelState.UNKNOWN), torch.zeros((*state.shape, 0), dtype=torch.int16)
        grid.replace_content(grid.window.origin, log_odds, known, none)
        return grid

    def _check_store(self) -> None:
        store = self._votes.store
        if store is not None and store.dropped:
            raise TrainingError(
                f"the recording covers more space than {REMEMBER_MIB} MiB hold; label parts of it, or with larger voxels"
            )


class _Look:
    """What the scans of a short time see."""

    def __init__(self, grid: RollingMap) -> None:
        self.grid = grid
        self._hit_core = np.zeros(grid.window.shape, bool)
        self._rng = np.random.default_rng(0)

    def begin(self, T_map_base: FloatArray) -> None:
        self.grid.clear()
        self.grid.move_to(T_map_base)
        self._hit_core[:] = False

    def add(self, scan: Scan) -> None:
        if isinstance(scan, PosedDepth):
            integrate_depth(self.grid, scan)
        else:
            integrate_cloud(self.grid, scan)
        window = self.grid.window
        places = rays_of([scan], self._rng).ends / window.voxel_size_m - window.origin
        cells = np.floor(places).astype(np.int64)
        core = (np.abs(places - cells - 0.5) <= WELL_INSIDE).all(axis=1)
        inside = core & ((cells >= 0) & (cells < window.shape)).all(axis=1)
        self._hit_core[tuple(cells[inside].T)] = True

    def state(self) -> States:
        state = states_of(self.grid)
        state[(state == VoxelState.OCCUPIED) & ~self._hit_core] = TOUCHED
        return state


@dataclass(frozen=True)
class Rays:
    """Measured rays in the map frame: origins and ends (N, 3) float64."""

    origins: FloatArray
    ends: FloatArray


def rays_of(scans: Sequence[Scan], rng: np.random.Generator) -> Rays:
    """The rays of some scans; of each at most ``MOST_RAYS``, drawn at random."""
    origins, ends = [np.empty((0, 3))], [np.empty((0, 3))]
    for scan in scans:
        pose = scan.T_map_cam if isinstance(scan, PosedDepth) else scan.T_map_sensor
        local = _depth_points(scan, rng) if isinstance(scan, PosedDepth) else scan.points_m.astype(np.float64)
        if len(local) > MOST_RAYS:
            local = local[rng.choice(len(local), MOST_RAYS, replace=False)]
        ends.append(local @ pose[:3, :3].T + pose[:3, 3])
        origins.append(np.broadcast_to(pose[:3, 3], local.shape))
    return Rays(np.concatenate(origins), np.concatenate(ends))


def _depth_points(depth: PosedDepth, rng: np.random.Generator) -> FloatArray:
    """Measured pixels, or a part of them, as points (N, 3) of the camera's frame."""
    z = depth.depth_m.reshape(-1).astype(np.float64)
    tangents = pixel_tangents(depth.model).astype(np.float64)
    usable = np.flatnonzero((z > 0) & np.isfinite(z) & np.isfinite(tangents).all(axis=1))
    if len(usable) > MOST_RAYS:
        usable = rng.choice(usable, MOST_RAYS, replace=False)
    return np.concatenate([tangents[usable] * z[usable, None], z[usable, None]], axis=1)


def states_of(grid: RollingMap) -> States:
    """States (X, Y, Z) of a map's window."""
    return grid.view(0, "", np.eye(4)).state


def reconcile(votes: States, moment: States, voxel_size_m: float) -> States:
    """States by the votes, overruled where the moment shows that a thing came or went; all (X, Y, Z).

    ``TOUCHED`` voxels of the moment are not known, but tell of a thing as well as hit ones if some of those are near.
    """
    hit = (moment == VoxelState.OCCUPIED) & (votes == VoxelState.FREE)
    touched = (moment == TOUCHED) & (votes == VoxelState.FREE)
    went = (moment == VoxelState.FREE) & (votes == VoxelState.OCCUPIED)
    moved = _things(hit | touched, hit) | _things(went, went)
    moment = np.where(moment == TOUCHED, VoxelState.UNKNOWN, moment)
    state = np.where(votes == VoxelState.UNKNOWN, moment, votes)
    if moved.any():
        state = np.where(_around(moved, voxel_size_m), moment, state)
    return np.asarray(state, dtype=np.int8)


def _around(moved: Mask, voxel_size_m: float) -> Mask:
    """Voxels in which the hidden part of what moves may be."""
    reach = max(1, round(MOVER_REACH_M / voxel_size_m))
    return np.asarray(binary_dilation(moved, np.ones((3, 3, 3), bool), reach))


def _things(differs: Mask, surely: Mask) -> Mask:
    """Voxels that differ with enough others around, at least one of them surely."""
    if not surely.any():
        return surely
    near, sure = (uniform_filter(mask.astype(np.float32), 3, mode="constant") * 27 for mask in (differs, surely))
    return np.asarray(differs & (near > THING_VOXELS - 0.5) & (sure > 0.5))
