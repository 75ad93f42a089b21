# SPDX-License-Identifier: Apache-2.0
"""Where predicted depth is wrong: by range, texture, edge and place in the picture, and what one keyframe's pixels share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.alignment.pose_alignment import PoseQuality
from occupancy_nn_ros.geometry.cameras import project
from occupancy_nn_ros.geometry.depth_lookup import look_up_depth, measured_points
from occupancy_nn_ros.values import FloatArray, PosedDepth, PosedImage

EVERY = 6
"""Every so many rows and columns of a depth image are judged."""

NEAREST_M = 0.05
OFF = 0.1
"""An error beyond this counts as off."""

EDGE_JUMP, EDGE_PX = 0.1, 5
"""Depth that differs by more than this share within so many pixels of a measured one makes it an edge."""

TEXTURE_PX = 9
"""Side of the square over which a picture's gradient is averaged."""

RANGES_M = (0.0, 1.0, 2.0, 3.0, 4.0)
LEAST_SURE = 50
"""A keyframe with fewer sure pixels has no median of its own."""


@dataclass(frozen=True)
class Pixels:
    """Judged pixels of one camera in one keyframe; N of each.

    Attributes:
        error: (N,) log of predicted over measured depth; NaN where the network is not sure.
        measured_m: (N,) measured depth.
        texture: (N,) mean length of the picture's grey gradient there, grey levels a pixel.
        edge: (N,) whether measured depth jumps there.
        place: (N, 2) in the picture, from 0 (left, top) to 1 (right, bottom).
    """

    error: FloatArray
    measured_m: FloatArray
    texture: FloatArray
    edge: npt.NDArray[np.bool_]
    place: FloatArray

    @property
    def own_median(self) -> float:
        """Median error of the sure pixels; NaN where they are too few."""
        sure = self.error[np.isfinite(self.error)]
        return float(np.median(sure)) if len(sure) >= LEAST_SURE else float("nan")


@dataclass(frozen=True)
class Row:
    """What the breakdown says of one kind of pixels; shares and relative errors, NaN where there are none.

    Attributes:
        name: of the kind.
        share: of all judged pixels.
        sure: share of the kind that has a depth.
        bias, median: of the signed and of the absolute error of the sure ones.
        off: share of the sure ones whose error is beyond ``OFF``.
    """

    name: str
    share: float
    sure: float
    bias: float
    median: float
    off: float


@dataclass
class DepthBreakdown:
    """Errors of predicted depth images, gathered keyframe by keyframe."""

    parts: list[Pixels] = field(default_factory=list)
    qualities: list[PoseQuality] = field(default_factory=list)

    def add(self, image: PosedImage, predicted: PosedDepth, measured: Iterable[PosedDepth]) -> None:
        """Judge a camera's predicted depth.

        Args:
            image: the camera's picture and the pose it was given.
            predicted: 0 where the network is not sure; its pose is not looked at.
            measured: depth images of the same moment, 0 or NaN where not known.
        """
        here = PosedDepth(image.camera, image.stamp_ns, predicted.depth_m, predicted.model, image.T_map_cam)
        texture = texture_of(image.image)
        for depth in measured:
            points, edge = measured_points(depth, EVERY), _at_measured(depth, is_edge(depth.depth_m))
            found = look_up_depth(here, points, NEAREST_M)
            pixels, inside = project(image.model, found.local_m)
            index, z, told = found.index[inside], found.local_m[inside, 2], found.measured_m[inside]
            u, v = np.round(pixels[inside]).astype(int).T
            size = np.array(texture.shape[::-1])
            u, v = u.clip(0, size[0] - 1), v.clip(0, size[1] - 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.where(told > 0, np.log(told / z), np.nan)
            self.parts.append(Pixels(error, z, texture[v, u], edge[index], pixels[inside] / size))

    def all(self, name: str) -> npt.NDArray[Any]:
        """One attribute of the pixels of all keyframes together."""
        return np.concatenate([getattr(part, name) for part in self.parts])

    @property
    def keyframe_medians(self) -> FloatArray:
        """Median error of each camera of each keyframe, in order; NaN where too few pixels are sure."""
        return np.array([part.own_median for part in self.parts])

    def rows(self) -> list[Row]:
        """One row for each kind of pixels, all of them first.

        Texture is told in quarters of the pixels away from edges.
        """
        if not self.parts:
            return []
        error, z, texture, edge, place = (
            self.all(name) for name in ("error", "measured_m", "texture", "edge", "place")
        )
        kinds: dict[str, npt.NDArray[np.bool_]] = {"all": np.ones(len(error), bool)}
        for low, high in pairwise(RANGES_M):
            kinds[f"{low:g} to {high:g} m"] = (z >= low) & (z < high)
        kinds["at edges"], kinds["away from edges"] = edge, ~edge
        quarters = np.quantile(texture[~edge], (0.25, 0.5, 0.75)) if (~edge).any() else np.zeros(3)
        quarter = np.searchsorted(quarters, texture, side="left")
        for index, name in enumerate(("least texture", "less texture", "more texture", "most texture")):
            kinds[name] = ~edge & (quarter == index)
        third = np.clip((place[:, 1] * 3).astype(int), 0, 2)
        for index, name in enumerate(("top third", "middle third", "bottom third")):
            kinds[name] = third == index
        return [_row(name, error, chosen) for name, chosen in kinds.items()]

    def figures(self) -> dict[str, float]:
        """Scatter from keyframe to keyframe, errors without it, and how far matches miss; NaN where there is nothing.

        ``keyframe_scatter`` is 1.48 times the median distance of keyframes' own medians from their median, ``own_scale_*``
        what is left of the errors when each keyframe's own median is taken out, and ``epipolar_*_px`` the median error of
        followed features under the poses as given and under the best ones.
        """
        medians = self.keyframe_medians
        told = np.isfinite(medians)
        nan = float("nan")
        figures = dict.fromkeys(("keyframe_scatter", "own_scale_median", "own_scale_off"), nan)
        if told.any():
            left = np.concatenate([p.error - m for p, m, ok in zip(self.parts, medians, told, strict=True) if ok])
            left = np.abs(np.expm1(left[np.isfinite(left)]))
            spread = np.abs(medians[told] - np.median(medians[told]))
            figures = {
                "keyframe_scatter": 1.48 * float(np.median(spread)),
                "own_scale_median": float(np.median(left)),
                "own_scale_off": float((left > OFF).mean()),
            }
        for name in ("given_px", "best_px"):
            values = [getattr(quality, name) for quality in self.qualities]
            figures[f"epipolar_{name}"] = float(np.nanmedian(values)) if values else nan
        return figures


def texture_of(image: npt.NDArray[np.uint8]) -> FloatArray:
    """Mean length of the grey gradient (H, W) around each pixel of an RGB picture (H, W, 3), grey levels a pixel."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    x, y = (cv2.Sobel(grey, cv2.CV_32F, *order, ksize=3, scale=0.125) for order in ((1, 0), (0, 1)))
    return np.asarray(cv2.blur(np.hypot(x, y), (TEXTURE_PX, TEXTURE_PX)), dtype=np.float64)


def is_edge(depth_m: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) within ``EDGE_PX`` of which known depth differs by more than ``EDGE_JUMP`` of the nearer."""
    known = np.isfinite(depth_m) & (depth_m > 0)
    kernel = np.ones((EDGE_PX, EDGE_PX), np.uint8)
    nearest = cv2.erode(np.where(known, depth_m, np.float32(np.inf)), kernel)
    furthest = cv2.dilate(np.where(known, depth_m, np.float32(0)), kernel)
    return np.asarray(known & (nearest < furthest / np.float32(1 + EDGE_JUMP)))


def _at_measured(depth: PosedDepth, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Values (H, W) at the pixels of :func:`measured_points`, in its order."""
    chosen = depth.depth_m[::EVERY, ::EVERY]
    v, u = np.nonzero(chosen > 0)
    finite = np.isfinite(chosen[v, u])
    return values[::EVERY, ::EVERY][v, u][finite]


def _row(name: str, error: FloatArray, chosen: npt.NDArray[np.bool_]) -> Row:
    mine = error[chosen]
    sure = np.expm1(mine[np.isfinite(mine)])
    nan = float("nan")
    return Row(
        name,
        share=len(mine) / len(error),
        sure=len(sure) / len(mine) if len(mine) else nan,
        bias=float(np.median(sure)) if len(sure) else nan,
        median=float(np.median(np.abs(sure))) if len(sure) else nan,
        off=float((np.abs(sure) > OFF).mean()) if len(sure) else nan,
    )
