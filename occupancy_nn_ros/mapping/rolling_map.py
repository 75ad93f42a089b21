# SPDX-License-Identifier: Apache-2.0
"""The rolling voxel map: fixed memory, however far the robot drives. The only mutable map in the package.

Log-odds fusion follows Moravec and Elfes (1985), with clamps as in OctoMap (Hornung et al. 2013).
"""

from __future__ import annotations

from collections.abc import Hashable
from numbers import Integral
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from occupancy_nn_ros.compute.capture import Captured
from occupancy_nn_ros.config import Config, MapConfig
from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.mapping.block_store import BlockStore
from occupancy_nn_ros.mapping.clock import MapClock
from occupancy_nn_ros.mapping.dense_kernels import DenseRule
from occupancy_nn_ros.mapping.dense_update import (
    EXPONENTIAL,
    LINEAR,
    add_class_evidence,
    add_prediction,
    forget_unseen,
)
from occupancy_nn_ros.mapping.device_update import add_on_device
from occupancy_nn_ros.mapping.device_view import DeviceMap, device_map
from occupancy_nn_ros.mapping.host_view import host_view, unseen_points, unseen_voxels
from occupancy_nn_ros.mapping.map_memory import MAX_VOXELS, NEVER, spans
from occupancy_nn_ros.mapping.marks import Marks, make_marks, place_marks
from occupancy_nn_ros.mapping.queries import Unknown, classes_at_points, query_map
from occupancy_nn_ros.mapping.voxel_storage import VoxelStorage
from occupancy_nn_ros.values import (
    SEMANTIC_CLASSES,
    Float32Array,
    FloatArray,
    LatticeWindow,
    MapPlace,
    MapView,
    Prediction,
    UInt8Array,
)

VISIT_M = 0.5
"""How far around a sensor, along each axis, it is taken to have been."""

__all__ = ["MAX_VOXELS", "NEVER", "RollingMap"]


class RollingMap(VoxelStorage):
    """Voxels in a window that follows the robot, and what predictions and time do to them.

    Not thread-safe: one worker owns it; others get copies by :meth:`view`.

    Attributes:
        store: places that left the window, None if they are forgotten.
        clock: turns stamps into the map's time.
        captured: work on a GPU that was recorded for this map's memory, by what fixes it; None where that failed.
        left_out: predicted voxels left out so far because they were NaN or infinite; on a GPU it is counted there, () int64.
    """

    def __init__(
        self, voxel_size_m: float, shape: tuple[int, int, int], config: MapConfig, *, device: str = "cpu",
        num_classes: int = len(SEMANTIC_CLASSES),
    ) -> None:  # fmt: skip
        """Allocate a map of unknown voxels.

        Raises:
            ConfigError: more voxels than could be meant, or than fit into the free memory.
        """
        super().__init__(voxel_size_m, shape, config, device, num_classes)
        self.store = (
            BlockStore(config.remember_mib << 20, max(config.log_odds_max, -config.log_odds_min))
            if config.remember_mib
            else None
        )
        self.left_out: int | Tensor = 0
        self.captured: dict[Hashable, Captured | None] = {}
        self.clock = MapClock()
        self._marks: Marks | None = None

    @classmethod
    def from_config(cls, config: Config, device: str = "cpu") -> RollingMap:
        """A map with the configured voxel size and window."""
        edge = config.voxel_size_m
        side = max(1, round(config.map.size_xy_m / edge))
        height = max(1, round((config.map.below_m + config.map.above_m) / edge))
        grid = cls(edge, (side, side, height), config.map, device=device)
        if config.outputs.color_by == "camera" and config.source == "network":  # else once a camera looks
            grid.keep_colors()
        return grid

    def move_to(self, T_map_base: FloatArray) -> None:
        """Center the window on the robot in x and y, with its floor ``below_m`` under the base; clears what enters.

        With ``forget_beyond_m`` set, voxels further from the base than that along any axis are forgotten too.

        Raises:
            TransformError: the position is not finite or too far out for the lattice; the map stays as it was.
        """
        position = np.asarray(T_map_base, dtype=np.float64)[:3, 3]
        edge, shape = self._window.voxel_size_m, self._window.shape
        cells = np.floor(position / edge)
        if not np.isfinite(cells).all() or np.abs(cells).max() > 2**40:
            raise TransformError(f"robot position is {position.tolist()} m, expected finite numbers within 1e12 voxels")
        base = cells.astype(np.int64)
        below = round(self.config.below_m / edge)
        self.move_origin((int(base[0]) - shape[0] // 2, int(base[1]) - shape[1] // 2, int(base[2]) - below))
        if self.config.forget_beyond_m > 0.0:
            self._forget_beyond(position, self.config.forget_beyond_m)

    def move_origin(self, origin: tuple[int, int, int]) -> None:
        """Put the window's lowest voxel at a lattice index; voxels that stay inside keep their values."""
        old, shape = self._window.origin, self._window.shape
        if self.store is not None:
            self.store.keep_leaving(self, origin)
        if abs(origin[2] - old[2]) >= shape[2] or (not self.clock.started and not bool((self.seen_ms != NEVER).any())):
            # Nothing stays: begin anew with columns that are not split, which are faster to go through.
            super().clear()
            self._anchor_z = origin[2]
        for axis in range(3):
            shift = origin[axis] - old[axis]
            count = min(abs(shift), shape[axis])
            start = origin[axis] + shape[axis] - count if shift > 0 else origin[axis]
            for stored, _ in spans(start - self.anchor[axis], count, shape[axis]):
                self.clear((slice(None),) * axis + (stored,))
        self._window = LatticeWindow(self._window.voxel_size_m, origin, shape)
        if self.store is not None:
            self.store.restore_entering(self, old, self.clock.newest_ms)

    def integrate(self, prediction: Prediction, stamp_ns: int, gain: float = 1.0) -> None:
        """Add a prediction's weighted log-odds, less its prior's, where its weight is positive and inside the window.

        Voxels whose log-odds or weight is not finite are left alone and counted in ``left_out``.

        Raises:
            ValueError: a stamp that is no integer, tensors that do not fit the prediction's window or the map's classes, or
                another voxel size.
        """
        self._check(prediction)
        config = self.config
        now = self.time_ms(stamp_ns)
        rule = DenseRule(gain, config.log_odds_min, config.log_odds_max, config.clear_in_view_s * 1000, now)
        logit = (prediction.logit.to(self.device, torch.float32) - prediction.prior_log_odds).contiguous()
        weight = prediction.weight.to(self.device, torch.float32).contiguous()
        storage = (self.log_odds, self.seen_ms)
        classes = prediction.class_logits
        if classes is not None:
            classes = classes.to(self.device, torch.float32).contiguous()
        if self.device.type != "cpu":
            self.left_out = self.left_out + add_on_device(self, prediction.window, (logit, weight, classes), rule)
            return
        for where in self.overlap(prediction.window):
            self.left_out = self.left_out + add_prediction(storage, (logit, weight), where, rule)
            if classes is not None:
                add_class_evidence(self.class_evidence, (logit, weight, classes), where, gain)

    def forget(self, stamp_ns: int) -> None:
        """Let voxels decay that were not seen since the last call, as configured, until they are unknown.

        Voxels in view are not handled here: see ``clear_in_view_s`` for those that are seen free.
        """
        now, last = self.time_ms(stamp_ns), self.clock.forgotten_ms
        self.clock.forgotten_ms = now
        if self.config.forget_model != "off" and now > last:
            model = LINEAR if self.config.forget_model == "linear" else EXPONENTIAL
            tensors = (self.log_odds, self.seen_ms, self.class_evidence)
            most = max(self.config.log_odds_max, -self.config.log_odds_min)
            forget_unseen(tensors, (now, last), model, self.config.forget_after_s * 1000, most)

    def clear(self, where: tuple[slice, ...] = ()) -> None:
        """Forget a part of the storage, or everything, also where the window was before; it stays where it is."""
        super().clear(where)
        if where == () and self.store is not None:
            self.store.clear()

    def view(self, stamp_ns: int, frame_id: str, T_map_base: FloatArray) -> MapView:
        """A copy in host memory, in window order."""
        if self.device.type != "cpu":
            return self.content(stamp_ns, frame_id, T_map_base).view()
        return host_view(self, self._place(stamp_ns, frame_id, T_map_base))

    def content(self, stamp_ns: int, frame_id: str, T_map_base: FloatArray) -> DeviceMap:
        """What a map on a GPU knows, where it is, in window order; who asks does not wait for it."""
        return device_map(self, self._place(stamp_ns, frame_id, T_map_base), self.left_out)

    def unseen(self) -> npt.NDArray[np.bool_]:
        """Voxels (X, Y, Z), in window order, that are free or occupied by the evidence and cannot have been seen."""
        return unseen_voxels(self)

    def unseen_at(self, points_m: FloatArray) -> npt.NDArray[np.bool_]:
        """Which map-frame points (N, 3) lie in such voxels, (N,)."""
        return unseen_points(self, points_m)

    def visit(self, places_m: FloatArray) -> None:
        """Note places (N, 3) in the map frame where sensors are now."""
        edge = self._window.voxel_size_m
        for place in places_m:
            low, high = (np.floor((place + reach) / edge).astype(np.int64) for reach in (-VISIT_M, VISIT_M))
            (i, j, k), (x, y, z) = low.tolist(), (high - low + 1).tolist()
            for stored, _ in self.overlap(LatticeWindow(edge, (i, j, k), (x, y, z))):
                self.visited[stored] = True

    def query(
        self, points_m: npt.ArrayLike, *, mode: Literal["nearest", "trilinear"] = "nearest", unknown: Unknown = "keep"
    ) -> tuple[Float32Array, npt.NDArray[np.int8]]:
        """Occupied-probability (N,) and state (N,) at map-frame points (N, 3).

        Args:
            points_m: anywhere; what lies outside the window or is not finite is unknown.
            mode: the voxel that holds the point, or interpolated between voxel centres (over known ones only).
            unknown: report unknown as it is (probability NaN), or as free or occupied.
        """
        return query_map(self, points_m, mode, unknown)

    def classes_at(self, points_m: npt.ArrayLike) -> UInt8Array:
        """Class ids (N,) of the occupied voxels that hold map-frame points (N, 3); 0 where none is known."""
        return classes_at_points(self, points_m)

    def replace_content(
        self,
        origin: tuple[int, int, int],
        log_odds: Tensor,
        known: Tensor,
        evidence: Tensor,
        colors: Tensor | None = None,
    ) -> None:
        """Put the window at ``origin`` with new content in window order; it counts as seen at the newest time.

        Places that left the window are forgotten: they are of the map before.

        Args:
            origin: lattice index of the window's lowest voxel.
            log_odds: (X, Y, Z) float32, clamped here.
            known: (X, Y, Z) bool.
            evidence: (X, Y, Z, C) int16.
            colors: (X, Y, Z, 4) int16, None where none were kept; left out by a map that keeps none.
        """
        if self.store is not None:
            self.store.clear()
        self._anchor_z = origin[2]
        self._window = LatticeWindow(self._window.voxel_size_m, origin, self._window.shape)
        known = known.to(self.device)
        values = log_odds.to(self.device).clamp(self.config.log_odds_min, self.config.log_odds_max)
        for stored, given in self.overlap(self._window):
            self.log_odds[stored] = torch.where(known[given], values[given], 0.0)
            self.seen_ms[stored] = torch.where(known[given], self.clock.newest_ms, NEVER)
            self.class_evidence[stored] = evidence[given].to(self.device)
            self.visited[stored] = known[given]
            if self.colors is not None:
                self.colors[stored] = 0 if colors is None else colors[given].to(self.device)

    def marks(self) -> Marks:
        """Scratch memory for one scan, addressed for the window as it lies now; allocated on first use."""
        shape, origin = self._window.shape, self._window.origin
        if self._marks is None:
            self._marks = make_marks(shape)
        start = tuple((origin[axis] - self.anchor[axis]) % shape[axis] for axis in range(3))
        self._marks = place_marks(self._marks, shape, (start[0], start[1], start[2]))
        return self._marks

    def time_ms(self, stamp_ns: int) -> int:
        """A stamp on the map's clock.

        Raises:
            ValueError: it is no integer.
        """
        if not isinstance(stamp_ns, Integral):
            raise ValueError(f"stamp is {stamp_ns!r}, expected integer nanoseconds")
        return self.clock.to_ms(stamp_ns, self.seen_ms)

    def _place(self, stamp_ns: int, frame_id: str, T_map_base: FloatArray) -> MapPlace:
        return MapPlace(stamp_ns, frame_id, self._window, np.array(T_map_base))

    def _check(self, prediction: Prediction) -> None:
        shape, classes = prediction.window.shape, prediction.class_logits
        expected = (self.class_evidence.shape[-1], *shape)
        if tuple(prediction.logit.shape) != shape or tuple(prediction.weight.shape) != shape:
            found = f"{tuple(prediction.logit.shape)} and {tuple(prediction.weight.shape)}"
            raise ValueError(f"prediction's logit and weight are {found}, expected {shape}")
        if classes is not None and tuple(classes.shape) != expected:
            raise ValueError(f"prediction's class logits are {tuple(classes.shape)}, expected {expected}")

    def _forget_beyond(self, position: FloatArray, limit_m: float) -> None:
        """Clear the voxels that lie further than ``limit_m`` from the robot along any axis."""
        window = self._window
        for axis in range(3):
            low = int(np.floor((position[axis] - limit_m) / window.voxel_size_m)) - window.origin[axis]
            high = int(np.floor((position[axis] + limit_m) / window.voxel_size_m)) - window.origin[axis] + 1
            size = window.shape[axis]
            for start, count in ((0, min(low, size)), (max(0, high), size - max(0, high))):
                for stored, _ in spans(start + window.origin[axis] - self.anchor[axis], count, size):
                    self.clear((slice(None),) * axis + (stored,))
