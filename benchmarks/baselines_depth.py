# SPDX-License-Identifier: Apache-2.0
"""Maps without learning: depth images, perfect or from a classical plane sweep, fused into the rolling map."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.evaluation.truth import overlapping_parts, sub_window
from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.mapping.map_memory import NEVER
from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.network.views import choose_sources
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.values import CameraModel, FloatArray, Keyframe, LatticeWindow, MapView, PosedDepth, Prediction

PIXELS = 160 * 120
NEIGHBOURS, KEPT_KEYFRAMES = 6, 8
PLANES, NEAREST_M, FURTHEST_M = 64, 0.4, 10.0
WINDOW = 7
"""Edge of the correlated patches in pixels."""

LEAST_SCORE, LEAST_LEAD = 0.6, 0.03
"""A depth counts if its patches correlate this well, and this much better than those of any depth elsewhere."""

LEAST_CONTRAST = 2.0
"""Standard deviation of the grey levels of a patch that can be matched."""

MIN_BASELINE_M = 0.05
Estimate = Callable[[Keyframe], tuple[PosedDepth, ...]]


class DepthMapper:
    """Fuses depth images of each keyframe, and says what those of the latest keyframe alone show.

    Args:
        config: of the map.
        estimate: depth images of a keyframe.
    """

    def __init__(self, config: Config, estimate: Estimate) -> None:
        self.estimate = estimate
        self.fused, self.alone = (OccupancyPipeline(replace(config, source="depth")) for _ in range(2))

    def step(self, keyframe: Keyframe) -> dict[str, float]:
        """Estimate depth and fuse it."""
        depths = Keyframe(keyframe.stamp_ns, keyframe.T_map_base, depths=self.estimate(keyframe))
        self.alone.clear()
        self.alone.step(depths)
        return self.fused.step(depths)

    def view(self, frame_id: str) -> MapView | None:
        """A copy of the map, or None before the first keyframe."""
        return self.fused.view(frame_id)

    @property
    def prediction(self) -> Prediction | None:
        """Log-odds from the latest keyframe, within the space that the networks answer for."""
        view = self.alone.view("")
        if view is None:
            return None
        part, _ = overlapping_parts(view.window, _reach(view.window, view.T_map_base))
        log_odds, seen_ms, _ = self.alone.map.window_tensors()
        known = (seen_ms[part] != NEVER).float()
        return Prediction(sub_window(view.window, part), log_odds[part], known, visible=known)


def _reach(window: LatticeWindow, T_map_base: FloatArray) -> LatticeWindow:
    """The box of voxels that the shipped networks answer for."""
    config = ModelConfig()
    below = config.volume_below_m
    above = config.volume_shape[2] * config.volume_cell_m - below
    base, edge = T_map_base[:3, 3], window.voxel_size_m
    down, up = (np.array([config.range_m, config.range_m, vertical]) for vertical in (below, above))
    low, high = np.floor((base - down) / edge).astype(int), np.ceil((base + up) / edge).astype(int)
    return LatticeWindow(edge, tuple(low.tolist()), tuple((high - low).tolist()))


def perfect_depth(keyframe: Keyframe) -> tuple[PosedDepth, ...]:
    """The depth images that the keyframe holds."""
    return keyframe.depths


@dataclass(frozen=True)
class GreyView:
    """A rectified grey picture (H, W) float32, where it has pixels (H, W), its K (3, 3) and pose (4, 4)."""

    image: np.ndarray
    mask: np.ndarray
    K: FloatArray
    T_map_cam: FloatArray


class PlaneSweepDepth:
    """Depth by correlating patches (ZNCC) with up to six neighbours at planes of depth (Collins 1996).

    Neighbours are the other cameras and past keyframes whose baselines and directions suit; the better half of their
    scores counts, as a surface is hidden from some.
    """

    def __init__(self) -> None:
        self.past: deque[tuple[FloatArray, list[GreyView]]] = deque(maxlen=KEPT_KEYFRAMES)
        self.rectifiers: dict[tuple[object, ...], Rectifier] = {}

    def __call__(self, keyframe: Keyframe) -> tuple[PosedDepth, ...]:
        """Depth images, 0 where nothing is sure, of all cameras that have neighbours."""
        views = [self._grey(image.image, image.model, image.T_map_cam) for image in keyframe.images]
        others = [*views, *(view for _, past in self.past for view in past)]
        poses = torch.from_numpy(np.stack([view.T_map_cam for view in others]))
        chosen = choose_sources(poses[: len(views)], poses, NEIGHBOURS, torch.arange(len(views))).tolist()
        depths = []
        for image, view, row in zip(keyframe.images, views, chosen, strict=True):
            sources = [others[index] for index in row if index >= 0]
            if sources:
                height, width = view.image.shape
                model = CameraModel(width, height, view.K, "none", np.zeros(0))
                depths.append(PosedDepth(image.camera, image.stamp_ns, sweep(view, sources), model, image.T_map_cam))
        self._remember(keyframe, views)
        return tuple(depths)

    def _grey(self, image: np.ndarray, model: CameraModel, T_map_cam: FloatArray) -> GreyView:
        key = (model.width, model.height, model.K.tobytes(), model.distortion_model, model.D.tobytes())
        if key not in self.rectifiers:
            self.rectifiers[key] = Rectifier(model, *canvas_size(model, PIXELS, 8))
        rectified = self.rectifiers[key](image)
        grey = cv2.cvtColor(rectified.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        return GreyView(grey, rectified.mask, rectified.K, T_map_cam)

    def _remember(self, keyframe: Keyframe, views: list[GreyView]) -> None:
        here = keyframe.T_map_base[:3, 3]
        if not self.past or np.linalg.norm(here - self.past[-1][0]) >= MIN_BASELINE_M:
            self.past.append((here, views))


def sweep(reference: GreyView, sources: list[GreyView]) -> np.ndarray:
    """Depth (H, W) float32 of a view, 0 where no plane's score is high enough and ahead of all others."""
    inverse = np.linspace(1 / NEAREST_M, 1 / FURTHEST_M, PLANES)
    scores = np.stack([_plane_score(reference, sources, 1 / step) for step in inverse])
    best = scores.argmax(axis=0)
    v, u = np.indices(best.shape)
    top = scores[best, v, u]
    elsewhere = np.where(np.abs(np.arange(PLANES)[:, None, None] - best) > 2, scores, -1).max(axis=0)
    sure = (top > LEAST_SCORE) & (top - elsewhere > LEAST_LEAD) & reference.mask
    sure &= _deviation(reference.image) > LEAST_CONTRAST
    position = best + _peak_offset(scores, best)
    depth = 1 / np.interp(position, np.arange(PLANES), inverse)
    depth = np.where(sure & (best > 0) & (best < PLANES - 1), depth, 0).astype(np.float32)
    return without_speckles(depth)


def without_speckles(depth: np.ndarray) -> np.ndarray:
    """Depth without patches of fewer than 20 pixels that nothing around agrees with."""
    disparity = np.where(depth > 0, 16 * 100 / np.maximum(depth, 1e-3), 0).clip(0, 32000).astype(np.int16)
    cv2.filterSpeckles(disparity, 0, 20, 16 * 10)
    return np.where(disparity > 0, depth, 0).astype(np.float32)


def _plane_score(reference: GreyView, sources: list[GreyView], depth_m: float) -> np.ndarray:
    """Mean of the better half of the sources' correlations (H, W) at one depth; -1 where none sees the place."""
    scores = np.sort(np.stack([_correlation(reference, source, depth_m) for source in sources]), axis=0)[::-1]
    half = scores[: (len(sources) + 1) // 2]
    seen = half > -1
    return np.where(seen.any(axis=0), (half * seen).sum(axis=0) / np.maximum(seen.sum(axis=0), 1), -1)


def _correlation(reference: GreyView, source: GreyView, depth_m: float) -> np.ndarray:
    """Zero-mean normalised correlation (H, W) in [-1, 1] with a source warped by the plane at a depth; -1 outside it."""
    T = invert(source.T_map_cam) @ reference.T_map_cam
    plane = T[:3, :3] + np.outer(T[:3, 3], [0, 0, 1 / depth_m])
    homography = source.K @ plane @ np.linalg.inv(reference.K)
    size = (reference.image.shape[1], reference.image.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(source.image, homography, size, flags=flags)
    inside = cv2.warpPerspective(source.mask.astype(np.float32), homography, size, flags=flags) > 0.99
    inside &= _is_before(homography, size)
    together = _mean(reference.image * warped) - _mean(reference.image) * _mean(warped)
    score = together / np.maximum(_deviation(reference.image) * _deviation(warped), 1.0)
    return np.where(inside, score.clip(-0.999, 1), -1)


def _is_before(homography: FloatArray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W) whose place on the plane lies before the source camera and not behind it."""
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return homography[2, 0] * u + homography[2, 1] * v + homography[2, 2] > 1e-3


def _mean(image: np.ndarray) -> np.ndarray:
    return cv2.boxFilter(image, -1, (WINDOW, WINDOW))


def _deviation(image: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(_mean(image * image) - _mean(image) ** 2, 0))


def _peak_offset(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Offset (H, W) in [-0.5, 0.5] of the top of the parabola through a score and its neighbours."""
    v, u = np.indices(best.shape)
    middle = best.clip(1, len(scores) - 2)
    below, at, above = (scores[middle + step, v, u] for step in (-1, 0, 1))
    bend = below - 2 * at + above
    return np.where(bend < -1e-6, (below - above) / (2 * np.minimum(bend, -1e-6)), 0).clip(-0.5, 0.5)
