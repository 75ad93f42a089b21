# SPDX-License-Identifier: Apache-2.0
"""Simulated keyframes as a real robot would have them: pictures of real cameras, poses and calibration that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from occupancy_nn_ros.evaluation.truth import TrueKeyframe
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.imperfect_rig import JITTER, ImperfectRig
from occupancy_nn_ros.simulation.measurement_errors import MeasurementErrors
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.values import PosedImage


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
    told = ImperfectRig(rig, drive, seed, errors)
    for frame, base in zip(frames, told.drive.T_map_base, strict=False):
        taken = told.take(np.stack([image.image for image in frame.images.images]))
        images = tuple(
            PosedImage(image.camera, image.stamp_ns, picture, replace(image.model, K=intrinsics), base @ mount)
            for image, picture, intrinsics, mount in zip(
                frame.images.images, taken, told.K, told.T_base_cam, strict=True
            )
        )
        yield replace(frame, images=replace(frame.images, T_map_base=base, images=images))
