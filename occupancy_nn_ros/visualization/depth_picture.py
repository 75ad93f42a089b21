# SPDX-License-Identifier: Apache-2.0
"""Each camera's picture, and below it the depth that the network is sure of."""

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


def render_depths(looks: Sequence[tuple[PosedImage, PosedDepth]]) -> UInt8Array:
    """RGB (H, W, 3) of :func:`draw_depths`."""
    height = max(_scaled_height(image.image) for image, _ in looks)
    columns = [
        np.concatenate(
            [
                _tile(image.image, height, cv2.INTER_AREA),
                _tile(depth_colors(_known(depth)), height, cv2.INTER_NEAREST),
            ]
        )
        for image, depth in looks
    ]
    return np.concatenate(columns, axis=1)[:-GAP, :-GAP]


def _scaled_height(picture: UInt8Array) -> int:
    height, width = picture.shape[:2]
    return int(TILE_WIDTH * height / width + 0.5)


def _known(depth: PosedDepth) -> np.ndarray:
    return np.where(depth.depth_m > 0, depth.depth_m, np.nan)


def _tile(picture: UInt8Array, height: int, interpolation: int) -> UInt8Array:
    """A picture (H, W, 3) of the common width, with white below and to the right."""
    tile = np.full((height + GAP, TILE_WIDTH + GAP, 3), 255, np.uint8)
    own = min(_scaled_height(picture), height)  # a depth image may be a pixel higher, in proportion
    tile[:own, :TILE_WIDTH] = cv2.resize(picture, (TILE_WIDTH, own), interpolation=interpolation)
    return tile
