# SPDX-License-Identifier: Apache-2.0
"""Scores a map made from a real recording's cameras against its own depth camera.

A voxel is occupied where at least ``LEAST_POINTS`` depth points lie in it, and free where none does and at least ``LEAST_LOOKS`` frames
look through it; all others are not judged. What the map does not know counts as not occupied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.bags.player import PlayProgress, plan_play, play_bag
from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError, CalibrationError, MessageError
from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.geometry.depth_lookup import look_up_depth
from occupancy_nn_ros.intake import Intake
from occupancy_nn_ros.session import decode_depth_frame
from occupancy_nn_ros.training.metrics import Counts, count
from occupancy_nn_ros.types import FloatArray, LatticeWindow, PosedDepth, VoxelState

LEAST_POINTS, LEAST_LOOKS = 3, 2
REACH_M = 4.0
"""Depth beyond this is not used as truth."""


@dataclass(frozen=True)
class DepthTruth:
    """What a depth camera says of a window's voxels: points in each, and frames that look through each, (X, Y, Z)."""

    points: npt.NDArray[np.int64]
    looks: npt.NDArray[np.int64]

    @property
    def occupied(self) -> npt.NDArray[np.bool_]:
        """Voxels with enough points."""
        return np.asarray(self.points >= LEAST_POINTS)

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """Voxels that are surely occupied or surely free."""
        return np.asarray(self.occupied | ((self.points == 0) & (self.looks >= LEAST_LOOKS)))


def protocol(config: Config) -> str:
    """What was judged, in one line."""
    return (
        f"{config.voxel_size_m:g} m voxels; occupied: {LEAST_POINTS} or more depth points within {REACH_M:g} m; free: no point and "
        f"{LEAST_LOOKS} or more frames look through; others not judged; what the map does not know counts as not occupied"
    )


def evaluate_bag(bag: Path, config: Config, report: Callable[[PlayProgress], None] | None = None) -> Counts:
    """Map a bag as configured and compare the final map with the bag's depth images.

    Raises:
        BagError: the bag cannot be mapped, or has no depth images.
    """
    with BagReader(bag) as reader:
        view = play_bag(reader, plan_play(reader, config), report=report).view
    if view is None:
        raise BagError(f"no keyframe could be made of {bag}")
    truth = depth_truth(bag, config, view.window)
    return count(view.state == VoxelState.OCCUPIED, truth.occupied, truth.judged)


def depth_truth(bag: Path, config: Config, window: LatticeWindow) -> DepthTruth:
    """Gather all depth images of a bag in a window.

    Raises:
        BagError: the bag has no depth images that can be placed.
    """
    points, looks = np.zeros(window.shape, np.int64), np.zeros(window.shape, np.int64)
    centers = window.centers_m().reshape(-1, 3).astype(np.float64)
    frames = 0
    for depth in depth_frames(bag, config):
        frames += 1
        cells = window.index_of(_points(depth))
        inside = ((cells >= 0) & (cells < window.shape)).all(axis=1)
        np.add.at(points, tuple(cells[inside].T), 1)
        looks += _looked_through(depth, centers, window.voxel_size_m).reshape(window.shape)
    if frames == 0:
        raise BagError(f"{bag} has no depth image that can be placed in the map")
    return DepthTruth(points, looks)


def depth_frames(bag: Path, config: Config) -> Iterator[PosedDepth]:
    """All depth images of a bag with their poses; those that cannot be decoded or placed are left out."""
    every = replace(config.keyframes, min_period_s=0.0, max_period_s=0.0)
    with BagReader(bag) as reader:
        plan = plan_play(reader, replace(config, source="depth", cameras={}, keyframes=every))
        intake = Intake(plan.config, plan.sensors)
        topics = {topic for topic in intake.topics if topic in reader.topics}
        ready = [raw for message in reader.messages(topics) for raw in intake.receive(message.topic, message.cdr)]
    for raw in [*ready, *intake.flush()]:
        for frame in raw.frames:
            try:
                yield decode_depth_frame(frame)
            except (MessageError, CalibrationError):
                continue


def _points(depth: PosedDepth) -> FloatArray:
    v, u = np.nonzero((depth.depth_m > 0) & (depth.depth_m < REACH_M))
    z = depth.depth_m[v, u].astype(np.float64)[:, None]
    local = np.concatenate([unproject(depth.model, np.stack([u, v], axis=1)) * z, z], axis=1)
    local = local[np.isfinite(local).all(axis=1)]
    return np.asarray(local @ depth.T_map_cam[:3, :3].T + depth.T_map_cam[:3, 3])


def _looked_through(depth: PosedDepth, centers: FloatArray, edge_m: float) -> npt.NDArray[np.bool_]:
    """Voxels that lie at least a voxel before the surface which the image shows behind them."""
    found = look_up_depth(depth, centers, nearest_m=0.1)
    z = found.local_m[:, 2]
    seen = np.zeros(len(centers), bool)
    seen[found.index] = (z < REACH_M) & (found.measured_m > z + edge_m)
    return seen
