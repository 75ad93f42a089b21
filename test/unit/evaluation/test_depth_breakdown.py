# SPDX-License-Identifier: Apache-2.0
"""Where predicted depth is wrong, on walls whose errors are made up."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from occupancy_nn_ros.alignment.pose_alignment import PoseQuality
from occupancy_nn_ros.evaluation.depth_breakdown import EVERY, DepthBreakdown, is_edge, texture_of
from occupancy_nn_ros.evaluation.depth_breakdown_picture import draw_breakdown
from occupancy_nn_ros.values import CameraModel, PosedDepth, PosedImage

WIDTH, HEIGHT = 120, 96
MODEL = CameraModel(WIDTH, HEIGHT, np.array([[100.0, 0, 59.5], [0, 100, 47.5], [0, 0, 1]]), "none", np.zeros(0))
HALF = CameraModel(60, 48, np.array([[50.0, 0, 29.5], [0, 50, 23.5], [0, 0, 1]]), "none", np.zeros(0))


def pose(x: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = x
    return T


def wall(depth_m: np.ndarray) -> PosedDepth:
    return PosedDepth("depth", 0, depth_m.astype(np.float32), MODEL, pose())


def look(predicted: np.ndarray, aligned: float = 0.0) -> tuple[PosedImage, PosedDepth]:
    """A picture whose right half is chequered, and a depth of half its size under a pose that was corrected."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[:, WIDTH // 2 :] = np.where(np.indices((HEIGHT, WIDTH // 2)).sum(axis=0) // 4 % 2, 200, 60)[..., None]
    image = PosedImage("front", 0, picture, MODEL, pose())
    return image, PosedDepth("front", 0, predicted.astype(np.float32), HALF, pose(aligned))


def rows(breakdown: DepthBreakdown) -> dict[str, tuple[float, ...]]:
    return {row.name: (row.share, row.sure, row.bias, row.median, row.off) for row in breakdown.rows()}


def test_errors_are_signed_and_shares_are_of_the_pixels_of_a_kind():
    depth = np.full((HEIGHT, WIDTH), 2.5)
    depth[:, :60] = 1.5
    predicted = np.full((48, 60), 2.5 * 1.2)
    predicted[:, :30] = 1.5 * 0.98
    predicted[:16] = 0  # the top third is not sure
    breakdown = DepthBreakdown()
    breakdown.add(*look(predicted, aligned=0.3), [wall(depth)])
    got = rows(breakdown)
    assert got["1 to 2 m"] == pytest.approx((0.5, 10 / 16, -0.02, 0.02, 0.0), abs=0.001)
    assert got["2 to 3 m"] == pytest.approx((0.5, 10 / 16, 0.2, 0.2, 1.0), abs=0.001)
    assert got["top third"][1] == 0
    assert got["bottom third"][1] == 1
    assert got["0 to 1 m"][0] == 0
    assert np.isnan(got["0 to 1 m"][1:]).all()
    assert got["least texture"][2] < 0 < got["most texture"][2]


def test_a_common_scale_of_each_keyframe_is_told_apart_from_what_is_left():
    breakdown = DepthBreakdown()
    pattern = np.where(np.indices((48, 60)).sum(axis=0) % 2, 1.02, 1 / 1.02)
    for scale in (0.9, 1.0, 1.1, 0.95, 1.05):
        breakdown.add(*look(2 * scale * pattern), [wall(np.full((HEIGHT, WIDTH), 2.0))])
    breakdown.qualities += [PoseQuality(1.5, 0.4, 0.0), PoseQuality(1.1, 0.3, 0.0), PoseQuality(0.5, 0.2, 0.0)]
    figures = breakdown.figures()
    assert np.expm1(breakdown.keyframe_medians) == pytest.approx([-0.1, 0, 0.1, -0.05, 0.05], abs=0.025)
    assert figures["keyframe_scatter"] == pytest.approx(1.48 * 0.05, abs=0.02)
    assert figures["own_scale_median"] <= 0.041
    assert figures["own_scale_off"] == 0
    assert (figures["epipolar_given_px"], figures["epipolar_best_px"]) == (1.1, 0.3)


def test_edges_are_where_known_depth_jumps():
    depth = np.full((9, 20), 2.0, np.float32)
    depth[:, 10:] = 2.3
    depth[:, 17:] = 0  # not measured: no edge beside it
    edge = is_edge(depth)
    assert edge[:, 8:12].all()
    assert not edge[:, :8].any()
    assert not edge[:, 12:].any()


def test_texture_is_the_slope_of_the_grey_levels():
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 3, (40, 1))
    assert texture_of(np.stack([ramp] * 3, axis=-1))[20, 30] == pytest.approx(3.0)
    assert texture_of(np.full((40, 60, 3), 90, np.uint8)).max() == 0


def test_every_pixel_is_judged_once_and_the_picture_shows_it(tmp_path):
    breakdown = DepthBreakdown()
    assert breakdown.rows() == []
    assert np.isnan(list(breakdown.figures().values())).all()
    breakdown.add(*look(np.full((48, 60), 2.2)), [wall(np.full((HEIGHT, WIDTH), 2.0))])
    assert len(breakdown.all("error")) == -(-HEIGHT // EVERY) * -(-WIDTH // EVERY)
    draw_breakdown(breakdown, tmp_path / "errors.png")
    assert cv2.imread(str(tmp_path / "errors.png")).std() > 10
