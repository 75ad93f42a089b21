# SPDX-License-Identifier: Apache-2.0
"""What goes out: the node's topics as CDR bytes, the same for DDS and for a bag. Only what somebody wants is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.mapping.distance_field import distance_field
from occupancy_nn_ros.mapping.slices import LETHAL, occupancy_slice, probability_slice
from occupancy_nn_ros.messages.maps import (
    OccupiedVoxels,
    encode_cube_markers,
    encode_distance_cloud,
    encode_occupancy_grid,
    encode_occupied_cloud,
    encode_voxel_grid,
    occupied_indices,
)
from occupancy_nn_ros.messages.names import MARKER_ARRAY, OCCUPANCY_GRID, POINT_CLOUD, VOXEL_GRID
from occupancy_nn_ros.values import MapView
from occupancy_nn_ros.visualization.colors import class_colors, height_colors


@dataclass(frozen=True)
class OutputTopic:
    """One topic of the node.

    Attributes:
        name: below the node's own name.
        msgtype: its message type.
        is_latched: reliable and transient local, so that late joiners get the last message.
        is_heavy: voxels rather than a 2D grid; goes out at its own, slower rate.
    """

    name: str
    msgtype: str
    is_latched: bool
    is_heavy: bool


OUTPUTS = (
    OutputTopic("occupancy_grid", OCCUPANCY_GRID, is_latched=True, is_heavy=False),
    OutputTopic("occupancy_probability", OCCUPANCY_GRID, is_latched=True, is_heavy=False),
    OutputTopic("distance_field", POINT_CLOUD, is_latched=True, is_heavy=False),
    OutputTopic("voxel_grid", VOXEL_GRID, is_latched=True, is_heavy=True),
    OutputTopic("occupied_voxels", POINT_CLOUD, is_latched=False, is_heavy=True),
    OutputTopic("markers", MARKER_ARRAY, is_latched=False, is_heavy=True),
)


@dataclass(frozen=True)
class OutMessage:
    """One message to send: the topic's name below the node's own, its type, the time of its data, its bytes."""

    name: str
    msgtype: str
    stamp_ns: int
    cdr: bytes


class OutputEncoder:
    """Turns map views into messages, each topic at its own rate in message time.

    Heavy topics share a link of ``outputs.voxels_max_mb_s``: what was sent occupies it for as long as its bytes take, and
    the next heavy messages wait until it is free.

    Attributes:
        held_back: how often a heavy topic was due and not made, for the limit; by topic.
    """

    def __init__(self, config: Config) -> None:
        """Nothing was sent yet."""
        self.config = config
        self.held_back: Counter[str] = Counter()
        self._sent_ns: dict[str, int] = {}
        self._link_free_ns = 0

    def due(self, stamp_ns: int, wanted: Collection[str], *, final: bool = False) -> list[OutputTopic]:
        """The wanted topics whose period has passed; all of them for the final map."""
        if final:
            return [topic for topic in OUTPUTS if topic.name in wanted]
        due = [topic for topic in OUTPUTS if topic.name in wanted and self._is_due(topic, stamp_ns)]
        if self.config.outputs.voxels_max_mb_s == 0 or stamp_ns >= self._link_free_ns:
            return due
        self.held_back.update(topic.name for topic in due if topic.is_heavy)
        return [topic for topic in due if not topic.is_heavy]

    def encode(self, view: MapView, topics: Collection[OutputTopic]) -> list[OutMessage]:
        """Messages of these topics for a map."""
        messages = []
        names = {topic.name for topic in topics}
        voxels = self._occupied(view) if names & {"occupied_voxels", "markers"} else None
        for topic in topics:
            self._sent_ns[topic.name] = view.stamp_ns
            messages.append(OutMessage(topic.name, topic.msgtype, view.stamp_ns, self._bytes(topic.name, view, voxels)))
        heavy = {topic.name for topic in topics if topic.is_heavy}
        self._occupy_link(view.stamp_ns, sum(len(message.cdr) for message in messages if message.name in heavy))
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
        period_s = self.config.outputs.voxels_period_s if topic.is_heavy else self.config.outputs.grid_period_s
        sent = self._sent_ns.get(topic.name)
        return sent is None or stamp_ns < sent or stamp_ns - sent >= round(period_s * 1e9)

    def _bytes(self, name: str, view: MapView, voxels: OccupiedVoxels | None) -> bytes:
        grid = self.config.grid
        if name == "occupancy_grid":
            return encode_occupancy_grid(occupancy_slice(view, grid))
        if name == "occupancy_probability":
            return encode_occupancy_grid(probability_slice(view, grid))
        if name == "distance_field":
            slice_2d = occupancy_slice(view, grid)
            distances = distance_field(
                slice_2d.values == LETHAL, slice_2d.resolution_m, self.config.outputs.max_distance_m
            )
            return encode_distance_cloud(slice_2d, distances)
        if name == "voxel_grid":
            return encode_voxel_grid(view)
        if voxels is None:
            raise ValueError(f"output '{name}' needs the occupied voxels")
        if name == "markers":
            return encode_cube_markers(view.stamp_ns, view.frame_id, voxels, view.window.voxel_size_m)
        return encode_occupied_cloud(view.stamp_ns, view.frame_id, voxels)

    def _occupied(self, view: MapView) -> OccupiedVoxels:
        cells = occupied_indices(view)
        i, j, k = cells.T
        points = ((cells + view.window.origin + 0.5) * view.window.voxel_size_m).astype("float32")
        classes = view.classes[i, j, k]
        by_class = self.config.outputs.color_by == "class"
        colors = class_colors(classes) if by_class else height_colors(points[:, 2], view)
        return OccupiedVoxels(points, view.probability[i, j, k], classes, colors)
