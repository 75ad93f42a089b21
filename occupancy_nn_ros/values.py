# SPDX-License-Identifier: Apache-2.0
"""Frozen value types that cross layers. No behaviour beyond checks and index arithmetic; knows nothing about ROS.

Conventions: ``T_target_source`` is a (4, 4) float64 rigid transform that maps points of ``source`` into ``target``;
metres, radians, integer nanoseconds; images are RGB uint8 (H, W, 3); grids are (X, Y, Z).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import CalibrationError

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

SEMANTIC_CLASSES = ("ground", "structure", "object", "vehicle", "person", "vegetation")
"""Class names in index order; class ids in maps and messages are index + 1, 0 means no class known."""

NO_COLOR = (150, 150, 150)
"""RGB of an occupied voxel that no camera has looked at yet."""


class VoxelState(IntEnum):
    """What is known of a voxel. Unknown means never observed or forgotten; it is not probability 0.5."""

    UNKNOWN = -1
    FREE = 0
    OCCUPIED = 1


@dataclass(frozen=True)
class LatticeWindow:
    """A box of voxels on the one global lattice.

    Voxel ``(i, j, k)`` covers ``[i, i + 1) * voxel_size_m`` in the map frame on each axis; its centre is at ``+0.5``.

    Attributes:
        voxel_size_m: edge of a voxel.
        origin: lattice index of the window's lowest voxel (i, j, k).
        shape: number of voxels (X, Y, Z).
    """

    voxel_size_m: float
    origin: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def origin_m(self) -> FloatArray:
        """Lowest corner of the window in the map frame, shape (3,)."""
        return np.asarray(self.origin, dtype=np.float64) * self.voxel_size_m

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def centers_m(self) -> Float32Array:
        """Voxel centres in the map frame, shape (X, Y, Z, 3)."""
        axes = [(np.arange(n) + o + 0.5) * self.voxel_size_m for o, n in zip(self.origin, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)

    def index_of(self, points_m: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Window index of each map-frame point, shape (..., 3) -> (..., 3); may lie outside the window."""
        cells = np.floor(np.asarray(points_m, dtype=np.float64) / self.voxel_size_m).astype(np.int64)
        return np.asarray(cells - np.asarray(self.origin, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Intrinsics of one camera, as in ``sensor_msgs/CameraInfo``. Compares and hashes by what it holds.

    Attributes:
        width, height: image size the intrinsics refer to, in pixels.
        K: (3, 3) float64 intrinsic matrix; pixel centres are at integer coordinates. Nested lists, or nine numbers row by
            row as in CameraInfo, become one.
        distortion_model: ``plumb_bob``, ``rational_polynomial``, ``equidistant`` or ``none``.
        D: (n,) float64 distortion coefficients in OpenCV's order.
        binning: (x, y) pixels of the sensor that make one pixel here, by which size and K are divided already.
        mask: (height, width) bool, True where pixels show the robot itself or dirt and are never looked at; None: nowhere.
    """

    width: int
    height: int
    K: FloatArray
    distortion_model: str = "none"
    D: FloatArray = field(default_factory=lambda: np.zeros(0))
    binning: tuple[int, int] = (1, 1)
    mask: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Make arrays of K and D.

        Raises:
            CalibrationError: they do not hold numbers.
        """
        try:
            K, D = (np.array(values, dtype=np.float64) for values in (self.K, self.D))
        except (TypeError, ValueError):
            raise CalibrationError(f"K is {self.K} and D is {self.D}, expected numbers") from None
        object.__setattr__(self, "K", K.reshape(3, 3) if K.shape == (9,) else K)
        object.__setattr__(self, "D", D)
        # Bytes keep their hash; those of a whole picture would take long each time.
        object.__setattr__(self, "_mask_bits", b"" if self.mask is None else np.packbits(self.mask).tobytes())

    @property
    def _key(self) -> tuple[object, ...]:
        numbers = (self.K.shape, self.K.tobytes(), self.D.tobytes(), getattr(self, "_mask_bits", b""))
        return (self.width, self.height, self.distortion_model, self.binning, *numbers)

    def __eq__(self, other: object) -> bool:
        """Whether another model is the same to the last bit."""
        return self._key == other._key if isinstance(other, CameraModel) else NotImplemented

    def __hash__(self) -> int:
        """By what it holds."""
        return hash(self._key)


@dataclass(frozen=True)
class StampedTransform:
    """One edge of the transform tree at one moment, as in ``geometry_msgs/TransformStamped``.

    Attributes:
        stamp_ns: when it holds.
        target_frame: the parent frame (``header.frame_id``).
        source_frame: the child frame (``child_frame_id``).
        T_target_source: (4, 4) float64.
    """

    stamp_ns: int
    target_frame: str
    source_frame: str
    T_target_source: FloatArray


@dataclass(frozen=True)
class PosedImage:
    """One camera's decoded image and where the camera stood when it was taken.

    Attributes:
        camera: the camera's name in the configuration.
        stamp_ns: acquisition time.
        image: (H, W, 3) uint8 RGB.
        model: intrinsics at this resolution.
        T_map_cam: (4, 4) float64, optical frame (REP 103: x right, y down, z forward) into the map frame.
    """

    camera: str
    stamp_ns: int
    image: UInt8Array
    model: CameraModel
    T_map_cam: FloatArray


@dataclass(frozen=True)
class PosedDepth:
    """One depth image and its pose.

    Attributes:
        camera, stamp_ns, model, T_map_cam: as in :class:`PosedImage`.
        depth_m: (H, W) float32 distance along the optical axis; 0 or NaN where nothing was measured.
    """

    camera: str
    stamp_ns: int
    depth_m: Float32Array
    model: CameraModel
    T_map_cam: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of the image."""
        return self.depth_m.shape


@dataclass(frozen=True)
class PosedCloud:
    """One LiDAR sweep and its pose.

    Attributes:
        sensor: name of the sensor.
        stamp_ns: time of the sweep.
        points_m: (N, 3) float32 in the sensor frame, finite.
        T_map_sensor: (4, 4) float64.
    """

    sensor: str
    stamp_ns: int
    points_m: Float32Array
    T_map_sensor: FloatArray


@dataclass(frozen=True)
class Keyframe:
    """Everything one map update needs.

    Attributes:
        stamp_ns: reference time (the newest of its sensors' stamps).
        T_map_base: (4, 4) float64 pose of the robot base at ``stamp_ns``.
        images: one entry for each camera that took part, in configuration order.
        depths: depth images, where the map is built from depth.
        clouds: LiDAR sweeps, where the map is built from LiDAR.
    """

    stamp_ns: int
    T_map_base: FloatArray
    images: tuple[PosedImage, ...] = ()
    depths: tuple[PosedDepth, ...] = ()
    clouds: tuple[PosedCloud, ...] = ()

    def with_images_at(self, T_map_cam: Iterable[FloatArray]) -> Keyframe:
        """The keyframe with its images at other poses, (4, 4) each.

        Raises:
            ValueError: more or fewer poses than images.
        """
        posed = zip(self.images, T_map_cam, strict=True)
        return replace(self, images=tuple(replace(image, T_map_cam=pose) for image, pose in posed))


@dataclass(frozen=True)
class Prediction:
    """The network's answer on a window of the map's own lattice; tensors live on the predictor's device.

    Attributes:
        window: where the voxels lie.
        logit: (X, Y, Z) float32 occupied log-odds, calibrated.
        weight: (X, Y, Z) float32 in [0, 1], how much evidence the answer rests on: 0 where no camera looks (such voxels
            must not enter the map), small where inferred, up to 1 where seen.
        class_logits: (C, X, Y, Z) float32 over ``SEMANTIC_CLASSES``, or None for a model without semantics.
        visible: (X, Y, Z) float32 in [0, 1], probability that some camera sees the voxel; None where that is not known.
        depths: what the cameras' images show, where the network is sure of it.
        prior_log_odds: what ``logit`` holds of any voxel before a look at it; a map takes it off, or it would be added again
            with every look.
    """

    window: LatticeWindow
    logit: torch.Tensor
    weight: torch.Tensor
    class_logits: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    depths: tuple[PosedDepth, ...] = ()
    prior_log_odds: float = 0.0


@dataclass(frozen=True)
class MapPlace:
    """Where and when a map is.

    Attributes:
        stamp_ns: time of the newest data.
        frame_id: the map frame.
        window: the voxels' place on the lattice.
        T_map_base: (4, 4) float64 robot pose at ``stamp_ns``.
    """

    stamp_ns: int
    frame_id: str
    window: LatticeWindow
    T_map_base: FloatArray


@dataclass(frozen=True)
class MapView(MapPlace):
    """A read-only copy of the map at one moment, in host memory, ready to publish or draw.

    Attributes:
        state: (X, Y, Z) int8 of :class:`VoxelState`.
        probability: (X, Y, Z) float32 occupied-probability; meaningless where the state is unknown.
        classes: (X, Y, Z) uint8, 0 none, else index into ``SEMANTIC_CLASSES`` plus 1.
        colors: (X, Y, Z, 3) uint8 RGB of the occupied voxels as the cameras saw them, ``NO_COLOR`` where none did; None where the
            map keeps no colours.
    """

    state: npt.NDArray[np.int8]
    probability: Float32Array
    classes: UInt8Array
    colors: UInt8Array | None = None


@dataclass(frozen=True)
class GridSlice:
    """A 2D grid cut from a map, aligned with the lattice.

    Attributes:
        stamp_ns: time of the newest data in it.
        frame_id: the map frame.
        resolution_m: edge of a cell.
        origin_m: (x, y, z) of the lower left corner of cell (0, 0) in the map frame.
        values: (X, Y) int8; an occupancy grid holds -1, 0, 100, a probability grid -1, 0..100.
    """

    stamp_ns: int
    frame_id: str
    resolution_m: float
    origin_m: tuple[float, float, float]
    values: npt.NDArray[np.int8]
