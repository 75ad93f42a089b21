# SPDX-License-Identifier: Apache-2.0
"""The settings of one camera, depth camera or LiDAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.settings import CheckedSettings, setting


@dataclass(frozen=True)
class CameraConfig(CheckedSettings):
    """Where the data of one camera, depth camera or LiDAR comes from; empty strings are filled in by discovery."""

    image_topic: str = setting("", "Image, CompressedImage or PointCloud2 topic; empty: found by the camera's name.")
    camera_info_topic: str = setting("", "CameraInfo topic; empty: the one beside image_topic.")
    frame_id: str = setting("", "Optical frame; empty: the frame_id in the image header.")
    sensor_frame: str = setting(
        "",
        "Where the rays of a cloud begin that is given in another frame than its sensor's, such as one registered in odom; empty: in "
        "its own frame.",
    )
    time_offset_s: float = setting(0.0, "Added to every stamp of this camera.", low=-10.0, high=10.0)
    kind: Literal["auto", "image", "depth", "cloud"] = setting(
        "auto",
        "What the topic carries. auto: by source, message type and name. A depth camera or cloud (LiDAR) that is named "
        "beside cameras adds its rays to the network's map.",
    )
    depth_unit_m: float = setting(
        0.0, "Metres of one unit of a depth image; 0: 0.001 in 16UC1, 1 in 32FC1.", low=0.0, high=10.0
    )
    mask: str = setting(
        "",
        "PNG of the size of the pictures, white where they show the robot itself or dirt: never looked at, what lies behind stays "
        "unknown. 'occupancy-nn mask BAG' proposes one.",
    )
    qos_reliability: Literal["auto", "reliable", "best_effort"] = setting(
        "auto",
        "What the node asks the publishers for. auto: reliable if all of them are, else best_effort, which any of them can serve.",
    )
    qos_depth: int = setting(5, "Messages that may wait to be received.", low=1, high=1000)

    def __post_init__(self) -> None:
        """Check, and name frames as tf2 does."""
        super().__post_init__()
        without_slash(self, "frame_id", "sensor_frame")


def check_cameras(cameras: Mapping[str, CameraConfig], needed: int = 0) -> None:
    """Check that cameras, by name, do not share a topic, and are enough.

    Args:
        cameras: those that are named; none where they are to be found.
        needed: how many a set needs.

    Raises:
        ConfigError: two do, or they are too few; names them.
    """
    if cameras:
        check_enough(needed, tuple(cameras))
    by_topic: dict[str, str] = {}
    for name, camera in cameras.items():
        other = by_topic.setdefault(camera.image_topic or f"the one of {name}", name)
        if other != name:
            raise ConfigError(
                f"cameras {other} and {name} both have the image_topic {camera.image_topic}, expected one of each"
            )


def check_enough(needed: int, cameras: Sequence[str]) -> None:
    """Check that there are as many cameras as a set needs.

    Raises:
        ConfigError: there are fewer; names them.
    """
    if needed > len(cameras):
        raise ConfigError(
            f"sync.min_cameras is {needed}, and there are {len(cameras)} ({', '.join(cameras)}), expected as many"
        )


def without_slash(settings: CheckedSettings, *names: str) -> None:
    """Take the leading slash of ROS 1 from names of frames: what is published in such a frame, tf2 refuses."""
    for name in names:
        object.__setattr__(settings, name, getattr(settings, name).lstrip("/"))
