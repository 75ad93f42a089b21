# SPDX-License-Identifier: Apache-2.0
"""A breakdown of depth errors as a picture: by kind of pixel, from keyframe to keyframe, and over the camera's picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from occupancy_nn_ros.evaluation.depth_breakdown import OFF, DepthBreakdown, Row
from occupancy_nn_ros.values import FloatArray

CELLS = (16, 12)
SURE_COLOR, OFF_COLOR = "#3b78b5", "#c8553d"


def draw_breakdown(breakdown: DepthBreakdown, file: Path | str, title: str = "") -> None:
    """Write the picture.

    Args:
        breakdown: with at least one judged pixel.
        file: PNG to write.
        title: headline.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["kinds", "keyframes", "keyframes"], ["kinds", "sure", "off"]])
    _draw_kinds(panels["kinds"], breakdown.rows())
    _draw_keyframes(panels["keyframes"], breakdown.keyframe_medians)
    error, place = breakdown.all("error"), breakdown.all("place")
    is_sure = np.isfinite(error)
    _draw_places(panels["sure"], is_sure, place, "share of pixels that are sure", "Blues")
    off = np.abs(np.expm1(error[is_sure])) > OFF
    _draw_places(panels["off"], off, place[is_sure], f"share of the sure ones more than {OFF:.0%} off", "Reds")
    figure.suptitle(title or "errors of predicted depth")
    figure.savefig(str(file), dpi=90)


def _draw_kinds(axis: Axes, rows: Sequence[Row]) -> None:
    places = np.arange(len(rows))
    axis.barh(places - 0.2, [row.sure for row in rows], 0.38, color=SURE_COLOR, label="sure")
    axis.barh(places + 0.2, [row.off for row in rows], 0.38, color=OFF_COLOR, label=f"of these more than {OFF:.0%} off")
    axis.set_yticks(places, [row.name for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of pixels")
    axis.legend(loc="lower right", fontsize=8)


def _draw_keyframes(axis: Axes, medians: FloatArray) -> None:
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.plot(100 * np.expm1(medians), ".-", color=SURE_COLOR, markersize=4, linewidth=0.8)
    axis.set_xlabel("image of a keyframe")
    axis.set_ylabel("median error, % (+: too far)")


def _draw_places(axis: Axes, values: np.ndarray, place: FloatArray, title: str, colors: str) -> None:
    """Mean of values (N,) by place (N, 2) in the picture; white where there are none."""
    edges = [np.linspace(0, 1, cells + 1) for cells in CELLS]
    count, *_ = np.histogram2d(place[:, 0], place[:, 1], edges)
    total, *_ = np.histogram2d(place[:, 0], place[:, 1], edges, weights=values.astype(float))
    with np.errstate(invalid="ignore"):
        shown = axis.imshow((total / count).T, cmap=colors, vmin=0, vmax=1, extent=(0, 4, 3, 0))
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)
