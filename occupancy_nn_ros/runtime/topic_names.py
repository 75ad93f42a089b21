# SPDX-License-Identifier: Apache-2.0
"""What the names, types and encodings of topics tell: which are pictures, depth or clouds, of which camera, with which camera_info."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.messages.names import CAMERA_INFO, MAP_STATUS, VOXEL_GRID

TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "foxglove", "h264", "h265", "zstd")
OWN_FOLDER = "/occupancy_nn"
OWN_TYPES = (MAP_STATUS, VOXEL_GRID)

NOT_A_SENSOR = (
    "disparity", "mask", "label", "segment", "semantic", "instance", "overlay", "debug", "confidence", "occupancy", "annotated",
    "detection", "variance", "uncertainty", "normals", "optical_flow", "feature", "tracking", "heatmap", "costmap",
)  # fmt: skip
"""Parts of names of image topics that hold neither a plain picture nor depth."""

NOT_DEPTH = (
    "thermal",
    "lwir",
    "temperature",
    "infra",
    "near_ir",
    "amplitude",
    "intensity",
    "reflec",
    "signal",
    "ambient",
)
"""Parts of names of images with 16 or 32 bits that are no distances; some of them are pictures."""

NOT_A_SWEEP = (
    "occupied", "depth", "obstacle", "distance_field", "registered", "octomap", "accumulated", "global", "local_map", "submap",
    "map_points", "cloud_map", "map_cloud", "cluster", "segment", "costmap", "centroid", "keypoint", "feature",
)  # fmt: skip
"""Parts of names of clouds that are not what a sensor measured in one sweep."""

DEVICE = re.compile(r"depth_?(camera|cam|sensor|ai)")
"""A camera may be called after the depth that it measures too."""

COLOR = re.compile(r"colou?r|rgb|bgr")
DEPTH_ENCODINGS = ("16UC1", "32FC1", "64FC1")
FORMS = {
    "image", "img", "images", "raw", "color", "colour", "rgb", "bgr", "mono", "gray", "grey", "rect", "rectified", "undistorted",
    "resized", "small", "scaled", "throttled", "throttle", "view", "stream", "camera", "cam", "info", "calibration", "depth",
}  # fmt: skip
"""Words of a topic's last part that tell the form of the data, not the camera."""

Content = Literal["picture", "depth", "neither"]


def absolute_names(config: Config) -> Config:
    """The settings with whole names of topics, as a bag has them: relative ones are those of the root namespace."""
    cameras = {
        name: replace(
            camera, image_topic=_absolute(camera.image_topic), camera_info_topic=_absolute(camera.camera_info_topic)
        )
        for name, camera in config.cameras.items()
    }
    return replace(
        config,
        cameras=cameras,
        pose_topic=_absolute(config.pose_topic),
        tf_topic=_absolute(config.tf_topic),
        tf_static_topic=_absolute(config.tf_static_topic),
    )


def _absolute(topic: str) -> str:
    return topic if not topic or topic[0] in "/~" else f"/{topic}"


def base(topic: str) -> str:
    """The topic without the transport that image_transport appends."""
    head, _, tail = topic.rpartition("/")
    return head if tail in TRANSPORTS else topic


def folder(topic: str) -> str:
    """All of an image topic's name but its last part and its transport."""
    return base(topic).rpartition("/")[0]


def camera_key(topic: str) -> tuple[str, frozenset[str]]:
    """The same for all topics of one camera in one folder: the folder, and the words of the last part that name the camera."""
    last = base(topic).rpartition("/")[2].lower()
    return folder(topic), frozenset(word for word in re.split(r"[_\-]", last) if word and word not in FORMS)


def mentions(topic: str, words: Iterable[str]) -> bool:
    """Whether a name holds one of the words."""
    return any(word in topic.lower() for word in words)


def own_outputs(topics: Mapping[str, str]) -> set[str]:
    """Topics that a node of this package publishes or published: all that lie beside its status or its voxels."""
    folders = {topic.rpartition("/")[0] for topic, msgtype in topics.items() if msgtype in OWN_TYPES} - {""} | {
        OWN_FOLDER
    }
    return {topic for topic in topics if any(topic.startswith(f"{folder}/") for folder in folders)}


def content(topic: str, encoding: str) -> Content:
    """What an image topic holds, by its encoding (or compressed format) where it is known and by its name."""
    name = DEVICE.sub("", base(topic).lower())
    if mentions(name, NOT_A_SENSOR):
        return "neither"
    form = _form(topic, encoding)
    if form == "depth":
        return "neither" if mentions(name, NOT_DEPTH) else "depth"
    if form == "deep":  # 16 bits of grey: infrared, thermal, or depth of a driver that does not know 16UC1
        return "depth" if "depth" in name else "picture"
    last_folder, last = name.split("/")[-2:] if "/" in name else ("", name)
    if form == "colour":  # a picture of depth has colours too
        return "neither" if "depth" in (last_folder, last) or "depth" in last else "picture"
    if "depth" in name and not COLOR.search(last_folder) and not COLOR.search(last):
        return "depth"
    return "picture"


def _form(topic: str, encoding: str) -> str:
    """``depth``, ``deep`` (16 bits of grey), ``colour``, or empty where the encoding does not tell."""
    is_transport = topic.rpartition("/")[2] in TRANSPORTS
    if not encoding:
        return "depth" if topic.endswith("/compressedDepth") else ""
    first = encoding.partition(";")[0].strip()
    if first in DEPTH_ENCODINGS or "compressedDepth" in encoding:
        return "depth"
    if first == "mono16":
        return "deep"
    return "" if is_transport and ";" not in encoding and "/depth/" in topic else "colour"


def info_topic(topic: str, topics: Mapping[str, str], peers: Iterable[str]) -> str:
    """The CameraInfo of an image topic, or empty: below it, beside it, or above it where no other camera may own it.

    Args:
        topic: an image topic.
        topics: message type of every topic.
        peers: all image topics of the same content.
    """
    infos = sorted(name for name, msgtype in topics.items() if msgtype == CAMERA_INFO)
    below = f"{base(topic)}/camera_info"
    if below in infos:
        return below
    cameras = {camera_key(peer) for peer in peers} | {camera_key(topic)}
    beside = _beside(camera_key(topic), infos, cameras)
    if beside:
        return beside
    above = folder(topic)
    while "/" in above:
        above = above.rpartition("/")[0]
        here = [info for info in infos if folder(info) == above]
        if here:
            return _if_mine_alone(camera_key(topic), here, infos, cameras)
    return ""


def _beside(camera: tuple[str, frozenset[str]], infos: list[str], cameras: set[tuple[str, frozenset[str]]]) -> str:
    """The info in the camera's folder that has the camera's words, or the only one for the only camera there."""
    here = [info for info in infos if folder(info) == camera[0]]
    same = [info for info in here if camera_key(info) == camera]
    if same:
        return min(same, key=lambda info: (not info.endswith("/camera_info"), info))
    neighbours = {other for other in cameras if other[0] == camera[0]}
    return here[0] if len(here) == 1 and len(neighbours) == 1 else ""


def _if_mine_alone(
    camera: tuple[str, frozenset[str]], here: list[str], infos: list[str], cameras: set[tuple[str, frozenset[str]]]
) -> str:
    """The info in a folder above, unless a camera in that folder or another below it without its own may mean it too."""
    above = folder(here[0])
    claims = {
        other for other in cameras
        if (other[0] == above or other[0].startswith(f"{above}/")) and not (other[0] != above and _beside(other, infos, cameras))
    }  # fmt: skip
    return here[0] if len(here) == 1 and claims == {camera} else ""
