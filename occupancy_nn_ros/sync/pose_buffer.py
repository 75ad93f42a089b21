# SPDX-License-Identifier: Apache-2.0
"""The transform tree over time, with tf2's semantics and without ROS.

Extrapolation and missing links are errors; nothing here ever makes up a pose.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from dataclasses import dataclass, field

import numpy as np

from occupancy_nn_ros.errors import ExtrapolationError, LookupTransformError, TransformError
from occupancy_nn_ros.geometry.poses import check_transform, interpolate, invert, rotation_angle
from occupancy_nn_ros.values import FloatArray, StampedTransform

MAX_SAMPLES = 100_000

GAP_NS, GAP_M, GAP_RAD = 1_000_000_000, 0.1, 0.1
"""Over a longer gap than this between two samples, more motion than this is no longer a straight line."""

JUMP_M, JUMP_M_S = 0.2, 50.0
JUMP_RAD, JUMP_RAD_S = 0.5, 20.0
"""Motion both larger and faster than this is a correction of the pose, and what lies between was never passed."""


@dataclass
class _Edge:
    """Transforms from one child frame to its parent, in order of time."""

    parent: str
    is_static: bool
    stamps: list[int] = field(default_factory=list)
    matrices: dict[int, FloatArray] = field(default_factory=dict)

    def at(self, stamp_ns: int, child: str) -> FloatArray:
        if self.is_static:
            return self.matrices[self.stamps[0]]
        upper = bisect_left(self.stamps, stamp_ns)
        if upper < len(self.stamps) and self.stamps[upper] == stamp_ns:
            return self.matrices[stamp_ns]
        if upper == 0 or upper == len(self.stamps):
            known = f"known from {self.stamps[0] * 1e-9:.3f} to {self.stamps[-1] * 1e-9:.3f} s"
            raise ExtrapolationError(
                f"transform from '{child}' to '{self.parent}' is {known}, asked for {stamp_ns * 1e-9:.3f} s",
                is_future=upper != 0,
            )
        before, after = self.stamps[upper - 1], self.stamps[upper]
        first, second = self.matrices[before], self.matrices[after]
        if not _is_steady(first, second, after - before):
            raise ExtrapolationError(
                f"transform from '{child}' to '{self.parent}' moves {_distance(first, second):.2f} m and turns "
                f"{rotation_angle(first, second):.2f} rad from {before * 1e-9:.3f} to {after * 1e-9:.3f} s, too much to know it at "
                f"{stamp_ns * 1e-9:.3f} s",
                is_future=False,
            )
        return interpolate(first, second, (stamp_ns - before) / (after - before))


def _is_steady(first: FloatArray, second: FloatArray, gap_ns: int) -> bool:
    """Whether two samples tell what was between them: neither a long gap with motion nor a jump."""
    moved, turned, gap_s = _distance(first, second), rotation_angle(first, second), gap_ns * 1e-9
    if gap_ns > GAP_NS and (moved > GAP_M or turned > GAP_RAD):
        return False
    return (moved <= JUMP_M or moved <= JUMP_M_S * gap_s) and (turned <= JUMP_RAD or turned <= JUMP_RAD_S * gap_s)


def _distance(first: FloatArray, second: FloatArray) -> float:
    return float(np.linalg.norm(second[:3, 3] - first[:3, 3]))


class PoseBuffer:
    """Keeps transforms for a while and answers for any pair of connected frames at any stamp in between.

    Safe for one thread that writes and others that read.
    """

    def __init__(self, cache_ns: int = 10_000_000_000) -> None:
        """Keep moving transforms for ``cache_ns`` behind the newest."""
        self.cache_ns = cache_ns
        self.too_old = 0
        self._edges: dict[str, _Edge] = {}
        self._lock = threading.Lock()

    def set_transform(self, transform: StampedTransform, *, is_static: bool = False) -> None:
        """Add one transform.

        Raises:
            TransformError: not a rigid transform, an empty frame name, a frame relative to itself, or a loop.
        """
        parent, child = transform.target_frame.lstrip("/"), transform.source_frame.lstrip("/")
        if not parent or not child or parent == child:
            raise TransformError(f"transform from '{child}' to '{parent}': expected two different frames")
        check_transform(transform.T_target_source)
        with self._lock:
            self._refuse_loop(parent, child)
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent or edge.is_static != is_static:
                edge = self._edges[child] = _Edge(parent, is_static)
            if is_static:
                edge.stamps.clear()
                edge.matrices.clear()
            self._insert(edge, transform)

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int) -> FloatArray:
        """``T_target_source`` (4, 4) at a stamp, through the frames' common ancestor.

        Raises:
            LookupTransformError: a frame is unknown or the two are not connected; names the frames that exist.
            ExtrapolationError: connected, but not at this stamp, or with too much motion around it to interpolate.
        """
        target, source = target_frame.lstrip("/"), source_frame.lstrip("/")
        with self._lock:
            up_target, up_source = self._ancestors(target), self._ancestors(source)
            common = next((frame for frame in up_source if frame in up_target), None)
            if common is None or not (self._knows(target) and self._knows(source)):
                known = ", ".join(sorted(self._names())) or "none"
                raise LookupTransformError(f"no transform from '{source}' to '{target}'; frames that exist: {known}")
            return invert(self._climb(target, common, stamp_ns)) @ self._climb(source, common, stamp_ns)

    def frames(self) -> set[str]:
        """All frames, children and parents."""
        with self._lock:
            return self._names()

    def parent(self, frame: str) -> str | None:
        """The frame above, or None for a root."""
        with self._lock:
            edge = self._edges.get(frame)
            return None if edge is None else edge.parent

    def is_static(self, frame: str) -> bool:
        """Whether a frame hangs on its parent by a static transform."""
        with self._lock:
            edge = self._edges.get(frame)
            return edge is not None and edge.is_static

    def clear(self) -> None:
        """Forget all moving transforms, as after a jump back in time; static ones stay."""
        with self._lock:
            self._edges = {child: edge for child, edge in self._edges.items() if edge.is_static}

    def _insert(self, edge: _Edge, transform: StampedTransform) -> None:
        stamp = transform.stamp_ns
        if edge.stamps and not edge.is_static and stamp < edge.stamps[-1] - self.cache_ns:
            self.too_old += 1
            return
        if stamp not in edge.matrices:
            insort(edge.stamps, stamp)
        edge.matrices[stamp] = transform.T_target_source
        stale = bisect_left(edge.stamps, edge.stamps[-1] - self.cache_ns)
        stale = max(stale, len(edge.stamps) - MAX_SAMPLES)
        for old in edge.stamps[:stale]:
            del edge.matrices[old]
        del edge.stamps[:stale]

    def _refuse_loop(self, parent: str, child: str) -> None:
        if child in self._ancestors(parent):
            raise TransformError(f"transform from '{child}' to '{parent}' would close a loop")

    def _ancestors(self, frame: str) -> dict[str, None]:
        """The frame itself and all frames above it, nearest first."""
        chain: dict[str, None] = {frame: None}
        while frame in self._edges:  # loops are refused on entry, so that this ends
            frame = self._edges[frame].parent
            chain[frame] = None
        return chain

    def _climb(self, frame: str, ancestor: str, stamp_ns: int) -> FloatArray:
        """``T_ancestor_frame``."""
        total = np.eye(4)
        while frame != ancestor:
            edge = self._edges[frame]
            total = edge.at(stamp_ns, frame) @ total
            frame = edge.parent
        return total

    def _knows(self, frame: str) -> bool:
        return frame in self._edges or any(edge.parent == frame for edge in self._edges.values())

    def _names(self) -> set[str]:
        return set(self._edges) | {edge.parent for edge in self._edges.values()}
