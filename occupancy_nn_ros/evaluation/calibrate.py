# SPDX-License-Identifier: Apache-2.0
"""Fits a model's calibration (Platt 1999) on simulated drives in layouts of the training kind that training did not see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from occupancy_nn_ros.errors import SimulationError, TrainingError
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan
from occupancy_nn_ros.evaluation.imperfect import imperfect
from occupancy_nn_ros.evaluation.metrics import interior, with_border
from occupancy_nn_ros.evaluation.truth import TrueKeyframe, planned_drive, rendered, seen_voxels
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.network.checkpoint import Calibration
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import named_rig
from occupancy_nn_ros.simulation.world import World

CALIBRATION_PLAN = EvaluationPlan(worlds=("indoor", "warehouse", "street"), seeds=(80000, 80001), duration_s=6.0)


@dataclass(frozen=True)
class LabelledLogits:
    """Raw logits (N,), whether the network sees the voxel (N,), and whether it is occupied (N,)."""

    logit: torch.Tensor
    visible: torch.Tensor
    occupied: torch.Tensor


def collect_logits(predictor: Predictor, plan: EvaluationPlan = CALIBRATION_PLAN) -> Iterator[LabelledLogits]:
    """Raw answers to judged voxels, keyframe by keyframe. The predictor's own calibration must be the identity.

    Raises:
        TrainingError: the predictor is calibrated already.
        MissingDependencyError: no MuJoCo or no GL.
    """
    if predictor.calibration != Calibration():
        raise TrainingError("the model is calibrated already, expected raw logits")
    for kind in plan.worlds:
        for seed in plan.seeds:
            world = build_world(kind, seed)
            grid = RollingMap(plan.voxel_size_m, (120, 120, 20), plan.config().map)
            predictor.reset()
            try:
                for frame in _keyframes(world, plan):
                    grid.move_to(frame.images.T_map_base)
                    prediction = predictor.predict(frame.images, grid.window)
                    if prediction.visible is None:
                        continue
                    occupied = world.occupancy(prediction.window) > 0
                    seen = with_border(seen_voxels(prediction.window, frame.depths.depths, plan.range_m))
                    judged = torch.from_numpy(seen & ~interior(occupied)) & (prediction.visible.cpu() > 0)
                    labels = torch.from_numpy(occupied.astype(np.float32))
                    yield LabelledLogits(
                        prediction.logit.cpu()[judged], prediction.visible.cpu()[judged] >= 0.5, labels[judged]
                    )
            except SimulationError:
                continue  # a world with no room to drive in


def _keyframes(world: World, plan: EvaluationPlan) -> Iterator[TrueKeyframe]:
    rig, drive = named_rig(plan.rig), planned_drive(world, plan.duration_s, handheld=plan.handheld)
    with WorldRenderer(world) as renderer:
        frames = rendered(renderer, rig, drive)
        yield from imperfect(frames, rig, drive, world.seed) if plan.imperfect else frames


def fit_calibration(samples: list[LabelledLogits]) -> Calibration:
    """Scale and offset of logits that make the probabilities fit the labels best, for seen and for inferred voxels."""
    logit, visible, occupied = (
        torch.cat([getattr(s, name) for s in samples]) for name in ("logit", "visible", "occupied")
    )
    scale, offset = fit_platt(logit[visible], occupied[visible])
    inferred_scale, inferred_offset = fit_platt(logit[~visible], occupied[~visible])
    share = float(occupied.double().mean().clamp(1e-6, 1 - 1e-6))
    return Calibration(scale, offset, inferred_scale, inferred_offset, math.log(share / (1 - share)))


def fit_platt(logit: torch.Tensor, occupied: torch.Tensor) -> tuple[float, float]:
    """Scale (not negative) and offset that minimise the cross entropy of ``scale * logit + offset`` (N,) and labels (N,)."""
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    logit, occupied = logit.double(), occupied.double()
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(parameters[0] * logit + parameters[1], occupied)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale, offset = (float(v) for v in parameters.detach())
    return max(0.0, scale), offset
