# SPDX-License-Identifier: Apache-2.0
"""Another library's transform tree, tf2's for one, which keeps and interpolates what ours has accepted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from occupancy_nn_ros.values import FloatArray, StampedTransform

MAX_WAITING = 10_000
"""So many transforms may wait for a lookup; with more the store is filled anew from what the tree still keeps."""

Kept = tuple[StampedTransform, bool]
"""A transform, and whether it is static."""


class TransformStore(Protocol):
    """What the other tree is asked."""

    def put(self, transform: StampedTransform, *, is_static: bool) -> None:
        """Take a transform."""

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int) -> FloatArray:
        """``T_target_source`` (4, 4) at a stamp between transforms that were put."""

    def clear(self) -> None:
        """Forget everything, static transforms too."""


class StoreFeed:
    """Brings a store up to date before it is asked.

    Attributes:
        is_stale: whether the store holds what no longer holds: a frame changed its parent, or time was turned back.
    """

    def __init__(self, store: TransformStore) -> None:
        """Nothing was put yet."""
        self.store, self.is_stale = store, True
        self._waiting: list[Kept] = []

    def add(self, transform: StampedTransform, *, is_static: bool) -> None:
        """A transform was accepted."""
        if not self.is_stale:
            self._waiting.append((transform, is_static))
            self.is_stale = len(self._waiting) > MAX_WAITING

    def update(self, kept: Iterable[Kept], until_ns: int | None) -> None:
        """Put what the store lacks.

        Args:
            kept: all transforms of the tree, for a store that is stale.
            until_ns: moving transforms after it may be of another clock, and wait: newer ones would push older ones out.
        """
        if self.is_stale:
            self.store.clear()
            self._waiting, self.is_stale = list(kept), False
        later: list[Kept] = []
        for transform, is_static in self._waiting:
            if is_static or until_ns is None or transform.stamp_ns <= until_ns:
                self.store.put(transform, is_static=is_static)
            else:
                later.append((transform, is_static))
        self._waiting = later
