# SPDX-License-Identifier: Apache-2.0
"""Whether decoded frames can be what they are taken for, so that nothing is mapped with confidence that no sensor saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.poses import invert, rotation_angle
from occupancy_nn_ros.messages.images import unit_by_encoding
from occupancy_nn_ros.runtime.decoding import Decoded
from occupancy_nn_ros.runtime.depth_checks import DepthChecks, check_range
from occupancy_nn_ros.runtime.depth_orientation import OrientationChecks
from occupancy_nn_ros.runtime.floor_side import FloorSide
from occupancy_nn_ros.runtime.picture_checks import PictureChecks
from occupancy_nn_ros.runtime.range_ends import RangeEnds, without_sphere
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame
from occupancy_nn_ros.runtime.sensor_agreement import SensorAgreement, Standing
from occupancy_nn_ros.runtime.turn_checks import TurnChecks
from occupancy_nn_ros.runtime.upright import Upright
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth, PosedImage

WORLD_FRAMES = ("odom", "map", "world", "earth", "utm", "camera_init", "local_origin")
"""Frames that do not move with the robot, by custom."""

STANDING_FRAMES = ("odom", "map", "world", "earth", "utm")
"""Those of them that are no camera's first frame, as camera_init is that of visual odometry."""

NEAREST_M, FARTHEST_CLOUD_M = 0.05, 300.0
"""A sensor returns points at its own place for nothing; no LiDAR sees half of its points beyond."""

SIDEWAYS, UPWARD = 0.2, 0.42
"""A body frame (x forward, y left, z up) that is taken for optical has y level and z above the horizon, up to 65 degrees of pitch."""


class Plausibility:
    """Judges the frames of a run in order. Not thread-safe: who maps owns it.

    Attributes:
        mountings: what is odd about the mounting of a camera, by its name, worded for people.
        range_ends: what was left out of a sensor's frames because it is the end of its range, worded for people.
        left_out: pixels and points that were, by sensor.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.mountings: dict[str, str] = {}
        self.range_ends: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self._ends: dict[str, RangeEnds] = {}
        self._pictures: dict[str, PictureChecks] = {}
        self._turns: dict[str, TurnChecks] = {}
        self._depths: dict[str, DepthChecks] = {}
        self._orientations: dict[str, OrientationChecks] = {}
        self._floors: dict[str, FloorSide] = {}
        self._agreement, self._upright = SensorAgreement(), Upright()

    def check(self, T_map_base: FloatArray, map_frame: str, frame: RawFrame, decoded: Decoded) -> Decoded:
        """Judge a frame; returns what of it may be used.

        Args:
            T_map_base: (4, 4) pose of the robot at its keyframe.
            map_frame: name of the map's frame.
            frame: as it came.
            decoded: what it holds.

        Raises:
            ImplausibleError: it cannot be what it is taken for.
        """
        name = frame.sensor.name
        self._upright.look(T_map_base, frame.T_map_sensor)
        if isinstance(decoded, PosedCloud):
            self._check_cloud(frame, map_frame)
            decoded = self._within_sphere(decoded)
            _check_ranges(decoded)
            self._floors.setdefault(name, FloorSide()).check(decoded, T_map_base)
            self._check_agreement(frame, decoded, Standing.TOLD)
            return decoded
        if frame.frame_id in STANDING_FRAMES:
            raise ImplausibleError(
                f"its frame is '{frame.frame_id}', which does not move with the robot, expected the camera's optical frame: have its "
                f"driver name that, or set cameras.{name}.frame_id",
                reason="camera is not in its own frame",
            )
        self._check_mounting(frame, T_map_base)
        if isinstance(decoded, PosedImage):
            self._pictures.setdefault(name, PictureChecks()).check(decoded)
            self._turns.setdefault(name, TurnChecks()).check(decoded)
            return decoded
        decoded = self.within_range(decoded)
        if self._ends[name].is_spoiled:
            self._ends[name].is_spoiled = False
            raise ImplausibleError(self.range_ends[name], reason="depth ends at a limit", spoils_map=True)
        self._orientations.setdefault(name, OrientationChecks()).check(decoded)
        self._floors.setdefault(name, FloorSide()).check(decoded, T_map_base)
        if frame.sensor.depth_unit_m:  # somebody knows it
            check_range(decoded.depth_m)
            self._check_agreement(frame, decoded, Standing.TOLD)
        else:
            self._check_depth(frame, decoded, T_map_base)
        return decoded

    def without_ends(self, scan: PosedDepth | PosedCloud) -> PosedDepth | PosedCloud:
        """A depth image or sweep without what a sensor writes where it measured nothing."""
        return self._within_sphere(scan) if isinstance(scan, PosedCloud) else self.within_range(scan)

    def within_range(self, depth: PosedDepth) -> PosedDepth:
        """A depth image, with 0 where it holds the end of the sensor's range."""
        ends = self._ends.setdefault(depth.camera, RangeEnds())
        trimmed = ends.trim(depth)
        if words := ends.words():
            self.range_ends[depth.camera], self.left_out[depth.camera] = words, ends.pixels
        return trimmed

    def _within_sphere(self, cloud: PosedCloud) -> PosedCloud:
        trimmed, end_m = without_sphere(cloud)
        if end_m:
            self.left_out[cloud.sensor] += len(cloud.points_m) - len(trimmed.points_m)
            text = f"{self.left_out[cloud.sensor]} points so far lie {end_m:.4g} m away all around"
            self.range_ends[cloud.sensor] = f"{text}: the end of its range, taken as unknown"
        return trimmed

    def take_predicted(self, depths: Iterable[PosedDepth]) -> None:
        """Take the depth that the network saw in pictures, to compare the next depth images with."""
        self._agreement.take_predicted(depths)

    def take_witness(self, cloud: PosedCloud) -> None:
        """Take a sweep that no map is made with, to compare depth images with."""
        self._agreement.take(cloud.sensor, without_sphere(cloud)[0], Standing.TOLD)

    def doubts(self) -> dict[str, str]:
        """What is odd about cameras whose frames are used nevertheless, by a kind of trouble."""
        turns = {f"{name}: turns": f"{name}: {checks.doubt}" for name, checks in self._turns.items() if checks.doubt}
        tilt = {"tilt": self._upright.doubt} if self._upright.doubt else {}
        return tilt | turns | {f"{name}: mounting": text for name, text in self.mountings.items()}

    def forget(self, sensor: str) -> None:
        """Compare the sensor's next picture with none: what came between was not seen, as when frames did not decode."""
        self._pictures.pop(sensor, None)
        self._turns.pop(sensor, None)

    def _check_cloud(self, frame: RawFrame, map_frame: str) -> None:
        """Refuse a cloud that does not move with the robot: its rays would come from the frame's origin, not from the sensor."""
        if frame.frame_id in (map_frame, *WORLD_FRAMES) and not frame.sensor.frame_id:
            name = frame.sensor.name
            raise ImplausibleError(
                f"the cloud is in '{frame.frame_id}', which does not move with the robot: where the sensor was is not known. "
                f"Take the sensor's own cloud, or set cameras.{name}.sensor_frame to the sensor's frame",
                reason="cloud is not in its sensor's frame",
            )

    def _check_depth(self, frame: RawFrame, depth: PosedDepth, T_map_base: FloatArray) -> None:
        """Judge depth by itself and by other sensors, which tell more where both object."""
        checks = self._depths.setdefault(frame.sensor.name, DepthChecks())
        try:
            checks.check(depth, T_map_base)
        finally:
            self._check_agreement(frame, depth, Standing.PROVEN if checks.is_trusted else Standing.DEPTH)

    def _check_agreement(self, frame: RawFrame, look: PosedDepth | PosedCloud, standing: Standing) -> None:
        self._agreement.take(frame.sensor.name, look, standing)
        objection = self._agreement.objection(frame.sensor.name)
        if objection is not None:
            raise objection.error(frame.sensor.depth_unit_m or unit_by_encoding(frame.sensor.msgtype, frame.cdr))

    def _check_mounting(self, frame: RawFrame, T_map_base: FloatArray) -> None:
        if frame.sensor.name in self.mountings:
            return
        text = odd_mounting(frame.frame_id, frame.T_map_sensor, T_map_base)
        if text:
            self.mountings[frame.sensor.name] = text


def _check_ranges(cloud: PosedCloud) -> None:
    """Refuse a cloud most of which lies further away than any LiDAR measures: in millimetres all of the map would be free."""
    squared = np.einsum("ij,ij->i", cloud.points_m, cloud.points_m)
    measured = squared[squared > NEAREST_M**2]
    if len(measured) and (median_m := float(np.sqrt(np.median(measured)))) > FARTHEST_CLOUD_M:
        raise ImplausibleError(
            f"half of the points are more than {median_m:.0f} m away, expected metres", reason="cloud is not in metres"
        )


def odd_mounting(frame_id: str, T_map_cam: FloatArray, T_map_base: FloatArray) -> str:
    """What speaks against a frame being optical (z forward, y down), worded for people; empty if nothing does.

    Up is that of the robot, so that a slope does not matter; where the camera is the robot's own frame, that of the map.
    """
    is_base = rotation_angle(T_map_cam, T_map_base) < 1e-6 and np.allclose(T_map_cam[:3, 3], T_map_base[:3, 3])
    R = (T_map_cam if is_base else invert(T_map_base) @ T_map_cam)[:3, :3]
    if is_base and ("optical" in frame_id or np.allclose(T_map_cam, np.eye(4))):
        return ""  # in the first frame of visual odometry, which is the map's, nothing tells what is up
    if abs(R[2, 1]) > SIDEWAYS or R[2, 2] < UPWARD:
        return ""
    pitch = float(np.rad2deg(np.arccos(np.clip(R[2, 2], -1.0, 1.0))))
    how = (
        "straight up"
        if pitch < 18
        else f"up and lies on its side, as a body frame that is pitched by {pitch:.0f} degrees does"
    )
    return f"by its frame '{frame_id}' the camera looks {how}"
