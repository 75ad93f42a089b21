# SPDX-License-Identifier: Apache-2.0
"""Keyframes whose poses agree with each other: what odometry says, corrected by what the images say, as far as it may be off."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.alignment.feature_tracks import PATCH_PX, FeatureTracks, evened
from occupancy_nn_ros.alignment.pose_adjustment import LOST_PX, NEAREST_M, Adjustment, PoseWindow, adjust, focal_lengths
from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size
from occupancy_nn_ros.values import CameraModel, FloatArray, Keyframe, PosedImage, UInt8Array

WINDOW = 9
FIRST_KEYFRAMES = 5
"""Poses are corrected from this keyframe on: fewer do not tell a turn from a step aside."""

CANVAS_PIXELS, CANVAS_MULTIPLE = 90112, 2
LEAST_FEATURES = 12
LEAST_SHARE = 0.2
"""A keyframe that shows fewer features of the one before it, or less than this share of those it should, has nothing to do with it."""

MOST_RAD = 0.0105
"""Standard deviation of a pose's rotation at most, 0.6 degrees; that of its shift is 2 cm then."""

TELLING_KEYFRAMES, TELLING_PX = 12, 1.0
"""Over so many keyframes features have to miss by more than this, and clearly more than under the best poses, before poses and pictures are
said to disagree."""

AGREES_RATIO = 2.5
"""Poses under which features miss at most this many times more than under the best ones stay as they are, bit for bit."""


@dataclass(frozen=True)
class PoseQuality:
    """How well the poses of the recent keyframes agree with the images.

    Attributes:
        given_px: median error of the features under the poses as they came.
        best_px: the same under the poses that the features alone would choose.
        sigma_rad: by how much rotations seem to be off.
    """

    given_px: float
    best_px: float
    sigma_rad: float

    @property
    def agrees(self) -> bool:
        """Whether the poses are as good as the features can tell."""
        return self.given_px <= AGREES_RATIO * self.best_px


def disagreement_of(qualities: Collection[PoseQuality]) -> str:
    """How poses and pictures of these keyframes disagree; empty where they do not, or where matches miss under any poses."""
    told = np.array([(quality.given_px, quality.best_px) for quality in qualities]).reshape(-1, 2)
    told = told[np.isfinite(told).all(axis=1)]  # a keyframe that shares nothing with others tells nothing
    if not len(told):
        return ""
    given, best = (float(value) for value in np.median(told, axis=0))
    if given < TELLING_PX or PoseQuality(given, best, 0.0).agrees:
        return ""
    return f"poses and pictures disagree: features miss by {given:.1f} px where {best:.1f} px are possible"


@dataclass(frozen=True)
class Followed:
    """Features of one camera that the last keyframe shares with earlier ones; M of each.

    Attributes:
        first_ns: (M,) stamps of the oldest keyframes that see them.
        first, now: (M, 2) tangents x / z and y / z of their rays there, and in the last keyframe.
        focal_px: of the images in which they were found.
    """

    first_ns: npt.NDArray[np.int64]
    first: FloatArray
    now: FloatArray
    focal_px: float


@dataclass(frozen=True)
class _Frame:
    """One keyframe of the window."""

    stamp_ns: int
    images: list[UInt8Array]  # V of (H, W)
    evened: list[UInt8Array]  # the same, without what exposure changes
    usable: list[UInt8Array]  # V of (H, W), where features may be
    K: FloatArray  # (V, 3, 3)
    T_map_cam: FloatArray  # (V, 4, 4)


class PoseAlignment:
    """Follows features over the recent keyframes and corrects the poses of their cameras. Not thread-safe.

    Attributes:
        quality: of the last keyframe, None before there is any.
    """

    def __init__(self) -> None:
        """Start without keyframes."""
        self.quality: PoseQuality | None = None
        self._qualities: deque[PoseQuality] = deque(maxlen=TELLING_KEYFRAMES)
        self._frames: deque[_Frame] = deque()
        self._tracks = FeatureTracks()
        self._corrections = np.zeros((0, 6))
        self._lenses: dict[tuple[object, ...], _Lens] = {}

    @property
    def disagreement(self) -> str:
        """How poses and pictures disagree for many keyframes in a row; empty where they do not."""
        return disagreement_of(self._qualities) if len(self._qualities) == TELLING_KEYFRAMES else ""

    def reset(self) -> None:
        """Forget all keyframes, as after a jump in time or pose."""
        self._frames.clear()
        self._tracks, self._corrections = FeatureTracks(), np.zeros((0, 6))

    def align(self, keyframe: Keyframe) -> Keyframe:
        """The keyframe with the poses of its images corrected.

        Raises:
            CalibrationError: intrinsics that cannot be used, or that do not fit the image.
        """
        if not keyframe.images:
            return keyframe
        frame = self._prepare(keyframe)
        if self._frames and len(self._frames[-1].images) != len(frame.images):
            self.reset()
        self._advance(frame)
        if len(self._frames) > 1 and not self._follow():  # turned away, in the dark, or moved by a loop closure
            self._restart()
            return keyframe
        self._detect()
        if not self._adjust():
            return keyframe
        return keyframe.with_images_at(self._poses()[-1])

    def poses(self) -> dict[int, FloatArray]:
        """Corrected T_map_cam (V, 4, 4) of the recent keyframes by stamp."""
        if not self._frames:
            return {}
        return {frame.stamp_ns: poses for frame, poses in zip(self._frames, self._poses(), strict=True)}

    def followed(self, camera: int) -> Followed | None:
        """What the last keyframe shares with earlier ones, as found; None where that is nothing."""
        tracks = self._tracks
        chosen = (tracks.camera == camera) & (tracks.seen.sum(axis=1) > 1)
        rows = np.flatnonzero(chosen & tracks.seen[:, -1]) if self._frames else np.zeros(0, np.int64)
        if not len(rows):
            return None
        first, stamps = tracks.first[rows], np.array([frame.stamp_ns for frame in self._frames])
        K = np.stack([frame.K[camera] for frame in self._frames])
        tangents = [
            (tracks.pixels[rows, index] - K[index, :2, 2]) / focal_lengths(K[index])
            for index in (first, np.full_like(first, len(K) - 1))
        ]
        return Followed(stamps[first], tangents[0], tangents[1], float(K[-1, 0, 0]))

    def _prepare(self, keyframe: Keyframe) -> _Frame:
        lenses = [self._lens(image.model) for image in keyframe.images]
        images = [lens.grey(image) for lens, image in zip(lenses, keyframe.images, strict=True)]
        K = np.stack([lens.rectifier.K for lens in lenses])
        poses = np.stack([image.T_map_cam for image in keyframe.images])
        even = [evened(image) for image in images]
        return _Frame(keyframe.stamp_ns, images, even, [lens.usable for lens in lenses], K, poses)

    def _lens(self, model: CameraModel) -> _Lens:
        key = (model.width, model.height, model.K.tobytes(), model.distortion_model, model.D.tobytes())
        if key not in self._lenses:
            if len(self._lenses) > 64:  # a camera that keeps changing its zoom must not fill the memory
                self._lenses.clear()
            self._lenses[key] = _Lens(model)
        return self._lenses[key]

    def _window(self) -> PoseWindow:
        poses = np.stack([frame.T_map_cam for frame in self._frames])
        return PoseWindow(np.stack([frame.K for frame in self._frames]), poses, poses[:, :, :3, 3].mean(axis=1))

    def _poses(self) -> FloatArray:
        return self._window().corrected(self._corrections)

    def _points(self) -> FloatArray:
        """Features (N, 3) in the map frame."""
        tracks, first = self._tracks, self._tracks.first
        K = np.stack([frame.K for frame in self._frames])[first, tracks.camera]
        poses = self._poses()[first, tracks.camera]
        pixels = tracks.pixels[np.arange(len(first)), first]
        rays = np.column_stack([(pixels - K[:, :2, 2]) / focal_lengths(K), np.ones(len(first))])
        ways = np.einsum("nij,nj->ni", poses[:, :3, :3], rays)
        return np.asarray(ways / tracks.inverse_depth[:, None] + poses[:, :3, 3])

    def _advance(self, frame: _Frame) -> None:
        """Take a keyframe in, and leave the oldest out of a full window."""
        if len(self._frames) == WINDOW:
            points, moved = self._points(), self._tracks.seen[:, 0]
            self._frames.popleft()
            self._corrections = self._corrections[1:]
            self._tracks.drop_oldest()
            kept = self._tracks.found
            self._tracks.keep(kept)
            poses = self._poses()[self._tracks.first, self._tracks.camera]
            depth = ((points[kept] - poses[:, :3, 3]) * poses[:, :3, 2]).sum(axis=1)
            inverse = np.clip(1 / np.maximum(depth, 0.2), 1e-3, 5.0)
            self._tracks.inverse_depth = np.where(moved[kept], inverse, self._tracks.inverse_depth)
        self._frames.append(frame)
        self._corrections = np.vstack([self._corrections, np.zeros(6)])
        self._tracks.add_keyframe()

    def _follow(self) -> bool:
        """Look for the features of the previous keyframe where poses and depths expect them; returns whether they are there."""
        wanted = 0
        before, now = self._frames[-2], self._frames[-1]
        points, poses = self._points(), self._poses()[-1]
        for camera, pose in enumerate(poses):
            if before.images[camera].shape != now.images[camera].shape:
                continue
            rows = np.flatnonzero(self._tracks.seen[:, -2] & (self._tracks.camera == camera))
            local = (points[rows] - pose[:3, 3]) @ pose[:3, :3]
            ahead = local[:, 2] > NEAREST_M
            focal, center = now.K[camera][[0, 1], [0, 1]], now.K[camera][:2, 2]
            expected = focal * local[ahead, :2] / local[ahead, 2:] + center
            wanted += self._tracks.follow(rows[ahead], before.evened[camera], now.evened[camera], expected)

        return bool(self._tracks.seen[:, -1].sum() >= max(LEAST_FEATURES, LEAST_SHARE * wanted))

    def _detect(self) -> None:
        """Look for new features in the last keyframe."""
        frame = self._frames[-1]
        for camera, (image, usable) in enumerate(zip(frame.images, frame.usable, strict=True)):
            self._tracks.detect(camera, image, usable)

    def _adjust(self) -> bool:
        """Correct the window's poses; returns whether there is something to correct."""
        window, tracks = self._window(), self._tracks
        nothing = np.zeros((len(self._frames), 6))
        given = adjust(window, tracks, 0.0, nothing)
        free = adjust(window, tracks, MOST_RAD, self._corrections)
        missed_px = np.sqrt(max(0.0, given.median_px**2 - free.median_px**2))
        sigma = min(missed_px / float(window.K[..., 0, 0].mean()), MOST_RAD)
        self.quality = PoseQuality(given.median_px, free.median_px, sigma)
        self._qualities.append(self.quality)
        if self.quality.agrees or len(self._frames) < FIRST_KEYFRAMES:
            self._take(given)
            return False
        best = adjust(window, tracks, sigma, self._corrections)
        if not best.median_px <= LOST_PX:  # the poses jumped, as after a loop closure: nothing of before fits
            self._restart()
            return False
        self._take(best)
        return True

    def _restart(self) -> None:
        """Begin anew with the last keyframe."""
        frame = self._frames[-1]
        self.reset()
        self._advance(frame)
        self._detect()
        self.quality = None

    def _take(self, adjustment: Adjustment) -> None:
        """Keep what was found, and forget sightings that were confused."""
        self._corrections, self._tracks.inverse_depth = adjustment.corrections, adjustment.inverse_depth
        lost = adjustment.error_px > LOST_PX
        if adjustment.corrections.any():
            self._tracks.pixels[adjustment.feature[lost], adjustment.keyframe[lost]] = np.nan
        self._tracks.keep(self._tracks.found)


class _Lens:
    """Makes grey pinhole images of one camera's."""

    def __init__(self, model: CameraModel) -> None:
        self.rectifier = Rectifier(model, *canvas_size(model, CANVAS_PIXELS, CANVAS_MULTIPLE))
        inside = np.pad(self.rectifier.mask.astype(np.uint8) * 255, 1)
        patch = np.ones((PATCH_PX, PATCH_PX), np.uint8)
        self.usable = np.asarray(cv2.erode(inside, patch, borderValue=(0,))[1:-1, 1:-1], np.uint8)

    def grey(self, image: PosedImage) -> UInt8Array:
        """(H, W) uint8."""
        return np.asarray(cv2.cvtColor(self.rectifier(image.image).image, cv2.COLOR_RGB2GRAY), np.uint8)
