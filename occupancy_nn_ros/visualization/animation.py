# SPDX-License-Identifier: Apache-2.0
"""A short animated picture of the map growing: what the cameras see, the depth that is known, and the map from above."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.values import FloatArray, MapView, UInt8Array
from occupancy_nn_ros.visualization.depth_picture import render_depths
from occupancy_nn_ros.visualization.snapshot import Snapshot
from occupancy_nn_ros.visualization.top_down import top_down_image

WIDTH = 480
MOST_FRAMES = 48
FRAME_MS, LAST_MS = 140, 1500
COLORS = 96
PATH_COLOR = (208, 28, 139)
SPAN_M = 16.0
"""Edge of the square around the robot that is shown."""


class MapAnimation:
    """A viewer that keeps small pictures, at most ``MOST_FRAMES``: when there are more, every second one is dropped."""

    def __init__(self, grid: GridConfig) -> None:
        """Start without pictures.

        Args:
            grid: height band of the map from above.
        """
        self._grid = grid
        self._frames: list[UInt8Array] = []
        self._path: list[FloatArray] = []
        self._every, self._count = 1, 0

    def wants(self) -> bool:
        """Whether the next keyframe is one of those that are kept."""
        self._count += 1
        return (self._count - 1) % self._every == 0

    def offer(self, snapshot: Snapshot) -> None:
        """Draw one keyframe."""
        self._path.append(snapshot.view.T_map_base[:3, 3].copy())
        self._frames.append(self._draw(snapshot))
        if len(self._frames) > MOST_FRAMES:
            self._frames, self._every = self._frames[::2], self._every * 2

    def save(self, file: Path) -> bool:
        """Write a GIF; False if there is nothing to show.

        Raises:
            OSError: it cannot be written.
        """
        if not self._frames:
            return False
        size = (max(frame.shape[0] for frame in self._frames), max(frame.shape[1] for frame in self._frames))
        pictures = [_in_few_colors(_of_size(frame, size)) for frame in self._frames]
        durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_MS]
        pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)
        return True

    def _draw(self, snapshot: Snapshot) -> UInt8Array:
        """RGB (H, W, 3): cameras above the map; one alone, whose picture and depth are higher than wide, beside it."""
        drawn = self._draw_map(snapshot.view)
        depths = {depth.camera: depth for depth in snapshot.depths}
        looks = [(image, depths[image.camera]) for image in snapshot.images if image.camera in depths]
        if not looks:
            return drawn
        strip = render_depths(looks)
        scale = WIDTH / max(strip.shape[:2])
        size = (round(strip.shape[1] * scale), round(strip.shape[0] * scale))
        small = np.asarray(cv2.resize(strip, size, interpolation=cv2.INTER_AREA), np.uint8)
        return np.concatenate([small, drawn], axis=int(strip.shape[0] > strip.shape[1]))

    def _draw_map(self, view: MapView) -> UInt8Array:
        """RGB (WIDTH, WIDTH, 3) of the map around the robot, y up."""
        edge = view.window.voxel_size_m
        half = round(SPAN_M / 2 / edge)
        center = view.window.index_of(view.T_map_base[:3, 3])[:2]
        picture = top_down_image(view, self._grid)
        padded = np.full((2 * half, 2 * half, 3), 205, np.uint8)
        low, high = center - half, center + half
        inside = [
            slice(max(int(a), 0), max(min(int(b), n), 0)) for a, b, n in zip(low, high, picture.shape[:2], strict=True)
        ]
        at = [
            slice(s.start - int(a), s.start - int(a) + max(s.stop - s.start, 0))
            for s, a in zip(inside, low, strict=True)
        ]
        padded[at[0], at[1]] = picture[inside[0], inside[1]]
        image = np.ascontiguousarray(padded.transpose(1, 0, 2)[::-1])
        image = np.asarray(cv2.resize(image, (WIDTH, WIDTH), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
        scale = WIDTH / (2 * half)
        cells = (np.array(self._path)[:, :2] - view.window.origin_m[:2]) / edge - low
        pixels = np.stack([cells[:, 0] * scale, WIDTH - cells[:, 1] * scale], axis=1).round().astype(np.int32)
        cv2.polylines(image, [pixels], False, PATH_COLOR, 2, cv2.LINE_AA)
        cv2.circle(image, (int(pixels[-1, 0]), int(pixels[-1, 1])), 6, PATH_COLOR, -1, cv2.LINE_AA)
        return image


def _of_size(frame: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """A frame with white above and at the left, so that all have one size (height, width)."""
    picture = np.full((*size, 3), 255, np.uint8)
    picture[size[0] - frame.shape[0] :, size[1] - frame.shape[1] :] = frame
    return picture


def _in_few_colors(frame: UInt8Array) -> Image.Image:
    """A frame with a palette, in which the thin line of the path keeps its colour."""
    picture = Image.fromarray(frame)
    colors = picture.quantize(COLORS - 1).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colors, *PATH_COLOR])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)
