# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of cameras in one frame, and of what camera_info and transforms say of the two of a stereo pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import cv2
import numpy as np

from occupancy_nn_ros.doctor.findings import Finding, ok, warning
from occupancy_nn_ros.errors import LookupTransformError, MessageError
from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.messages.names import VIDEO_TYPES
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.shared_frames import stereo_baseline
from occupancy_nn_ros.values import FloatArray, UInt8Array

SMALL, AROUND = (64, 48), 9
ALIKE = 0.9
"""Details of pictures of one lens, whatever their size and compression, correlate by more than this."""

LEAST_BASELINE_M, BASELINE_DIFFERS, BASELINE_DIFFERS_M = 0.01, 0.3, 0.02
"""Baselines by camera_info and by transforms that differ by more than both are not of one mounting."""


def check_places(intake: Intake, first: Mapping[str, bytes]) -> Iterator[Finding]:
    """Whether each camera stands where its messages say.

    Args:
        intake: knows frames, camera_info and transforms.
        first: the first message of each sensor, empty where none came.
    """
    for name, sensor in intake.sensors.items():
        frame = intake.shared.frame_of(name)
        if name in intake.shared.left_out:
            same = [
                other
                for other in intake.sensors
                if other != name
                and intake.shared.frame_of(other) == frame
                and _show_the_same(intake, first, name, other)
            ]
            seen = f"; its pictures are those of '{same[0]}', sent once more" if same else ""
            advice = (
                f"name the topics to map with, without {sensor.topic}"
                if same
                else f"set cameras.{name}.frame_id to its own frame, or have its driver send P of the pair's calibration"
            )
            yield warning(name, f"{intake.shared.left_out[name]}{seen}", advice)
        elif (offset := intake.shared.offset(name)) is not None:
            yield ok(
                name,
                f"is taken to stand {stereo_baseline(offset)} of the camera whose frame '{frame}' it has, by P of camera_info",
            )
        else:
            yield from _check_baseline(intake, name)


def _check_baseline(intake: Intake, name: str) -> Iterator[Finding]:
    """A camera with a baseline to another of the same rectified focal length, and a frame of its own: do both tell the same?"""
    rig = intake.intrinsics.rigs.get(name)
    if rig is None or np.linalg.norm(rig[:3, 3]) < LEAST_BASELINE_M:
        return
    told_m = float(np.linalg.norm(rig[:3, 3]))
    frame = intake.shared.frame_of(name)
    if "left" in frame and "right" in intake.sensors[name].topic:
        text = f"has the frame '{frame}', and by P of its camera_info stands {told_m:.3f} m beside it: it is mapped as if it stood there"
        yield warning(name, text, f"take the left camera too, or set cameras.{name}.frame_id to the right one's frame")
        return
    firsts = [other for other in intake.intrinsics.rigs if _may_be_first(intake, other, name)]
    if len(firsts) != 1:
        return
    apart = _between(intake, firsts[0], name)
    if apart is None:
        return
    found_m = float(np.linalg.norm(apart[:3, 3]))
    if abs(found_m - told_m) > max(BASELINE_DIFFERS * told_m, BASELINE_DIFFERS_M):
        text = f"stands {found_m:.3f} m beside '{firsts[0]}' by transforms, {told_m:.3f} m by P of its camera_info"
        yield warning(
            name, text, f"correct the transform to '{frame}', which is mapped with, or the calibration of the pair"
        )


def _may_be_first(intake: Intake, other: str, name: str) -> bool:
    """Whether a camera can be the first of the stereo pair of another."""
    rigs, models = intake.intrinsics.rigs, intake.intrinsics.models
    one, two = intake.sensors[other], intake.sensors[name]
    is_alike = one.kind == two.kind and (models[other].width, models[other].height) == (
        models[name].width,
        models[name].height,
    )
    return other != name and is_alike and float(np.linalg.norm(rigs[other][:3, 3])) < LEAST_BASELINE_M


def _between(intake: Intake, first: str, second: str) -> FloatArray | None:
    """``T_first_second`` (4, 4) by transforms at the newest stamp; None where they do not tell."""
    frames = [intake.shared.frame_of(name) for name in (first, second)]
    try:
        return intake.placement.poses.lookup(frames[0], frames[1], intake.newest_ns)
    except LookupTransformError:
        return None


def _show_the_same(intake: Intake, first: Mapping[str, bytes], one: str, other: str) -> bool:
    """Whether the first pictures of two cameras are of one lens."""
    sensors = [intake.sensors[name] for name in (one, other)]
    if any(sensor.kind != "image" or sensor.msgtype in VIDEO_TYPES or not first[sensor.name] for sensor in sensors):
        return False
    try:
        details = [_details(decode_image(sensor.msgtype, first[sensor.name])[1]) for sensor in sensors]
    except MessageError:
        return False
    return all(np.ptp(values) > 0 for values in details) and float(np.asarray(np.corrcoef(details))[0, 1]) > ALIKE


def _details(picture: UInt8Array) -> FloatArray:
    """What of a picture differs from its surroundings: rooms are alike in what is left then."""
    small = cv2.resize(picture, SMALL, interpolation=cv2.INTER_AREA).astype(np.float64).mean(axis=2)
    return np.asarray(small - cv2.blur(small, (AROUND, AROUND)), dtype=np.float64).ravel()
