# SPDX-License-Identifier: Apache-2.0
"""Which topics carry the sensors: found by message types, names and encodings, or as configured.

The live node gives it the ROS graph, the offline player a bag's topics; both get the same answer for the same topics.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from occupancy_nn_ros.config import CameraConfig, Config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.messages.names import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, POINT_CLOUD

SENSOR_TYPES = (IMAGE, COMPRESSED_IMAGE, POINT_CLOUD)
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
NOT_PICTURES = (
    "depth", "disparity", "mask", "label", "segment", "semantic", "overlay", "debug", "confidence", "occupancy", "annotated", "detection",
)  # fmt: skip
"""Parts of names of image topics that hold no plain picture."""

PREFERRED_ENDINGS = ("image_raw", "image_color", "image", "image_rect_color", "image_rect")
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
GENERIC_PARTS = {
    "image_raw",
    "image",
    "image_color",
    "image_rect",
    "image_rect_color",
    "image_rect_raw",
    "compressed",
    "raw",
}

CLOSE_NAMES = 3
"""How many topics with names close to a missing one are worth telling."""

Source = Literal["network", "depth", "lidar"]
Kind = Literal["image", "depth", "cloud"]


@dataclass(frozen=True)
class SensorStream:
    """One sensor and where its data comes from.

    Attributes:
        name: the camera's or LiDAR's name.
        topic, msgtype: its data.
        info_topic: its CameraInfo, empty for a LiDAR.
        frame_id: frame of the data, empty for the one in the message header.
        time_offset_ns: added to every stamp.
        is_rectified: whether the pictures are rectified already, so that CameraInfo's P holds instead of K and D.
        kind: what a message holds.
        qos_reliability: ``reliable``, ``best_effort``, or ``auto`` for what the publishers offer.
        qos_depth: messages that may wait to be received.
    """

    name: str
    topic: str
    msgtype: str
    info_topic: str = ""
    frame_id: str = ""
    time_offset_ns: int = 0
    is_rectified: bool = False
    kind: Kind = "image"
    qos_reliability: Literal["auto", "reliable", "best_effort"] = "auto"
    qos_depth: int = 5


def discover_sensors(
    config: Config, topics: Mapping[str, str], encodings: Mapping[str, str] | None = None
) -> tuple[SensorStream, ...]:
    """The sensors to map with: those configured, else all that are found.

    Args:
        config: ``cameras`` lists names and topics; ``source`` tells what kind of sensor is wanted.
        topics: message type of every topic there is.
        encodings: encoding of image topics where it is known; tells depth from pictures better than names do.

    Returns:
        Sensors in order of configuration, or of topic names; empty if there are none.

    Raises:
        ConfigError: a configured topic does not exist or has the wrong type.
    """
    seen = _Topics(topics, encodings or {}, config.source)
    found = _candidates(config.source, topics, seen.encodings)
    if not config.cameras:
        return tuple(_stream(name, CameraConfig(), topic, seen) for name, topic in _named(found).items())
    named = _named(found)
    return tuple(
        _stream(name, camera, camera.image_topic or _topic_of(name, named, found), seen)
        for name, camera in config.cameras.items()
    )


def close_topics(topic: str, topics: Mapping[str, str], msgtypes: Collection[str]) -> list[str]:
    """Topics of some message types, those named most like ``topic`` first; all of them if none is like it, at most a few."""
    fitting = sorted(name for name, msgtype in topics.items() if msgtype in msgtypes and name != topic)
    return difflib.get_close_matches(topic, fitting, n=CLOSE_NAMES) or fitting[: 2 * CLOSE_NAMES]


def left_out_cameras(
    config: Config, topics: Mapping[str, str], encodings: Mapping[str, str] | None = None
) -> list[str]:
    """Image topics that look like sensors and are not taken, because others have a CameraInfo beside them and they do not."""
    if config.cameras or config.source == "lidar":
        return []
    matching = _one_each(_matching(config.source, topics, encodings or {}))
    taken = _candidates(config.source, topics, encodings or {})
    return [topic for topic in matching if topic not in taken and not _info_topic(topic, topics)]


def wanted_types(source: Source) -> tuple[str, ...]:
    """Message types that can carry this kind of sensor."""
    return (POINT_CLOUD,) if source == "lidar" else (IMAGE, COMPRESSED_IMAGE)


@dataclass(frozen=True)
class _Topics:
    """Message types and known encodings of all topics, and the source that is configured."""

    types: Mapping[str, str]
    encodings: Mapping[str, str]
    source: Source

    def kind(self, camera: CameraConfig, topic: str) -> Kind:
        """What a topic carries: as configured, else by message type, source, and encoding or name."""
        if self.types[topic] == POINT_CLOUD:
            return "cloud"
        if camera.kind in ("image", "depth"):
            return "depth" if camera.kind == "depth" else "image"
        return "depth" if self.source == "depth" or _is_depth(topic, self.encodings) else "image"


def _candidates(source: Source, topics: Mapping[str, str], encodings: Mapping[str, str]) -> list[str]:
    matching = _matching(source, topics, encodings)
    if source == "lidar":
        return matching
    with_info = [topic for topic in matching if _info_topic(topic, topics)]
    return _one_each(with_info or matching)


def _matching(source: Source, topics: Mapping[str, str], encodings: Mapping[str, str]) -> list[str]:
    """Topics that by type, encoding and name carry this kind of sensor, sorted."""
    usable = sorted(topic for topic, kind in topics.items() if kind in wanted_types(source))
    if source == "lidar":
        return [topic for topic in usable if not _mentions(topic, ("occupied", "depth", "obstacle"))]
    wants_depth = source == "depth"
    matching = [topic for topic in usable if _is_depth(topic, encodings) == wants_depth]
    return matching if wants_depth else [topic for topic in matching if not _mentions(topic, NOT_PICTURES)]


def _is_depth(topic: str, encodings: Mapping[str, str]) -> bool:
    if topic in encodings and topic.rsplit("/", 1)[-1] not in TRANSPORTS:
        return encodings[topic] in DEPTH_ENCODINGS
    return _mentions(topic, ("depth",))


def _one_each(topics: list[str]) -> list[str]:
    """Of pictures of one camera in several forms, the raw one in colour; sorted."""
    best: dict[str, str] = {}
    for topic in topics:
        folder = _base(topic).rsplit("/", 1)[0]
        if folder not in best or _rank(topic) < _rank(best[folder]):
            best[folder] = topic
    return sorted(best.values())


def _rank(topic: str) -> tuple[int, int, str]:
    ending = _base(topic).rsplit("/", 1)[-1]
    order = PREFERRED_ENDINGS.index(ending) if ending in PREFERRED_ENDINGS else len(PREFERRED_ENDINGS)
    transport = 0 if topic == _base(topic) else 1 + TRANSPORTS.index(topic.rsplit("/", 1)[-1])
    return order, transport, topic


def _named(found: list[str]) -> dict[str, str]:
    """Short unique names: the parts of each topic that tell it from the others."""
    parts = {topic: [p for p in topic.strip("/").split("/") if p not in GENERIC_PARTS] for topic in found}
    common = set.intersection(*(set(p) for p in parts.values())) if len(parts) > 1 else set()
    names: dict[str, str] = {}
    for topic in found:
        name = "_".join(p for p in parts[topic] if p not in common) or "_".join(parts[topic]) or "camera"
        while name in names:
            name += "_2"
        names[name] = topic
    return names


def _topic_of(name: str, named: Mapping[str, str], found: list[str]) -> str:
    if name in named:
        return named[name]
    holding = [topic for topic in found if f"/{name}/" in f"{topic}/"]
    if len(holding) == 1:
        return holding[0]
    what = "no topic" if not holding else f"several topics ({', '.join(holding)})"
    raise ConfigError(
        f"{what} found for camera '{name}'; set {name}.image_topic to one of: {', '.join(found) or 'none there'}"
    )


def _stream(name: str, camera: CameraConfig, topic: str, seen: _Topics) -> SensorStream:
    topics = seen.types
    if topic not in topics:
        close = ", ".join(close_topics(topic, topics, SENSOR_TYPES))
        raise ConfigError(f"{name}.image_topic is {topic}, which does not exist; close to it: {close or 'none'}")
    msgtype = topics[topic]
    if msgtype not in SENSOR_TYPES:
        raise ConfigError(f"{name}.image_topic {topic} is a {msgtype}, expected Image, CompressedImage or PointCloud2")
    if (camera.kind == "cloud") != (msgtype == POINT_CLOUD) and camera.kind != "auto":
        raise ConfigError(f"{name}.kind is '{camera.kind}', but {topic} is a {msgtype}")
    return SensorStream(
        name=name,
        topic=topic,
        msgtype=msgtype,
        info_topic=""
        if msgtype == POINT_CLOUD
        else camera.camera_info_topic or _info_topic(topic, topics) or _sibling(topic),
        frame_id=camera.frame_id,
        time_offset_ns=round(camera.time_offset_s * 1e9),
        is_rectified="rect" in _base(topic).rsplit("/", 1)[-1],
        kind=seen.kind(camera, topic),
        qos_reliability=camera.qos_reliability,
        qos_depth=camera.qos_depth,
    )


def _base(topic: str) -> str:
    """The topic without the transport that image_transport appends."""
    head, _, tail = topic.rpartition("/")
    return head if tail in TRANSPORTS else topic


def _sibling(topic: str) -> str:
    """Where image_transport expects the CameraInfo of an image topic."""
    return _base(topic).rsplit("/", 1)[0] + "/camera_info"


def _info_topic(topic: str, topics: Mapping[str, str]) -> str:
    """The CameraInfo beside an image topic or in a folder above it, or empty."""
    folder = _base(topic)
    while "/" in folder:
        folder = folder.rsplit("/", 1)[0]
        candidate = f"{folder}/camera_info"
        if topics.get(candidate) == CAMERA_INFO:
            return candidate
    return ""


def _mentions(topic: str, words: tuple[str, ...]) -> bool:
    return any(word in topic.lower() for word in words)
