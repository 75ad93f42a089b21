# SPDX-License-Identifier: Apache-2.0
"""Whether the pictures of a camera turn as its frame does: turned over, mirrored, at rest while the frame turns, or the other way."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.cameras import project
from occupancy_nn_ros.geometry.poses import rotation_angle
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, PosedImage

SIZE = (64, 48)
"""Pictures are compared at this size, as a camera without distortion sees them."""

SHORTEST = 0.6
"""Focal length of that camera, in its widths, at least: of a fisheye the middle is enough."""

LEAST_TURN_RAD, MOST_TURN_RAD, MOST_MOTION_M = 0.07, 0.35, 0.5
"""Two pictures are compared after this much rotation of the frame, and up to so much; motion changes what is near."""

MOST_ASIDE_M = 0.6
"""Motion across the optical axis for each radian, at most: only a wall that is nearer than half of it turns the picture the other way."""

STILL_RAD, STILL_M, SHIFTS = 0.005, 0.01, range(4, 17)
"""A frame that moved by less stands still; pictures that fit if shifted by so many columns have turned."""

LEAST_SHARE = 0.4
"""Of the pixels that both pictures must hold."""

FITS, LEADS, BESIDE = 0.6, 0.15, 0.05
"""Correlation of pictures that fit, how much worse those must fit that do not, and by how much likely ways may differ."""

SAME, SHIFTED, CLEARLY = 0.95, 0.6, 0.35
"""Correlation of pictures that are the same; of such as fit if shifted, and how much better than at rest."""

TIMES = 5
"""So many comparisons in a row must say the same."""

AS_FRAME, AT_REST, TURNS_ALONE = "as the frame", "at rest", "turns alone"
FLIPS = {"turned by 180 degrees": (-1, -1), "mirrored left to right": (1, -1), "flipped upside down": (-1, 1)}
"""Steps through rows and columns that undo each."""

WORDS = {
    AT_REST: "its frame turns, and its pictures stay the same: wheels that slip, transforms of another robot, or a stream that hangs",
    TURNS_ALONE: "its pictures turn, and its frame stands still: odometry that hangs, or transforms of another robot",
}


@dataclass(frozen=True)
class _Small:
    """A picture as the small camera sees it, (48, 64) grey, where it holds something, and the pose of its camera."""

    grey: Float32Array
    known: npt.NDArray[np.bool_]
    T_map_cam: FloatArray


class TurnChecks:
    """Looks at each picture of one camera in turn.

    Attributes:
        doubt: how pictures and frame turn apart, worded for people; empty while they do not.
    """

    def __init__(self) -> None:
        """No picture was seen yet."""
        self.doubt = ""
        self._last: _Small | None = None
        self._lens: _SmallLens | None = None
        self._said, self._in_a_row, self._is_flipped = AS_FRAME, 0, False

    def check(self, image: PosedImage) -> None:
        """Take the next picture.

        Raises:
            ImplausibleError: it is mirrored or turned over.
        """
        if self._lens is None or self._lens.model != image.model:
            self._lens = _SmallLens(image.model)
        new, old = self._lens.look(image), self._last
        said = None if old is None else _compare(old, new, self._lens.K)
        if old is None or said is not None or _has_moved_on(old, new):
            self._last = new
        is_news = said is not None and self._take(said)
        if self._is_flipped and self._in_a_row >= TIMES:
            text = f"its pictures turn against its frame, and with it if they are {self._said}"
            raise ImplausibleError(text, reason="picture is mirrored or turned over", spoils_map=is_news)

    def _take(self, said: str) -> bool:
        """Note a comparison; returns whether it has settled something."""
        is_flip = said not in (AS_FRAME, *WORDS)  # which of them, a turn about one axis leaves open
        self._in_a_row = self._in_a_row + 1 if said == self._said or (is_flip and self._is_flipped) else 1
        self._said, self._is_flipped = said, is_flip
        if self._in_a_row >= TIMES and said in WORDS:
            self.doubt = WORDS[said]
        return self._in_a_row == TIMES


class _SmallLens:
    """Makes small pictures without distortion of a camera's."""

    def __init__(self, model: CameraModel) -> None:
        self.model = model
        width, height = SIZE
        focal = width * max(SHORTEST, float(model.K[0, 0]) / model.width)
        self.K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        v, u = np.mgrid[0:height, 0:width].reshape(2, -1)
        rays = np.column_stack([(u - self.K[0, 2]) / focal, (v - self.K[1, 2]) / focal, np.ones(u.size)])
        pixels, inside = project(model, rays)
        scale = np.array([width / model.width, height / model.height])
        small = np.where(inside[:, None], (pixels + 0.5) * scale - 0.5, -1e4).astype(np.float32)
        self._maps = small[:, 0].reshape(height, width), small[:, 1].reshape(height, width)
        known = inside
        if model.mask is not None:
            columns, rows = np.where(inside[:, None], np.round(pixels), 0).astype(int).T
            known = inside & ~model.mask[rows.clip(0, model.height - 1), columns.clip(0, model.width - 1)]
        self._known = known.reshape(height, width)

    def look(self, image: PosedImage) -> _Small:
        """A small picture."""
        small = cv2.resize(image.image, SIZE, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        seen = cv2.remap(grey, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return _Small(np.asarray(seen, np.float32), self._known, image.T_map_cam)


def _has_moved_on(old: _Small, new: _Small) -> bool:
    return rotation_angle(old.T_map_cam, new.T_map_cam) > MOST_TURN_RAD or _distance(old, new) > MOST_MOTION_M


def _distance(old: _Small, new: _Small) -> float:
    return float(np.linalg.norm(new.T_map_cam[:3, 3] - old.T_map_cam[:3, 3]))


def _compare(old: _Small, new: _Small, K: FloatArray) -> str | None:
    """How the pictures turned; None where they do not tell."""
    turned, moved = rotation_angle(old.T_map_cam, new.T_map_cam), _distance(old, new)
    if turned < STILL_RAD and moved < STILL_M:
        return _turned_alone(old, new)
    aside = float(np.linalg.norm((old.T_map_cam[:3, :3].T @ (new.T_map_cam[:3, 3] - old.T_map_cam[:3, 3]))[:2]))
    if not LEAST_TURN_RAD <= turned <= MOST_TURN_RAD or moved > MOST_MOTION_M or aside > MOST_ASIDE_M * turned:
        return None
    R_new_old = new.T_map_cam[:3, :3].T @ old.T_map_cam[:3, :3]
    H = K @ R_new_old @ np.linalg.inv(K)
    frame, rest = _fit_turned(old, new, H, (1, 1)), _fit(old.grey, new.grey, old.known & new.known)
    fits = {name: _fit_turned(old, new, H, steps) for name, steps in FLIPS.items()}
    best = max(fits.values())
    likely = [name for name, fit in fits.items() if fit > best - BESIDE]
    if rest >= SAME and rest > max(frame, best) + LEADS:
        return AT_REST
    if best >= FITS and best > frame + LEADS and best > rest + BESIDE:
        return " or ".join(likely)
    return AS_FRAME if frame >= FITS and frame > rest + BESIDE and frame > best - BESIDE else None


def _turned_alone(old: _Small, new: _Small) -> str | None:
    rest = _fit(old.grey, new.grey, old.known & new.known)
    if rest >= 1 - CLEARLY:
        return None
    best = max(
        _fit(one.grey[:, shift:], other.grey[:, :-shift], one.known[:, shift:] & other.known[:, :-shift])
        for one, other in ((old, new), (new, old))
        for shift in SHIFTS
    )
    return TURNS_ALONE if best >= SHIFTED and best - rest > CLEARLY else None


def _fit_turned(old: _Small, new: _Small, H: FloatArray, steps: tuple[int, int]) -> float:
    """How well the new picture fits the old one, once both are flipped back and the old one is turned."""
    rows, columns = slice(None, None, steps[0]), slice(None, None, steps[1])
    before, now = (np.ascontiguousarray(picture.grey[rows, columns]) for picture in (old, new))
    known = np.ascontiguousarray(old.known[rows, columns]).astype(np.float32)
    expected = cv2.warpPerspective(before, H, SIZE, flags=cv2.INTER_LINEAR)
    is_seen = cv2.warpPerspective(known, H, SIZE, flags=cv2.INTER_LINEAR) > 0.99
    return _fit(np.asarray(expected, np.float32), now, is_seen & new.known[rows, columns])


def _fit(one: Float32Array, other: Float32Array, both: npt.NDArray[np.bool_]) -> float:
    """Correlation of two pictures where both hold something; -1 where that is too little, or flat."""
    if both.mean() < LEAST_SHARE:
        return -1.0
    a, b = one[both].astype(np.float64), other[both].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 4.0 * len(a) else -1.0
