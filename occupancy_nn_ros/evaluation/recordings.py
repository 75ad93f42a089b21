# SPDX-License-Identifier: Apache-2.0
"""Scores a map made from a real recording's cameras against its own depth camera.

A voxel is occupied where at least ``LEAST_POINTS`` depth points lie in it, and free where none does and at least ``LEAST_LOOKS`` frames
look through it; all others are not judged. What the map does not know counts as not occupied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError, CalibrationError, ImplausibleError, MessageError, OccupancyError
from occupancy_nn_ros.evaluation.depth_breakdown import DepthBreakdown
from occupancy_nn_ros.evaluation.depth_scores import DepthErrors
from occupancy_nn_ros.evaluation.held_out_worlds import MakeMapper, Mapper, judge_probabilities
from occupancy_nn_ros.evaluation.metrics import Counts, NearCounts, count, count_near
from occupancy_nn_ros.evaluation.ray_iou import ORIGINS, RayEnds, RayScore, first_hits
from occupancy_nn_ros.evaluation.tally import Calibrations
from occupancy_nn_ros.evaluation.truth import overlapping_parts
from occupancy_nn_ros.geometry.depth_lookup import look_up_depth, measured_points
from occupancy_nn_ros.runtime.decoding import decode_depth_frame, decode_keyframe
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.plausibility import Plausibility
from occupancy_nn_ros.runtime.player import PlayProgress, plan_play, steps
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.values import Float32Array, FloatArray, Keyframe, LatticeWindow, MapView, PosedDepth, VoxelState

LEAST_POINTS, LEAST_LOOKS = 3, 2
REACH_M = 4.0
"""Depth beyond this is not used as truth."""

SAME_MOMENT_NS = 20_000_000
"""Predicted depth is compared with depth images that are not further away in time; both have their own poses."""

RAY_EVERY = 8
"""Rays go through every so many rows and columns of a depth image."""

Keyframed = Callable[[Mapper, Keyframe], None]


@dataclass(frozen=True)
class DepthTruth:
    """What a depth camera says of a window's voxels: points in each, and frames that look through each, (X, Y, Z).

    Attributes:
        window: where the voxels lie.
        points: depth points in each.
        looks: frames that look through each.
        rays: origins and ends (N, 3) of some measured rays, map frame.
        frames: the depth images, not decoded.
    """

    window: LatticeWindow
    points: npt.NDArray[np.int64]
    looks: npt.NDArray[np.int64]
    rays: tuple[FloatArray, FloatArray]
    frames: tuple[RawFrame, ...]

    def at(self, stamp_ns: int) -> list[PosedDepth]:
        """What depth cameras measured within reach at a moment, one image of each at most; the rest is 0."""
        near = [frame for frame in self.frames if abs(frame.stamp_ns - stamp_ns) <= SAME_MOMENT_NS]
        near.sort(key=lambda frame: -abs(frame.stamp_ns - stamp_ns))
        nearest = {frame.sensor.name: frame for frame in near}
        return [_within_reach(depth) for _, depth in _decoded(nearest.values())]

    @property
    def occupied(self) -> npt.NDArray[np.bool_]:
        """Voxels with enough points."""
        return np.asarray(self.points >= LEAST_POINTS)

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """Voxels that are surely occupied or surely free."""
        return np.asarray(self.occupied | ((self.points == 0) & (self.looks >= LEAST_LOOKS)))


@dataclass
class BagScores:
    """How the final map and the predictions on the way agree with the depth camera.

    Attributes:
        fused, fused_near: voxels of the final map, without and with a tolerance of one voxel.
        rays: measured rays through the final map.
        depth: depth that the network is sure of.
        breakdown: where that depth is wrong.
        visible, inferred: probabilities of single predictions where the network sees, and where it does not.
    """

    fused: Counts = field(default_factory=Counts)
    fused_near: NearCounts = field(default_factory=NearCounts)
    rays: RayScore = field(default_factory=lambda: RayScore.empty(1))
    depth: DepthErrors = field(default_factory=DepthErrors.empty)
    breakdown: DepthBreakdown = field(default_factory=DepthBreakdown)
    visible: Calibrations = field(default_factory=Calibrations)
    inferred: Calibrations = field(default_factory=Calibrations)

    def figures(self) -> dict[str, float]:
        """Plain values for tables and JSON."""
        rays = {key: value for key, value in self.rays.figures().items() if "miou" not in key}
        return {
            "iou": self.fused.iou, "mcc": self.fused.mcc,
            "precision": self.fused.precision, "recall": self.fused.recall, "f_score": self.fused_near.f_score,
            **self.depth.figures(), **rays, **self.visible.figures("visible"), **self.inferred.figures("inferred"),
        }  # fmt: skip


def protocol(config: Config) -> str:
    """What was judged, in one line."""
    return (
        f"{config.voxel_size_m:g} m voxels; occupied: {LEAST_POINTS} or more depth points within {REACH_M:g} m; free: no point and "
        f"{LEAST_LOOKS} or more frames look through; others not judged; what the map does not know counts as not occupied; "
        f"f_score within one voxel along each axis; rays of {ORIGINS} depth images, every {RAY_EVERY}th row and column; "
        "ece and brier of single predictions"
    )


def evaluate_bag(
    bag: Path,
    config: Config,
    report: Callable[[PlayProgress], None] | None = None,
    make: MakeMapper | None = None,
    part: BagPart | None = None,
) -> BagScores:
    """Map a bag as configured and compare the map with the bag's depth images.

    Args:
        bag: the recording.
        config: all settings.
        report: told about the progress.
        make: starts the map that is judged, instead of the pipeline that the settings describe.
        part: which part of it, for mapping and for judging.

    Raises:
        BagError: the bag cannot be mapped, or has no depth images.
    """
    truth, scores = depth_truth(bag, config, part), BagScores()
    view = _play(bag, part, config, make, report, lambda mapped, given: _judge_prediction(mapped, given, truth, scores))
    if view is None:
        raise BagError(f"no keyframe could be made of {bag}")
    here, there = overlapping_parts(view.window, truth.window)
    claimed = view.state == VoxelState.OCCUPIED
    occupied, judged = truth.occupied[there], truth.judged[there]
    scores.fused += count(claimed[here], occupied, judged)
    scores.fused_near += count_near(claimed[here], occupied, judged)
    scores.rays += _judge_rays(claimed, view, truth)
    return scores


def depth_truth(bag: Path, config: Config, part: BagPart | None = None) -> DepthTruth:
    """Gather all depth images of a bag or of a part of it.

    Raises:
        BagError: the bag has no depth images that can be placed, or they hold no metres.
    """
    raws = _raw_depth_frames(bag, part, config)
    plausibility = _check_metres(bag, raws, config)
    frames = tuple(frame for raw in raws for frame in raw.frames)
    if not raws:
        raise BagError(f"{bag} has no depth image that can be placed in the map")
    window = _reached(np.stack([raw.T_map_base[:3, 3] for raw in raws]), config)
    points, looks = np.zeros(window.shape, np.int64), np.zeros(window.shape, np.int64)
    centers = window.centers_m().reshape(-1, 3).astype(np.float64)
    picked = set(np.linspace(0, len(frames) - 1, ORIGINS).round().astype(int).tolist())
    origins, ends = [np.zeros((0, 3))], [np.zeros((0, 3))]
    for index, depth in _decoded(frames):
        near = _within_reach(plausibility.within_range(depth))
        cells = window.index_of(measured_points(near))
        inside = ((cells >= 0) & (cells < window.shape)).all(axis=1)
        np.add.at(points, tuple(cells[inside].T), 1)
        looks += _looked_through(depth, centers, window.voxel_size_m).reshape(window.shape)
        if index in picked:
            ends.append(measured_points(near, RAY_EVERY))
            origins.append(np.broadcast_to(depth.T_map_cam[:3, 3], ends[-1].shape))
    return DepthTruth(window, points, looks, (np.concatenate(origins), np.concatenate(ends)), frames)


def _play(
    bag: Path,
    part: BagPart | None,
    config: Config,
    make: MakeMapper | None,
    report: Callable[[PlayProgress], None] | None,
    keyframed: Keyframed,
) -> MapView | None:
    """Play a bag through the map and show every map update to ``keyframed``; returns the final map."""
    with BagReader(bag, part) as reader:
        plan = plan_play(reader, config)
        intake = plan.intake()
        mapper = OccupancyPipeline(plan.config) if make is None else make(plan.config)
        for _, ready in steps(reader, intake, report):
            for raw in ready:
                if (keyframe := _fuse(mapper, raw, config)) is not None:
                    keyframed(mapper, keyframe)
    return mapper.view(intake.map_frame)


def _fuse(mapper: Mapper, raw: RawKeyframe, config: Config) -> Keyframe | None:
    """Fuse what can be decoded of a keyframe, and return it; None if it was dropped, so that there is nothing new to judge."""
    keyframe, _ = decode_keyframe(raw, config.sync.min_cameras)
    if keyframe is None:
        return None
    try:
        mapper.step(keyframe)
    except (OccupancyError, ValueError):
        return None
    return keyframe


def _judge_prediction(mapped: Mapper, keyframe: Keyframe, truth: DepthTruth, scores: BagScores) -> None:
    prediction, view = mapped.prediction, mapped.view("")
    if prediction is None or view is None:
        return
    images = {(image.camera, image.stamp_ns): image for image in keyframe.images}
    for depth in prediction.depths:
        if measured := truth.at(depth.stamp_ns):
            scores.depth += DepthErrors.of(depth, measured)
            scores.breakdown.add(images[depth.camera, depth.stamp_ns], depth, measured)
    alignment = mapped.alignment if isinstance(mapped, OccupancyPipeline) else None
    if alignment is not None and alignment.quality is not None:
        scores.breakdown.qualities.append(alignment.quality)
    if prediction.visible is None:
        return
    here, there = overlapping_parts(prediction.window, truth.window)
    x, y = (
        (np.arange(s.start, s.stop) + truth.window.origin[a] + 0.5) * truth.window.voxel_size_m - view.T_map_base[a, 3]
        for a, s in enumerate(there[:2])
    )
    distance = np.hypot(x[:, None], y[None, :])[..., None]
    logit, visible = (t.cpu().numpy()[here] for t in (prediction.logit, prediction.visible))
    judge_probabilities(
        (scores.visible, scores.inferred), logit, visible, (truth.occupied[there], truth.judged[there]), distance
    )


def _judge_rays(claimed: npt.NDArray[np.bool_], view: MapView, truth: DepthTruth) -> RayScore:
    """Measured rays cast through a map: do they end in the voxel that holds the measured point?"""
    origins, ends = truth.rays
    edge = view.window.voxel_size_m
    length = np.linalg.norm(ends - origins, axis=1, keepdims=True)
    directions = (ends - origins) / length
    true = RayEnds(np.ones(len(ends), np.uint8), entry_distance(origins, ends, edge))
    hits = first_hits(claimed.astype(np.uint8), view.window, origins, directions)
    return RayScore.of(hits, true, edge, 1)


def entry_distance(origins_m: FloatArray, ends_m: FloatArray, voxel_size_m: float) -> Float32Array:
    """Where rays from origins (N, 3) enter the voxels that hold their ends (N, 3): distances (N,), 0 from inside."""
    way = ends_m - origins_m
    low = np.floor(ends_m / voxel_size_m) * voxel_size_m
    with np.errstate(divide="ignore", invalid="ignore"):
        faces = np.where(way > 0, low - origins_m, low + voxel_size_m - origins_m) / way
    share = np.where(way == 0, -np.inf, faces).max(axis=1)
    return np.asarray(share.clip(0, 1) * np.linalg.norm(way, axis=1), dtype=np.float32)


def _reached(places_m: FloatArray, config: Config) -> LatticeWindow:
    """The window that depth within ``REACH_M`` can tell of and the map can know, from base positions (F, 3)."""
    aside = 1.5 * REACH_M  # along the optical axis it is REACH_M, towards the corners of an image more
    below, above = np.array([aside, aside, config.map.below_m]), np.array([aside, aside, config.map.above_m])
    low = np.floor((places_m.min(axis=0) - below) / config.voxel_size_m).astype(int)
    high = np.ceil((places_m.max(axis=0) + above) / config.voxel_size_m).astype(int)
    (i, j, k), (x, y, z) = (int(v) for v in low), (int(v) for v in high - low)
    return LatticeWindow(config.voxel_size_m, (i, j, k), (x, y, z))


def _raw_depth_frames(bag: Path, part: BagPart | None, config: Config) -> list[RawKeyframe]:
    """All depth images of a bag that can be placed, not decoded."""
    every = replace(config.keyframes, min_period_s=0.0, max_period_s=0.0)
    with BagReader(bag, part) as reader:
        plan = plan_play(reader, replace(config, source="depth", cameras={}, keyframes=every))
        intake = plan.intake()
        return [raw for _, ready in steps(reader, intake) for raw in ready]


def _check_metres(bag: Path, raws: list[RawKeyframe], config: Config) -> Plausibility:
    """Look at depth images before they are taken for the truth; returns what is known of them then.

    Raises:
        BagError: most of them, or all from some time on, cannot be metres.
    """
    plausibility, balance, text = Plausibility(), 0, ""
    for raw in raws:
        for _, depth in _decoded(raw.frames):
            (frame,) = (frame for frame in raw.frames if frame.sensor.name == depth.camera)
            try:
                plausibility.check(raw.T_map_base, config.map_frame, frame, depth)
                balance += 1
            except ImplausibleError as error:
                balance, text = balance - 1, f"{depth.camera}: {error}"
                if error.spoils_map:
                    raise BagError(f"the depth of {bag} is no truth: {text}") from None
    if balance < 0:
        raise BagError(f"the depth of {bag} is no truth: {text}")
    return plausibility


def _decoded(frames: Iterable[RawFrame]) -> Iterator[tuple[int, PosedDepth]]:
    """Depth images with their place among the frames; those that cannot be decoded are left out."""
    for index, frame in enumerate(frames):
        try:
            yield index, decode_depth_frame(frame)
        except (MessageError, CalibrationError):
            continue


def _within_reach(depth: PosedDepth) -> PosedDepth:
    """The image with 0 for what is not measured within ``REACH_M``."""
    return replace(depth, depth_m=np.where(depth.depth_m < REACH_M, depth.depth_m, np.float32(0)))


def _looked_through(depth: PosedDepth, centers: FloatArray, edge_m: float) -> npt.NDArray[np.bool_]:
    """Voxels that lie at least a voxel before the surface which the image shows behind them."""
    found = look_up_depth(depth, centers, nearest_m=0.1)
    z = found.local_m[:, 2]
    seen = np.zeros(len(centers), bool)
    seen[found.index] = (z < REACH_M) & (found.measured_m > z + edge_m)
    return seen
