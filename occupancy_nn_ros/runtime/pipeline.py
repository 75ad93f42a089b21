# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, map out: the one place where sensors, network and map meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from occupancy_nn_ros.alignment.pose_alignment import PoseAlignment
from occupancy_nn_ros.compute.compiled import are_compiled
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import MapFileError
from occupancy_nn_ros.geometry.poses import make_transform, rotation_angle
from occupancy_nn_ros.mapping.appearing import doubt_free_space
from occupancy_nn_ros.mapping.device_view import DeviceMap
from occupancy_nn_ros.mapping.map_file import load_map, read_map_frame
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth, integrate_depths
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.surface_points import Look
from occupancy_nn_ros.mapping.voxel_colors import add_colors
from occupancy_nn_ros.mapping.warm_up import warm_up
from occupancy_nn_ros.runtime.allocator import give_back_freed_memory
from occupancy_nn_ros.runtime.depth_model import DepthModel
from occupancy_nn_ros.runtime.device_predictor import load_predictor
from occupancy_nn_ros.runtime.keyframe_checks import check_keyframe
from occupancy_nn_ros.runtime.own_body import OwnBody
from occupancy_nn_ros.runtime.predictor import Place, Predictor
from occupancy_nn_ros.runtime.stage_clock import StageClock
from occupancy_nn_ros.values import (
    CameraModel,
    Float32Array,
    FloatArray,
    Keyframe,
    MapView,
    PosedDepth,
    PosedImage,
    Prediction,
    UInt8Array,
    VoxelState,
)

POSE_JUMP_M, POSE_JUMP_RAD = 5.0, 1.5
"""A robot that moves further between two keyframes did not drive there: past keyframes must not be matched across."""

PREDICTED_DEPTH_WEIGHT = 0.5
"""Depth that the network is sure of counts half as much as measured depth. It is sharper than the occupancy beside which it
is fused: on eight simulated drives of the training kind IoU of the map was 0.483 without and 0.501 with it."""


@dataclass(frozen=True)
class PointAnswers:
    """What the map knows at N points.

    Attributes:
        probability: (N,) float32 occupied-probability, NaN where unknown.
        state: (N,) int8 of :class:`~occupancy_nn_ros.values.VoxelState`.
        classes: (N,) uint8 class ids, 0 where none is known.
    """

    probability: Float32Array
    state: npt.NDArray[np.int8]
    classes: UInt8Array


class OccupancyPipeline:
    """Fuses keyframes into the rolling map. Not thread-safe: one worker owns it.

    Attributes:
        predictor: runs the network, None where the map is built from depth or LiDAR.
        map: the rolling map.
        depth_model: a depth network of the user's choice, None where there is none.
        alignment: corrects the poses of cameras, None where they are not to be.
        prediction: the network's answer to the latest keyframe, None where it had no images.
        looks: what the latest keyframe knows of surfaces: the prediction and its sure depth, measured depth, sweeps.
        between_stages: called before each stage; what it raises ends the work there.
    """

    def __init__(self, config: Config, predictor: Predictor | None = None) -> None:
        """Start with an unknown map.

        Args:
            config: all settings.
            predictor: runs the network; loaded from ``config.model`` if the source is the network and none is given.

        Raises:
            CheckpointError: the model cannot be loaded.
            ConfigError: impossible map size or device.
        """
        self.config = config
        needs_network = config.source == "network"
        self.predictor = (predictor or load_predictor(config.model, config.network)) if needs_network else None
        self.map = RollingMap.from_config(config, str(self.predictor.device) if self.predictor else "cpu")
        self.alignment = PoseAlignment() if self.predictor and config.network.align_poses else None
        self.body = OwnBody(config.robot.body)
        has_depth_model = needs_network and config.network.depth_model
        self.depth_model = DepthModel.load(Path(config.network.depth_model).expanduser()) if has_depth_model else None
        self.prediction: Prediction | None = None
        self.looks: tuple[Look, ...] = ()
        self.between_stages: Callable[[], None] = lambda: None
        self._last: tuple[int, FloatArray] | None = None

    @property
    def has_map(self) -> bool:
        """Whether there is something to show: a keyframe came, or a saved map."""
        return self._last is not None

    @property
    def device_memory_bytes(self) -> int:
        """Memory taken on a GPU, 0 on the CPU."""
        device = self.map.device
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    def step(self, keyframe: Keyframe) -> None:
        """Fuse one keyframe, then look again at an earlier one.

        Raises:
            OccupancyError, ValueError: as :meth:`fuse`.
        """
        self.fuse(keyframe)
        self.look_again()

    def fuse(self, keyframe: Keyframe) -> StageClock:
        """Fuse one keyframe; returns what knows the seconds that each stage took. On a GPU the work may still go on.

        Raises:
            TransformError: a pose is not finite, no rotation, or too far out.
            CalibrationError: intrinsics that cannot be used, or that do not fit their image.
            ValueError: pixels or points of another type or shape than expected.
                After any of these nothing is changed: map, past keyframes and prediction are those of the keyframe before.
        """
        check_keyframe(keyframe)
        clock = StageClock(self.map.device, self.between_stages)
        keyframe = self.body.leave_out(keyframe)
        self.prediction = None
        if self._is_jump(keyframe):
            self._forget_past()
        self._last = (keyframe.stamp_ns, keyframe.T_map_base)
        with clock.stage("integrate"):
            self.map.move_to(keyframe.T_map_base)
            self.map.visit(_sensor_places(keyframe))
            self.map.forget(keyframe.stamp_ns)
        if keyframe.images and self.predictor is not None:
            with clock.stage("predict"):
                keyframe, predicted = self.predictor.place_and_predict(keyframe, self.map.window, self._place)
                self.prediction = self.body.discount(predicted, keyframe.T_map_base)
            with clock.stage("integrate"):
                base_m, now_ms = keyframe.T_map_base[:3, 3], self.map.time_ms(keyframe.stamp_ns)
                doubt_free_space(self.map, self.prediction, base_m, now_ms)
                self.map.integrate(self.prediction, keyframe.stamp_ns, self.config.network.gain)
                integrate_depths(self.map, self.prediction.depths, PREDICTED_DEPTH_WEIGHT)
            self._add_depth_model(keyframe, self.prediction.depths, clock)
        with clock.stage("integrate"):
            for depth in keyframe.depths:
                integrate_depth(self.map, depth)
            for cloud in keyframe.clouds:
                integrate_cloud(self.map, cloud)
        told: tuple[Look, ...] = () if self.prediction is None else (self.prediction, *self.prediction.depths)
        self.looks = (*told, *keyframe.depths, *keyframe.clouds)
        if self.config.outputs.color_by == "camera" and keyframe.images:
            with clock.stage("color"):
                self.map.keep_colors()
                add_colors(self.map, keyframe.images)
        return clock

    def look_again(self) -> StageClock | None:
        """Fuse the depth of an earlier keyframe as those that came after it show it; how long it took, None if none was due.

        Both looks count. They show the same pictures, but the second is matched with others, under poses that are known better.
        """
        if self.predictor is None:
            return None
        clock = StageClock(self.map.device, self.between_stages)
        with clock.stage("look_again"):
            again = self.predictor.look_again()
            if again is None:
                return None
            integrate_depths(self.map, self.body.leave_out(again).depths, PREDICTED_DEPTH_WEIGHT)
        return clock

    def _add_depth_model(self, keyframe: Keyframe, sure: tuple[PosedDepth, ...], clock: StageClock) -> None:
        """Fuse what a depth model of the user's choice says of each image whose depth is known in part."""
        if self.depth_model is None:
            return
        known = {depth.camera: depth for depth in sure}
        with clock.stage("depth_model"):
            found = [
                self.depth_model.measure(image, known[image.camera])
                for image in keyframe.images
                if image.camera in known
            ]
        with clock.stage("integrate"):
            for depth in self.body.leave_out(replace(keyframe, depths=tuple(d for d in found if d is not None))).depths:
                integrate_depth(self.map, depth, PREDICTED_DEPTH_WEIGHT)

    def view(self, frame_id: str) -> MapView | None:
        """A copy of the map, or None before the first keyframe."""
        if self._last is None:
            return None
        stamp_ns, T_map_base = self._last
        return self.map.view(stamp_ns, frame_id, T_map_base)

    def content(self, frame_id: str) -> DeviceMap | None:
        """The map where it is, on a GPU, or None before the first keyframe."""
        if self._last is None:
            return None
        stamp_ns, T_map_base = self._last
        return self.map.content(stamp_ns, frame_id, T_map_base)

    def query(self, points_m: FloatArray, *, interpolate: bool) -> PointAnswers:
        """What the map knows at points (N, 3) of the map frame."""
        probability, state = self.map.query(points_m, mode="trilinear" if interpolate else "nearest")
        classes, unseen = self.map.classes_at(points_m), self.map.unseen_at(points_m)
        probability[unseen], state[unseen], classes[unseen] = np.nan, VoxelState.UNKNOWN, 0
        return PointAnswers(probability, state, classes)

    def clear(self) -> None:
        """Forget the map and the past keyframes."""
        self.map.clear()
        self._forget_past()

    def give_back_memory(self) -> str:
        """Free what can be missed: remembered places by half, and what the allocator keeps; says what that was."""
        give_back_freed_memory()
        if self.map.store is None:
            return "nothing is left to forget"
        self.map.store.halve()
        return f"remembered places are cut to {self.map.store.limit_bytes >> 10} KiB"

    def reconfigure(self, config: Config) -> None:
        """Take settings that may change while running."""
        self.config = config
        self.map.config = config.map

    def load_map(self, path: Path, frame_id: str) -> None:
        """Replace the map by a saved one.

        Raises:
            MapFileError: the file cannot be used, or holds a map of another frame; the map stays as it was.
        """
        saved_frame = read_map_frame(path)
        if saved_frame != frame_id:
            raise MapFileError(f"{path} holds a map in frame '{saved_frame}', this one is in '{frame_id}'")
        load_map(self.map, path)
        if self._last is None:
            self._last = (0, self._centered_pose())

    def warm_up(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Compile the map's kernels and run the network once, so that the first keyframe is as fast as the others.

        Args:
            say: told what comes next.
        """
        say("loading the map's kernels" if are_compiled() else "compiling the map's kernels, once on this machine")
        warm_up()
        self.between_stages()
        if self.predictor is None:
            return
        say("running the network once")
        model = CameraModel(320, 240, np.array([[200.0, 0, 160], [0, 200, 120], [0, 0, 1]]), "none", np.zeros(0))
        poses = np.eye(4), make_transform((0.2, 0, 0), (0, 0, 0, 1))  # each is matched against the other
        images = [
            PosedImage(f"warm_up{n}", 0, np.zeros((240, 320, 3), np.uint8), model, T) for n, T in enumerate(poses)
        ]
        self.predictor.predict(Keyframe(0, np.eye(4), images=tuple(images)), self.map.window)
        self.predictor.reset()

    @property
    def _place(self) -> Place | None:
        """What corrects the poses of a keyframe's images, and of those of past ones."""
        alignment, predictor = self.alignment, self.predictor
        if alignment is None or predictor is None:
            return None

        def place(keyframe: Keyframe) -> Keyframe:
            placed = alignment.align(keyframe)
            predictor.move_past(alignment.poses())
            return placed

        return place

    def _forget_past(self) -> None:
        """Match nothing across this moment."""
        if self.predictor is not None:
            self.predictor.reset()
        if self.alignment is not None:
            self.alignment.reset()

    def _centered_pose(self) -> FloatArray:
        """A pose in the middle of the map's window, for a map that came from a file."""
        pose = np.eye(4)
        window = self.map.window
        pose[:3, 3] = window.origin_m + np.array(window.shape) * window.voxel_size_m / 2
        pose[2, 3] = window.origin_m[2] + self.config.map.below_m
        return pose

    def _is_jump(self, keyframe: Keyframe) -> bool:
        if self._last is None:
            return False
        last_ns, T_last = self._last
        moved = float(np.linalg.norm(keyframe.T_map_base[:3, 3] - T_last[:3, 3]))
        elapsed_s = (keyframe.stamp_ns - last_ns) * 1e-9
        return (
            elapsed_s < 0
            or moved > POSE_JUMP_M
            or (rotation_angle(T_last, keyframe.T_map_base) > POSE_JUMP_RAD and elapsed_s < 0.5)
        )


def _sensor_places(keyframe: Keyframe) -> FloatArray:
    """Where the keyframe's sensors are, (N, 3)."""
    poses = [image.T_map_cam for image in keyframe.images]
    poses += [depth.T_map_cam for depth in keyframe.depths]
    poses += [cloud.T_map_sensor for cloud in keyframe.clouds]
    return np.array([pose[:3, 3] for pose in poses]).reshape(-1, 3)
