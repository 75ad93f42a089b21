# SPDX-License-Identifier: Apache-2.0
"""Which outputs of single cameras are due for a keyframe: predicted depth, and pictures with it."""

from __future__ import annotations

from collections.abc import Collection

from occupancy_nn_ros.runtime.map_source import DepthSource
from occupancy_nn_ros.runtime.outputs import PICTURES, OutputEncoder, OutputTopic, depth_topics
from occupancy_nn_ros.runtime.pictures import PictureSource, paired
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.values import Keyframe, Prediction


def due_depths(
    encoder: OutputEncoder, raw: RawKeyframe, prediction: Prediction | None, wanted: Collection[str]
) -> list[tuple[list[OutputTopic], DepthSource]]:
    """Depth images of the keyframe's cameras, each in its camera's own frame and at its own stamp, and the topics due."""
    frames = {frame.sensor.name: frame for frame in raw.frames if frame.sensor.kind == "image"}
    found = []
    for depth in () if prediction is None or not frames else prediction.depths:
        topics = encoder.due(depth_topics(depth.camera), depth.stamp_ns, wanted)
        if topics:
            frame = frames[depth.camera]
            found.append((topics, DepthSource(depth, frame.frame_id, frame.T_frame_sensor)))
    return found


def due_pictures(
    encoder: OutputEncoder, keyframe: Keyframe, prediction: Prediction | None, base_frame: str, wanted: Collection[str]
) -> tuple[PictureSource, ...]:
    """What the cameras saw, if that is due and their depth is known; else nothing."""
    if prediction is None or not encoder.due([PICTURES], keyframe.stamp_ns, wanted):
        return ()
    looks = paired(keyframe.images, prediction.depths)
    return (PictureSource(keyframe.stamp_ns, base_frame, looks),) if looks else ()
