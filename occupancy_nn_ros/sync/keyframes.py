# SPDX-License-Identifier: Apache-2.0
"""Which frame sets are worth a map update: by motion, by rotation, or by time."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.config import KeyframeConfig
from occupancy_nn_ros.geometry.poses import rotation_angle
from occupancy_nn_ros.values import FloatArray

ROUNDING_S = 1e-6
"""Stamps of a steady camera differ by this much less than its period at times; a frame is not left out for it."""


class KeyframePolicy:
    """Remembers the last keyframe and judges the next."""

    def __init__(self, config: KeyframeConfig) -> None:
        """Start with no keyframe: the first frame set is one."""
        self.config = config
        self._last: tuple[int, FloatArray] | None = None

    def is_keyframe(self, stamp_ns: int, T_map_base: FloatArray) -> bool:
        """Whether a frame set taken at this pose is a keyframe."""
        if self._last is None:
            return True
        last_ns, last = self._last
        elapsed = (stamp_ns - last_ns) * 1e-9 + ROUNDING_S
        if elapsed < self.config.min_period_s:
            return False
        moved = float(np.linalg.norm(T_map_base[:3, 3] - last[:3, 3]))
        turned = rotation_angle(last, T_map_base)
        return moved >= self.config.distance_m or turned >= self.config.angle_rad or elapsed >= self.config.max_period_s

    def accept(self, stamp_ns: int, T_map_base: FloatArray) -> None:
        """Make a frame set the last keyframe."""
        self._last = (stamp_ns, T_map_base)

    def reset(self) -> None:
        """Forget the last keyframe, as after a jump in time."""
        self._last = None
