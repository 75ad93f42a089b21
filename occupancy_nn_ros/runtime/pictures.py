# SPDX-License-Identifier: Apache-2.0
"""What all cameras saw at a keyframe in one picture, each beside its predicted depth: one topic shows any robot's cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from occupancy_nn_ros.messages.sensors import encode_image
from occupancy_nn_ros.values import PosedDepth, PosedImage
from occupancy_nn_ros.visualization.depth_picture import GAP, render_depths

PICTURE_WIDTH = 240
"""Pixels; four cameras of 4:3 then are 1 MB, raw: viewers may lack what compressed pictures need."""

NAME_HEIGHT = 18
"""Pixels at the top of a picture that its camera's name takes."""

FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


@dataclass(frozen=True)
class PictureSource:
    """The cameras' pictures and predicted depth.

    Attributes:
        stamp_ns: time of the keyframe.
        frame_id: the robot's frame.
        looks: an image and its depth for each camera, at least one.
    """

    stamp_ns: int
    frame_id: str
    looks: tuple[tuple[PosedImage, PosedDepth], ...]


def paired(images: Sequence[PosedImage], depths: Sequence[PosedDepth]) -> tuple[tuple[PosedImage, PosedDepth], ...]:
    """Images with their depth, in the images' order; those without are left out."""
    known = {(depth.camera, depth.stamp_ns): depth for depth in depths}
    keys = ((image, (image.camera, image.stamp_ns)) for image in images)
    return tuple((image, known[key]) for image, key in keys if key in known)


def encode_pictures(source: PictureSource) -> bytes:
    """An rgb8 Image with a row for each camera: its named picture, and its depth from red (near) to blue (far), black where not sure."""
    pixels = render_depths(source.looks, PICTURE_WIDTH, in_rows=True)
    row = (len(pixels) + GAP) // len(source.looks)
    for n, (image, _) in enumerate(source.looks):
        (width, _), _ = cv2.getTextSize(image.camera, FONT, FONT_SCALE, 1)
        pixels[n * row : n * row + NAME_HEIGHT, : min(width + 8, PICTURE_WIDTH)] = 0
        at = (4, n * row + NAME_HEIGHT - 5)
        cv2.putText(pixels, image.camera, at, FONT, FONT_SCALE, (255, 255, 255), 1, cv2.LINE_AA)
    return encode_image(source.stamp_ns, source.frame_id, pixels)
