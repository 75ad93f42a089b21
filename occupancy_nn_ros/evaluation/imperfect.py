# SPDX-License-Identifier: Apache-2.0
"""Simulated keyframes as a real robot would have them: pictures of real cameras, poses and calibration that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from occupancy_nn_ros.evaluation.truth import TrueKeyframe
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.measurement_errors import (
    REALISTIC,
    MeasurementErrors,
    measured_intrinsics,
    measured_mounts,
    measured_poses,
)
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.simulation.sensor_effects import random_cameras, random_shots, take_pictures
from occupancy_nn_ros.values import PosedImage

SHAKING = 0.15
"""Standard deviation of the cameras' angular velocity, rad/s."""

JITTER = replace(REALISTIC, scale=0.0, walk=0.0)
"""Errors that do not add up: the map's truth stays where it is."""


def imperfect(
    frames: Iterable[TrueKeyframe], rig: Rig, drive: Drive, seed: int, errors: MeasurementErrors = JITTER
) -> Iterator[TrueKeyframe]:
    """The keyframes of a drive, rendered one for each of its poses, with errors; their true depth stays.

    Args:
        frames: the true keyframes.
        rig: the cameras that took them.
        drive: where the base was at each.
        seed: of the errors; the same seed makes the same ones.
        errors: how large they are. Errors of poses must not add up, or the truth is elsewhere than the map.
    """
    rng = np.random.default_rng([seed, 21])
    bases = measured_poses(drive.T_map_base, errors, rng)
    mounts = measured_mounts(np.stack([camera.T_base_cam for camera in rig.cameras]), errors, rng)
    K = measured_intrinsics(np.stack([camera.model.K for camera in rig.cameras]), errors, rng)
    cameras = None
    for frame, base in zip(frames, bases, strict=False):
        pictures = np.stack([image.image for image in frame.images.images])
        if cameras is None:
            cameras = random_cameras(rng, len(rig.cameras), float(pictures.mean()) / 255)
        shots = random_shots(rng, len(pictures), SHAKING)
        taken = take_pictures(pictures, K[:, 0, 0].tolist(), cameras, shots, rng)
        images = tuple(
            PosedImage(image.camera, image.stamp_ns, picture, replace(image.model, K=intrinsics), base @ mount)
            for image, picture, intrinsics, mount in zip(frame.images.images, taken, K, mounts, strict=True)
        )
        yield replace(frame, images=replace(frame.images, T_map_base=base, images=images))
