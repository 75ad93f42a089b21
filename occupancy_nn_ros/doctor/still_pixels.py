# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a camera never change while it moves: those of the robot's own body, and of dirt on the lens.

Little change is not enough, since plain floors and skies change little too. A body ends sharply: beside its outline the pictures change,
or its outline is an edge that stays where it is (persistent gradients, as in watermark and logo detection).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.geometry.poses import rotation_angle
from occupancy_nn_ros.values import Float32Array, FloatArray, UInt8Array

LONG_SIDE_PX = 240
"""Pictures are compared at this size."""

MOST_PICTURES = 120
LEAST_PICTURES = 15
LEAST_MOVED_M, LEAST_TURNED_RAD = 0.05, 0.05
"""A picture counts that was taken this far from the one before it."""

STILL_SHARE, STILL_LEVELS, STILL_LIGHT = 0.2, 4.0, 0.06
"""A pixel stays if its grey levels deviate by less than this share of what most pixels' do, by so many levels, or by this share of its
own brightness, as exposure and light change."""

STRICTNESS = (1.0, 0.75, 0.55)
"""Shares of that limit which are tried: with a strict one a body is found that a plain floor beside it would hide."""

EDGE_LEVELS, EDGE_PERSISTENCE = 6.0, 0.75
"""A gradient stays if its mean over the pictures is this strong, and this much of the mean strength."""

RISE, AT_ONCE = 3.0, 0.6
"""Two pixels beside a body's outline grey levels deviate this many times as much as inside of it, and already by this share of what
they do eight pixels away. Where a plain floor or sky ends, deviations grow slowly, since it does not end at the same place each time."""

SHARP_SHARE = 0.6
"""How much of an outline, picture borders left out, must be sharp."""

LEAST_AREA = 0.002
MARGIN_SHARE = 0.012
"""A mask reaches this share of the picture's long side further than what was found."""

BoolArray = npt.NDArray[np.bool_]


@dataclass
class Motion:
    """How far a camera moved between the pictures that count: metres, and radians turned."""

    moved_m: float = 0.0
    turned_rad: float = 0.0


class StillPixels:
    """Takes one camera's pictures in order.

    Attributes:
        motion: how far it moved.
        pictures: that count so far.
    """

    def __init__(self) -> None:
        """No picture was seen yet."""
        self.motion, self.pictures = Motion(), 0
        self._greys: list[UInt8Array] = []
        self._colors: Float32Array | None = None
        self._every = 1
        self._size = (0, 0)
        self._last: FloatArray | None = None

    def add(self, image: UInt8Array, T_map_cam: FloatArray) -> None:
        """Take a picture (H, W, 3) and where it was taken; one from the same place, or of another size, does not count."""
        height, width = image.shape[:2]
        if self._last is None:
            self._size = (width, height)
        elif (width, height) != self._size or not self._has_moved(T_map_cam):
            return
        self._last = T_map_cam
        self.pictures += 1
        if self.pictures % self._every:
            return
        scale = min(1.0, LONG_SIDE_PX / max(width, height))
        small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        color = small.astype(np.float32)
        self._colors = color if self._colors is None else self._colors + color
        self._greys.append(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8))
        if len(self._greys) > MOST_PICTURES:  # so that they span the whole recording
            self._greys, self._every = self._greys[::2], self._every * 2

    def mask(self) -> BoolArray:
        """Pixels (H, W) that show the camera's own body; none where too few pictures tell."""
        width, height = self._size
        if len(self._greys) < LEAST_PICTURES:
            return np.zeros((height, width), np.bool_)
        found = body_of(np.stack(self._greys))
        full = cv2.resize(found.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        reach = max(1, round(MARGIN_SHARE * max(width, height)))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        return np.asarray(cv2.dilate(full, disc) > 0, dtype=np.bool_)

    def mean_picture(self) -> UInt8Array:
        """Mean of the pictures (H, W, 3): the world is blurred in it, the body sharp."""
        width, height = self._size
        if self._colors is None:
            return np.zeros((height, width, 3), np.uint8)
        mean = self._colors / max(float(self._colors.max()) / 255, 1e-6)
        return np.asarray(cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def _has_moved(self, T_map_cam: FloatArray) -> bool:
        assert self._last is not None
        moved = float(np.linalg.norm(T_map_cam[:3, 3] - self._last[:3, 3]))
        turned = rotation_angle(self._last, T_map_cam)
        if moved < LEAST_MOVED_M and turned < LEAST_TURNED_RAD:
            return False
        self.motion.moved_m += moved
        self.motion.turned_rad += turned
        return True


def body_of(greys: UInt8Array) -> BoolArray:
    """Pixels (h, w) of N pictures (N, h, w) that stay while the world moves, by their deviation and their outlines."""
    deviation = _deviation(greys)
    edges = _persistent_edges(greys)
    least = max(STILL_LEVELS, STILL_SHARE * float(np.percentile(deviation, 75)))
    most = np.maximum(least, STILL_LIGHT * greys.mean(axis=0))
    body = np.zeros(deviation.shape, np.bool_)
    for strictness in STRICTNESS:
        body |= _sharp_regions(deviation < strictness * most, deviation, edges)
    # Edges that stay belong to the body that they surround, or lie on.
    near = cv2.dilate(body.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    body |= near & edges & (deviation < most)
    closed = cv2.morphologyEx(body.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(_without_holes(closed) > 0, dtype=np.bool_)


def _sharp_regions(still: BoolArray, deviation: Float32Array, edges: BoolArray) -> BoolArray:
    """Of the regions of still pixels between edges those that end sharply, (h, w)."""
    inside = cv2.morphologyEx((still & ~edges).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels = cv2.connectedComponents(inside, connectivity=4)
    sharp = np.zeros(still.shape, np.bool_)
    for number in range(1, count):
        part = labels == number
        if part.sum() >= LEAST_AREA * part.size and _sharpness(part, deviation, edges) >= SHARP_SHARE:
            sharp |= part
    return sharp


def _deviation(greys: UInt8Array) -> Float32Array:
    """Mean absolute deviation of each pixel's grey levels from their mean, (h, w)."""
    mean = greys.mean(axis=0, dtype=np.float32)
    return np.asarray(np.mean([np.abs(grey - mean) for grey in greys], axis=0), dtype=np.float32)


def _persistent_edges(greys: UInt8Array) -> BoolArray:
    """Where the gradient is the same in all pictures, (h, w)."""
    total = np.zeros((2, *greys.shape[1:]), np.float32)
    strength = np.zeros(greys.shape[1:], np.float32)
    for grey in greys:
        smooth = cv2.GaussianBlur(grey.astype(np.float32), (3, 3), 0)
        gradient = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)]) / 8
        total += gradient
        strength += np.hypot(gradient[0], gradient[1])
    mean = np.hypot(total[0], total[1])
    return np.asarray((mean > EDGE_LEVELS * len(greys)) & (mean > EDGE_PERSISTENCE * strength), dtype=np.bool_)


def _sharpness(part: BoolArray, deviation: Float32Array, edges: BoolArray) -> float:
    """Share of a region's outline where an edge stays, or beside which grey levels deviate more at once."""
    padded = np.pad(part, 1, mode="edge").astype(np.uint8)  # the picture's border is no outline
    outline = part & ~(cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0)
    if not outline.any():
        return 0.0
    outside = np.where(part, -1.0, deviation).astype(np.float32)
    beside, further = (cv2.dilate(outside, np.ones((side, side), np.uint8)) for side in (5, 17))
    own = max(float(np.median(deviation[part])), 1.0)
    edge_beside = cv2.dilate(edges.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return float((edge_beside | ((beside > RISE * own) & (beside > AT_ONCE * further)))[outline].mean())


def _without_holes(mask: UInt8Array) -> UInt8Array:
    """The mask with what it surrounds."""
    contours, _ = cv2.findContours(np.asarray(mask, np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, (1,), cv2.FILLED)
    return filled
