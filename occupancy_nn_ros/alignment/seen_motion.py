# SPDX-License-Identifier: Apache-2.0
"""How a camera moves as its pictures alone tell it, beside what its poses say: for frames that are wrong from the ground up.

Cameras that were swapped, mounts that face the wrong way and quaternions in another order leave nothing to correct, since no feature is
found where poses expect it. Two successive pictures give rotation and direction of the motion by their essential matrix (Nister 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.values import CameraModel, FloatArray, PosedImage, UInt8Array

CANVAS_PIXELS = 60_000
LEAST_PIXELS = CANVAS_PIXELS // 4
"""Of pictures that are smaller still, corners are those of pixels."""

MOST_FEATURES, LEAST_FEATURES = 300, 40
BACK_PX, MISS_PX = 1.0, 1.0
"""A feature is followed if it comes back to within this; a match belongs to the motion if it misses the epipolar line by less."""

LEAST_SHARE = 0.5
"""Of the features as many must belong to one motion; else too much moves by itself."""

TURN_RAD = 0.05
SHIFT_M, PARALLAX_PX = 0.05, 2.0
"""Motion is compared from this rotation on, by poses or pictures; and from this shift and parallax on, by both."""

TELLING, MOST = 8, 0.6
"""So many comparisons tell something, and this share of them must disagree."""


@dataclass(frozen=True)
class SeenMotion:
    """From one picture to the next: ``x_second = R x_first + t``.

    Attributes:
        turn: (3,) rotation vector of R.
        way: (3,) unit vector of t, None where too little parallax tells it.
    """

    turn: FloatArray
    way: FloatArray | None


class MotionComparison:
    """Compares the motions of one camera, picture by picture."""

    def __init__(self) -> None:
        """No picture was seen yet."""
        self._last: tuple[UInt8Array, FloatArray] | None = None
        self._lens: tuple[CameraModel, Rectifier] | None = None
        self._pairs: list[tuple[FloatArray, FloatArray]] = []
        self._is_turn: list[bool] = []

    def take(self, image: PosedImage) -> None:
        """Take the next picture.

        Raises:
            CalibrationError: intrinsics that cannot be used, or that do not fit the image.
        """
        if image.model.width * image.model.height < LEAST_PIXELS:
            return
        lens = self._rectifier(image.model)
        picture = lens(image.image)
        grey, before = np.asarray(cv2.cvtColor(picture.image, cv2.COLOR_RGB2GRAY), np.uint8), self._last
        self._last = grey, image.T_map_cam
        if before is None or before[0].shape != grey.shape:
            return
        seen = motion_between(before[0], grey, lens.mask, picture.K)
        if seen is not None:
            self._compare(seen, invert(image.T_map_cam) @ before[1])

    @property
    def contradiction(self) -> str:
        """How pictures and poses contradict each other, worded for people; empty where they do not, or too little tells."""
        if not self._pairs:
            return ""
        seen, given = (np.stack(vectors) for vectors in zip(*self._pairs, strict=True))
        is_turn = np.array(self._is_turn)
        apart = _apart(seen, given, is_turn)
        if not any(kind.sum() >= TELLING and apart[kind].mean() > MOST for kind in (is_turn, ~is_turn)):
            return ""
        unit = [vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9) for vectors in (seen, given)]
        mount, _ = Rotation.align_vectors(*unit)
        angle = float(np.rad2deg(mount.magnitude()))
        text = "its pictures show another motion than its transforms"
        if _apart(seen, mount.apply(given), is_turn).mean() > 1 - MOST:
            return f"{text}, and no mounting explains it: is this its frame, are quaternions x y z w, are its stamps right?"
        axis = "xyz"[int(np.abs(mount.as_rotvec()).argmax())]
        return f"{text}: its frame seems turned by {angle:.0f} degrees, most of it about its {axis}; were cameras or frames swapped?"

    def _rectifier(self, model: CameraModel) -> Rectifier:
        if self._lens is None or self._lens[0] is not model:
            self._lens = model, Rectifier(model, *canvas_size(model, CANVAS_PIXELS, 2))
        return self._lens[1]

    def _compare(self, seen: SeenMotion, T_second_first: FloatArray) -> None:
        turn = Rotation.from_matrix(T_second_first[:3, :3]).as_rotvec()
        if max(np.linalg.norm(turn), np.linalg.norm(seen.turn)) > TURN_RAD:
            self._pairs.append((seen.turn, turn))
            self._is_turn.append(True)
        if seen.way is not None and np.linalg.norm(T_second_first[:3, 3]) > SHIFT_M:
            self._pairs.append((seen.way, T_second_first[:3, 3]))
            self._is_turn.append(False)


def motion_between(
    first: UInt8Array, second: UInt8Array, mask: npt.NDArray[np.bool_], K: FloatArray
) -> SeenMotion | None:
    """The motion between two grey pinhole pictures (H, W), None where they do not tell one.

    Args:
        first: a picture.
        second: the next one.
        mask: (H, W), where features may be.
        K: (3, 3) of both, with equal focal lengths.
    """
    found = cv2.goodFeaturesToTrack(first, MOST_FEATURES, 0.01, 7, mask=mask.astype(np.uint8))
    if found is None or len(found) < LEAST_FEATURES:
        return None
    there, is_there, _ = cv2.calcOpticalFlowPyrLK(first, second, found, found.copy(), maxLevel=4)
    back, is_back, _ = cv2.calcOpticalFlowPyrLK(second, first, there, there.copy(), maxLevel=4)
    good = (np.abs(back - found).max(axis=(1, 2)) < BACK_PX) & (is_there[:, 0] > 0) & (is_back[:, 0] > 0)
    if good.sum() < LEAST_FEATURES:
        return None
    a, b = ((points[good, 0].astype(np.float64) - K[:2, 2]) / K[0, 0] for points in (found, there))
    cv2.setRNGSeed(0)  # the same answer for the same pictures
    essential, inliers = cv2.findEssentialMat(a, b, np.eye(3), cv2.RANSAC, 0.999, MISS_PX / K[0, 0])
    if essential is None or essential.shape != (3, 3) or inliers.mean() < LEAST_SHARE:
        return None
    inside = inliers[:, 0] > 0
    return _decomposed(np.asarray(essential), a[inside], b[inside], float(K[0, 0]))


def _decomposed(essential: FloatArray, a: FloatArray, b: FloatArray, focal_px: float) -> SeenMotion:
    """Of the two rotations the smaller one: between two keyframes no camera turns half around."""
    one, other, way = cv2.decomposeEssentialMat(essential)
    turn = min((Rotation.from_matrix(R) for R in (one, other)), key=lambda rotation: float(rotation.magnitude()))
    turned = np.column_stack([a, np.ones(len(a))]) @ turn.as_matrix().T
    start = turned[:, :2] / turned[:, 2:]
    flow = b - start
    t = np.asarray(way, dtype=np.float64)[:, 0]
    if float(np.median(np.linalg.norm(flow, axis=1))) * focal_px < PARALLAX_PX:
        return SeenMotion(turn.as_rotvec(), None)
    along = (flow * (t[:2] - start * t[2])).sum(axis=1)  # positive for points in front of both
    return SeenMotion(turn.as_rotvec(), t if np.median(along) > 0 else -t)


def _apart(seen: FloatArray, given: FloatArray, is_turn: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(N,): which turns differ by more than half of the larger one, and which ways by more than 60 degrees."""
    sizes = [np.linalg.norm(vectors, axis=1) for vectors in (seen, given)]
    turns = np.linalg.norm(seen - given, axis=1) > np.maximum(np.maximum(*sizes) / 2, TURN_RAD)
    ways = (seen * given).sum(axis=1) < np.cos(np.pi / 3) * sizes[0] * sizes[1]
    return np.asarray(np.where(is_turn, turns, ways), np.bool_)
