# SPDX-License-Identifier: Apache-2.0
"""A camera that cannot be placed, or has no intrinsics, costs itself and not the map of the others."""

from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.values import CameraModel, StampedTransform

SECOND, STEP = 1_000_000_000, 100_000_000
T0 = 1_000 * SECOND
NAMES = ("front", "left", "back", "right")
MODEL = CameraModel(8, 6, np.array([[5.0, 0, 4], [0, 5, 3], [0, 0, 1]]), "plumb_bob", np.zeros(5))
NO_LENS = replace(MODEL, K=np.zeros((3, 3)))
PICTURE = np.zeros((6, 8, 3), np.uint8)


def drive(frames, bad_info=None, unplaced=(), late=None, settings=()):
    """An intake that took so many frames of each of four cameras, 0.1 s apart, and the sensors of each of its keyframes.

    ``late`` is the frame at which what was missing comes.
    """
    sensors = [SensorStream(name, f"/{name}/image", IMAGE, f"/{name}/camera_info") for name in NAMES]
    intake = Intake(load_config([], ["keyframes.distance_m=0", "keyframes.min_period_s=0", *settings]), sensors)
    keyframes = []
    for n in range(frames):
        stamp = T0 + n * STEP
        is_well = late is not None and n >= late
        mounts = [
            StampedTransform(0, "base_link", name, np.eye(4)) for name in NAMES if is_well or name not in unplaced
        ]
        keyframes += intake.receive("/tf_static", encode_tf(mounts))
        keyframes += intake.receive("/tf", encode_tf([StampedTransform(stamp, "odom", "base_link", np.eye(4))]))
        for name in NAMES:
            model = bad_info if name == "left" and bad_info is not None and not is_well else MODEL
            keyframes += intake.receive(f"/{name}/camera_info", encode_camera_info(stamp, name, model))
            keyframes += intake.receive(f"/{name}/image", encode_image(stamp, name, PICTURE))
    keyframes += intake.flush()
    return intake, [tuple(frame.sensor.name for frame in raw.frames) for raw in keyframes]


OTHERS = ("front", "back", "right")


def test_zeros_for_intrinsics_in_one_camera_of_four():
    """The first set waits 8 s for a camera_info that can be used; none after it does."""
    intake, sets = drive(100, bad_info=NO_LENS)
    assert sets == [OTHERS] * 100
    assert intake.dropped["left: no usable camera_info"] == 100
    assert intake.dropped["/left/camera_info: no usable camera_info"] == 100
    assert (
        intake.problems["left: no usable camera_info"]
        == "left is left out: no camera_info of 'left' on /left/camera_info"
    )


def test_a_recording_shorter_than_the_wait_is_mapped_with_the_others_too():
    intake, sets = drive(5, unplaced=["left"])
    assert sets == [OTHERS] * 5
    assert dict(intake.dropped) == {"left: no transform": 5}
    assert "left is left out: no transform from 'left' to 'odom'" in intake.problems["left: no transform"]


@pytest.mark.parametrize("fault", [{"bad_info": NO_LENS}, {"unplaced": ["left"]}])
def test_a_camera_is_taken_back_with_the_first_frame_that_can_be_placed(fault):
    _, sets = drive(120, late=100, **fault)
    assert sets == [OTHERS] * 100 + [NAMES] * 20


def test_what_comes_within_the_wait_costs_nothing():
    intake, sets = drive(60, bad_info=NO_LENS, late=50)
    assert sets == [NAMES] * 60
    assert dict(intake.dropped) == {"/left/camera_info: no usable camera_info": 50}


def test_sets_that_need_all_cameras_are_dropped_without_one():
    intake, sets = drive(5, unplaced=["left"], settings=["sync.min_cameras=4"])
    assert sets == []
    assert dict(intake.dropped) == {"end of recording": 20}


def test_without_any_camera_that_can_be_placed_there_is_no_set():
    intake, sets = drive(5, unplaced=NAMES)
    assert sets == [] and intake.dropped["end of recording"] == 20
