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
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation, uniform_filter

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.types import FloatArray, PosedCloud, PosedDepth, Prediction, VoxelState

Scan = PosedDepth | PosedCloud
States = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

REACH_M, BELOW_M, ABOVE_M = 8.0, 1.6, 2.4
"""How far around the base labels are made: horizontally, below and above."""

SLICE_NS = 500_000_000
LEAST_VOTES, MOST_VOTES = 2, 20
"""Votes by which one side must lead, and how far it can get ahead."""

REMEMBER_MIB = 2048
"""Memory for the votes of places out of reach; about 50 million known voxels."""

THING_VOXELS = 4
"""So many voxels of 27 must differ from the votes for a thing that moves; fewer are noise."""

MOVER_REACH_M = 0.5
"""Around what moves, its hidden part may reach this far."""

FREE_VOTE, OCCUPIED_VOTE = -1.0, 1.0


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
        self._moment = RollingMap(voxel_size_m, shape, replace(forever, remember_mib=0), num_classes=0)
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
            self._moment.clear()
            self._moment.move_to(T_map_base)
            self._votes.move_to(T_map_base)
        self._check_store()
        integrate(self._moment, scan)

    def finish_slice(self) -> None:
        """Count the votes of the scans since the last slice."""
        if self._slice_ns is None:
            return
        state = states_of(self._moment)
        vote = torch.from_numpy(np.where(state == VoxelState.FREE, FREE_VOTE, OCCUPIED_VOTE).astype(np.float32))
        known = torch.from_numpy((state != VoxelState.UNKNOWN).astype(np.float32))
        self._votes.integrate(Prediction(self._moment.window, vote, known), self._slice_ns)
        self._slice_ns = None

    def settle(self, scans: list[Scan], T_map_base: FloatArray) -> RollingMap:
        """What is known around a base at the moment of some scans: a map, valid until the next call."""
        self.finish_slice()
        for grid in (self._votes, self._moment):
            grid.move_to(T_map_base)
        self._moment.clear()
        for scan in scans:
            integrate(self._moment, scan)
        state = reconcile(states_of(self._votes), states_of(self._moment), self._moment.window.voxel_size_m)
        log_odds = torch.from_numpy(np.where(state == VoxelState.OCCUPIED, 4.0, -4.0).astype(np.float32))
        known, none = torch.from_numpy(state != VoxelState.UNKNOWN), torch.zeros((*state.shape, 0), dtype=torch.int16)
        self._moment.replace_content(self._moment.window.origin, log_odds, known, none)
        return self._moment

    def _check_store(self) -> None:
        store = self._votes.store
        if store is not None and store.dropped:
            raise TrainingError(
                f"the recording covers more space than {REMEMBER_MIB} MiB hold; label parts of it, or with larger voxels"
            )


def integrate(grid: RollingMap, scan: Scan) -> None:
    """Carve and mark one scan."""
    if isinstance(scan, PosedDepth):
        integrate_depth(grid, scan)
    else:
        integrate_cloud(grid, scan)


def states_of(grid: RollingMap) -> States:
    """States (X, Y, Z) of a map's window."""
    return grid.view(0, "", np.eye(4)).state


def reconcile(votes: States, moment: States, voxel_size_m: float) -> States:
    """States by the votes, overruled where the moment shows that a thing came or went; all (X, Y, Z)."""
    came = _things((moment == VoxelState.OCCUPIED) & (votes == VoxelState.FREE))
    went = _things((moment == VoxelState.FREE) & (votes == VoxelState.OCCUPIED))
    state = np.where(votes == VoxelState.UNKNOWN, moment, votes)
    moved = came | went
    if moved.any():
        around = binary_dilation(moved, np.ones((3, 3, 3), bool), max(1, round(MOVER_REACH_M / voxel_size_m)))
        state = np.where(around, moment, state)
    return np.asarray(state, dtype=np.int8)


def _things(differs: Mask) -> Mask:
    """Voxels with enough others like them around."""
    if not differs.any():
        return differs
    near = uniform_filter(differs.astype(np.float32), 3, mode="constant") * 27
    return np.asarray(differs & (near > THING_VOXELS - 0.5))
