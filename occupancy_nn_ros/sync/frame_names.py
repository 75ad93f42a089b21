# SPDX-License-Identifier: Apache-2.0
"""Which frames are the map's and the robot's where the usual names do not exist: read off the transform tree."""

from __future__ import annotations

from dataclasses import dataclass

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer

USUAL_MAP_FRAMES = ("odom", "map", "world")


@dataclass(frozen=True)
class FrameNames:
    """Names of the fixed frame and of the robot's frame."""

    map_frame: str
    base_frame: str


def choose_frames(config: Config, poses: PoseBuffer, sensor_frame: str) -> FrameNames:
    """The configured frames; a default that does not exist is replaced by what a sensor's chain of transforms offers.

    The map frame becomes the first of odom, map, world above the sensor, else the root. The base becomes the lowest frame above the
    sensor that moves. Nothing is replaced before the chain holds a moving transform: it may still be growing.
    """
    known, default = poses.frames(), Config()
    chain = [sensor_frame]
    while (parent := poses.parent(chain[-1])) is not None and len(chain) < 64:
        chain.append(parent)
    moving = [frame for frame in chain[:-1] if not poses.is_static(frame)]
    map_frame, base_frame = config.map_frame, config.base_frame
    if not moving:
        return FrameNames(map_frame, base_frame)
    if map_frame == default.map_frame and map_frame not in known:
        map_frame = next((name for name in USUAL_MAP_FRAMES if name in chain), chain[-1])
    if base_frame == default.base_frame and base_frame not in known:
        base_frame = moving[0]
    return FrameNames(map_frame, base_frame)
