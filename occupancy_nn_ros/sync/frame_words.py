# SPDX-License-Identifier: Apache-2.0
"""What names of frames tell: which stand still, and which move with the robot."""

from __future__ import annotations

import re

USUAL_MAP_FRAMES = ("odom", "map", "world")
OTHER_MAP_WORDS = {
    "init",
    "origin",
    "start",
    "local",
    "global",
    "earth",
    "enu",
    "ned",
    "utm",
    "ecef",
    "mocap",
    "vicon",
    "optitrack",
}
"""Words in names of frames that stand still, beside the usual ones (camera_init, local_origin, vicon/world)."""

BODY_WORDS = {
    "link", "base", "body", "footprint", "chassis", "torso", "pelvis", "trunk", "robot", "vehicle", "car", "rover", "hull", "head",
    "mast", "gimbal", "camera", "cam", "optical", "imu", "gps", "lidar", "laser", "velodyne", "sensor", "frame",
}  # fmt: skip
"""Words in names of frames that move with the robot."""


def is_fixed_name(frame: str) -> bool:
    """Whether a frame's name says that it stands still."""
    words = words_of(frame)
    return bool(words & ({*USUAL_MAP_FRAMES} | OTHER_MAP_WORDS))


def moves_with_robot(frame: str, base_frame: str) -> bool:
    """Whether a frame's name says that it is the robot's, or part of it."""
    return frame == base_frame or (not is_fixed_name(frame) and bool(words_of(frame) & BODY_WORDS))


def words_of(frame: str) -> set[str]:
    """The words of a name's last part, in lower case."""
    return set(re.split(r"[_\-./]|(?<=\D)(?=\d)", frame.rsplit("/", 1)[-1].lower()))
