# SPDX-License-Identifier: Apache-2.0
"""What ``map.mcap`` holds beside the node's topics, so that Foxglove and Rerun show it as it is.

| topic | what |
|---|---|
| ``viewer/voxels`` ``viewer/ceiling`` | coloured voxels up to, and above, ``CEILING_M`` over the robot's base, as Foxglove's voxel grids |
| ``viewer/CAMERA/image/compressed`` ``viewer/CAMERA/camera_info`` | what the cameras saw at the keyframes, and their calibration |
| ``/tf`` | robot and sensors in the map frame, each at its own stamp |
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.geometry.cameras import resized
from occupancy_nn_ros.messages.foxglove import encode_foxglove_voxels
from occupancy_nn_ros.messages.maps import occupied_indices
from occupancy_nn_ros.messages.names import CAMERA_INFO, COMPRESSED_IMAGE, FOXGLOVE_VOXEL_GRID, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_compressed_image, encode_tf
from occupancy_nn_ros.runtime.outputs import topic_token
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.shared_frames import from_frame
from occupancy_nn_ros.values import FloatArray, LatticeWindow, MapView, PosedImage, StampedTransform
from occupancy_nn_ros.visualization.colors import ColorBy, voxel_colors
from occupancy_nn_ros.visualization.snapshot import CEILING_M, Snapshot

MAX_SIDE, JPEG_QUALITY = 960, 80
"""Pictures are scaled down to this many pixels along their longer side."""


class ViewerMessage(NamedTuple):
    """A message for viewers: topic (below the node's name, or absolute), type, bytes."""

    topic: str
    msgtype: str
    cdr: bytes


class ViewerTopics:
    """A viewer that keeps the newest snapshot and makes messages of it."""

    def __init__(self, config: Config) -> None:
        """Nothing was seen yet.

        Args:
            config: the voxels' colours, and how often they go out.
        """
        self._outputs = config.outputs
        self._snapshot: Snapshot | None = None
        self._voxels_ns: int | None = None

    def wants(self) -> bool:
        """Every keyframe is recorded."""
        return True

    def offer(self, snapshot: Snapshot) -> None:
        """Take a keyframe."""
        self._snapshot = snapshot

    def messages(self, raw: RawKeyframe, base_frame: str) -> list[ViewerMessage]:
        """What there is to show of a keyframe; nothing if it did not enter the map.

        Args:
            raw: the keyframe, whose sensors' frames are named in it.
            base_frame: the robot's frame.
        """
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return []
        view, frames = snapshot.view, {frame.sensor.name: frame for frame in raw.frames}
        found = [ViewerMessage("/tf", TF_MESSAGE, encode_tf(_transforms(raw, view.frame_id, base_frame)))]
        for image in snapshot.images:
            frame = frames[image.camera]
            found += picture_messages(image, frame.frame_id, frame.T_frame_sensor)
        if self._is_due(view.stamp_ns):
            self._voxels_ns = view.stamp_ns
            found += voxel_messages(view, self._outputs.color_by)
        return found

    def _is_due(self, stamp_ns: int) -> bool:
        last, period_ns = self._voxels_ns, round(self._outputs.voxels_period_s * 1e9)
        return last is None or stamp_ns < last or stamp_ns - last >= period_ns


def voxel_messages(view: MapView, color_by: ColorBy) -> list[ViewerMessage]:
    """The occupied voxels as two grids, no larger than what is occupied: the room, and what hangs above it."""
    cells, edge = occupied_indices(view), view.window.voxel_size_m
    heights = (cells[:, 2] + view.window.origin[2] + 0.5) * edge - view.T_map_base[2, 3]
    messages = []
    for name, part in (("voxels", cells[heights <= CEILING_M]), ("ceiling", cells[heights > CEILING_M])):
        low, high = (part.min(axis=0), part.max(axis=0) + 1) if len(part) else (np.zeros(3, int), np.ones(3, int))
        (i, j, k), (x, y, z) = (low + view.window.origin).tolist(), (high - low).tolist()
        box = LatticeWindow(edge, (i, j, k), (x, y, z))
        rgba = np.zeros((*box.shape, 4), np.uint8)
        at = tuple((part - low).T)
        rgba[at] = np.insert(voxel_colors(view, part, color_by), 3, 255, axis=1)
        cdr = encode_foxglove_voxels(view.stamp_ns, view.frame_id, box, rgba)
        messages.append(ViewerMessage(f"viewer/{name}", FOXGLOVE_VOXEL_GRID, cdr))
    return messages


def _transforms(raw: RawKeyframe, map_frame: str, base_frame: str) -> list[StampedTransform]:
    """Where robot and sensors are, the robot first; a frame has one pose, so the first to name a frame places it."""
    places = {base_frame: (raw.stamp_ns, raw.T_map_base)}
    for frame in raw.frames:
        places.setdefault(frame.frame_id, (frame.stamp_ns, from_frame(frame.T_frame_sensor, frame.T_map_sensor)))
    places.pop(map_frame, None)
    return [StampedTransform(stamp_ns, map_frame, frame, pose) for frame, (stamp_ns, pose) in places.items()]


def picture_topics(camera: str) -> tuple[str, str]:
    """Topics, below the node's name, of a camera's pictures and of its calibration."""
    base = f"viewer/{topic_token(camera)}"
    return f"{base}/image/compressed", f"{base}/camera_info"


def picture_messages(image: PosedImage, frame_id: str, T_frame_camera: FloatArray | None) -> list[ViewerMessage]:
    """A camera's picture as JPEG, and its calibration at that size, in a frame in which it may stand beside the origin."""
    pixels, model = image.image, image.model
    scale = MAX_SIDE / max(model.width, model.height)
    if scale < 1:
        model = resized(model, max(1, round(model.width * scale)), max(1, round(model.height * scale)))
        pixels = np.asarray(cv2.resize(pixels, (model.width, model.height), interpolation=cv2.INTER_AREA), np.uint8)
    topics = picture_topics(image.camera)
    jpeg = encode_compressed_image(image.stamp_ns, frame_id, pixels, JPEG_QUALITY)
    info = encode_camera_info(image.stamp_ns, frame_id, model, T_frame_camera)
    return [
        ViewerMessage(topics[0], COMPRESSED_IMAGE, jpeg),
        ViewerMessage(topics[1], CAMERA_INFO, info),
    ]
