# SPDX-License-Identifier: Apache-2.0
"""The single checks of ``occupancy-nn doctor``: each takes what was observed and says what it means and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import (
    CalibrationError,
    CheckpointError,
    ConfigError,
    LayoutError,
    MessageError,
    UnknownEncodingError,
)
from occupancy_nn_ros.geometry.cameras import fit_to_image
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.images import decode_depth, decode_image, peek_encoding
from occupancy_nn_ros.messages.names import CAMERA_INFO, VIDEO_TYPES
from occupancy_nn_ros.messages.video import read_packet
from occupancy_nn_ros.runtime.decoding import OWN_ONLY, FurtherDecoders
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import CameraModel

SLOW_HZ = 1.0
"""Below this a robot moves far between two looks."""

GAP_PERIODS = 5.0
"""A pause of this many periods means that messages were lost."""

MAX_AGE_S = 1.0
"""Messages that arrive later, or earlier, than this after their stamp have a wrong clock or a slow way."""

NARROW_RAD, WIDE_RAD = np.deg2rad(20.0), np.deg2rad(150.0)
"""Horizontal fields of view outside of this are rare, and typical of a wrong camera_info."""

ENOUGH, SOME = 0.95, 0.5
"""Shares of frames that must be usable for all to be well, and for the node to be of use."""

Level = Literal["ok", "warning", "problem"]
WhySilent = Callable[[str, str], str]
"""Told a topic and its message type: why nothing came on it."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        level: ``problem`` keeps the node from mapping, ``warning`` makes its map worse.
        subject: camera or part that it is about.
        text: what was found.
        advice: what to do about it, empty if nothing.
    """

    level: Level
    subject: str
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str, advice: str) -> Finding:
    """The map will be worse."""
    return Finding("warning", subject, text, advice)


def problem(subject: str, text: str, advice: str) -> Finding:
    """There will be no map."""
    return Finding("problem", subject, text, advice)


def check_model(config: Config) -> Finding:
    """Whether the model's file is there and loads onto the device."""
    if config.source != "network":
        return ok("model", f"none needed, the map is built from {config.source}")
    try:
        predictor = Predictor.load(config.model, config.network)
    except CheckpointError as error:
        return problem("model", str(error), "set model to a name under models/ or to a .safetensors file")
    except ConfigError as error:
        return problem("model", str(error), "set network.device to auto or cpu")
    size = sum(parameter.numel() for parameter in predictor.network.parameters())
    device = predictor.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return ok("model", f"'{config.model}' loads, {size:,} weights, runs on {device} ({where})")


def check_messages(
    sensor: SensorStream,
    first: bytes,
    stamps_ns: Sequence[int],
    ages_s: Sequence[float],
    why_silent: WhySilent,
    further: FurtherDecoders = OWN_ONLY,
) -> list[Finding]:
    """Whether messages come, decode, and come regularly."""
    if not first:
        reason = why_silent(sensor.topic, sensor.msgtype)
        return [problem(sensor.name, f"no message on {sensor.topic}: {reason}", "start its driver, or fix the topic")]
    try:
        what = _describe(sensor, first, further)
    except MessageError as error:
        return [problem(sensor.name, f"{sensor.topic}: {error}", "publish an encoding that can be decoded")]
    return [_check_rate(sensor, what, np.asarray(stamps_ns)), *_check_ages(sensor, ages_s)]


def _describe(sensor: SensorStream, cdr: bytes, further: FurtherDecoders) -> str:
    """Kind, encoding and size of a message, which is decoded for that.

    Raises:
        MessageError: it does not decode.
    """
    try:
        return _describe_own(sensor, cdr)
    except LayoutError:
        if further.cloud is None:
            raise
        return f"cloud of {len(further.cloud(cdr))} points, by sensor_msgs_py"
    except UnknownEncodingError:
        read = further.depth if sensor.kind == "depth" else further.image
        if read is None:
            raise
        height, width = read(cdr).shape[:2]
        return f"{sensor.kind} {peek_encoding(sensor.msgtype, cdr)} {width}x{height}, by cv_bridge"


def _describe_own(sensor: SensorStream, cdr: bytes) -> str:
    if sensor.kind == "cloud":
        return f"cloud of {len(decode_point_cloud(cdr)[1])} points"
    if sensor.msgtype in VIDEO_TYPES:  # decoded at the keyframes, with the packets before it
        return f"video {read_packet(sensor.msgtype, cdr).codec}"
    decode = decode_depth if sensor.kind == "depth" else decode_image
    height, width = decode(sensor.msgtype, cdr)[1].shape[:2]
    return f"{sensor.kind} {peek_encoding(sensor.msgtype, cdr)} {width}x{height}"


def _check_rate(sensor: SensorStream, what: str, stamps_ns: npt.NDArray[np.int64]) -> Finding:
    text = f"{sensor.topic}: {what}, {len(stamps_ns)} messages"
    if len(stamps_ns) and stamps_ns.max() <= 0:
        return problem(sensor.name, f"{text} without stamps", "have the driver fill in header.stamp")
    if len(stamps_ns) < 2:
        return warning(sensor.name, f"{text}: too few to judge their rate", "look for longer: --wait 30")
    steps = np.diff(stamps_ns) * 1e-9
    if (steps <= 0).any():
        text = f"{text}, {int((steps <= 0).sum())} of them not newer than the one before"
        return warning(sensor.name, text, "look for a second publisher, or a bag that was played in a loop")
    period = float(np.median(steps))
    text = f"{text} at {1 / period:.1f} Hz"
    if 1 / period < SLOW_HZ:
        return warning(sensor.name, text, f"raise its rate above {SLOW_HZ:g} Hz")
    if steps.max() > GAP_PERIODS * period:
        text = f"{text}, with gaps of up to {steps.max():.2f} s"
        return warning(sensor.name, text, "messages get lost on the way: see 'Few images arrive' in troubleshooting.md")
    return ok(sensor.name, text)


def _check_ages(sensor: SensorStream, ages_s: Sequence[float]) -> list[Finding]:
    if not ages_s or abs(age := float(np.median(ages_s))) <= MAX_AGE_S:
        return []
    late = "behind" if age > 0 else "ahead of"
    advice = "synchronise the machines' clocks (chrony); for a replay publish /clock and set use_sim_time"
    return [warning(sensor.name, f"stamps are {abs(age):.1f} s {late} this machine's clock", advice)]


def check_camera_info(sensor: SensorStream, last: bytes, intake: Intake, why_silent: WhySilent) -> list[Finding]:
    """Whether intrinsics come, stay the same, are plausible, and are for images of the size of the last one."""
    if sensor.kind == "cloud" or not last:
        return []
    if doubt := intake.intrinsics.doubts.get(sensor.name):
        return [
            warning(sensor.name, doubt, "let one node alone publish it: ros2 topic info -v on the topic names them")
        ]
    model = intake.model_of(sensor.name)
    if model is None:
        return [_no_camera_info(sensor, intake, why_silent)]
    text = f"camera_info {model.width}x{model.height}, {np.rad2deg(_field_of_view(model)):.0f} degrees wide"
    if changes := intake.intrinsics.changes[sensor.name]:
        text = f"{text}, the last of {changes + 1} that differ"
    if sensor.msgtype in VIDEO_TYPES:
        return [ok(sensor.name, f"{text}, {_lens(model)}")]
    try:
        decode = decode_depth if sensor.kind == "depth" else decode_image
        height, width = decode(sensor.msgtype, last)[1].shape[:2]
    except MessageError:
        return []
    try:
        model = fit_to_image(model, width, height)
    except CalibrationError as error:
        return [problem(sensor.name, str(error), "publish the calibration of this resolution")]
    if not NARROW_RAD <= _field_of_view(model) <= WIDE_RAD:
        return [warning(sensor.name, text, "is this the calibration of this lens?")]
    if not (0.25 < model.K[0, 2] / width < 0.75 and 0.25 < model.K[1, 2] / height < 0.75):
        text = f"{text}, its centre at {model.K[0, 2]:.0f}, {model.K[1, 2]:.0f}"
        return [warning(sensor.name, text, "is this the calibration of this resolution and crop?")]
    return [ok(sensor.name, f"{text}, {_lens(model)}")]


def _no_camera_info(sensor: SensorStream, intake: Intake, why_silent: WhySilent) -> Finding:
    text = intake.silent_topics().get(sensor.info_topic, f"no camera_info on {sensor.info_topic}")
    if sensor.info_topic not in intake.heard:
        text = f"{text}: {why_silent(sensor.info_topic, CAMERA_INFO)}"
    return problem(
        sensor.name, text, f"set cameras.{sensor.name}.camera_info_topic, or publish the camera's calibration"
    )


def _field_of_view(model: CameraModel) -> float:
    """Horizontal, of the pinhole or of the equidistant fisheye."""
    half = model.width / 2 / float(model.K[0, 0])
    return 2 * (half if model.distortion_model == "equidistant" else float(np.arctan(half)))


def _lens(model: CameraModel) -> str:
    return model.distortion_model if model.D.any() else "no distortion"
