# SPDX-License-Identifier: Apache-2.0
"""A first look into a bag: encodings of its images, frames of its sensors, its transform tree."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.errors import MessageError, TransformError
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.images import peek_encoding
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, IMAGE, POINT_CLOUD, TF_MESSAGE, VIDEO_TYPES
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer

MAX_TRANSFORM_MESSAGES = 2000


@dataclass(frozen=True)
class BagScan:
    """What a bag holds.

    Attributes:
        topics: message type by topic.
        encodings: encoding (or compressed format) of each image topic.
        frames: header frame of each image and cloud topic.
        silent: topics of which it holds no message.
        poses: the transform tree of its first part.
    """

    topics: dict[str, str]
    encodings: dict[str, str]
    frames: dict[str, str]
    silent: frozenset[str]
    poses: PoseBuffer


def scan_bag(reader: BagReader) -> BagScan:
    """Read the first message of each sensor topic and the first transforms.

    Raises:
        BagError: the bag is damaged.
    """
    topics = {topic: info.msgtype for topic, info in reader.topics.items()}
    silent = frozenset(topic for topic, info in reader.topics.items() if not info.count)
    scan = BagScan(topics, {}, {}, silent, PoseBuffer(cache_ns=10**18))
    sensors = {
        t
        for t, info in reader.topics.items()
        if info.msgtype in (IMAGE, COMPRESSED_IMAGE, *VIDEO_TYPES, POINT_CLOUD) and info.count
    }
    _look_at_transforms(reader, scan.poses)
    for message in reader.messages(sensors):
        if message.topic not in scan.frames:
            try:
                scan.frames[message.topic] = peek_header(message.cdr).frame_id
                if message.msgtype != POINT_CLOUD:
                    scan.encodings[message.topic] = peek_encoding(message.msgtype, message.cdr)
            except MessageError:
                continue
            if len(scan.frames) == len(sensors):
                break
    return scan


def _look_at_transforms(reader: BagReader, poses: PoseBuffer) -> None:
    for topic in sorted(topic for topic, info in reader.topics.items() if info.msgtype == TF_MESSAGE):
        for count, message in enumerate(reader.messages([topic])):
            if count >= MAX_TRANSFORM_MESSAGES:
                break
            try:
                for transform in decode_tf(message.cdr, []):
                    with suppress(TransformError):
                        poses.set_transform(transform, is_static=topic.endswith("_static"))
            except MessageError:
                continue
