# SPDX-License-Identifier: Apache-2.0
"""Scores a network on simulated drives whose truth is known everywhere: single predictions, fused map, and 2D grid.

A voxel is judged if a camera of the drive saw it (nothing nearer in its line of sight) or if it borders such a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from occupancy_nn_ros.config import Config, GridConfig
from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.evaluation.changes import CHANGES_PROTOCOL, plan_change, react
from occupancy_nn_ros.evaluation.depth_scores import DepthErrors
from occupancy_nn_ros.evaluation.imperfect import imperfect
from occupancy_nn_ros.evaluation.metrics import (
    ClassCounts,
    Counts,
    Mask,
    Reliability,
    count,
    count_near,
    interior,
    score_map,
    with_border,
)
from occupancy_nn_ros.evaluation.ray_iou import AZIMUTH_DEG, ORIGINS, UNNAMED, RayScore, first_hits, rays_from
from occupancy_nn_ros.evaluation.tally import BANDS_M, CLASSES, Calibrations, GridScore, Tally
from occupancy_nn_ros.evaluation.truth import (
    RATE_HZ,
    EverSeen,
    TrueKeyframe,
    WorldTruth,
    bounding_part,
    camera_places,
    in_range,
    planned_drive,
    rendered,
    seen_voxels,
    sub_window,
)
from occupancy_nn_ros.mapping.slices import LETHAL, band, occupancy_slice
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import named_rig
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import Float32Array, FloatArray, Keyframe, MapView, Prediction, UInt8Array, VoxelState

HELDOUT_WORLDS = ("indoor_heldout", "warehouse_heldout", "street_heldout")
GRID_EVERY = 3
"""The 2D grid, and rays through single predictions, are judged after every so many keyframes."""


class Mapper(Protocol):
    """What can be judged: the pipeline, or anything else that makes a map of keyframes."""

    @property
    def prediction(self) -> Prediction | None:
        """What the latest keyframe alone says."""

    def step(self, keyframe: Keyframe) -> object:
        """Fuse a keyframe."""

    def view(self, frame_id: str) -> MapView | None:
        """A copy of the map, or None before the first keyframe."""


MakeMapper = Callable[[Config], Mapper]


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
        changes: whether to time how the map follows what appears and leaves.
        imperfect: whether pictures, poses and calibration are as imperfect as those of real robots.
        handheld: whether the rig is carried and looks around, instead of driving.
        settings: of network, map and grid; edge of the voxels and source are the plan's own.
    """

    worlds: tuple[str, ...] = HELDOUT_WORLDS
    seeds: tuple[int, ...] = (9000, 9001)
    rig: str = "surround4"
    duration_s: float = 8.0
    voxel_size_m: float = 0.2
    range_m: float = 8.0
    changes: bool = True
    imperfect: bool = False
    handheld: bool = False
    settings: Config = field(default_factory=Config)

    def config(self) -> Config:
        """Settings to map with."""
        return replace(self.settings, voxel_size_m=self.voxel_size_m, source="network")

    def protocol(self) -> str:
        """What was judged, in one line."""
        return (
            f"worlds {', '.join(self.worlds)}, seeds {', '.join(map(str, self.seeds))}, rig {self.rig}, "
            f"{self.duration_s:g} s at {RATE_HZ:g} Hz, {self.voxel_size_m:g} m voxels within {self.range_m:g} m, "
            "seen by a camera or bordering what is, "
            "inside of solids ignored; f_score and tolerant rates within one voxel along each axis; rays from "
            f"{ORIGINS} places of the drive, 39 elevations, every {AZIMUTH_DEG} degrees, every {GRID_EVERY}rd keyframe"
            + (f"; {CHANGES_PROTOCOL}" if self.changes else "")
            + ("; pictures, poses and calibration as imperfect as real ones" if self.imperfect else "")
            + ("; hand-held" if self.handheld else "")
        )


def mapper_of(predictor: Predictor) -> MakeMapper:
    """The pipeline with this network, which begins each drive anew."""

    def make(config: Config) -> Mapper:
        predictor.reset()
        return OccupancyPipeline(config, predictor)

    return make


def evaluate_mapper(make: MakeMapper, plan: EvaluationPlan, *, from_depth: bool = False) -> Iterator[tuple[str, Tally]]:
    """Judge anything that maps, drive by drive; yields the name of each drive and the tally so far.

    Args:
        make: starts an empty map for each drive.
        plan: what to judge on.
        from_depth: give the mapper perfect depth images instead of pictures.

    Raises:
        MissingDependencyError: no MuJoCo or no GL.
    """
    total = Tally()
    for kind in plan.worlds:
        for seed in plan.seeds:
            tally = judge_world(make, kind, seed, plan, from_depth=from_depth)
            if tally is not None:
                total = total + tally
                yield f"{kind} {seed}", total


def judge_world(
    make: MakeMapper, kind: str, seed: int, plan: EvaluationPlan, *, from_depth: bool = False
) -> Tally | None:
    """Judge one drive through one world; None if it has no room to drive in.

    Raises:
        MissingDependencyError: no MuJoCo or no GL.
    """
    world, tally = build_world(kind, seed), Tally()
    try:
        _judge_drive(make, world, plan, tally, from_depth=from_depth)
        if plan.changes:
            _judge_change(make, world, plan, tally, from_depth=from_depth)
    except SimulationError:
        return None
    return tally


def _judge_drive(make: MakeMapper, world: World, plan: EvaluationPlan, tally: Tally, *, from_depth: bool) -> None:
    config, rig, drive = (
        plan.config(),
        named_rig(plan.rig),
        planned_drive(world, plan.duration_s, handheld=plan.handheld),
    )
    mapped, ceiling = make(config), OccupancyPipeline(replace(config, source="depth"))
    judge = _DriveJudge(world, plan, camera_places(rig, drive), tally)
    with WorldRenderer(world) as renderer:
        frames = rendered(renderer, rig, drive)
        if plan.imperfect:
            frames = imperfect(frames, rig, drive, world.seed)
        for index, frame in enumerate(frames):
            mapped.step(frame.depths if from_depth else frame.images)
            ceiling.step(frame.depths)
            view = mapped.view("odom")
            if view is not None:
                judge.keyframe(index, frame, mapped.prediction, view)
                if _is_sampled(index) and (best := ceiling.view("odom")) is not None:
                    judge.grids(view, best)
    view, best = mapped.view("odom"), ceiling.view("odom")
    if view is not None and best is not None:
        judge.final(view, best)


def _judge_change(make: MakeMapper, world: World, plan: EvaluationPlan, tally: Tally, *, from_depth: bool) -> None:
    config, rig = plan.config(), named_rig(plan.rig)
    scene = plan_change(world, rig)
    if scene is not None:
        depth = OccupancyPipeline(replace(config, source="depth"))
        watched = ((make(config), from_depth, tally.changes), (depth, True, tally.changes_ceiling))
        react(scene, rig, config, watched)


def _is_sampled(index: int) -> bool:
    """Whether a keyframe is one of every ``GRID_EVERY``."""
    return index % GRID_EVERY == GRID_EVERY - 1


class _DriveJudge:
    """Judges one drive and adds to a tally."""

    def __init__(self, world: World, plan: EvaluationPlan, places_m: FloatArray, tally: Tally) -> None:
        self.plan, self.tally = plan, tally
        self.truth, self.ever = WorldTruth(world), EverSeen(world, plan.voxel_size_m)
        self.rays = rays_from(places_m)

    def keyframe(self, index: int, frame: TrueKeyframe, prediction: Prediction | None, view: MapView) -> None:
        """Judge what one keyframe says."""
        window, range_m = view.window, self.plan.range_m
        seen = seen_voxels(window, frame.depths.depths, range_m) & in_range(window, view.T_map_base, range_m)
        self.ever.add(window, seen)
        true = self.truth.view(view)
        if prediction is None:
            return
        self.tally.depth += _judge_depth(prediction, frame)
        if prediction.visible is not None:
            claimed = _judge_prediction(prediction, view, true, seen, self.tally)
            if _is_sampled(index):
                self.tally.single_rays += self._rays(claimed, true, view)

    def grids(self, view: MapView, best: MapView) -> None:
        """Judge the 2D grids of the map and of the one from perfect depth, by what was seen so far."""
        true, grid = self.truth.view(view), self.plan.config().grid
        judged = with_border(self.ever.mask(view.window))
        _judge_grid(view, true, judged, grid, self.tally.grid)
        _judge_grid(best, true, judged, grid, self.tally.grid_ceiling)

    def final(self, view: MapView, best: MapView) -> None:
        """Judge the map at the end of the drive, and the one from perfect depth."""
        true, tally = self.truth.view(view), self.tally
        truth, claimed = true.state == VoxelState.OCCUPIED, view.state == VoxelState.OCCUPIED
        seen, inside = with_border(self.ever.mask(view.window)), interior(truth)
        judged = seen & ~inside
        tally.fused += score_map(view, true, judged)
        tally.ceiling += score_map(best, true, judged)
        tally.fused_near += count_near(claimed, truth, judged)
        unseen = in_range(view.window, view.T_map_base, self.plan.range_m) & ~seen & ~inside
        tally.unseen_free += count(view.state == VoxelState.FREE, ~truth, unseen)
        tally.unseen_free_ceiling += count(best.state == VoxelState.FREE, ~truth, unseen)
        named = np.where(claimed, view.classes, 0).astype(np.uint8)
        tally.fused_classes += ClassCounts.of(named, true.classes, judged, CLASSES)
        tally.has_classes |= bool(named.any())
        tally.fused_rays += self._rays(_solid(claimed, named), true, view)

    def _rays(self, claimed: UInt8Array, true: MapView, view: MapView) -> RayScore:
        part = bounding_part(in_range(view.window, view.T_map_base, self.plan.range_m))
        window = sub_window(view.window, part)
        ends, wanted = (first_hits(labels[part], window, *self.rays) for labels in (claimed, true.classes))
        return RayScore.of(ends, wanted, window.voxel_size_m, CLASSES)


def _judge_depth(prediction: Prediction, frame: TrueKeyframe) -> DepthErrors:
    """Compare what the network is sure of with the true depth, infinite where nothing is hit."""
    true = {
        depth.camera: replace(depth, depth_m=np.where(depth.depth_m > 0, depth.depth_m, np.inf))
        for depth in frame.depths.depths
    }
    return sum((DepthErrors.of(depth, [true[depth.camera]]) for depth in prediction.depths), DepthErrors.empty())


def _judge_prediction(prediction: Prediction, view: MapView, true: MapView, seen: Mask, tally: Tally) -> UInt8Array:
    """Judge what one keyframe says; returns the labels (X, Y, Z) that it claims in the view's window."""
    low = np.subtract(prediction.window.origin, view.window.origin)
    part = tuple(slice(int(a), int(a) + n) for a, n in zip(low, prediction.window.shape, strict=True))
    occupied = true.state == VoxelState.OCCUPIED
    judged, truth = (with_border(seen) & ~interior(occupied))[part], occupied[part]
    logit = prediction.logit.cpu().numpy()
    visible = logit * 0 if prediction.visible is None else prediction.visible.cpu().numpy()
    claimed = (logit > 0) & (visible > 0)
    tally.single += count(claimed, truth, judged)
    tally.single_near += count_near(claimed, truth, judged)
    distance = _distance(view)[part[:2]][..., None]
    judge_probabilities((tally.visible, tally.inferred), logit, visible, (truth, judged), distance)
    named = np.zeros(claimed.shape, np.uint8)
    if prediction.class_logits is not None:
        tally.has_classes = True
        named = np.where(claimed, prediction.class_logits.argmax(dim=0).cpu().numpy() + 1, 0).astype(np.uint8)
        hit = judged & (visible >= 0.5) & truth & (logit > 0)
        right = int((named[hit] == true.classes[part][hit]).sum())
        tally.by_class += Counts(tp=right, fn=int(hit.sum()) - right)
    tally.single_classes += ClassCounts.of(named, true.classes[part], judged, CLASSES)
    labels = np.zeros(view.window.shape, np.uint8)
    labels[part] = _solid(claimed, named)
    return labels


def judge_probabilities(
    calibrations: tuple[Calibrations, Calibrations],
    logit: Float32Array,
    visible: Float32Array,
    truth: tuple[Mask, Mask],
    distance_m: FloatArray,
) -> None:
    """Add the probabilities of a prediction to what is known of visible and of inferred voxels.

    Args:
        calibrations: of visible voxels, and of inferred ones that some camera looks at.
        logit: (X, Y, Z) log-odds.
        visible: (X, Y, Z) probability that a camera sees the voxel.
        truth: which voxels are occupied, and which are judged, (X, Y, Z).
        distance_m: from the robot, broadcast to (X, Y, Z).
    """
    occupied, judged = truth
    probability = 1 / (1 + np.exp(-logit))
    for kind, chosen in zip(calibrations, (visible >= 0.5, (visible > 0) & (visible < 0.5)), strict=True):
        kind.all += Reliability.of(probability, occupied, judged & chosen)
        for index, (low, high) in enumerate(BANDS_M):
            there = judged & chosen & (distance_m >= low) & (distance_m < high)
            kind.by_band[index] += Reliability.of(probability, occupied, there)


def _solid(claimed: Mask, named: UInt8Array) -> UInt8Array:
    """Labels that stop a ray: the class, or ``UNNAMED`` where a voxel is claimed without one."""
    return np.where(claimed & (named == 0), UNNAMED, named).astype(np.uint8)


def _judge_grid(view: MapView, true: MapView, judged: Mask, grid: GridConfig, score: GridScore) -> None:
    """Cells whose band holds a judged voxel: is there an obstacle?"""
    layers = band(view, grid)
    occupied = true.state == VoxelState.OCCUPIED
    surface = occupied & ~interior(occupied) & judged
    obstacle, solid = (what[:, :, layers].any(axis=2) for what in (surface, occupied))
    empty = judged[:, :, layers].any(axis=2) & ~solid
    lethal = occupancy_slice(view, grid).values == LETHAL
    score.add(lethal, obstacle, empty, solid, _distance(view))


def _distance(view: MapView) -> FloatArray:
    """Horizontal distance of each column (X, Y) from the robot, metres."""
    edge, origin = view.window.voxel_size_m, view.window.origin
    x, y = ((np.arange(view.window.shape[a]) + origin[a] + 0.5) * edge - view.T_map_base[a, 3] for a in (0, 1))
    return np.asarray(np.hypot(x[:, None], y[None, :]), dtype=np.float64)
