# SPDX-License-Identifier: Apache-2.0
"""Frames of a keyframe, as the intake placed them, to pixels, depths and points with their pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import (
    CalibrationError,
    LayoutError,
    MessageError,
    OccupancyError,
    UnknownEncodingError,
)
from occupancy_nn_ros.geometry.cameras import fit_to_image, sizes_of
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.images import decode_depth, decode_image, to_metres
from occupancy_nn_ros.messages.names import VIDEO_TYPES
from occupancy_nn_ros.messages.picture_headers import PictureLimits
from occupancy_nn_ros.messages.video import decode_video
from occupancy_nn_ros.runtime.camera_mask import masked
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.values import CameraModel, Float32Array, Keyframe, PosedCloud, PosedDepth, PosedImage, UInt8Array

Decoded = PosedImage | PosedDepth | PosedCloud
BadFrames = list[tuple[RawFrame, OccupancyError]]
Judge = Callable[[RawFrame, Decoded], Decoded]
"""Raises a MessageError for a frame that decodes but should not be used; returns what of it may be."""


@dataclass(frozen=True)
class FurtherDecoders:
    """Other libraries' decoders, for messages that this package's own cannot read; handed in by who may import them.

    Each takes the bytes of a message and raises a MessageError where it cannot read them either.

    Attributes:
        image: an Image's RGB pixels (H, W, 3).
        depth: an Image's one channel (H, W), as it is stored.
        cloud: a PointCloud2's finite points (N, 3).
        names: the libraries, for people.
    """

    image: Callable[[bytes], UInt8Array] | None = None
    depth: Callable[[bytes], npt.NDArray[Any]] | None = None
    cloud: Callable[[bytes], Float32Array] | None = None
    names: tuple[str, ...] = ()


OWN_ONLY = FurtherDecoders()


def decode_keyframe(
    raw: RawKeyframe, min_cameras: int, judge: Judge | None = None, further: FurtherDecoders = OWN_ONLY
) -> tuple[Keyframe | None, BadFrames]:
    """The keyframe's sensors decoded, and the frames that cannot be used, each with the reason.

    A bad frame costs itself; the keyframe is None if none remains, or fewer than ``min_cameras`` of as many or more.
    """
    decoded: list[Decoded] = []
    bad: BadFrames = []
    for frame in raw.frames:
        try:
            item = decode_frame(frame, further)
            decoded.append(item if judge is None else judge(frame, item))
        except (MessageError, CalibrationError) as error:
            bad.append((frame, error))
    if len(decoded) < max(1, min(min_cameras, len(raw.frames))):
        return None, bad
    images = tuple(item for item in decoded if isinstance(item, PosedImage))
    depths = tuple(item for item in decoded if isinstance(item, PosedDepth))
    clouds = tuple(item for item in decoded if isinstance(item, PosedCloud))
    return Keyframe(raw.stamp_ns, raw.T_map_base, images, depths, clouds), bad


def decode_frame(frame: RawFrame, further: FurtherDecoders = OWN_ONLY) -> Decoded:
    """A frame of any kind, decoded.

    Raises:
        MessageError: it does not decode.
        CalibrationError: an image without intrinsics.
    """
    if frame.sensor.kind == "cloud":
        return decode_cloud_frame(frame, further)
    return decode_depth_frame(frame, further) if frame.sensor.kind == "depth" else decode_image_frame(frame, further)


def decode_image_frame(frame: RawFrame, further: FurtherDecoders = OWN_ONLY) -> PosedImage:
    """Decoded image with its pose.

    Raises:
        MessageError: it does not decode, or is not of the size that camera_info tells, which is seen before decoding.
        CalibrationError: no intrinsics.
        ImplausibleError: its mask cannot be used; without it the robot would see itself.
    """
    model = _model_of(frame)
    msgtype, limits = frame.sensor.msgtype, _limits(frame, model)
    if msgtype in VIDEO_TYPES:
        image = decode_video(msgtype, frame.cdr, frame.earlier, limits)
    else:
        try:
            _, image = decode_image(msgtype, frame.cdr, limits)
        except UnknownEncodingError:
            if further.image is None:
                raise
            image = further.image(frame.cdr)
    fitted = masked(fit_to_image(model, image.shape[1], image.shape[0]), frame.sensor.mask)
    return PosedImage(frame.sensor.name, frame.stamp_ns, image, fitted, frame.T_map_sensor)


def decode_depth_frame(frame: RawFrame, further: FurtherDecoders = OWN_ONLY) -> PosedDepth:
    """Decoded depth image with its pose.

    Raises:
        MessageError: it does not decode, or is not of the size that camera_info tells, which is seen before decoding.
        CalibrationError: no intrinsics.
        ImplausibleError: its mask cannot be used; without it the robot would see itself.
    """
    model = _model_of(frame)
    sensor = frame.sensor
    try:
        _, depth = decode_depth(sensor.msgtype, frame.cdr, _limits(frame, model), sensor.depth_unit_m)
    except UnknownEncodingError:
        if further.depth is None:
            raise
        depth = to_metres(further.depth(frame.cdr), sensor.depth_unit_m)
    fitted = masked(fit_to_image(model, depth.shape[1], depth.shape[0]), sensor.mask)
    if fitted.mask is not None:
        depth = np.where(fitted.mask, 0, depth).astype(np.float32)
    return PosedDepth(sensor.name, frame.stamp_ns, depth, fitted, frame.T_map_sensor)


def decode_cloud_frame(frame: RawFrame, further: FurtherDecoders = OWN_ONLY) -> PosedCloud:
    """Decoded cloud with its pose.

    Raises:
        MessageError: it does not decode.
    """
    try:
        _, points = decode_point_cloud(frame.cdr)
    except LayoutError:
        if further.cloud is None:
            raise
        points = further.cloud(frame.cdr)
    if frame.T_sensor_points is not None:
        R, t = frame.T_sensor_points[:3, :3], frame.T_sensor_points[:3, 3]
        points = (points @ R.T + t).astype(np.float32)
    return PosedCloud(frame.sensor.name, frame.stamp_ns, points, frame.T_map_sensor)


def _model_of(frame: RawFrame) -> CameraModel:
    if frame.model is None:
        raise CalibrationError(f"camera '{frame.sensor.name}' has no camera_info")
    return frame.model


def _limits(frame: RawFrame, model: CameraModel) -> PictureLimits:
    return PictureLimits(frame.sensor.max_pixels, sizes_of(model))
