# SPDX-License-Identifier: Apache-2.0
"""Cameras of a recording whose pictures disagree with focal length, mounting or stamps, and the values that would fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.alignment.camera_fit import EXPLAINED_PX, CameraFit, Matches, fit_camera
from occupancy_nn_ros.alignment.pose_alignment import Followed, PoseAlignment, PoseQuality, disagreement_of
from occupancy_nn_ros.alignment.seen_motion import MotionComparison
from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError, OccupancyError
from occupancy_nn_ros.runtime.decoding import decode_keyframe
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.player import PlayProgress, plan_play, steps
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import CameraModel, FloatArray, Keyframe

AROUND_NS = 30_000_000
"""A camera's velocity is the difference of its poses this much before and after."""

FOREVER_NS = 10**18


@dataclass(frozen=True)
class CameraCalibration:
    """What was found of one camera.

    Attributes:
        camera: its name.
        model: intrinsics as they are.
        fit: what its matches ask for, None for too few of them.
        poses_disagree: whether other poses would explain the pictures much better.
        contradiction: how its motion in the pictures is another altogether, which leaves nothing to fit; empty where it is not.
    """

    camera: str
    model: CameraModel
    fit: CameraFit | None
    poses_disagree: bool = False
    contradiction: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether focal length, mounting or stamps should be others."""
        return self.fit is not None and any(self._wrong(self.fit))

    @property
    def is_unexplained(self) -> bool:
        """Whether poses and pictures disagree by more than any calibration could mend."""
        return self.poses_disagree and self.fit is not None and self.fit.best_px > EXPLAINED_PX

    @property
    def corrected(self) -> CameraModel:
        """Intrinsics with the focal length that fits, where it is wrong."""
        if self.fit is None or not self.fit.names_focal:
            return self.model
        K = self.model.K.copy()
        K[0, :2] *= self.fit.focal
        K[1, 1] *= self.fit.focal
        return replace(self.model, K=K)

    def text(self) -> str:
        """In one line."""
        if self.contradiction:
            return self.contradiction
        if self.fit is None:
            return "too few matches to judge focal length, mounting and stamps"
        misses = f"matches miss by {self.fit.given_px:.2f} px, {self.fit.best_px:.2f} px at best"
        wrong = "; ".join(self._wrong(self.fit))
        if wrong:
            return f"{wrong} ({misses})"
        if self.is_unexplained:
            return f"poses and pictures disagree, and no calibration mends it: odometry is too noisy, or too much moves ({misses})"
        return f"calibration and stamps agree with the pictures ({misses})"

    def _wrong(self, fit: CameraFit) -> Iterator[str]:
        if fit.names_focal:
            now, fits = self.model.K[0, 0], self.corrected.K[0, 0]
            word = "long" if fit.focal < 1 else "short"
            yield f"focal length {100 * abs(now / fits - 1):.1f} % too {word}: {fits:.1f} px would fit, not {now:.1f}"
        if fit.names_turn:
            angles = np.rad2deg(Rotation.from_rotvec(fit.turn_rad).as_rotvec())
            x, y, z = (f"{angle:+.2f}" for angle in angles)
            yield f"mounting is off by {x}, {y}, {z} degrees about the optical frame's x, y, z"
        if fit.names_delay:
            word = "early" if fit.delay_s > 0 else "late"
            yield f"pictures are stamped {1000 * abs(fit.delay_s):.0f} ms too {word}: time_offset_s {fit.delay_s:+.3f} would fit"


class MatchCollector:
    """Gathers matches of every camera from keyframes."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.models: dict[str, CameraModel] = {}
        self._alignment = PoseAlignment()
        self._qualities: list[PoseQuality] = []
        self._motions: dict[str, MotionComparison] = defaultdict(MotionComparison)
        self._poses: dict[tuple[str, int], tuple[FloatArray, FloatArray]] = {}
        self._found: dict[str, list[Matches]] = defaultdict(list)

    def take(self, keyframe: Keyframe, motions: dict[str, FloatArray]) -> None:
        """Follow features into one more keyframe.

        Args:
            keyframe: with images.
            motions: velocity (6,) of each camera: metres a second along the map's axes, radians a second along its own.
        """
        for image in keyframe.images:
            self.models[image.camera] = image.model
            self._poses[image.camera, keyframe.stamp_ns] = (image.T_map_cam, motions[image.camera])
            self._motions[image.camera].take(image)
        self._alignment.align(keyframe)
        if self._alignment.quality is not None:
            self._qualities.append(self._alignment.quality)
        for number, image in enumerate(keyframe.images):
            followed = self._alignment.followed(number)
            if followed is not None:
                self._found[image.camera].append(self._matches(image.camera, keyframe.stamp_ns, followed))

    def calibrations(self) -> list[CameraCalibration]:
        """What the matches say, camera by camera."""
        disagree = bool(disagreement_of(self._qualities))
        return [self._judged(name, model, poses_disagree=disagree) for name, model in self.models.items()]

    def _judged(self, camera: str, model: CameraModel, *, poses_disagree: bool) -> CameraCalibration:
        contradiction = self._motions[camera].contradiction
        fit = None if contradiction else self._fit(camera)
        return CameraCalibration(camera, model, fit, poses_disagree, contradiction)

    def _fit(self, camera: str) -> CameraFit | None:
        found = self._found.get(camera)
        return fit_camera(Matches.joined(found)) if found else None

    def _matches(self, camera: str, stamp_ns: int, followed: Followed) -> Matches:
        first = [self._poses[camera, int(stamp)] for stamp in followed.first_ns]
        pose, motion = self._poses[camera, stamp_ns]
        count = len(first)
        return Matches(
            first=followed.first,
            second=followed.now,
            T_first=np.stack([T for T, _ in first]),
            T_second=np.tile(pose, (count, 1, 1)),
            motion_first=np.stack([velocity for _, velocity in first]),
            motion_second=np.tile(motion, (count, 1)),
            focal_px=followed.focal_px,
        )


def calibrate_bag(
    bag: Path, config: Config, report: Callable[[PlayProgress], None] | None = None, part: BagPart | None = None
) -> list[CameraCalibration]:
    """Judge the calibration of all cameras of a bag.

    Raises:
        BagError: the bag cannot be read, or no keyframe can be made of it.
    """
    collector = MatchCollector()
    with BagReader(bag, part) as reader:
        plan = plan_play(reader, replace(config, source="network"))
        intake = Intake(plan.config, plan.sensors, PoseBuffer(FOREVER_NS), plan.odometries)
        raws = [raw for _, ready in steps(reader, intake, report) for raw in ready]
    for raw in raws:  # all transforms are known now, those after the last picture too
        keyframe, _ = decode_keyframe(raw, 0)
        if keyframe is not None and keyframe.images:
            frames = {frame.sensor.name: frame for frame in raw.frames}
            named = {image.camera: frames[image.camera] for image in keyframe.images}
            collector.take(keyframe, {name: _motion(intake, frame) for name, frame in named.items()})
    if not collector.models:
        raise BagError(f"no keyframe could be made of {bag}")
    return collector.calibrations()


def _motion(intake: Intake, frame: RawFrame) -> FloatArray:
    """Velocity (6,) of a camera when it took a picture; zeros where the transforms end."""
    names = intake.frame_names
    if names is None:
        return np.zeros(6)
    try:
        before, after = (
            intake.placement.lookup(names, frame.frame_id, frame.stamp_ns + shift) for shift in (-AROUND_NS, AROUND_NS)
        )
        if frame.T_frame_sensor is not None:
            before, after = before @ frame.T_frame_sensor, after @ frame.T_frame_sensor
    except OccupancyError:
        return np.zeros(6)
    turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
    return np.asarray(np.concatenate([after[:3, 3] - before[:3, 3], turn]) / (2e-9 * AROUND_NS))
