# SPDX-License-Identifier: Apache-2.0
"""The transform tree over time, with tf2's semantics and without ROS.

Extrapolation and missing links are errors; nothing here ever makes up a pose.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from occupancy_nn_ros.errors import LookupTransformError, TransformError
from occupancy_nn_ros.geometry.poses import check_transform, invert
from occupancy_nn_ros.sync.pose_track import AHEAD_NS, BEHIND_NS, PoseTrack, is_same_pose
from occupancy_nn_ros.sync.transform_store import Kept, StoreFeed, TransformStore
from occupancy_nn_ros.values import FloatArray, StampedTransform


class PoseBuffer:
    """Keeps transforms for a while and answers for any pair of connected frames at any stamp in between.

    A frame has one parent. Of two that are published at once it keeps the first, unless :meth:`prefer` says otherwise; one whose
    parent fell silent takes the next that comes. Safe for one thread that writes and others that read.

    Attributes:
        rivals: frames that were given several parents at once, with all of these.
        contradicted: frames that were given static transforms to one parent that differ.
    """

    def __init__(self, cache_ns: int = 10_000_000_000, store: TransformStore | None = None) -> None:
        """Nothing is known yet.

        Args:
            cache_ns: moving transforms are kept for so long behind the newest.
            store: another tree that interpolates; what is taken, and what may be asked, is still decided here.
        """
        self.cache_ns = cache_ns
        self._feed = None if store is None else StoreFeed(store)
        self.rivals: dict[str, set[str]] = {}
        self.contradicted: set[str] = set()
        self._now_ns: int | None = None
        self._tracks: dict[str, dict[str, PoseTrack]] = {}
        self._fixed: dict[str, dict[str, FloatArray]] = {}
        self._parents: dict[str, str] = {}
        self._preferred: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def too_old(self) -> int:
        """Samples that lay before all that is kept of their frame, and were left out."""
        with self._lock:
            return sum(track.too_old for track in self._all_tracks())

    def advance(self, now_ns: int) -> None:
        """The sensors' time: what is stamped far ahead of it is not used before it comes there."""
        with self._lock:
            if self._now_ns is None:
                for track in self._all_tracks():
                    track.begin(now_ns)
                self._mark_stale()
            self._now_ns = now_ns

    def set_transform(self, transform: StampedTransform, *, is_static: bool = False) -> bool:
        """Add one transform; False if it was left out: too old, or of a parent that the frame does not have.

        Raises:
            TransformError: not a rigid transform, an empty frame name, a frame relative to itself, or a loop.
        """
        parent, child = transform.target_frame.lstrip("/"), transform.source_frame.lstrip("/")
        if not parent or not child or parent == child:
            raise TransformError(f"transform from '{child}' to '{parent}': expected two different frames")
        check_transform(transform.T_target_source)
        with self._lock:
            self._refuse_loop(parent, child)
            return self._add(parent, child, transform, is_static)

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
            if self._feed is not None and target != source:
                return self._ask_store(self._feed, target, source, common, stamp_ns)
            return invert(self._climb(target, common, stamp_ns)) @ self._climb(source, common, stamp_ns)

    def frames(self) -> set[str]:
        """All frames, children and parents."""
        with self._lock:
            return self._names()

    def parent(self, frame: str) -> str | None:
        """The frame above, or None for a root."""
        with self._lock:
            return self._parents.get(frame)

    def is_static(self, frame: str) -> bool:
        """Whether a frame hangs on its parent by a static transform."""
        with self._lock:
            return frame in self._parents and self._parents[frame] in self._fixed.get(frame, {})

    def track(self, frame: str) -> PoseTrack | None:
        """The samples of a moving frame, None for one that is static or a root."""
        with self._lock:
            return self._tracks.get(frame, {}).get(self._parents.get(frame, ""))

    def path(self, first: str, second: str) -> list[str]:
        """The frames from one to another, both included; empty if they are not connected."""
        with self._lock:
            up_first, up_second = list(self._ancestors(first)), list(self._ancestors(second))
            common = next((frame for frame in up_first if frame in up_second), None)
            if common is None or not (first == second or (self._knows(first) and self._knows(second))):
                return []
            down = up_second[: up_second.index(common)]
            return [*up_first[: up_first.index(common) + 1], *reversed(down)]

    def above(self, frame: str) -> dict[str, tuple[str, ...]]:
        """Every frame above one, over any parent that was published, nearest first: the way there, both included."""
        with self._lock:
            found: dict[str, tuple[str, ...]] = {frame: (frame,)}
            waiting = deque([frame])
            while waiting:
                child = waiting.popleft()
                for parent in self._every_parent(child):
                    if parent not in found:
                        found[parent] = (*found[child], parent)
                        waiting.append(parent)
            return found

    def prefer(self, way: tuple[str, ...]) -> None:
        """Of several parents that frames have, those along a way from :meth:`above` hold from now on."""
        with self._lock:
            for child, parent in pairwise(way):
                if child in self.rivals:
                    self._mark_stale(is_changed=self._parents[child] != parent)
                    self._preferred[child] = self._parents[child] = parent

    def rewind(self, now_ns: int) -> None:
        """Time was turned back: forget all moving transforms but those that came since; static ones stay."""
        with self._lock:
            self._now_ns = now_ns
            self._mark_stale()
            for child, tracks in list(self._tracks.items()):
                for parent, track in list(tracks.items()):
                    track.rewind(now_ns)
                    if not track.stamps:
                        self._remove(child, parent)

    def clear(self) -> None:
        """Forget all moving transforms; static ones stay."""
        with self._lock:
            for child, tracks in list(self._tracks.items()):
                for parent in list(tracks):
                    self._remove(child, parent)
            self._now_ns = None
            self._mark_stale()

    def _add(self, parent: str, child: str, transform: StampedTransform, is_static: bool) -> bool:
        known = self._fixed.get(child, {}).get(parent)
        if is_static and known is not None and np.array_equal(known, transform.T_target_source):
            return True  # sent again
        if is_static and known is not None and not is_same_pose(known, transform.T_target_source):
            self.contradicted.add(child)
        current = self._parents.get(child)
        self._mark_stale(is_changed=current != parent or is_static != (known is not None))
        takes = current is None or current == parent or self._takes_over(parent, child, transform.stamp_ns, is_static)
        if is_static:
            self._tracks.get(child, {}).pop(parent, None)
            self._fixed.setdefault(child, {})[parent] = transform.T_target_source
            is_taken = True
        else:
            self._fixed.get(child, {}).pop(parent, None)
            tracks = self._tracks.setdefault(child, {})
            track = tracks.setdefault(parent, PoseTrack(parent, child, self.cache_ns))
            self._mark_stale(is_changed=track.would_replace(transform.stamp_ns, transform.T_target_source))
            is_taken = track.add(transform.stamp_ns, transform.T_target_source, self._now_ns)
        if takes:
            if current not in (None, parent) and child not in self.rivals:
                self._remove(child, str(current))
            self._parents[child] = parent
        if self._feed is not None and is_taken and takes:
            held = StampedTransform(transform.stamp_ns, parent, child, transform.T_target_source)
            self._feed.add(held, is_static=is_static)
        return is_taken and takes

    def _takes_over(self, parent: str, child: str, stamp_ns: int, is_static: bool) -> bool:
        """Whether a frame changes to another parent; notes it where both are published at once."""
        if child in self._preferred:
            return False
        old = self._tracks.get(child, {}).get(self._parents[child])
        newest = None if old is None else old.newest(self._now_ns)
        if newest is not None and stamp_ns > newest + BEHIND_NS and not is_static:
            return True  # the old parent fell silent
        self.rivals.setdefault(child, {self._parents[child]}).add(parent)
        return is_static or old is None

    def _remove(self, child: str, parent: str) -> None:
        for kind in (self._tracks, self._fixed):
            kept = kind.get(child, {})
            kept.pop(parent, None)
            if not kept:
                kind.pop(child, None)
        if self._parents.get(child) == parent:
            others = self._every_parent(child)
            if others:
                self._parents[child] = others[0]
            else:
                del self._parents[child]

    def _refuse_loop(self, parent: str, child: str) -> None:
        if child in self._ancestors(parent):
            raise TransformError(f"transform from '{child}' to '{parent}' would close a loop")

    def _every_parent(self, child: str) -> list[str]:
        """The parents that a frame was given, the one that holds first."""
        given = [*self._tracks.get(child, {}), *self._fixed.get(child, {})]
        return sorted(given, key=lambda parent: parent != self._parents.get(child))

    def _all_tracks(self) -> Iterator[PoseTrack]:
        return (track for tracks in self._tracks.values() for track in tracks.values())

    def _ancestors(self, frame: str) -> dict[str, None]:
        """The frame itself and all frames above it, nearest first."""
        chain: dict[str, None] = {frame: None}
        while frame in self._parents and self._parents[frame] not in chain:
            frame = self._parents[frame]
            chain[frame] = None
        return chain

    def _climb(self, frame: str, ancestor: str, stamp_ns: int) -> FloatArray:
        """``T_ancestor_frame``."""
        total = np.eye(4)
        while frame != ancestor:
            parent = self._parents[frame]
            total = self._edge_at(frame, parent, stamp_ns) @ total
            frame = parent
        return total

    def _edge_at(self, child: str, parent: str, stamp_ns: int) -> FloatArray:
        fixed = self._fixed.get(child, {}).get(parent)
        return self._tracks[child][parent].at(stamp_ns, self._now_ns) if fixed is None else fixed

    def _mark_stale(self, *, is_changed: bool = True) -> None:
        if self._feed is not None and is_changed:
            self._feed.is_stale = True

    def _ask_store(self, feed: StoreFeed, target: str, source: str, common: str, stamp_ns: int) -> FloatArray:
        """What the store says, of what this tree allows to ask.

        Raises:
            ExtrapolationError: as :meth:`lookup`.
        """
        feed.update(self._kept(), None if self._now_ns is None else self._now_ns + AHEAD_NS)
        for frame in (target, source):
            while frame != common:
                parent = self._parents[frame]
                if parent not in self._fixed.get(frame, {}):
                    self._check_edge(feed.store, frame, parent, stamp_ns)
                frame = parent
        return feed.store.lookup(target, source, stamp_ns)

    def _check_edge(self, store: TransformStore, child: str, parent: str, stamp_ns: int) -> None:
        track = self._tracks[child][parent]
        before_ns, _ = track.around(stamp_ns, self._now_ns)
        if before_ns > stamp_ns:  # the first sample holds from when it was sent, which the store does not know
            held = StampedTransform(stamp_ns, parent, child, track.sample(before_ns))
            store.put(held, is_static=False)

    def _kept(self) -> Iterator[Kept]:
        """All transforms of the parents that hold."""
        for child, parent in self._parents.items():
            fixed = self._fixed.get(child, {}).get(parent)
            if fixed is not None:
                yield StampedTransform(0, parent, child, fixed), True
                continue
            track = self._tracks[child][parent]
            for stamp_ns in track.stamps:
                yield StampedTransform(stamp_ns, parent, child, track.sample(stamp_ns)), False

    def _knows(self, frame: str) -> bool:
        return frame in self._parents or any(parent == frame for parent in self._parents.values())

    def _names(self) -> set[str]:
        return set(self._parents) | set(self._parents.values())
