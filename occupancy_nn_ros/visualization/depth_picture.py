# SPDX-License-Identifier: Apache-2.0
"""Each camera's picture, and below or beside it the depth that the network is sure of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from occupancy_nn_ros.values import PosedDepth, PosedImage, UInt8Array
from occupancy_nn_ros.visualization.colors import depth_colors

TILE_WIDTH = 400
GAP = 4


def draw_depths(looks: Sequence[tuple[PosedImage, PosedDepth]], file: Path | str) -> None:
    """Write a picture with a column for each camera; depth runs from red (near) to blue (far), black is not known.

    Args:
        looks: an image and its depth for each camera, at least one.
        file: PNG to write.

    Raises:
        OSError: the file cannot be written.
    """
    if not cv2.imwrite(str(file), render_depths(looks)[..., ::-1]):
        raise OSError(f"cannot write {file}")


def render_depths(
    looks: Sequence[tuple[PosedImage, PosedDepth]], tile_width: int = TILE_WIDTH, *, in_rows: bool = False
) -> UInt8Array:
    """RGB (H, W, 3) of :func:`draw_depths`.

    Args:
        looks: an image and its depth for each camera, at least one.
        tile_width: width of an image in pixels.
        in_rows: a row for each camera, its depth at the right, instead of a column.
    """
    height = max(_scaled_height(image.image, tile_width) for image, _ in looks)
    cameras = [
        np.concatenate(
            [
                _tile(image.image, (height, tile_width), cv2.INTER_AREA),
                _tile(depth_colors(_known(depth)), (height, tile_width), cv2.INTER_NEAREST),
            ],
            axis=int(in_rows),
        )
        for image, depth in looks
    ]
    return np.concatenate(cameras, axis=int(not in_rows))[:-GAP, :-GAP]


def _scaled_height(picture: UInt8Array, tile_width: int) -> int:
    height, width = picture.shape[:2]
    return int(tile_width * height / width + 0.5)


def _known(depth: PosedDepth) -> np.ndarray:
    return np.where(depth.depth_m > 0, depth.depth_m, np.nan)


def _tile(picture: UInt8Array, size: tuple[int, int], interpolation: int) -> UInt8Array:
    """A picture (H, W, 3) of the common (height, width), with white below and to the right."""
    height, width = size
    tile = np.full((height + GAP, width + GAP, 3), 255, np.uint8)
    own = min(_scaled_height(picture, width), height)  # a depth image may be a pixel higher, in proportion
    tile[:own, :width] = cv2.resize(picture, (width, own), interpolation=interpolation)
    return tile
