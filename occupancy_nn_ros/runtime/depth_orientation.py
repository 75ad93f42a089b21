# SPDX-License-Identifier: Apache-2.0
"""Whether a depth image lies as its camera's pixels do: one that is mirrored, or turned over, turns the wrong way with the robot."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.poses import axis_angle
from occupancy_nn_ros.runtime.sight_lines import FLIPS, DepthSight, Flip
from occupancy_nn_ros.values import PosedDepth

LEAST_TURN_RAD, MOST_TURN_RAD, MOST_MOTION_M = 0.1, 0.35, 1.0
"""Two images are compared once the optical axis has turned by this much; a reference that lies further back is replaced."""

LEAST_PLACES = 100
TOLERANCE, TOLERANCE_M = 0.05, 0.03
"""A place is the same if its distances differ by no more than this part and this much."""

FITS, LEADS = 0.6, 0.25
"""So many places must be the same by the likeliest way, and so many fewer by one that is ruled out."""

TIMES, ENOUGH = 3, 20
"""So many comparisons in a row must rule out that it lies as it should; so many that do not, about any axis, end the comparing."""


class OrientationChecks:
    """Looks at the depth images of one camera in turn, until they have shown which way they lie."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._reference: PosedDepth | None = None
        self._in_a_row = 0
        self._words = ""
        self._is_right = False

    def check(self, depth: PosedDepth) -> None:
        """Take the next image.

        Raises:
            ImplausibleError: it is mirrored or turned over.
        """
        is_new = not self._is_right and self._follow(depth)
        if self._words and self._in_a_row <= -TIMES:
            raise ImplausibleError(self._words, reason="depth is mirrored or turned over", spoils_map=is_new)

    def _follow(self, depth: PosedDepth) -> bool:
        """Compare with an earlier image once the camera has turned; whether that has settled that they lie the wrong way."""
        old = self._reference
        if old is None:
            self._reference = depth
            return False
        turned = axis_angle(depth.T_map_cam, old.T_map_cam)
        moved = float(np.linalg.norm(depth.T_map_cam[:3, 3] - old.T_map_cam[:3, 3]))
        if turned < LEAST_TURN_RAD and moved < MOST_MOTION_M:
            return False
        self._reference = depth
        if turned < LEAST_TURN_RAD or turned > MOST_TURN_RAD or moved > MOST_MOTION_M:
            return False
        likely = likely_flips(old, depth)
        if "as it is" in likely:
            self._in_a_row = max(0, self._in_a_row) + 1
            self._is_right = self._in_a_row >= ENOUGH
        elif likely:
            self._in_a_row = min(0, self._in_a_row) - 1
            self._words = (
                f"distances move against the turns of the camera, and fit them if the image is {' or '.join(likely)}"
            )
        return bool(likely) and self._in_a_row == -TIMES


def likely_flips(old: PosedDepth, new: PosedDepth) -> list[Flip]:
    """How the images of a camera may lie, by what both see; empty if they do not tell."""
    shares: dict[Flip, float] = {flip: _share_same(old, new, flip) for flip in FLIPS}
    best = max(shares.values())
    likely = [flip for flip, share in shares.items() if share > best - LEADS]
    return likely if best >= FITS and len(likely) < len(FLIPS) else []


def _share_same(old: PosedDepth, new: PosedDepth, flip: Flip) -> float:
    """Share of the places of an image that another one, both flipped, sees at the same distance."""
    lines = DepthSight(new).flipped(flip).towards(DepthSight(old).flipped(flip).points)
    if len(lines.expected) < LEAST_PLACES:
        return 0.0
    differs = np.abs(np.log(lines.measured / lines.expected))
    return float((differs < TOLERANCE + TOLERANCE_M / lines.expected).mean())
