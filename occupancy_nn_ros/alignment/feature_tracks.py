# SPDX-License-Identifier: Apache-2.0
"""Corners of images followed from keyframe to keyframe (Shi and Tomasi 1994; pyramids of Bouguet 2001)."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import FloatArray, UInt8Array

PER_CAMERA = 150
SPACING_PX = 8
QUALITY = 0.01
PATCH_PX = 15
PYRAMID_LEVELS = 2
RETURN_PX = 0.5
"""A feature that does not come back to within this when it is followed backwards was not followed."""

AROUND_PX = 2 * PATCH_PX + 1
CONTRAST, LEAST_CONTRAST = 40.0, 5.0
"""Grey levels to which the contrast around each pixel is brought; with less than the second, it is noise and stays weak."""

BORDER_PX = 2
START_INVERSE_M = 0.4
"""Inverse depth of a feature before anything is known of it."""

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass
class FeatureTracks:
    """Where N features were seen in the W keyframes of a window.

    Attributes:
        pixels: (N, W, 2) pixels, NaN where a feature was not seen.
        camera: (N,) index of the camera that follows it.
        inverse_depth: (N,) in 1/m along the optical axis, in the first keyframe of the window that sees it.
    """

    pixels: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 2)))
    camera: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    inverse_depth: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def seen(self) -> BoolArray:
        """Which keyframes see which features, (N, W)."""
        return np.isfinite(self.pixels[..., 0])

    @property
    def found(self) -> BoolArray:
        """Which features any keyframe sees, (N,)."""
        return np.asarray(self.seen.any(axis=1), dtype=np.bool_)

    @property
    def first(self) -> IntArray:
        """The first keyframe that sees each feature, (N,)."""
        return self.seen.argmax(axis=1) if self.pixels.shape[1] else np.zeros(len(self.camera), np.int64)

    def add_keyframe(self) -> None:
        """A new keyframe, in which nothing is seen yet."""
        column = np.full((len(self.camera), 1, 2), np.nan)
        self.pixels = np.concatenate([self.pixels, column], axis=1)

    def drop_oldest(self) -> None:
        """Forget the oldest keyframe; ``inverse_depth`` is the caller's to bring to the one that is first then."""
        self.pixels = self.pixels[:, 1:]

    def keep(self, rows: BoolArray) -> None:
        """Keep only some of the features, (N,)."""
        self.pixels, self.camera = self.pixels[rows], self.camera[rows]
        self.inverse_depth = self.inverse_depth[rows]

    def follow(self, rows: IntArray, before: UInt8Array, now: UInt8Array, expected: FloatArray) -> int:
        """Look for features of the last keyframe but one in the last one; returns for how many, found or not.

        Args:
            rows: which features, all of one camera.
            before: its image (H, W) uint8 at the last keyframe but one, as :func:`evened`.
            now: its image at the last one, likewise.
            expected: (len(rows), 2) where they should be.
        """
        height, width = now.shape
        limit = np.array([width, height]) - 1 - BORDER_PX
        inside = ((expected > BORDER_PX) & (expected < limit)).all(axis=1)
        rows, expected = rows[inside], expected[inside]
        if not len(rows):
            return 0
        start = self.pixels[rows, -2].astype(np.float32)[:, None]
        found, there = _flow(before, now, start, expected.astype(np.float32)[:, None])
        back, again = _flow(now, before, found, start)
        returned = np.linalg.norm(back - start, axis=2)[:, 0] < RETURN_PX
        places = found[:, 0].astype(np.float64)
        good = there & again & returned & ((places > BORDER_PX) & (places < limit)).all(axis=1)
        self.pixels[rows[good], -1] = places[good]
        return len(rows)

    def detect(self, camera: int, image: UInt8Array, usable: UInt8Array) -> None:
        """Add new features of a camera at the last keyframe, away from those that are followed.

        Args:
            camera: whose.
            image: (H, W) uint8.
            usable: (H, W) uint8, 0 where no feature may be.
        """
        followed = self.pixels[(self.camera == camera) & self.seen[:, -1], -1]
        missing = PER_CAMERA - len(followed)
        if missing <= 0:
            return
        mask = usable.copy()
        for u, v in followed.round().astype(int).tolist():
            cv2.circle(mask, (u, v), SPACING_PX, (0,), -1)
        corners = cv2.goodFeaturesToTrack(image, missing, QUALITY, SPACING_PX, mask=mask)
        if corners is None:
            return
        pixels = np.full((len(corners), self.pixels.shape[1], 2), np.nan)
        pixels[:, -1] = corners[:, 0]
        self.pixels = np.concatenate([self.pixels, pixels])
        self.camera = np.concatenate([self.camera, np.full(len(corners), camera)])
        self.inverse_depth = np.concatenate([self.inverse_depth, np.full(len(corners), START_INVERSE_M)])


def evened(image: UInt8Array) -> UInt8Array:
    """An image (H, W) with the same mean and contrast everywhere, without the exposure that optical flow would take for motion."""
    grey = image.astype(np.float32)
    size = (AROUND_PX, AROUND_PX)
    mean = cv2.blur(grey, size, borderType=cv2.BORDER_REFLECT_101)
    variance = cv2.blur(grey * grey, size, borderType=cv2.BORDER_REFLECT_101) - mean * mean
    contrast = np.sqrt(np.maximum(variance, LEAST_CONTRAST**2))
    return np.asarray((128 + CONTRAST * (grey - mean) / contrast).clip(0, 255), np.uint8)


def _flow(
    before: UInt8Array, now: UInt8Array, start: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """Optical flow from places (N, 1, 2): where they are now, and which were found (N,)."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        before, now, start, expected.copy(), winSize=(PATCH_PX, PATCH_PX), maxLevel=PYRAMID_LEVELS,
        criteria=criteria, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    return np.asarray(found, np.float32), np.asarray(status[:, 0] > 0)
