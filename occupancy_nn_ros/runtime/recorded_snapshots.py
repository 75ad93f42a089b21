# SPDX-License-Identifier: Apache-2.0
"""The keyframes of a recorded map as viewers are shown them, from what :mod:`~occupancy_nn_ros.runtime.viewer_topics` wrote with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_tf
from occupancy_nn_ros.messages.foxglove import decode_foxglove_voxels
from occupancy_nn_ros.messages.headers import Header
from occupancy_nn_ros.messages.images import decode_depth, decode_image
from occupancy_nn_ros.messages.maps import decode_voxel_grid
from occupancy_nn_ros.messages.names import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    FOXGLOVE_VOXEL_GRID,
    IMAGE,
    TF_MESSAGE,
    VOXEL_GRID,
)
from occupancy_nn_ros.values import (
    NO_COLOR,
    CameraModel,
    Float32Array,
    FloatArray,
    LatticeWindow,
    MapView,
    PosedDepth,
    PosedImage,
    StampedTransform,
    UInt8Array,
    VoxelState,
)
from occupancy_nn_ros.visualization.snapshot import Snapshot

PICTURE = re.compile(r"(.*/(?:viewer|depth)/([^/]+))/(?:image|image/compressed|camera_info)")
"""Topics of pictures, of predicted depth, and of their calibration: what comes before their last part, and the camera."""


def recorded_snapshots(path: Path) -> Iterator[Snapshot]:
    """The maps of a bag; with pictures, depth and the robot's place where the bag has them.

    Raises:
        BagError: it cannot be read, or has no voxel grid.
        MessageError: damaged messages.
    """
    with BagReader(path) as bag:
        types = {topic: info.msgtype for topic, info in bag.topics.items()}
        if VOXEL_GRID not in types.values():
            raise BagError(f"{path} has no {VOXEL_GRID}; it has {', '.join(sorted(types))}")
        pictures = {topic for topic in types if PICTURE.fullmatch(topic)}
        wanted = {topic for topic, msgtype in types.items() if msgtype in (VOXEL_GRID, FOXGLOVE_VOXEL_GRID)} | pictures
        if pictures:  # else transforms are those of a robot's recording, which says nothing of its keyframes
            wanted |= {topic for topic, msgtype in types.items() if msgtype == TF_MESSAGE}
        places: list[StampedTransform] = []
        for _, messages in groupby(bag.messages(wanted), key=lambda message: message.stamp_ns):
            moment = _Moment(places)
            for message in messages:
                moment.take(message.topic, types[message.topic], message.cdr)
            places = moment.places
            if moment.view is not None:
                yield moment.snapshot(moment.view)


class _Moment:
    """What was recorded of one keyframe; the map at the end of all has the places of the last one, and no pictures."""

    def __init__(self, places: list[StampedTransform]) -> None:
        self.view: MapView | None = None
        self.places = places
        self._colored: list[tuple[LatticeWindow, UInt8Array]] = []
        self._models: dict[str, CameraModel] = {}
        self._images: dict[str, tuple[Header, UInt8Array]] = {}
        self._depths: dict[str, tuple[Header, Float32Array]] = {}

    def take(self, topic: str, msgtype: str, cdr: bytes) -> None:
        """Add a message."""
        found = PICTURE.fullmatch(topic)
        if msgtype == VOXEL_GRID:
            self.view = decode_voxel_grid(cdr)
        elif msgtype == FOXGLOVE_VOXEL_GRID:
            self._colored.append(decode_foxglove_voxels(cdr))
        elif msgtype == TF_MESSAGE:
            self.places = decode_tf(cdr)
        elif found and msgtype == CAMERA_INFO:
            self._models[found[1]] = decode_camera_info(cdr)[1]
        elif found and msgtype == COMPRESSED_IMAGE:
            self._images[found[1]] = decode_image(msgtype, cdr)
        elif found and msgtype == IMAGE:
            self._depths[found[1]] = decode_depth(msgtype, cdr)

    def snapshot(self, view: MapView) -> Snapshot:
        """All of it; pictures without calibration or place are left out."""
        if self._colored:
            view = replace(view, colors=_colors_in(view, self._colored[-2:]))  # the newest, in two parts
        poses = {place.source_frame: place.T_target_source for place in self.places}
        if self.places:  # the robot comes first
            view = replace(view, T_map_base=self.places[0].T_target_source)
        images = tuple(
            PosedImage(base.rsplit("/", 1)[-1], header.stamp_ns, pixels, model, pose)
            for base, (header, pixels) in self._images.items()
            for model, pose in self._known(base, header, poses)
        )
        depths = tuple(
            PosedDepth(base.rsplit("/", 1)[-1], header.stamp_ns, depth_m, model, pose)
            for base, (header, depth_m) in self._depths.items()
            for model, pose in self._known(base, header, poses)
        )
        return Snapshot(images, depths, view)

    def _known(
        self, base: str, header: Header, poses: dict[str, FloatArray]
    ) -> Iterator[tuple[CameraModel, FloatArray]]:
        """Calibration and pose of a picture, or nothing."""
        if base in self._models and header.frame_id in poses:
            yield self._models[base], poses[header.frame_id]


def _colors_in(view: MapView, parts: Sequence[tuple[LatticeWindow, UInt8Array]]) -> UInt8Array:
    """Colours (X, Y, Z, 3) of the occupied voxels that were recorded with them."""
    colors = np.zeros((*view.window.shape, 3), np.uint8)
    colors[view.state == VoxelState.OCCUPIED] = NO_COLOR
    for window, rgba in parts:
        if abs(window.voxel_size_m - view.window.voxel_size_m) > 1e-9:
            continue
        cells = np.argwhere(rgba[..., 3] > 0)
        placed = cells + np.subtract(window.origin, view.window.origin)
        inside = ((placed >= 0) & (placed < view.window.shape)).all(axis=1)
        colors[tuple(placed[inside].T)] = rgba[tuple(cells[inside].T)][:, :3]
    return colors
