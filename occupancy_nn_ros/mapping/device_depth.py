# SPDX-License-Identifier: Apache-2.0
"""A depth image that a network computed on a GPU, and that stays there unless somebody wants to see it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

from torch import Tensor

from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, PosedDepth


class DeviceDepth(PosedDepth):
    """A depth image on a GPU; who reads ``depth_m`` before it was brought waits for it.

    Attributes:
        pixels: (H, W) float32 on its device, as ``depth_m``.
        pose: (4, 4) float64 on its device, as ``T_map_cam``; None where it is not there.
    """

    pixels: Tensor
    pose: Tensor | None

    def __init__(
        self, camera: str, stamp_ns: int, pixels: Tensor, model: CameraModel, T_map_cam: FloatArray,
        pose: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Take an image; the rest is as in :class:`~occupancy_nn_ros.values.PosedDepth`."""
        given = {"camera": camera, "stamp_ns": stamp_ns, "pixels": pixels, "model": model, "T_map_cam": T_map_cam}
        self.__dict__.update(given, pose=pose)

    @cached_property
    def depth_m(self) -> Float32Array:
        """The image on the host."""
        array: Float32Array = self.pixels.cpu().numpy()
        return array

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of the image."""
        return tuple(self.pixels.shape)

    def bring(self, depth_m: Float32Array) -> None:
        """Take the image's copy on the host, which came with other things."""
        self.__dict__["depth_m"] = depth_m

    def with_pixels(self, pixels: Tensor) -> DeviceDepth:
        """The same with other pixels."""
        return DeviceDepth(self.camera, self.stamp_ns, pixels, self.model, self.T_map_cam, self.pose)


def still_there(depths: Collection[PosedDepth]) -> list[DeviceDepth]:
    """Those of some depth images whose pixels nobody has brought to the host."""
    return [depth for depth in depths if isinstance(depth, DeviceDepth) and "depth_m" not in depth.__dict__]
