# SPDX-License-Identifier: Apache-2.0
"""Which topics carry the sensors: found by message types, names and encodings, or as configured.

The live node gives it the ROS graph, the offline player a bag's topics; both get the same answer for the same topics.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.messages.names import COMPRESSED_IMAGE, IMAGE, POINT_CLOUD, VIDEO_TYPES
from occupancy_nn_ros.messages.picture_headers import MAX_PIXELS
from occupancy_nn_ros.runtime.topic_names import (
    NOT_A_SWEEP,
    TRANSPORTS,
    Content,
    base,
    camera_key,
    content,
    folder,
    info_topic,
    mentions,
    own_outputs,
)

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE, *VIDEO_TYPES)
SENSOR_TYPES = (*IMAGE_TYPES, POINT_CLOUD)
RECTIFIED_WORDS = frozenset({"rect", "rectified", "undistorted", "undist"})
NO_WORDS_FOR_IT = frozenset({"image", "img", "color", "colour", "rgb", "mono", "gray", "grey", "compressed"})
"""Where the last part of a topic has these words alone, its folder tells whether pictures are rectified (``color/rect/image``)."""

PREFERRED_ENDINGS = ("image_raw", "image_color", "image", "image_rect_color", "image_rect")
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
SENSOR_KINDS: dict[Kind, str] = {"image": "pictures", "depth": "depth", "cloud": "a cloud"}


@dataclass(frozen=True)
class SensorStream:
    """One sensor and where its data comes from.

    Attributes:
        name: the camera's or LiDAR's name.
        topic, msgtype: its data.
        info_topic: its CameraInfo, empty for a LiDAR.
        frame_id: frame of the data, empty for the one in the message header.
        sensor_frame: where a cloud's rays begin, empty for the frame of the data.
        time_offset_ns: added to every stamp.
        is_rectified: whether the pictures are rectified already, so that CameraInfo's P holds instead of K and D.
        kind: what a message holds.
        qos_reliability: ``reliable``, ``best_effort``, or ``auto`` for what the publishers offer.
        qos_depth: messages that may wait to be received.
        depth_unit_m: metres of one unit of a depth image; 0: by its encoding.
        max_pixels: an image of more is not decoded.
        mask: file of the pixels that are never looked at, empty for none.
    """

    name: str
    topic: str
    msgtype: str
    info_topic: str = ""
    frame_id: str = ""
    sensor_frame: str = ""
    time_offset_ns: int = 0
    is_rectified: bool = False
    kind: Kind = "image"
    qos_reliability: Literal["auto", "reliable", "best_effort"] = "auto"
    qos_depth: int = 5
    depth_unit_m: float = 0.0
    max_pixels: int = MAX_PIXELS
    mask: str = ""


def discover_sensors(
    config: Config,
    topics: Mapping[str, str],
    encodings: Mapping[str, str] | None = None,
    silent: Collection[str] = (),
) -> tuple[SensorStream, ...]:
    """The sensors to map with: those configured, else all that are found.

    Args:
        config: ``cameras`` lists names and topics; ``source`` tells what kind of sensor is wanted.
        topics: message type of every topic there is.
        encodings: encoding of image topics where it is known; tells depth from pictures better than names do.
        silent: topics known to bring nothing; taken only where there is no other.

    Returns:
        Sensors in order of configuration, or of topic names; empty if there are none.

    Raises:
        ConfigError: a configured topic does not exist or has the wrong type.
    """
    seen = _Topics(topics, encodings or {}, config, frozenset(silent))
    found = seen.candidates()
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
    config: Config,
    topics: Mapping[str, str],
    encodings: Mapping[str, str] | None = None,
    silent: Collection[str] = (),
) -> list[str]:
    """Image topics that look like sensors and are not taken, because others have a CameraInfo of their own and they do not."""
    if config.cameras or config.source == "lidar":
        return []
    seen = _Topics(topics, encodings or {}, config, frozenset(silent))
    taken = seen.candidates()
    return [topic for topic in seen.one_each(seen.matching()) if topic not in taken and not seen.info_of(topic)]


def wanted_types(source: Source) -> tuple[str, ...]:
    """Message types that can carry this kind of sensor."""
    return (
        (POINT_CLOUD,)
        if source == "lidar"
        else (IMAGE, COMPRESSED_IMAGE, *(VIDEO_TYPES if source == "network" else ()))
    )


@dataclass(frozen=True)
class _Topics:
    """Message types and known encodings of all topics, the settings, and the topics that bring nothing."""

    types: Mapping[str, str]
    encodings: Mapping[str, str]
    config: Config
    silent: frozenset[str]

    def kind(self, camera: CameraConfig, topic: str) -> Kind:
        """What a topic carries: as configured, else by message type, source, and encoding or name."""
        if self.types[topic] == POINT_CLOUD:
            return "cloud"
        if camera.kind in ("image", "depth"):
            return "depth" if camera.kind == "depth" else "image"
        return "depth" if self.config.source == "depth" or self.content(topic) == "depth" else "image"

    def content(self, topic: str) -> Content:
        """Whether an image topic holds a picture or depth."""
        return content(topic, self.encodings.get(topic, ""))

    def candidates(self) -> list[str]:
        """The topics to take, one of each sensor, sorted; those with a camera_info if there are such."""
        matching = self.matching()
        if self.config.source == "lidar":
            return matching
        return self.one_each([topic for topic in matching if self.info_of(topic)] or matching)

    def matching(self) -> list[str]:
        """Topics that by type, encoding and name carry this kind of sensor, sorted."""
        source, own = self.config.source, own_outputs(self.types)
        usable = sorted(
            topic for topic, kind in self.types.items() if kind in wanted_types(source) and topic not in own
        )
        if source == "lidar":
            return [topic for topic in usable if not mentions(topic, NOT_A_SWEEP)]
        wanted = "depth" if source == "depth" else "picture"
        return [topic for topic in usable if self.content(topic) == wanted]

    def info_of(self, topic: str) -> str:
        """The CameraInfo that is an image topic's own, or empty."""
        images = [name for name, kind in self.types.items() if kind in SENSOR_TYPES and kind != POINT_CLOUD]
        return info_topic(topic, self.types, [name for name in images if self.content(name) == self.content(topic)])

    def one_each(self, topics: Iterable[str]) -> list[str]:
        """Of pictures of one camera in several forms, the raw one in colour that brings something; sorted."""
        best: dict[tuple[str, frozenset[str]], str] = {}
        for topic in topics:
            key = camera_key(topic)
            if key not in best or self._rank(topic) < self._rank(best[key]):
                best[key] = topic
        return sorted(best.values())

    def _rank(self, topic: str) -> tuple[bool, int, int, str]:
        ending = base(topic).rsplit("/", 1)[-1]
        order = PREFERRED_ENDINGS.index(ending) if ending in PREFERRED_ENDINGS else len(PREFERRED_ENDINGS)
        transport = 0 if topic == base(topic) else 1 + TRANSPORTS.index(topic.rsplit("/", 1)[-1])
        return topic in self.silent, order, transport, topic


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
    kind = seen.kind(camera, topic)
    if (
        camera.kind != "auto" or msgtype == POINT_CLOUD or topic in seen.encodings
    ):  # else its first message may tell better
        _check_use(name, camera, topic, kind, seen.config.source)
    return SensorStream(
        name=name,
        topic=topic,
        msgtype=msgtype,
        info_topic=""
        if msgtype == POINT_CLOUD
        else camera.camera_info_topic or seen.info_of(topic) or _expected_info(topic, topics),
        frame_id=camera.frame_id,
        sensor_frame=camera.sensor_frame if msgtype == POINT_CLOUD else "",
        time_offset_ns=round(camera.time_offset_s * 1e9),
        is_rectified=_says_rectified(topic),
        kind=kind,
        qos_reliability=camera.qos_reliability,
        qos_depth=camera.qos_depth,
        depth_unit_m=camera.depth_unit_m,
        max_pixels=seen.config.max_image_pixels,
        mask=camera.mask,
    )


def _check_use(name: str, camera: CameraConfig, topic: str, kind: Kind, source: Source) -> None:
    """Check that all that is set of a sensor is for its kind, and that a map is made of that.

    Raises:
        ConfigError: it would be left out in silence.
    """
    if kind == "image" and source != "network":
        raise ConfigError(
            f"{name}: {topic} holds pictures and source is '{source}', expected depth or a cloud, or source 'network'"
        )
    uses: dict[str, tuple[object, tuple[Kind, ...]]] = {
        "mask": (camera.mask, ("image", "depth")),
        "camera_info_topic": (camera.camera_info_topic, ("image", "depth")),
        "depth_unit_m": (camera.depth_unit_m, ("depth",)),
        "sensor_frame": (camera.sensor_frame, ("cloud",)),
    }
    for setting, (value, kinds) in uses.items():
        if value and kind not in kinds:
            raise ConfigError(
                f"{name}.{setting} is {value}, and {topic} is taken for {SENSOR_KINDS[kind]}, expected {SENSOR_KINDS[kinds[-1]]}: "
                f"leave it out, or set {name}.kind"
            )


def _says_rectified(topic: str) -> bool:
    """Whether a word of an image topic's own name is "rect", as in ``image_rect_color``, or of its folder's, as ``color/rect/image``."""
    above, last = (set(re.split(r"[\W_]+", part)) for part in f"/{base(topic).lower()}".split("/")[-2:])
    return not RECTIFIED_WORDS.isdisjoint(last) or (last <= NO_WORDS_FOR_IT and not RECTIFIED_WORDS.isdisjoint(above))


def _expected_info(topic: str, topics: Mapping[str, str]) -> str:
    """Where a CameraInfo may still appear: beside the image, unless another camera's is there."""
    beside = f"{folder(topic)}/camera_info"
    return f"{base(topic)}/camera_info" if beside in topics else beside
