# SPDX-License-Identifier: Apache-2.0
"""A rig as real robots have it: the pictures that its cameras take, and what is measured of poses, mounting and intrinsics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.measurement_errors import (
    REALISTIC,
    MeasurementErrors,
    measured_intrinsics,
    measured_mounts,
    measured_poses,
)
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.simulation.sensor_effects import CameraCharacter, random_cameras, random_shots, take_pictures
from occupancy_nn_ros.values import UInt8Array

SHAKING = 0.15
"""Standard deviation of the cameras' angular velocity, rad/s."""

JITTER = replace(REALISTIC, scale=0.0, walk=0.0)
"""Errors that do not add up: the map's truth stays where it is."""


class ImperfectRig:
    """Pictures are taken in the order of the drive's poses.

    Attributes:
        drive: where the base is said to be.
        T_base_cam: (V, 4, 4) where the cameras are said to be on it.
        K: (V, 3, 3) what is said of their intrinsics.
    """

    def __init__(self, rig: Rig, drive: Drive, seed: int, errors: MeasurementErrors = JITTER) -> None:
        """Draw the errors.

        Args:
            rig: the true one.
            drive: where the base was.
            seed: of the errors; the same seed makes the same ones.
            errors: how large they are. Errors of poses must not add up, or the truth is elsewhere than the map.
        """
        self._rng = np.random.default_rng([seed, 21])
        self.drive = replace(drive, T_map_base=measured_poses(drive.T_map_base, errors, self._rng))
        mounts = np.stack([camera.T_base_cam for camera in rig.cameras])
        self.T_base_cam = measured_mounts(mounts, errors, self._rng)
        self.K = measured_intrinsics(np.stack([camera.model.K for camera in rig.cameras]), errors, self._rng)
        self._cameras: list[CameraCharacter] | None = None

    def take(self, rendered: UInt8Array) -> UInt8Array:
        """What the cameras make of what they see at one moment, (V, H, W, 3) RGB."""
        if self._cameras is None:
            self._cameras = random_cameras(self._rng, len(rendered), float(rendered.mean()) / 255)
        shots = random_shots(self._rng, len(rendered), SHAKING)
        return take_pictures(rendered, self.K[:, 0, 0].tolist(), self._cameras, shots, self._rng)
