# SPDX-License-Identifier: Apache-2.0
"""Scores a network on simulated drives whose truth is known everywhere: single predictions, fused map, and 2D grid.

A voxel is judged if a camera of the drive saw it (nothing nearer in its line of sight) or if it borders such a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from occupancy_nn_ros.config import Config, GridConfig
from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.geometry.depth_lookup import look_up_depth
from occupancy_nn_ros.mapping.slices import LETHAL, band, occupancy_slice
from occupancy_nn_ros.pipeline import OccupancyPipeline
from occupancy_nn_ros.predictor import Predictor
from occupancy_nn_ros.simulation.drives import plan_drive
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig, named_rig
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.training.metrics import Counts, Mask, Reliability, count, interior, score_map, with_border
from occupancy_nn_ros.types import (
    FloatArray,
    Keyframe,
    LatticeWindow,
    MapView,
    PosedDepth,
    PosedImage,
    Prediction,
    VoxelState,
)

HELDOUT_WORLDS = ("indoor_heldout", "warehouse_heldout", "street_heldout")
RATE_HZ = 3.0
GRID_EVERY = 3
"""The 2D grid is judged after every so many keyframes."""

NEAR_M, FAR_M = 3.0, 8.0


@dataclass(frozen=True)
class EvaluationPlan:
    """What to judge on.

    Attributes:
        worlds: kinds of worlds.
        seeds: seeds of each kind.
        rig: name of the rig.
        duration_s: length of each drive.
        voxel_size_m: edge of the voxels.
        range_m: voxels further than this from the robot, horizontally, are not judged.
    """

    worlds: tuple[str, ...] = HELDOUT_WORLDS
    seeds: tuple[int, ...] = (9000, 9001)
    rig: str = "surround4"
    duration_s: float = 8.0
    voxel_size_m: float = 0.2
    range_m: float = 8.0

    def config(self) -> Config:
        """Settings to map with."""
        return Config(voxel_size_m=self.voxel_size_m)

    def protocol(self) -> str:
        """What was judged, in one line."""
        return (
            f"worlds {', '.join(self.worlds)}, seeds {', '.join(map(str, self.seeds))}, rig {self.rig}, "
            f"{self.duration_s:g} s at {RATE_HZ:g} Hz, {self.voxel_size_m:g} m voxels within {self.range_m:g} m, "
            "seen by a camera or bordering what is, "
            "inside of solids ignored"
        )


@dataclass
class Tally:
    """Sums over all drives."""

    single: Counts = field(default_factory=Counts)
    fused: Counts = field(default_factory=Counts)
    ceiling: Counts = field(default_factory=Counts)
    grid_near: Counts = field(default_factory=Counts)
    grid_far: Counts = field(default_factory=Counts)
    visible: Reliability = field(default_factory=Reliability.empty)
    inferred: Reliability = field(default_factory=Reliability.empty)
    by_class: Counts = field(default_factory=Counts)

    def figures(self) -> dict[str, Any]:
        """Plain values for tables and JSON."""
        return {
            "iou": self.single.iou, "mcc": self.single.mcc,
            "precision": self.single.precision, "recall": self.single.recall,
            "fused_iou": self.fused.iou, "fused_mcc": self.fused.mcc, "fused_iou_ceiling": self.ceiling.iou,
            "missed_obstacle_rate_3m": 1 - self.grid_near.recall, "phantom_obstacle_rate_3m": _phantom(self.grid_near),
            "missed_obstacle_rate_8m": 1 - self.grid_far.recall, "phantom_obstacle_rate_8m": _phantom(self.grid_far),
            "ece_visible": self.visible.ece, "ece_inferred": self.inferred.ece, "brier_visible": self.visible.brier,
            "class_accuracy": self.by_class.recall,
        }  # fmt: skip


@dataclass(frozen=True)
class TrueKeyframe:
    """A keyframe as pictures, and the same moment as depth images."""

    images: Keyframe
    depths: Keyframe


def evaluate(predictor: Predictor, plan: EvaluationPlan) -> Iterator[tuple[str, Tally]]:
    """Judge a network drive by drive; yields the name of each drive and the tally so far.

    Raises:
        MissingDependencyError: no MuJoCo or no GL.
    """
    tally = Tally()
    for kind in plan.worlds:
        for seed in plan.seeds:
            world = build_world(kind, seed)
            try:
                _judge_drive(predictor, world, plan, tally)
            except SimulationError:
                continue  # a world with no room to drive in
            yield f"{kind} {seed}", tally


def true_keyframes(world: World, rig: Rig, duration_s: float) -> Iterator[TrueKeyframe]:
    """Render a drive. Movers stand still, so that a fused map has one truth."""
    drive = plan_drive(world, world.seed, duration_s, RATE_HZ)
    with WorldRenderer(world) as renderer:
        for time_s, pose in zip(drive.stamps_s, drive.T_map_base, strict=True):
            stamp = round(float(time_s) * 1e9)
            images, depths = [], []
            for camera in rig.cameras:
                T_map_cam = pose @ camera.T_base_cam
                view = renderer.render(camera.model, T_map_cam, with_classes=False)
                images.append(PosedImage(camera.name, stamp, view.image, camera.model, T_map_cam))
                depths.append(PosedDepth(camera.name, stamp, view.depth_m, camera.model, T_map_cam))
            yield TrueKeyframe(Keyframe(stamp, pose, images=tuple(images)), Keyframe(stamp, pose, depths=tuple(depths)))


def seen_voxels(window: LatticeWindow, depths: tuple[PosedDepth, ...], range_m: float) -> Mask:
    """Voxels (X, Y, Z) whose centre lies before, or within a voxel behind, the surface that a depth image shows."""
    centers = window.centers_m().reshape(-1, 3).astype(np.float64)
    seen = np.zeros(len(centers), bool)
    for depth in depths:
        found = look_up_depth(depth, centers, nearest_m=0.05)
        in_range = np.hypot(found.local_m[:, 0], found.local_m[:, 2]) < range_m
        measured = np.where(found.measured_m > 0, found.measured_m, np.inf)
        seen[found.index[in_range & (found.local_m[:, 2] <= measured + 0.87 * window.voxel_size_m)]] = True
    return seen.reshape(window.shape)


def _judge_drive(predictor: Predictor, world: World, plan: EvaluationPlan, tally: Tally) -> None:
    config = plan.config()
    predictor.reset()
    mapped = OccupancyPipeline(config, predictor)
    ceiling = OccupancyPipeline(replace(config, source="depth"))
    truth = _Truth(world)
    ever = _EverSeen(world, plan.voxel_size_m)
    view = best = None
    for index, frame in enumerate(true_keyframes(world, named_rig(plan.rig), plan.duration_s)):
        mapped.step(frame.images)
        ceiling.step(frame.depths)
        view, best = mapped.view("odom"), ceiling.view("odom")
        if view is None or best is None:
            continue
        seen = seen_voxels(view.window, frame.depths.depths, plan.range_m) & _in_range(
            view.window, view.T_map_base, plan.range_m
        )
        ever.add(view.window, seen)
        true = truth.view(view)
        _judge_prediction(mapped.prediction, view, true, seen, tally)
        if index % GRID_EVERY == GRID_EVERY - 1:
            judged = with_border(ever.mask(view.window))
            _judge_grid(view, true, judged, config.grid, tally)
    if view is None or best is None:
        return
    judged = with_border(ever.mask(view.window))
    tally.fused += score_map(view, true, judged)
    tally.ceiling += score_map(best, true, judged)


def _judge_prediction(prediction: Prediction | None, view: MapView, true: MapView, seen: Mask, tally: Tally) -> None:
    if prediction is None or prediction.visible is None:
        return
    low = np.subtract(prediction.window.origin, view.window.origin)
    part = tuple(slice(int(a), int(a) + n) for a, n in zip(low, prediction.window.shape, strict=True))
    occupied = true.state == VoxelState.OCCUPIED
    judged = (with_border(seen) & ~interior(occupied))[part]
    logit, visible = prediction.logit.cpu().numpy(), prediction.visible.cpu().numpy()
    tally.single += count((logit > 0) & (visible > 0), occupied[part], judged)
    probability = 1 / (1 + np.exp(-logit))
    shown = judged & (visible >= 0.5)
    tally.visible += Reliability.of(probability, occupied[part], shown)
    tally.inferred += Reliability.of(probability, occupied[part], judged & (visible > 0) & (visible < 0.5))
    if prediction.class_logits is not None:
        named = prediction.class_logits.argmax(dim=0).cpu().numpy() + 1
        hit = shown & occupied[part] & (logit > 0)
        right = int((named[hit] == true.classes[part][hit]).sum())
        tally.by_class += Counts(tp=right, fn=int(hit.sum()) - right)


def _judge_grid(view: MapView, true: MapView, judged: Mask, grid: GridConfig, tally: Tally) -> None:
    """Cells whose band holds a judged voxel: is there an obstacle?"""
    layers = band(view, grid)
    occupied = true.state == VoxelState.OCCUPIED
    surface = occupied & ~interior(occupied) & judged
    obstacle = surface[:, :, layers].any(axis=2)
    empty = judged[:, :, layers].any(axis=2) & ~occupied[:, :, layers].any(axis=2)
    lethal = occupancy_slice(view, grid).values == LETHAL
    cells = (np.argwhere(np.ones(lethal.shape, bool)) + view.window.origin[:2] + 0.5) * view.window.voxel_size_m
    distance = np.linalg.norm(cells - view.T_map_base[:2, 3], axis=1).reshape(lethal.shape)
    tally.grid_near += count(lethal, obstacle, (obstacle | empty) & (distance <= NEAR_M))
    tally.grid_far += count(lethal, obstacle, (obstacle | empty) & (distance <= FAR_M))


class _Truth:
    """Occupancy of a still world, computed again only when the window moves."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._labels: tuple[LatticeWindow, Any] | None = None

    def view(self, view: MapView) -> MapView:
        if self._labels is None or self._labels[0] != view.window:
            self._labels = (view.window, self.world.occupancy(view.window))
        labels = self._labels[1]
        state = np.where(labels > 0, VoxelState.OCCUPIED, VoxelState.FREE).astype(np.int8)
        return replace(view, state=state, classes=labels)


class _EverSeen:
    """Voxels of a whole world that were seen during a drive."""

    def __init__(self, world: World, voxel_size_m: float) -> None:
        x0, y0, x1, y1 = world.bounds
        self.low = np.floor(np.array([x0 - 30, y0 - 30, -5]) / voxel_size_m).astype(int)
        high = np.ceil(np.array([x1 + 30, y1 + 30, 10]) / voxel_size_m).astype(int)
        self.seen = np.zeros(high - self.low, bool)

    def add(self, window: LatticeWindow, seen: Mask) -> None:
        self.seen[self._part(window)] |= seen

    def mask(self, window: LatticeWindow) -> Mask:
        return self.seen[self._part(window)].copy()

    def _part(self, window: LatticeWindow) -> tuple[slice, ...]:
        start = np.array(window.origin) - self.low
        return tuple(slice(int(a), int(a) + n) for a, n in zip(start, window.shape, strict=True))


def _in_range(window: LatticeWindow, T_map_base: FloatArray, range_m: float) -> Mask:
    offset = np.abs(window.centers_m()[..., :2] - T_map_base[:2, 3])
    return np.asarray((offset <= range_m).all(axis=-1))


def _phantom(counts: Counts) -> float:
    """Share of the empty cells that the grid marks as obstacles."""
    return counts.fp / max(1, counts.fp + counts.tn)
