# SPDX-License-Identifier: Apache-2.0
"""Keyframes from other places: what later ones are matched with, and which of them are due to be looked at again."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from occupancy_nn_ros.geometry.poses import has_moved
from occupancy_nn_ros.network.masking import HiddenCells
from occupancy_nn_ros.network.matching import FeatureMaps, Matchable
from occupancy_nn_ros.values import FloatArray

Item = TypeVar("Item")

MIN_BASELINE_M, MIN_TURN_RAD = 0.05, 0.2
"""A keyframe is of another place once the robot has moved this far, or turned, from the one kept before it."""


class Looks(NamedTuple):
    """What some of a keyframe's images became."""

    images: Tensor  # (V, H, W, 3) uint8, rectified
    K: Tensor  # (V, 3, 3)
    maps: FeatureMaps
    match: list[Matchable]
    hidden: list[HiddenCells | None]  # by the cameras' masks


@dataclass(frozen=True)
class PastKeyframe:
    """What an earlier keyframe is matched by, as it is kept."""

    match: list[Matchable]  # of V views
    K: Tensor  # (V, 3, 3)
    T_map_cam: FloatArray  # (V, 4, 4)
    T_map_base: FloatArray  # (4, 4)
    stamp_ns: int

    def kept_in(self, storage: list[Matchable]) -> PastKeyframe:
        """The same in the tensors of one that is no longer needed: new ones each time would scatter the heap."""
        for kept, new in zip(chain.from_iterable(storage), chain.from_iterable(self.match), strict=True):
            kept.copy_(new)
        return replace(self, match=storage)

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, C, h, w) of the features, which says the shapes of the rest."""
        return len(self.match), *self.match[0].features.shape


class PastKeyframes:
    """Keeps so many keyframes from other places, the oldest making room. Not thread-safe."""

    def __init__(self, most: int) -> None:
        """Start without any."""
        self._most = most
        self._kept: deque[PastKeyframe] = deque(maxlen=max(1, most))

    def __len__(self) -> int:
        """Keyframes that are kept."""
        return len(self._kept)

    def forget(self) -> None:
        """Keep none, as after a jump in time or pose."""
        self._kept.clear()

    def move(self, poses: Mapping[int, FloatArray]) -> None:
        """Give them better poses: T_map_cam (V, 4, 4) of all their cameras, by stamp in nanoseconds."""
        for index, past in enumerate(self._kept):
            if past.stamp_ns in poses:
                self._kept[index] = replace(past, T_map_cam=poses[past.stamp_ns])

    def of(self, stamp_ns: int) -> PastKeyframe | None:
        """That of a moment, if it is still kept."""
        return next((past for past in self._kept if past.stamp_ns == stamp_ns), None)

    def beside(self, stamp_ns: int, shape: torch.Size) -> list[PastKeyframe]:
        """Those of other moments whose features are shaped alike, (C, h, w)."""
        return [p for p in self._kept if p.stamp_ns != stamp_ns and p.shape[1:] == shape] if self._most else []

    def keep(self, entry: PastKeyframe) -> bool:
        """Keep a keyframe if it is of another place than the last one that is kept; returns whether it is."""
        if self._kept and not is_elsewhere(entry.T_map_base, self._kept[-1].T_map_base):
            return False
        if len(self._kept) == self._kept.maxlen and entry.shape == self._kept[0].shape:
            entry = entry.kept_in(self._kept.popleft().match)
        self._kept.append(entry)
        return self._most > 0


class Queue(Generic[Item]):
    """Items that are due when so many others have come after them, each once."""

    def __init__(self, after: int) -> None:
        """Start empty; nothing is ever due if ``after`` is 0 or less."""
        self._after = after
        self._items: deque[Item] = deque(maxlen=after + 1 if after > 0 else 0)

    def add(self, item: Item) -> None:
        """Put an item last; one that was due and not taken makes room."""
        self._items.append(item)

    def due(self) -> Item | None:
        """Take the item that is due, if there is one."""
        return self._items.popleft() if self._after > 0 and len(self._items) > self._after else None

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()


def is_elsewhere(T_map_base: FloatArray, before: FloatArray) -> bool:
    """Whether the robot has moved far enough from where it was for its pictures to be matched with those of then."""
    return has_moved(before, T_map_base, MIN_BASELINE_M, MIN_TURN_RAD)
