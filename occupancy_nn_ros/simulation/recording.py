# SPDX-License-Identifier: Apache-2.0
"""A simulated drive as a rosbag2 recording, with the exact truth beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.messages.names import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, ODOMETRY, POINT_CLOUD, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import (
    encode_camera_info,
    encode_compressed_image,
    encode_depth_image,
    encode_image,
    encode_odometry,
    encode_point_cloud,
    encode_tf,
)
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.imperfect_rig import ImperfectRig
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig, RigCamera, lidar_directions
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import (
    CameraModel,
    Float32Array,
    FloatArray,
    LatticeWindow,
    MapView,
    StampedTransform,
    UInt8Array,
    VoxelState,
)

START_NS = 1_700_000_000_000_000_000
MAP_FRAME, BASE_FRAME, LIDAR_FRAME = "odom", "base_link", "lidar"
TF_RATE_HZ = 50.0
LIDAR_RANGE_M = 30.0


@dataclass(frozen=True)
class RecordingOptions:
    """What a recording holds besides camera pictures, camera_info, transforms and odometry.

    Attributes:
        jpeg_quality: quality of compressed pictures; 0 for raw ones.
        has_depth: a depth image beside each picture.
        has_lidar: LiDAR sweeps.
        truth_voxel_m: edge of the voxels in ``truth.npz``; 0 for none.
        is_imperfect: pictures, poses and calibration as real robots have them. Depth images and LiDAR stay exact, and are placed exactly.
    """

    jpeg_quality: int = 85
    has_depth: bool = True
    has_lidar: bool = True
    truth_voxel_m: float = 0.1
    is_imperfect: bool = False


def record_drive(
    world: World,
    rig: Rig,
    drive: Drive,
    folder: Path,
    options: RecordingOptions | None = None,
    report: Callable[[float], None] | None = None,
) -> Path:
    """Write ``folder/drive.mcap``, ``folder/world.json`` and ``folder/truth.npz``; returns the bag's path.

    Args:
        world: where.
        rig: with what.
        drive: along which path; its stamps are the cameras'.
        folder: made if it does not exist.
        options: what to record.
        report: told the finished fraction.

    Raises:
        BagError: the bag exists already or cannot be written.
        MissingDependencyError: no MuJoCo or no GL.
    """
    options = options or RecordingOptions()
    folder.mkdir(parents=True, exist_ok=True)
    bag = folder / "drive.mcap"
    with WorldRenderer(world) as renderer, BagWriter(bag) as writer:
        told = ImperfectRig(rig, drive, world.seed) if options.is_imperfect else None
        recorder = _Recorder(renderer, rig, writer, options, told)
        recorder.write_static()
        recorder.write_motion(drive)
        for index, (time_s, pose) in enumerate(zip(drive.stamps_s, drive.T_map_base, strict=True)):
            recorder.write_frame(float(time_s), pose)
            if report is not None:
                report((index + 1) / len(drive.stamps_s))
    world.save(folder / "world.json")
    if options.truth_voxel_m > 0:
        _save_truth(world, options.truth_voxel_m, folder / "truth.npz")
    return bag


def stamp_of(time_s: float) -> int:
    """Stamp in the recording of a time in the world."""
    return START_NS + round(time_s * 1e9)


class _Recorder:
    """Writes one rig's messages. Messages lie in the bag in order of their stamps, up to a camera period."""

    def __init__(
        self, renderer: WorldRenderer, rig: Rig, writer: BagWriter, options: RecordingOptions, told: ImperfectRig | None
    ) -> None:
        self.renderer, self.rig, self.writer, self.options, self.told = renderer, rig, writer, options, told
        self.directions = lidar_directions()
        self.mounts = [camera.T_base_cam for camera in rig.cameras] if told is None else list(told.T_base_cam)
        self.models = [camera.model for camera in rig.cameras]
        if told is not None:
            self.models = [replace(model, K=K) for model, K in zip(self.models, told.K, strict=True)]

    def write_static(self) -> None:
        """The rig's extrinsics."""
        cameras = zip(self.rig.cameras, self.mounts, strict=True)
        transforms = [StampedTransform(START_NS, BASE_FRAME, _frame(c), mount) for c, mount in cameras]
        transforms += [] if self.told else self._exact(START_NS, BASE_FRAME, np.eye(4))
        self.writer.write("/tf_static", TF_MESSAGE, START_NS, encode_tf(transforms))

    def write_motion(self, drive: Drive) -> None:
        """Transforms and odometry over the whole drive, from a little before the first picture to a little after the last."""
        last = float(drive.stamps_s[-1]) + 1.5 / TF_RATE_HZ
        told = drive if self.told is None else self.told.drive
        for time_s in np.arange(0.0, last, 1 / TF_RATE_HZ):
            stamp = stamp_of(float(time_s))
            transform = StampedTransform(stamp, MAP_FRAME, BASE_FRAME, told.pose(float(time_s)))
            exact = self._exact(stamp, MAP_FRAME, drive.pose(float(time_s))) if self.told else []
            self.writer.write("/tf", TF_MESSAGE, stamp, encode_tf([transform, *exact]))
            self.writer.write("/odom", ODOMETRY, stamp, encode_odometry(transform))

    def _exact(self, stamp: int, parent: str, T_parent_base: FloatArray) -> list[StampedTransform]:
        """Where depth cameras and LiDAR truly are, below a frame in which the base truly is somewhere."""
        places = []
        if self.told and self.options.has_depth:
            places += [(self._depth_frame(c), T_parent_base @ c.T_base_cam) for c in self.rig.cameras]
        if self.options.has_lidar:
            mount = np.eye(4)
            mount[2, 3] = self.rig.lidar_height_m
            places.append((LIDAR_FRAME, T_parent_base @ mount))
        return [StampedTransform(stamp, parent, frame, place) for frame, place in places]

    def _depth_frame(self, camera: RigCamera) -> str:
        return f"{camera.name}_depth_optical_frame" if self.told else _frame(camera)

    def write_frame(self, time_s: float, T_map_base: FloatArray) -> None:
        """All cameras, and the LiDAR, at one moment."""
        self.renderer.set_time(time_s)
        stamp = stamp_of(time_s)
        views = [
            self.renderer.render(camera.model, T_map_base @ camera.T_base_cam, with_classes=False)
            for camera in self.rig.cameras
        ]
        pictures = [view.image for view in views]
        if self.told is not None:
            pictures = list(self.told.take(np.stack(pictures)))
        for camera, model, picture, view in zip(self.rig.cameras, self.models, pictures, views, strict=True):
            self._write_picture(camera, stamp, picture, model)
            if self.options.has_depth:
                self._write_depth(camera, stamp, view.depth_m)
        if self.options.has_lidar:
            self._write_lidar(stamp, T_map_base)

    def _write_picture(self, camera: RigCamera, stamp: int, picture: UInt8Array, model: CameraModel) -> None:
        frame, topic = _frame(camera), f"/{camera.name}"
        if self.options.jpeg_quality:
            jpeg = encode_compressed_image(stamp, frame, picture, self.options.jpeg_quality)
            self.writer.write(f"{topic}/image_raw/compressed", COMPRESSED_IMAGE, stamp, jpeg)
        else:
            self.writer.write(f"{topic}/image_raw", IMAGE, stamp, encode_image(stamp, frame, picture))
        self.writer.write(f"{topic}/camera_info", CAMERA_INFO, stamp, encode_camera_info(stamp, frame, model))

    def _write_depth(self, camera: RigCamera, stamp: int, depth_m: Float32Array) -> None:
        frame, topic = self._depth_frame(camera), f"/{camera.name}/depth"
        self.writer.write(f"{topic}/image_raw", IMAGE, stamp, encode_depth_image(stamp, frame, depth_m))
        info = encode_camera_info(stamp, frame, camera.model)
        self.writer.write(f"{topic}/camera_info", CAMERA_INFO, stamp, info)

    def _write_lidar(self, stamp: int, T_map_base: FloatArray) -> None:
        origin = T_map_base @ np.array([0.0, 0.0, self.rig.lidar_height_m, 1.0])
        ranges = self.renderer.scan(origin[:3], self.directions @ T_map_base[:3, :3].T, LIDAR_RANGE_M)
        points = (self.directions * ranges[:, None]).astype(np.float32)
        cloud = encode_point_cloud(stamp, LIDAR_FRAME, points[np.isfinite(ranges)])
        self.writer.write("/lidar/points", POINT_CLOUD, stamp, cloud)


def _frame(camera: RigCamera) -> str:
    return f"{camera.name}_optical_frame"


def _save_truth(world: World, voxel_m: float, path: Path) -> None:
    """Class ids of the voxels around the drivable area, with their place on the lattice."""
    x0, y0, x1, y1 = world.bounds
    low = np.floor(np.array([x0 - 2, y0 - 2, -1.0]) / voxel_m).astype(int)
    high = np.ceil(np.array([x1 + 2, y1 + 2, 3.0]) / voxel_m).astype(int)
    i, j, k = (int(v) for v in low)
    x, y, z = (int(v) for v in high - low)
    window = LatticeWindow(voxel_m, (i, j, k), (x, y, z))
    np.savez_compressed(
        path, labels=world.occupancy(window), origin=np.array(window.origin), voxel_size_m=np.array(voxel_m)
    )


def true_map(world: World, view: MapView) -> MapView:
    """The true occupancy of a map's window at the map's time, all of it known."""
    time_s = max(0.0, (view.stamp_ns - START_NS) * 1e-9)
    labels = world.occupancy(view.window, time_s)
    state = np.where(labels > 0, VoxelState.OCCUPIED, VoxelState.FREE).astype(np.int8)
    return replace(view, state=state, probability=(labels > 0).astype(np.float32), classes=labels)
