# SPDX-License-Identifier: Apache-2.0
"""What comes in from outside is looked at before anything is changed by it: pixels, points, intrinsics, poses, stamps."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

import numpy as np

from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.geometry.cameras import check_camera
from occupancy_nn_ros.geometry.poses import check_rigid
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedCloud, PosedDepth, PosedImage


def check_keyframe(keyframe: Keyframe) -> None:
    """Check that a keyframe can be fused.

    Raises:
        TransformError: a pose is not a finite rigid transform within reach of the lattice.
        CalibrationError: intrinsics that cannot be used, or for another size.
        ValueError: a stamp that is no integer, or pixels or points of another type or shape than expected.
    """
    _check_stamp("keyframe", keyframe.stamp_ns)
    check_rigid(keyframe.T_map_base, "T_map_base")
    check_images(keyframe.images)
    for depth in keyframe.depths:
        _check_depth(depth)
    for cloud in keyframe.clouds:
        _check_cloud(cloud)


def check_images(images: Iterable[PosedImage]) -> None:
    """Check images alone; raises as :func:`check_keyframe` does."""
    for item in images:
        name, image = f"image of camera '{item.camera}'", np.asarray(item.image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            hint = "; scale floats to 0..255 and cast them" if image.dtype.kind == "f" else ""
            hint = "; repeat a grey image three times" if image.ndim == 2 or image.shape[-1] == 1 else hint
            raise ValueError(f"{name} is {image.dtype} {image.shape}, expected uint8 RGB (H, W, 3){hint}")
        _check_stamp(name, item.stamp_ns)
        _check_model(name, item.model, image.shape)
        check_rigid(item.T_map_cam, f"T_map_cam of camera '{item.camera}'")


def _check_depth(item: PosedDepth) -> None:
    name, depth = f"depth image of camera '{item.camera}'", np.asarray(item.depth_m)
    if depth.dtype.kind != "f" or depth.ndim != 2:
        hint = "; divide millimetres by 1000" if depth.dtype.kind in "iu" else ""
        raise ValueError(f"{name} is {depth.dtype} {depth.shape}, expected float32 metres (H, W){hint}")
    _check_stamp(name, item.stamp_ns)
    _check_model(name, item.model, depth.shape)
    check_rigid(item.T_map_cam, f"T_map_cam of camera '{item.camera}'")


def _check_cloud(item: PosedCloud) -> None:
    name, points = f"cloud of sensor '{item.sensor}'", np.asarray(item.points_m)
    if points.dtype.kind != "f" or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{name} is {points.dtype} {points.shape}, expected float32 metres (N, 3)")
    _check_stamp(name, item.stamp_ns)
    check_rigid(item.T_map_sensor, f"T_map_sensor of sensor '{item.sensor}'")


def _check_model(name: str, model: CameraModel, shape: tuple[int, ...]) -> None:
    check_camera(model)
    if shape[:2] != (model.height, model.width):
        raise CalibrationError(f"{name} is {shape[1]}x{shape[0]}, its intrinsics are for {model.width}x{model.height}")


def _check_stamp(name: str, stamp_ns: int) -> None:
    if not isinstance(stamp_ns, Integral) or isinstance(stamp_ns, bool):
        raise ValueError(f"stamp of {name} is {stamp_ns!r}, expected integer nanoseconds: round(seconds * 1e9)")
