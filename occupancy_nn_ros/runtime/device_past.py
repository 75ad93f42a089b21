# SPDX-License-Identifier: Apache-2.0
"""Keyframes that are kept on a GPU for later ones to be matched with, in memory that never moves: recorded work reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.network.matching import MatchMaps
from occupancy_nn_ros.runtime.past_keyframes import is_elsewhere
from occupancy_nn_ros.values import FloatArray, Keyframe

NOWHERE = np.eye(4)
NOWHERE[:3, 3] = 1e6
"""So far away that nothing is matched with it."""


@dataclass
class DevicePast:
    """Keyframes kept for matching on the device; the oldest makes room. A slot holds the views of one.

    Attributes:
        maps: each (slots * V, ...): features, details and patches.
        K: (slots * V, 3, 3).
        T_map_cam: (slots * V, 4, 4) float64, on the host; those of rows without a view are ``NOWHERE``.
        views: V.
        bases: the keyframes' slots, T_map_base and stamps, oldest first.
    """

    maps: MatchMaps
    K: FloatArray
    T_map_cam: FloatArray
    views: int
    bases: list[tuple[int, FloatArray, int]]

    @classmethod
    def of(cls, match: MatchMaps, slots: int) -> DevicePast:
        """Memory for so many keyframes whose V views are matched by what is shaped like this, (V, ...) each."""
        views = len(match.features)
        maps = MatchMaps(*(part.new_zeros(slots * views, *part.shape[1:]) for part in match))
        past = cls(maps, np.zeros((slots * views, 3, 3)), np.zeros((slots * views, 4, 4)), views, [])
        past.forget()
        return past

    @property
    def slots(self) -> int:
        """How many keyframes there is memory for."""
        return len(self.K) // self.views

    def keep(self, keyframe: Keyframe, match: MatchMaps, K: Sequence[FloatArray]) -> bool:
        """Keep a keyframe of at most V views if it is of another place than the last one; returns whether it is."""
        T_map_base = keyframe.T_map_base
        if self.bases and not is_elsewhere(T_map_base, self.bases[-1][1]):
            return False
        slot = len(self.bases) if len(self.bases) < self.slots else self.bases.pop(0)[0]
        start = slot * self.views
        rows = slice(start, start + len(K))
        for kept, new in zip(self.maps, match, strict=True):
            kept[rows].copy_(new)
        self.T_map_cam[start : start + self.views] = NOWHERE
        self.K[rows] = K
        self.T_map_cam[rows] = [image.T_map_cam for image in keyframe.images]
        self.bases.append((slot, T_map_base, keyframe.stamp_ns))
        return True

    def move(self, poses: Mapping[int, FloatArray]) -> None:
        """Give kept keyframes better poses: T_map_cam (V, 4, 4) of all their cameras, by stamp in nanoseconds."""
        for slot, _, stamp_ns in self.bases:
            if stamp_ns in poses:
                start = slot * self.views
                self.T_map_cam[start : start + len(poses[stamp_ns])] = poses[stamp_ns]

    def poses(self, stamp_ns: int) -> FloatArray | None:
        """T_map_cam (V, 4, 4) of the keyframe of a moment, if it is kept."""
        starts = [slot * self.views for slot, _, stamp in self.bases if stamp == stamp_ns]
        return self.T_map_cam[starts[0] : starts[0] + self.views].copy() if starts else None

    def beside(self, stamp_ns: int) -> FloatArray:
        """T_map_cam (slots * V, 4, 4) with those of the keyframe of a moment nowhere: it is not matched with itself."""
        poses = self.T_map_cam.copy()
        for slot, _, stamp in self.bases:
            if stamp == stamp_ns:
                poses[slot * self.views : (slot + 1) * self.views] = NOWHERE
        return poses

    def forget(self) -> None:
        """Have no slot in use."""
        self.T_map_cam[:], self.K[:] = NOWHERE, np.eye(3)
        self.bases.clear()
