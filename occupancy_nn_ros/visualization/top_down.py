# SPDX-License-Identifier: Apache-2.0
"""The map from above: what Nav2 sees, with obstacle heights, the robot's path, and the simulator's truth where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.mapping.slices import FREE, LETHAL, band, occupancy_slice
from occupancy_nn_ros.values import FloatArray, MapView, UInt8Array, VoxelState
from occupancy_nn_ros.visualization.colors import height_colors

UNKNOWN_COLOR, FREE_COLOR = (205, 205, 210), (250, 250, 247)
MARGIN_CELLS = 5


def draw_top_down(
    view: MapView,
    file: Path | str,
    *,
    grid: GridConfig | None = None,
    path_m: FloatArray | None = None,
    truth: MapView | None = None,
    title: str = "",
) -> None:
    """Write a picture of the 2D grid.

    Args:
        view: the map.
        file: PNG to write.
        grid: height band of the grid; as the settings have it by default.
        path_m: (K, 3) robot positions, map frame.
        truth: the true occupancy of the same window, drawn beside it.
        title: headline.

    Raises:
        OSError: the file cannot be written.
    """
    grid, path_m = grid or GridConfig(), np.zeros((0, 3)) if path_m is None else path_m
    panels = [("map", view)] + ([("simulator's truth", truth)] if truth is not None else [])
    # Not by pyplot, which would choose a backend for the whole process and keep the figure.
    figure = Figure(figsize=(7.2 * len(panels), 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)
    limits = _limits(view, path_m)
    for axis, (name, panel) in zip(axes[0], panels, strict=True):
        _draw_panel(axis, panel, grid, path_m, limits)
        axis.set_title(name if len(panels) > 1 else "")
    axes[0][0].legend(handles=_legend(), loc="upper left", fontsize=8, framealpha=0.9)
    low, high = grid.min_height_m, grid.max_height_m
    figure.suptitle(
        title or f"obstacles {low:g} to {high:g} m above the robot's base, {view.window.voxel_size_m:g} m cells"
    )
    figure.savefig(file, dpi=110)


def top_down_image(view: MapView, grid: GridConfig | None = None) -> UInt8Array:
    """RGB (X, Y, 3): obstacles coloured by the height of their top in the band, free near white, unknown grey."""
    grid = grid or GridConfig()
    values = occupancy_slice(view, grid).values
    image = np.empty((*values.shape, 3), np.uint8)
    image[:] = UNKNOWN_COLOR
    image[values == FREE] = FREE_COLOR
    layers = band(view, grid)
    occupied = view.state[:, :, layers] == VoxelState.OCCUPIED
    top = occupied.shape[2] - 1 - np.argmax(occupied[:, :, ::-1], axis=2)
    lethal = values == LETHAL
    height = (top[lethal] + layers.start + view.window.origin[2] + 0.5) * view.window.voxel_size_m
    image[lethal] = height_colors(height, view)
    return image


def _draw_panel(axis: Axes, view: MapView, grid: GridConfig, path_m: FloatArray, limits: tuple[float, ...]) -> None:
    image = top_down_image(view, grid)
    x0, y0, _ = view.window.origin_m
    edge = view.window.voxel_size_m
    extent = (float(x0), float(x0 + image.shape[0] * edge), float(y0), float(y0 + image.shape[1] * edge))
    axis.imshow(image.transpose(1, 0, 2), origin="lower", extent=extent, interpolation="nearest")
    if len(path_m):
        axis.plot(path_m[:, 0], path_m[:, 1], color="#d01c8b", linewidth=1.6)
        axis.plot(*path_m[-1, :2], marker="o", color="#d01c8b", markersize=7)
        x, y = (float(v) for v in path_m[-1, :2])
        dx, dy = (0.8 * float(v) for v in view.T_map_base[:2, 0])
        axis.annotate("", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "->", "color": "#d01c8b", "lw": 1.6})
    axis.set_xlim(limits[0], limits[1])
    axis.set_ylim(limits[2], limits[3])
    axis.set_xlabel(f"x in {view.frame_id} [m]")
    axis.set_ylabel(f"y in {view.frame_id} [m]")


def _limits(view: MapView, path_m: FloatArray) -> tuple[float, float, float, float]:
    """The part of the window that holds anything known, with a margin, square."""
    known: npt.NDArray[np.intp] = np.argwhere((view.state != VoxelState.UNKNOWN).any(axis=2))
    edge, origin = view.window.voxel_size_m, view.window.origin_m[:2]
    if not len(known):
        known = np.array([[0, 0], [view.window.shape[0], view.window.shape[1]]])
    low, high = (
        (known.min(axis=0) - MARGIN_CELLS) * edge + origin,
        (known.max(axis=0) + 1 + MARGIN_CELLS) * edge + origin,
    )
    if len(path_m):
        low, high = (
            np.minimum(low, path_m[:, :2].min(axis=0) - edge),
            np.maximum(high, path_m[:, :2].max(axis=0) + edge),
        )
    center, half = (low + high) / 2, float((high - low).max()) / 2
    return float(center[0] - half), float(center[0] + half), float(center[1] - half), float(center[1] + half)


def _legend() -> list[Patch]:
    def patch(color: tuple[int, int, int], label: str) -> Patch:
        return Patch(facecolor=(color[0] / 255, color[1] / 255, color[2] / 255), edgecolor="#888888", label=label)

    return [
        patch(UNKNOWN_COLOR, "unknown"),
        patch(FREE_COLOR, "free"),
        patch((60, 90, 220), "obstacle, low"),
        patch((235, 110, 30), "obstacle, high"),
        Patch(facecolor="#d01c8b", label="robot's path"),
    ]
