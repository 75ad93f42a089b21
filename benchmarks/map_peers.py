# SPDX-License-Identifier: Apache-2.0
"""Mappers behind one interface, each driven through its own insertion call with free-space carving.

Turning a depth image into points is outside of what is timed for libraries that take points. Libraries that are not on
a package registry can be given as a shared object with the three C functions that :class:`Native` calls.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import time
from pathlib import Path
from typing import Any

import map_scene as scene
import map_truth as truth
import numpy as np
import numpy.typing as npt
import torch

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.warm_up import warm_up
from occupancy_nn_ros.values import CameraModel, PosedCloud, PosedDepth

CENTER = ((scene.DEPTH_WIDTH - 1) / 2, (scene.DEPTH_HEIGHT - 1) / 2)
INTRINSICS = np.array([[scene.DEPTH_FOCAL, 0, CENTER[0]], [0, scene.DEPTH_FOCAL, CENTER[1]], [0, 0, 1.0]])
FRAME_NS = 1_000_000_000
"""The drive takes 1.5 m from frame to frame; a robot needs about a second for that."""

Cells = npt.NDArray[np.int32]


class Frames:
    """The frames of one sensor in the forms that mappers ask for."""

    def __init__(self, folder: Path, sensor: str) -> None:
        """Load the frames of ``depth`` or ``lidar``."""
        data = scene.load_workload(folder, lambda _: None)
        self.sensor = sensor
        self.poses = data["T_world_cam" if sensor == "depth" else "T_world_lidar"].astype(np.float64)
        self.images = data[sensor].astype(np.float32)
        self.rays = scene.depth_rays() if sensor == "depth" else scene.lidar_rays()
        self.reach = scene.DEPTH_MAX if sensor == "depth" else scene.LIDAR_MAX

    def points(self, in_map: bool) -> list[npt.NDArray[np.float32]]:
        """Returns (N, 3) of each frame, in the map or in the sensor's frame."""
        poses = self.poses if in_map else np.tile(np.eye(4), (len(self.poses), 1, 1))
        return [scene.points_of(T, self.rays, image) for T, image in zip(poses, self.images, strict=True)]


class Peer:
    """One mapper with one map."""

    def create(self) -> None:
        """Begin an empty map."""
        raise NotImplementedError

    def insert(self, n: int) -> float:
        """Insert frame ``n``; returns the milliseconds it took."""
        start = time.perf_counter()
        self._insert(n)
        return (time.perf_counter() - start) * 1e3

    def _insert(self, n: int) -> None:
        raise NotImplementedError

    def classify(self, cells: Cells) -> npt.NDArray[np.int8]:
        """State (N,) of lattice cells (N, 3): 1 occupied, 0 free, -1 unknown."""
        raise NotImplementedError


class Ours(Peer):
    """This package's map, in a window over the whole scene, so that all of it is judged."""

    def __init__(self, frames: Frames, edge: float) -> None:
        """Compile, and wrap the frames."""
        warm_up()
        self.edge = edge
        camera = CameraModel(scene.DEPTH_WIDTH, scene.DEPTH_HEIGHT, INTRINSICS, "none", np.zeros(0))
        self.frames: list[Any]
        if frames.sensor == "depth":
            pairs = enumerate(zip(frames.images, frames.poses, strict=True))
            self.frames = [PosedDepth("camera", n * FRAME_NS, image, camera, T) for n, (image, T) in pairs]
            self.integrate: Any = integrate_depth
        else:
            pairs = enumerate(zip(frames.points(in_map=False), frames.poses, strict=True))
            self.frames = [PosedCloud("lidar", n * FRAME_NS, points, T) for n, (points, T) in pairs]
            self.integrate = integrate_cloud

    def create(self) -> None:
        """Begin an empty map."""
        x, y, z = (int(n) for n in np.round((truth.HIGH - truth.LOW) / self.edge))
        self.map = RollingMap(self.edge, (x, y, z), MapConfig(max_range_m=60.0), num_classes=0)
        i, j, k = (int(n) for n in np.round(truth.LOW / self.edge))
        self.map.move_origin((i, j, k))

    def _insert(self, n: int) -> None:
        self.integrate(self.map, self.frames[n])

    def classify(self, cells: Cells) -> npt.NDArray[np.int8]:
        """See :class:`Peer`."""
        return self.map.query((cells + 0.5) * self.edge)[1]


class Native(Peer):
    """A C++ library behind three C functions: peer_create, peer_insert, peer_classify."""

    def __init__(self, frames: Frames, edge: float, library: str) -> None:
        """Load ``library``."""
        self.library = ctypes.CDLL(str(Path(library).resolve()))
        pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
        self.library.peer_create.restype = pointer
        self.library.peer_create.argtypes = [real, real, ctypes.c_int, ctypes.c_char_p]
        self.library.peer_insert.restype, self.library.peer_insert.argtypes = real, [pointer, pointer, number, pointer]
        self.library.peer_classify.argtypes = [pointer, pointer, number, real, pointer]
        self.points = frames.points(in_map=True)
        self.origins = [np.ascontiguousarray(T[:3, 3]) for T in frames.poses]
        self.edge, self.arguments = edge, (edge, frames.reach, int(frames.sensor == "lidar"), b"")

    def create(self) -> None:
        """Begin an empty map."""
        self.map = self.library.peer_create(*self.arguments)

    def insert(self, n: int) -> float:
        """Insert frame ``n``; the library itself measures the time."""
        points = self.points[n]
        took = self.library.peer_insert(self.map, points.ctypes.data, len(points), self.origins[n].ctypes.data)
        return float(took)

    def classify(self, cells: Cells) -> npt.NDArray[np.int8]:
        """See :class:`Peer`."""
        cells, out = np.ascontiguousarray(cells, np.int32), np.empty(len(cells), np.int8)
        self.library.peer_classify(self.map, cells.ctypes.data, len(cells), self.edge, out.ctypes.data)
        return out


class Octomap(Peer):
    """OctoMap through either of its Python bindings."""

    def __init__(self, frames: Frames, edge: float, module: str) -> None:
        """Import ``pyoctomap`` or ``octomap``."""
        self.module, self.edge = importlib.import_module(module), edge
        self.points = [points.astype(np.float64) for points in frames.points(in_map=True)]
        self.origins = [np.ascontiguousarray(T[:3, 3]) for T in frames.poses]

    def create(self) -> None:
        """Begin an empty map."""
        self.tree = self.module.OcTree(self.edge)

    def _insert(self, n: int) -> None:
        self.tree.insertPointCloud(self.points[n], self.origins[n])

    def classify(self, cells: Cells) -> npt.NDArray[np.int8]:
        """See :class:`Peer`."""
        out = np.full(len(cells), -1, np.int8)
        for n, center in enumerate((np.asarray(cells) + 0.5) * self.edge):
            node = self.tree.search(center)
            try:
                out[n] = self.tree.isNodeOccupied(node)
            except Exception:  # both bindings raise on a null node, each in its own way
                continue
        return out


class Wavemap(Peer):
    """wavemap with the integrators and noise settings that its authors advise."""

    KIND = "hashed_chunked_wavelet"

    def __init__(self, frames: Frames, edge: float) -> None:
        """Import pywavemap and wrap the frames."""
        self.wave, self.edge, self.frames = importlib.import_module("pywavemap"), edge, frames
        poses = [self.wave.Pose(T.astype(np.float32)) for T in frames.poses]
        if frames.sensor == "depth":
            images = [self.wave.Image(image.T) for image in frames.images]
            self.scans = [self.wave.PosedImage(*pair) for pair in zip(poses, images, strict=True)]
        else:
            clouds = [self.wave.Pointcloud(points.T) for points in frames.points(in_map=False)]
            self.scans = [self.wave.PosedPointcloud(*pair) for pair in zip(poses, clouds, strict=True)]

    def create(self) -> None:
        """Begin an empty map."""
        self.map = self.wave.Map.create({"type": f"{self.KIND}_octree", "min_cell_width": {"meters": self.edge}})
        self.pipe = self.wave.Pipeline(self.map)
        self.pipe.add_operation({"type": "threshold_map", "once_every": {"seconds": 2.0}})
        self.pipe.add_operation({"type": "prune_map", "once_every": {"seconds": 10.0}})
        projection, model = self._depth_models() if self.frames.sensor == "depth" else self._lidar_models()
        # The authors' advice: the larger of half a voxel and the sensor's noise.
        model |= {"range_sigma": {"meters": self.edge / 2}, "scaling_free": 0.2, "scaling_occupied": 0.4}
        method = {"type": f"{self.KIND}_integrator", "min_range": {"meters": scene.NEAREST}}
        method["max_range"] = {"meters": self.frames.reach}
        parts = {"projection_model": projection, "measurement_model": model, "integration_method": method}
        if not self.pipe.add_integrator("scan", parts):
            raise RuntimeError("wavemap refused its integrator")

    def _depth_models(self) -> tuple[dict[str, Any], dict[str, Any]]:
        size = {"width": scene.DEPTH_WIDTH, "height": scene.DEPTH_HEIGHT}
        lens = {"fx": scene.DEPTH_FOCAL, "fy": scene.DEPTH_FOCAL, "cx": CENTER[0], "cy": CENTER[1]}
        return {"type": "pinhole_camera_projector", **size, **lens}, {"type": "continuous_ray"}

    def _lidar_models(self) -> tuple[dict[str, Any], dict[str, Any]]:
        projection: dict[str, Any] = {"type": "spherical_projector"}
        for name, angles in zip(("elevation", "azimuth"), scene.lidar_angles(), strict=True):
            low, high = float(np.rad2deg(angles[0])), float(np.rad2deg(angles[-1]))
            limits = {"min_angle": {"degrees": low}, "max_angle": {"degrees": high}}
            projection[name] = {"num_cells": len(angles), **limits}
        return projection, {"type": "continuous_beam", "angle_sigma": {"degrees": 0.035}}

    def _insert(self, n: int) -> None:
        self.pipe.run_pipeline(["scan"], self.scans[n])

    def classify(self, cells: Cells) -> npt.NDArray[np.int8]:
        """See :class:`Peer`."""
        self.map.threshold()
        points = ((np.asarray(cells) + 0.5) * self.edge).astype(np.float32)
        values = np.asarray(self.map.interpolate(points, self.wave.InterpolationMode.NEAREST)).reshape(-1)
        return np.where(values > 1e-4, 1, np.where(values < -1e-4, 0, -1)).astype(np.int8)


def make_peer(name: str, frames: Frames, edge: float) -> Peer:
    """A mapper by name: ``occupancy_nn_ros``, ``pywavemap``, ``pyoctomap``, ``octomap`` or a shared object's path."""
    torch.set_grad_enabled(False)
    if name == "occupancy_nn_ros":
        return Ours(frames, edge)
    if name == "pywavemap":
        return Wavemap(frames, edge)
    if name in ("pyoctomap", "octomap"):
        return Octomap(frames, edge, name)
    return Native(frames, edge, name)


def is_installed(name: str) -> bool:
    """Whether a mapper can be made."""
    if name == "occupancy_nn_ros" or Path(name).is_file():
        return True
    return importlib.util.find_spec(name) is not None
