# SPDX-License-Identifier: Apache-2.0
"""Whether an image taken for depth holds distances in metres: by their range, by the floor, and by how they change with motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.cameras import project, unproject
from occupancy_nn_ros.geometry.poses import invert, rotation_angle
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, PosedDepth

NEAREST_M, FARTHEST_M = 0.05, 200.0
MEASURED, ABSURD = 0.2, 0.95
"""Where this share of the pixels holds something and this share of it is out of range, it is no depth in metres."""

SAMPLES = (24, 32)
"""Rows and columns of the pixels that are looked at."""

LEAST_SAMPLES = 40
DOWNWARD = -0.2
"""Rays that fall by this much a metre meet the floor."""

LEAST_HEIGHT_M, PIT_M, PIT_SHARE = 0.1, 1.0, 0.6
"""A camera above the base by less does not know the floor. Most downward rays end this far below it only by a wrong unit."""

BASELINE_M, MOST_MOTION_M, MOST_TURN_RAD = 0.15, 1.5, 0.5
"""Two images are compared after this much motion, and up to so much, if the camera did not turn further."""

SCALES = (0.0, 0.001, 0.01, 0.1, 0.25, 0.4, 1.0, 2.5, 4.0, 10.0, 100.0, 1000.0)
"""How many times too large the values may be; 0: they have nothing to do with distance."""

LEAST_SCALE = 0.1
"""Values that change less than this with distance are not told from values that do not change."""

RIVALS = (0.0, 4.0)
"""Scales against which metres must have won before they are believed for good."""

CLEARLY, CLEAR, LEAST_VOTES = 3.0, 0.8, 12
"""A pixel votes if the errors of two scales differ by this many times the noise; this share of at least so many must agree."""

PAIRS = 3
"""So many pairs in a row must say the same."""


@dataclass(frozen=True)
class _Look:
    """Pixels (N, 2), their rays (N, 3) with z = 1, and what was measured there (N,); and the whole image."""

    depth: PosedDepth
    pixels: FloatArray
    rays: FloatArray
    values: FloatArray


class DepthChecks:
    """Looks at each depth image of one camera in turn. What motion has once shown to be distances is believed from then on."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._reference: _Look | None = None
        self._verdicts: list[float] = []
        self._trusted = False
        self._scale = 1.0

    @property
    def is_trusted(self) -> bool:
        """Whether motion has shown that these are metres."""
        return self._trusted

    def check(self, depth: PosedDepth, T_map_base: FloatArray) -> None:
        """Take the next depth image.

        Raises:
            ImplausibleError: it holds no distances in metres, or not yet shown to be some.
        """
        check_range(depth.depth_m)
        if self._trusted:
            return
        look = _look(depth)
        newly = self._follow(look)
        if self._scale != 1.0:
            raise ImplausibleError(_words(self._scale), reason="depth is not in metres", spoils_map=newly)
        if not self._trusted:
            _check_floor(look, T_map_base)

    def _follow(self, look: _Look) -> bool:
        """Compare with an earlier image once the camera has moved; returns whether this has settled that it is no depth."""
        if self._reference is None or len(look.values) < LEAST_SAMPLES:
            self._reference = self._reference or (look if len(look.values) >= LEAST_SAMPLES else None)
            return False
        T_old, T_new = self._reference.depth.T_map_cam, look.depth.T_map_cam
        motion = float(np.linalg.norm(T_new[:3, 3] - T_old[:3, 3]))
        if motion < BASELINE_M and rotation_angle(T_old, T_new) <= MOST_TURN_RAD:
            return False
        verdict = scale_by_motion(self._reference, look) if rotation_angle(T_old, T_new) <= MOST_TURN_RAD else None
        if verdict is not None or motion > MOST_MOTION_M or rotation_angle(T_old, T_new) > MOST_TURN_RAD:
            self._reference = look  # else the motion goes on to tell
        if verdict is None:
            return False
        self._verdicts = [*self._verdicts, verdict][-PAIRS:]
        self._trusted = verdict == 1.0
        settled = len(self._verdicts) == PAIRS and len(set(self._verdicts)) == 1 and verdict != self._scale
        if self._trusted or settled:
            self._scale = verdict
        return settled and verdict != 1.0


def scale_by_motion(old: _Look, new: _Look) -> float | None:
    """How many times too large the values are, 1 if they are metres, 0 if no distances; None if the motion does not tell.

    A point at distance d that the camera approaches by t is then at d - t. Values that are k times too large change by k * t,
    values that are no distances do not change. Each pixel at which two scales predict the new value clearly better and worse has
    a vote; along a corridor most have none.
    """
    T_new_old = invert(new.depth.T_map_cam) @ old.depth.T_map_cam
    motion = float(np.linalg.norm(T_new_old[:3, 3]))
    errors = {scale: _errors(old, new, T_new_old, scale) for scale in SCALES}
    noise = min(_median(error) for error in errors.values())
    shares = {
        scale: _share(errors[1.0], errors[scale], _margin(scale, motion, noise)) for scale in SCALES if scale != 1.0
    }
    better = {
        scale: _total(errors[scale], motion)
        for scale, share in shares.items()
        if share is not None and share <= 1 - CLEAR
    }
    if better:
        best = min(better, key=lambda scale: better[scale])
        return best if best >= LEAST_SCALE else 0.0
    against = [shares[scale] for scale in RIVALS]
    return 1.0 if all(share is not None and share >= CLEAR for share in against) else None


def _errors(old: _Look, new: _Look, T_new_old: FloatArray, scale: float) -> FloatArray:
    """(N,) difference between new values and those predicted from the old ones if they are ``scale`` times too large.

    Infinite where a point would lie behind the camera, NaN where it leaves the picture or nothing was measured.
    """
    turned = old.rays @ T_new_old[:3, :3].T
    points = turned * (old.values / scale if scale else np.ones(len(turned)))[:, None]
    if scale:
        points = points + T_new_old[:3, 3]
    predicted = points[:, 2] * scale if scale else old.values
    measured = _values_at(new.depth, points)
    error = np.where(measured > 0, np.abs(measured - predicted), np.nan)
    error[points[:, 2] <= 0] = np.inf
    return error


def _median(errors: FloatArray) -> float:
    known = errors[~np.isnan(errors)]
    return float(np.median(known)) if len(known) >= LEAST_SAMPLES else np.inf


def _margin(scale: float, motion: float, noise: float) -> float:
    return float(max(0.3 * abs(scale - 1) * motion, CLEARLY * noise))


def _share(metres: FloatArray, other: FloatArray, margin: float) -> float | None:
    """Share of the voting pixels that say metres; None if too few vote."""
    with np.errstate(invalid="ignore"):
        gain = other - metres
    votes = gain[np.abs(gain) > margin]
    return float((votes > 0).mean()) if len(votes) >= LEAST_VOTES else None


def _total(errors: FloatArray, motion: float) -> float:
    """Sum of the errors, none of which counts more than what the motion could explain."""
    return float(np.nanmean(np.minimum(errors, motion)))


def _values_at(depth: PosedDepth, points: FloatArray) -> FloatArray:
    pixels, inside = project(depth.model, points)
    values = np.zeros(len(points))
    columns, rows = np.round(pixels[inside]).astype(int).T
    height, width = depth.depth_m.shape
    values[inside] = depth.depth_m[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return values


def _look(depth: PosedDepth) -> _Look:
    pixels, rays = _grid(depth.model)
    columns, rows = pixels.astype(int).T
    values = depth.depth_m[rows, columns].astype(np.float64)
    known = (values > 0) & np.isfinite(values) & np.isfinite(rays).all(axis=1)
    return _Look(depth, pixels[known], rays[known], values[known])


def _grid(model: CameraModel) -> tuple[FloatArray, FloatArray]:
    rows = np.linspace(0, model.height - 1, min(SAMPLES[0], model.height)).astype(int)
    columns = np.linspace(0, model.width - 1, min(SAMPLES[1], model.width)).astype(int)
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float64)
    return pixels, np.column_stack([unproject(model, pixels), np.ones(len(pixels))])


def check_range(depth_m: Float32Array) -> None:
    """Check that distances are such as a camera can measure.

    Raises:
        ImplausibleError: nearly all are too near or too far.
    """
    values = depth_m[:: max(1, depth_m.shape[0] // 60), :: max(1, depth_m.shape[1] // 80)]
    measured = values[values > 0]
    if measured.size < MEASURED * values.size:
        return
    out = float(((measured < NEAREST_M) | (measured > FARTHEST_M)).mean())
    if out > ABSURD:
        raise ImplausibleError(
            f"{out:.0%} of the distances are below {NEAREST_M:g} or above {FARTHEST_M:g} m, their median is "
            f"{float(np.median(measured)):.3g} m: set depth_unit_m, or name the depth topic",
            reason="depth is not in metres",
        )


def _check_floor(look: _Look, T_map_base: FloatArray) -> None:
    """Hold back what lies deep below the floor until motion has shown that it is really there."""
    T_base_cam = invert(T_map_base) @ look.depth.T_map_cam
    height = float(T_base_cam[2, 3])
    slope = look.rays @ T_base_cam[2, :3]
    down = slope < DOWNWARD
    if height < LEAST_HEIGHT_M or down.sum() < LEAST_SAMPLES:
        return
    below = height + slope[down] * look.values[down] < -PIT_M - height
    if below.mean() > PIT_SHARE:
        raise ImplausibleError(
            f"{below.mean():.0%} of what lies below the camera is more than {PIT_M + height:.1f} m below base_frame: set "
            "depth_unit_m if it is right, or the unit that it has",
            reason="depth lies below the floor",
        )


def _words(scale: float) -> str:
    if scale == 0.0:
        return "the values do not change as distances do while the camera moves: this is no depth image"
    return (
        f"the values change {scale:g} times as much as the camera moves: the unit is not what the encoding tells, "
        f"set depth_unit_m to {1 / scale:g} times what it is"
    )
