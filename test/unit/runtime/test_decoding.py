# SPDX-License-Identifier: Apache-2.0
"""Frames that the own decoders cannot read go to those that were handed in, and are limited as all others are."""

import dataclasses

import numpy as np
import pytest

from occupancy_nn_ros.errors import ImageError, LayoutError, UnknownEncodingError
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_image, encode_point_cloud
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.runtime.decoding import FurtherDecoders, decode_frame
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame
from occupancy_nn_ros.values import CameraModel

MODEL = CameraModel(6, 4, np.array([[5.0, 0, 3], [0, 5, 2], [0, 0, 1]]), "none", np.zeros(0))
POINTS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
RGB = np.full((4, 6, 3), 7, np.uint8)


def frame(kind, cdr, msgtype=names.IMAGE, **settings):
    sensor = SensorStream("eye", "/eye/image", msgtype, "/eye/camera_info", kind=kind, **settings)
    return RawFrame(sensor, 1, "eye", cdr, MODEL, np.eye(4), ())


def image(encoding, shape=(4, 6)):
    return encode_image(1, "eye", np.full(shape, 1.5), encoding)


def broken_cloud():
    message = deserialize(names.POINT_CLOUD, encode_point_cloud(1, "eye", POINTS))
    return serialize(dataclasses.replace(message, row_step=0))


def test_without_further_decoders_the_error_says_what_is_not_known():
    with pytest.raises(UnknownEncodingError, match="64FC1"):
        decode_frame(frame("depth", image("64FC1")))
    with pytest.raises(UnknownEncodingError, match="64FC3"):
        decode_frame(frame("image", image("64FC3", (4, 6, 3))))
    with pytest.raises(LayoutError, match="does not fit"):
        decode_frame(frame("cloud", broken_cloud(), names.POINT_CLOUD))


def test_what_is_not_known_goes_to_the_further_decoder_of_its_kind():
    seen = []

    def giving(value):
        return lambda cdr: seen.append(cdr) or value

    further = FurtherDecoders(giving(RGB), giving(np.full((4, 6), 1.5)), giving(POINTS))
    depth, picture, cloud = image("64FC1"), image("64FC3", (4, 6, 3)), broken_cloud()
    assert (decode_frame(frame("depth", depth), further).depth_m == np.float32(1.5)).all()
    assert (decode_frame(frame("depth", depth, depth_unit_m=0.1), further).depth_m == np.float32(0.15)).all()
    assert (decode_frame(frame("image", picture), further).image == RGB).all()
    assert (decode_frame(frame("cloud", cloud, names.POINT_CLOUD), further).points_m == POINTS).all()
    assert seen == [depth, depth, picture, cloud]


def test_what_is_known_or_too_large_is_never_handed_on():
    def fail(cdr):
        raise AssertionError

    further = FurtherDecoders(fail, fail, fail)
    assert decode_frame(frame("image", encode_image(1, "eye", RGB)), further).image[0, 0, 0] == 7
    with pytest.raises(ImageError, match="camera_info says 6x4"):
        decode_frame(frame("image", image("64FC3", (40, 60, 3))), further)
