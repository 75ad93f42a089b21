# SPDX-License-Identifier: Apache-2.0
"""How well a map tells where the ground ends: edges missed and made up near the robot, in worlds on two levels.

Truth is the exact height of the ground. An edge is a cell whose ground lies further below that of a cell beside it, on which the robot
could stand, than it may drive down. What lies beyond the first edge is not judged. A cell is judged once a camera has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, grey_dilation

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.evaluation.changes import Watched
from occupancy_nn_ros.evaluation.metrics import Counts, Mask, around_cell, count
from occupancy_nn_ros.evaluation.truth import RATE_HZ, TrueKeyframe, rendered, seen_voxels
from occupancy_nn_ros.mapping.slices import LETHAL, occupancy_slice
from occupancy_nn_ros.mapping.terrain import drop_offs
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.simulation.terrains import Terrain
from occupancy_nn_ros.values import FloatArray, LatticeWindow, MapView

RANGE_M = 3.0
NEAR_M = 0.5
EVERY = 3
"""The map is judged after every so many keyframes."""

AROUND_M = 0.35
"""A cell has been seen once a voxel within this of the robot's ground has."""


@dataclass
class EdgeScore:
    """Cells within ``RANGE_M``: as they are, and with a tolerance of one cell.

    Attributes:
        voxel_size_m: edge of the cells.
        exact: lethal cells against edges.
        tolerant: the same, where an edge is found if the map marks it or a cell around it, and a marked cell is made up if neither it nor
            a cell around it is an edge.
        near: edges, found if anything within ``NEAR_M`` is lethal.
    """

    voxel_size_m: float
    exact: Counts = field(default_factory=Counts)
    tolerant: Counts = field(default_factory=Counts)
    near: Counts = field(default_factory=Counts)

    def add(self, lethal: Mask, steps: Mask, edge: Mask, judged: Mask) -> None:
        """Add the cells (X, Y) of one map.

        Args:
            lethal: what the grid marks: an edge behind a railing is found with it.
            steps: what is marked as an edge.
            edge: what is one.
            judged: what counts.
        """
        self.exact += count(np.where(edge, lethal, steps), edge, judged)
        nearby = np.where(edge, around_cell(lethal), steps & ~around_cell(edge))
        self.tolerant += count(nearby, edge, judged)
        away_m = distance_transform_edt(~lethal) if lethal.any() else np.full(lethal.shape, np.inf)
        self.near += count(away_m * self.voxel_size_m <= NEAR_M, edge, judged & edge)

    def figures(self) -> dict[str, float]:
        """Shares of edges missed and of level cells marked; NaN where there are none."""
        result = {"edges": float(self.exact.tp + self.exact.fn)}
        for name, counts in (("", self.exact), ("_tolerant", self.tolerant)):
            edges, level = counts.tp + counts.fn, counts.fp + counts.tn
            result[f"missed_edges{name}"] = counts.fn / edges if edges else float("nan")
            result[f"phantom_edges{name}"] = counts.fp / level if level else float("nan")
        edges = self.near.tp + self.near.fn
        result["missed_edges_near"] = self.near.fn / edges if edges else float("nan")
        return result


def watch_edges(terrain: Terrain, rig: Rig, config: Config, watched: Sequence[tuple[Watched, bool, EdgeScore]]) -> None:
    """Drive towards the edge and judge each map.

    Args:
        terrain: where to drive.
        rig: the robot's cameras.
        config: of the maps; ``grid.max_step_down_m`` is the drop that counts.
        watched: empty maps, whether each takes depth images rather than pictures, and where its scores go.
    """
    seen = SeenColumns(terrain, config.voxel_size_m)
    with WorldRenderer(terrain.world) as renderer:
        for index, frame in enumerate(rendered(renderer, rig, terrain.drive(RATE_HZ))):
            for grid, from_depth, _ in watched:
                grid.step(frame.depths if from_depth else frame.images)
            view = watched[0][0].view("odom")
            if view is None:
                continue
            seen.add(view, frame)
            if index % EVERY == EVERY - 1:
                edge, judged = true_edges(terrain, view, config.grid.max_step_down_m)
                judged &= seen.mask(view.window)
                for grid, _, score in watched:
                    shown = grid.view("odom")
                    if shown is not None:
                        lethal = occupancy_slice(shown, config.grid).values == LETHAL
                        score.add(lethal, drop_offs(shown, config.grid.max_step_down_m), edge, judged)


def true_edges(terrain: Terrain, view: MapView, max_step_down_m: float) -> tuple[Mask, Mask]:
    """Which cells (X, Y) of a map are edges, and which are to be judged: within range, and not beyond the edge."""
    window = view.window
    x, y = ((np.arange(window.shape[a]) + window.origin[a] + 0.5) * window.voxel_size_m for a in (0, 1))
    places = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    near = np.linalg.norm(places - view.T_map_base[:2, 3], axis=-1) <= RANGE_M
    around = binary_dilation(near, np.ones((3, 3), np.bool_))
    heights = np.full(window.shape[:2], -np.inf)
    heights[around] = terrain.heights(places[around])
    reachable = _reachable(heights, places, view.T_map_base, max_step_down_m)
    beside = grey_dilation(np.where(reachable, heights, -np.inf), size=(3, 3), mode="nearest")
    edge = np.isfinite(beside) & around & (beside - np.where(around, heights, 0.0) > max_step_down_m)
    return edge & near, near & (edge | reachable)


def _reachable(heights: FloatArray, places: FloatArray, T_map_base: FloatArray, step_m: float) -> Mask:
    """Cells that the robot can drive to without a step of more than it may take, (X, Y)."""
    away = np.linalg.norm(places - T_map_base[:2, 3], axis=-1)
    reached = away <= away.min() + 1e-9
    while True:
        highest = grey_dilation(np.where(reached, heights, -np.inf), size=(3, 3), mode="nearest")
        grown = reached | (
            np.isfinite(highest) & (np.abs(np.where(np.isfinite(highest), highest, 0) - heights) <= step_m)
        )
        if (grown == reached).all():
            return np.asarray(reached, dtype=np.bool_)
        reached = grown


class SeenColumns:
    """Columns of a whole world in which a camera saw something near the height of the ground."""

    def __init__(self, terrain: Terrain, voxel_size_m: float) -> None:
        x0, y0, x1, y1 = terrain.world.bounds
        self._low = np.floor(np.array([x0 - 30, y0 - 30]) / voxel_size_m).astype(int)
        high = np.ceil(np.array([x1 + 30, y1 + 30]) / voxel_size_m).astype(int)
        self._seen = np.zeros(high - self._low, bool)

    def add(self, view: MapView, frame: TrueKeyframe) -> None:
        """Note what a keyframe's cameras see."""
        window, ground_m = view.window, float(view.T_map_base[2, 3])
        low, high = (int(np.floor((ground_m + d) / window.voxel_size_m)) for d in (-AROUND_M, AROUND_M))
        i, j, _ = window.origin
        layer = LatticeWindow(window.voxel_size_m, (i, j, low), (*window.shape[:2], high - low + 1))
        self._seen[self._part(window)] |= seen_voxels(layer, frame.depths.depths, RANGE_M + 1).any(axis=2)

    def mask(self, window: LatticeWindow) -> Mask:
        """What has been seen of a window's columns, (X, Y)."""
        return self._seen[self._part(window)].copy()

    def _part(self, window: LatticeWindow) -> tuple[slice, ...]:
        start = np.array(window.origin[:2]) - self._low
        return tuple(slice(int(a), int(a) + n) for a, n in zip(start, window.shape[:2], strict=True))
