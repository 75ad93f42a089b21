# SPDX-License-Identifier: Apache-2.0
"""What a depth camera would send: for each camera a depth image of what the network is sure of, and its intrinsics."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.outputs import OutMessage
from occupancy_nn_ros.values import PosedDepth


def depth_topics(config: Config, sensors: Iterable[SensorStream]) -> dict[str, str]:
    """Names, below the node's own, and message types of the topics for the cameras that the network sees.

    None where the settings say that no depth is to be sure.
    """
    if config.network.sure_depth == 1:
        return {}
    cameras = [sensor.name for sensor in sensors if sensor.kind == "image"]
    return {
        topic: msgtype
        for camera in cameras
        for topic, msgtype in zip(_names(camera), (IMAGE, CAMERA_INFO), strict=True)
    }


def encode_depths(depths: Iterable[PosedDepth], frames: Mapping[str, str], wanted: Collection[str]) -> list[OutMessage]:
    """Depth images in millimetres (16UC1, 0 where the network is not sure), and their intrinsics.

    Args:
        depths: of one keyframe.
        frames: header frame of each camera.
        wanted: names of the topics that somebody listens to.
    """
    messages = []
    for depth in depths:
        image, info = _names(depth.camera)
        frame_id, stamp_ns = frames[depth.camera], depth.stamp_ns
        if image in wanted:
            messages.append(OutMessage(image, IMAGE, stamp_ns, encode_depth_image(stamp_ns, frame_id, depth.depth_m)))
        if info in wanted:
            messages.append(
                OutMessage(info, CAMERA_INFO, stamp_ns, encode_camera_info(stamp_ns, frame_id, depth.model))
            )
    return messages


def _names(camera: str) -> tuple[str, str]:
    token = re.sub(r"\W", "_", camera, flags=re.ASCII)
    token = f"_{token}" if token[:1].isdigit() else token  # a part of a topic's name cannot begin with a digit
    return f"depth/{token}/image", f"depth/{token}/camera_info"
