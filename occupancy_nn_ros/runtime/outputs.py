# SPDX-License-Identifier: Apache-2.0
"""What goes out: the node's topics as CDR bytes, the same for DDS and for a bag. Only what somebody wants is computed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

import numpy as np

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.mapping.exports import octree
from occupancy_nn_ros.mapping.scan import scan_ranges
from occupancy_nn_ros.mapping.slices import band_mask
from occupancy_nn_ros.mapping.surface import surface_mesh
from occupancy_nn_ros.messages.laser_scan import encode_laser_scan
from occupancy_nn_ros.messages.maps import (
    encode_cube_markers,
    encode_distance_cloud,
    encode_mesh_marker,
    encode_occupancy_grid,
    encode_occupied_cloud,
    encode_voxel_grid,
    known_centers,
)
from occupancy_nn_ros.messages.moving import encode_moving_cloud
from occupancy_nn_ros.messages.names import (
    CAMERA_INFO,
    IMAGE,
    LASER_SCAN,
    MARKER_ARRAY,
    OCCUPANCY_GRID,
    OCTOMAP,
    POINT_CLOUD,
    VOXEL_GRID,
)
from occupancy_nn_ros.messages.octomap import encode_octomap
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image
from occupancy_nn_ros.runtime.cloud_frame import cloud_frame
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.free_space import FreeSource, encode_free_cloud
from occupancy_nn_ros.runtime.map_source import DepthSource, MapSource, Need, marker_band
from occupancy_nn_ros.runtime.moving_points import moving_points
from occupancy_nn_ros.runtime.pictures import PictureSource, encode_pictures
from occupancy_nn_ros.values import VoxelState
from occupancy_nn_ros.visualization.colors import surface_colors

EVERY_CAMERA = "*"


@dataclass(frozen=True)
class OutputTopic:
    """One topic of the node.

    Attributes:
        name: below the node's own name.
        msgtype: its message type.
        encode: makes the message's bytes from a :class:`MapSource`, or from the :class:`DepthSource` or
            :class:`~occupancy_nn_ros.runtime.free_space.FreeSource` of its camera, or from the
            :class:`~occupancy_nn_ros.runtime.pictures.PictureSource` of all.
        is_latched: reliable and transient local, so that late joiners get the last message.
        group: whose period it has in ``outputs``; the voxels share a bandwidth as well.
        camera: whose depth it shows, :data:`EVERY_CAMERA` for all; empty for topics of the map.
        is_optional: for other programs, or from what other topics hold too: not written to bags, and not offered where its message
            type or ``extra`` is missing.
        extra: a Python module that it needs and that not everybody has.
        needs: what of a :class:`MapSource` it shows, so that nothing else is brought from a GPU.
    """

    name: str
    msgtype: str
    encode: Callable[..., bytes]
    is_latched: bool
    group: Literal["grid", "voxels", "depth"]
    camera: str = ""
    is_optional: bool = False
    extra: str = ""
    needs: tuple[Need, ...] = ("view",)

    @property
    def is_available(self) -> bool:
        """Whether what it needs is installed."""
        return not self.extra or find_spec(self.extra) is not None

    def period_s(self, config: Config) -> float:
        """Least time between two messages."""
        outputs = config.outputs
        return {"grid": outputs.grid_period_s, "voxels": outputs.voxels_period_s, "depth": outputs.depth_period_s}[
            self.group
        ]


def _moving(source: MapSource) -> bytes:
    """Voxels that appeared or vanished lately, and where they go."""
    frame = cloud_frame(source.place, source.config.base_frame)
    return encode_moving_cloud(source.stamp_ns, frame.frame_id, moving_points(source.movement, frame))


def _distances(source: MapSource) -> bytes:
    cells, frame = source.slice_2d, cloud_frame(source.place, source.config.base_frame)
    placed = replace(cells, frame_id=frame.frame_id)
    return encode_distance_cloud(placed, frame.place(known_centers(cells)), source.distances_m)


def _cloud(source: MapSource) -> bytes:
    frame, voxels = cloud_frame(source.place, source.config.base_frame), source.voxels
    placed = replace(voxels, points_m=frame.place(voxels.points_m))
    return encode_occupied_cloud(source.stamp_ns, frame.frame_id, placed)


def _markers(source: MapSource) -> bytes:
    place = source.place
    return encode_cube_markers(place.stamp_ns, place.frame_id, source.voxels_of_markers, place.window.voxel_size_m)


def _scan(source: MapSource) -> bytes:
    """What a laser scanner at the robot's base would see of the 2D grid."""
    place, limit_m = source.place, source.config.outputs.scan_max_range_m
    ranges = scan_ranges(source.slice_2d, place.T_map_base, limit_m)
    return encode_laser_scan(place.stamp_ns, source.config.base_frame, ranges, (place.window.voxel_size_m / 4, limit_m))


def _octomap(source: MapSource) -> bytes:
    view = source.view
    return encode_octomap(view.stamp_ns, view.frame_id, view.window.voxel_size_m, octree(view)[0])


def _mesh(source: MapSource) -> bytes:
    """The surface of what markers show, too."""
    mask = band_mask(source.view, marker_band(source.config))
    state = np.where(mask, source.view.state, VoxelState.UNKNOWN).astype(source.view.state.dtype)
    mesh = surface_mesh(replace(source.view, state=state))
    corners = mesh.vertices_m[mesh.triangles.reshape(-1)]
    colors = surface_colors(source.view, corners, source.config.outputs.color_by)
    return encode_mesh_marker(source.stamp_ns, source.view.frame_id, corners, colors)


def _depth_image(source: DepthSource) -> bytes:
    """Depth in millimetres (16UC1), 0 where the network is not sure."""
    return encode_depth_image(source.stamp_ns, source.frame_id, source.depth.depth_m)


def _depth_info(source: DepthSource) -> bytes:
    return encode_camera_info(source.stamp_ns, source.frame_id, source.depth.model, source.T_frame_camera)


OUTPUTS = (
    OutputTopic(
        "occupancy_grid", OCCUPANCY_GRID, lambda map_: encode_occupancy_grid(map_.slice_2d), True, "grid",
        needs=("slice_2d",),
    ),
    OutputTopic(
        "occupancy_probability", OCCUPANCY_GRID, lambda map_: encode_occupancy_grid(map_.probability_2d), True, "grid",
        needs=("probability_2d",),
    ),
    OutputTopic(
        "cost_grid", OCCUPANCY_GRID, lambda map_: encode_occupancy_grid(map_.costs_2d), True, "grid", needs=("costs_2d",)
    ),
    OutputTopic("scan", LASER_SCAN, _scan, False, "grid", needs=("slice_2d",)),
    OutputTopic("moving", POINT_CLOUD, _moving, False, "grid", is_optional=True, needs=("view", "looks")),
    OutputTopic("distance_field", POINT_CLOUD, _distances, True, "grid", needs=("slice_2d", "distances_m")),
    OutputTopic("voxel_grid", VOXEL_GRID, lambda map_: encode_voxel_grid(map_.view), True, "voxels"),
    OutputTopic("occupied_voxels", POINT_CLOUD, _cloud, False, "voxels", needs=("voxels",)),
    OutputTopic("markers", MARKER_ARRAY, _markers, False, "voxels", needs=("voxels_of_markers",)),
    OutputTopic("mesh", MARKER_ARRAY, _mesh, False, "voxels", is_optional=True, extra="skimage"),
    OutputTopic("octomap_binary", OCTOMAP, _octomap, True, "voxels", is_optional=True),
)  # fmt: skip
"""Topics that every node has."""

PICTURES = OutputTopic("pictures", IMAGE, encode_pictures, True, "depth", EVERY_CAMERA, is_optional=True)
"""What viewers show of the cameras without knowing their names."""


def topic_token(name: str) -> str:
    """A camera's name as a part of a topic's name, which cannot begin with a digit."""
    token = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{token}" if token[:1].isdigit() else token


def depth_topics(camera: str) -> tuple[OutputTopic, OutputTopic]:
    """What a depth camera would send in a camera's place: a depth image of what the network is sure of, its intrinsics."""
    token = topic_token(camera)
    return (
        OutputTopic(f"depth/{token}/image", IMAGE, _depth_image, False, "depth", camera),
        OutputTopic(f"depth/{token}/camera_info", CAMERA_INFO, _depth_info, False, "depth", camera),
    )


def free_topic(camera: str) -> OutputTopic:
    """What a camera's rays pass in the map, for costmap layers that clear along rays."""
    return OutputTopic(
        f"free/{topic_token(camera)}/points", POINT_CLOUD, encode_free_cloud, False, "voxels", camera, is_optional=True
    )


def output_topics(config: Config, sensors: Iterable[SensorStream] = ()) -> tuple[OutputTopic, ...]:
    """All topics of a node with these sensors: those of the map, what each camera's rays pass, and the depth that the network sees.

    With ``network.sure_depth`` at 1 the network is never sure, so that there are no depth images, and no pictures beside them.
    """
    cameras = [sensor for sensor in sensors if sensor.kind != "cloud"]
    seeing = [sensor for sensor in cameras if sensor.kind == "image" and config.network.sure_depth < 1]
    depths = (topic for sensor in seeing for topic in depth_topics(sensor.name))
    pictures = (PICTURES,) if seeing else ()
    return (*OUTPUTS, *pictures, *depths, *(free_topic(sensor.name) for sensor in cameras))


@dataclass(frozen=True)
class OutMessage:
    """One message to send: its topic, the time of its data, its bytes."""

    topic: OutputTopic
    stamp_ns: int
    cdr: bytes

    @property
    def name(self) -> str:
        """The topic's name below the node's own."""
        return self.topic.name


class OutputEncoder:
    """Turns maps and depth images into messages, each topic at its own rate in message time.

    Voxel topics share a link of ``outputs.voxels_max_mb_s``: what was sent occupies it for as long as its bytes take, and
    the next voxel messages wait until it is free.

    Attributes:
        held_back: how often a voxel topic was due and not made, for the limit; by topic.
    """

    def __init__(self, config: Config) -> None:
        """Nothing was sent yet."""
        self.config = config
        self.held_back: Counter[str] = Counter()
        self._sent_ns: dict[str, int] = {}
        self._link_free_ns = 0

    def due(self, topics: Iterable[OutputTopic], stamp_ns: int, wanted: Collection[str]) -> list[OutputTopic]:
        """The wanted ones of these topics whose period has passed, and for which the link is free."""
        due = [topic for topic in topics if topic.name in wanted and self._is_due(topic, stamp_ns)]
        if self.config.outputs.voxels_max_mb_s == 0 or stamp_ns >= self._link_free_ns:
            return due
        self.held_back.update(topic.name for topic in due if topic.group == "voxels")
        return [topic for topic in due if topic.group != "voxels"]

    def encode(
        self, topics: Iterable[OutputTopic], source: MapSource | DepthSource | FreeSource | PictureSource
    ) -> list[OutMessage]:
        """Messages of these topics, all of which show this source."""
        messages = [OutMessage(topic, source.stamp_ns, topic.encode(source)) for topic in topics]
        self._sent_ns.update((message.name, source.stamp_ns) for message in messages)
        size = sum(len(message.cdr) for message in messages if message.topic.group == "voxels")
        self._occupy_link(source.stamp_ns, size)
        return messages

    def reset(self) -> None:
        """Let everything go out at once again, as after a jump in time."""
        self._sent_ns.clear()
        self._link_free_ns = 0

    def _occupy_link(self, stamp_ns: int, size: int) -> None:
        limit = self.config.outputs.voxels_max_mb_s
        if limit > 0 and size > 0:
            # One MB/s is one byte in 1000 ns.
            self._link_free_ns = max(stamp_ns, self._link_free_ns) + round(size * 1000 / limit)

    def _is_due(self, topic: OutputTopic, stamp_ns: int) -> bool:
        sent = self._sent_ns.get(topic.name)
        return sent is None or stamp_ns < sent or stamp_ns - sent >= round(topic.period_s(self.config) * 1e9)
