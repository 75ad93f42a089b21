# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the samples that place robot and sensors: whether one robot could have moved so, and which way is up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.doctor.findings import Finding, warning
from occupancy_nn_ros.errors import LookupTransformError
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.sync.frame_names import FrameNames
from occupancy_nn_ros.sync.pose_track import PoseTrack
from occupancy_nn_ros.sync.step_watch import BACK_M, BACK_RAD, BACK_S, JUMP_M, JUMP_M_S, JUMP_RAD, JUMP_RAD_S
from occupancy_nn_ros.values import FloatArray

LEAST_BACK, LEAST_BACK_SHARE = 3, 0.02
"""So many steps there and back, and this share of all, are of two publishers: fewer than while they come, since all are known."""

UPSIDE_DOWN = 0.5
"""Beyond this cosine to the map's z axis a picture's down, or a robot's up, points the wrong way."""


@dataclass(frozen=True)
class Steps:
    """From each sample of a track to the next one.

    Attributes:
        moved_m: (N - 1, 3) metres.
        turned_rad: (N - 1, 3) rotation vectors in the parent frame.
        took_s: (N - 1,) seconds.
    """

    moved_m: FloatArray
    turned_rad: FloatArray
    took_s: FloatArray

    @staticmethod
    def of(track: PoseTrack) -> Steps:
        """All steps of a track with two samples or more."""
        poses = np.stack([track.sample(stamp) for stamp in track.stamps])
        turns = Rotation.from_matrix(poses[1:, :3, :3]) * Rotation.from_matrix(poses[:-1, :3, :3]).inv()
        return Steps(np.diff(poses[:, :3, 3], axis=0), turns.as_rotvec(), np.diff(np.asarray(track.stamps)) * 1e-9)


def check_samples(intake: Intake, names: FrameNames, frames: Iterable[str]) -> Iterator[Finding]:
    """Whether what places robot and sensors comes from one source and moves as a robot does."""
    for track in intake.placement.tracks(names, frames):
        if len(track.stamps) > LEAST_BACK:
            yield from _check_steps(track, Steps.of(track))
        if track.contradicted >= LEAST_BACK:
            what = f"'{track.child}' in '{track.parent}'"
            text = f"{what} has {track.contradicted} times two poses at one stamp: two publishers that disagree"
            yield warning("tf", text, _one_publisher(track.child))
    for child in sorted(intake.placement.poses.contradicted):
        text = f"'{child}' has static transforms to '{intake.placement.poses.parent(child)}' that differ: the newest is used"
        yield warning("/tf_static", text, _one_publisher(child))


def _one_publisher(child: str) -> str:
    return f"let one node alone publish '{child}': ros2 topic info -v on the topic names them"


def _check_steps(track: PoseTrack, steps: Steps) -> Iterator[Finding]:
    what = f"'{track.child}' in '{track.parent}'"
    back = _there_and_back(steps.moved_m, steps.took_s, BACK_M) | _there_and_back(
        steps.turned_rad, steps.took_s, BACK_RAD
    )
    if back.sum() >= max(LEAST_BACK, LEAST_BACK_SHARE * len(back)):
        moved, turned = (
            float(np.median(np.linalg.norm(v[:-1][back], axis=1))) for v in (steps.moved_m, steps.turned_rad)
        )
        text = f"{what} goes back and forth from sample to sample {int(back.sum())} times, by {moved:.2f} m and {turned:.2f} rad"
        yield warning("tf", f"{text}: two publishers that disagree, or noise", _one_publisher(track.child))
        return
    jumps = _jumps(steps.moved_m, steps.took_s, JUMP_M, JUMP_M_S) | _jumps(
        steps.turned_rad, steps.took_s, JUMP_RAD, JUMP_RAD_S
    )
    if jumps.any():
        moved, turned = (float(np.linalg.norm(v[jumps], axis=1).max()) for v in (steps.moved_m, steps.turned_rad))
        count = "once" if jumps.sum() == 1 else f"{int(jumps.sum())} times"
        text = f"{what} jumps {count}, by up to {moved:.2f} m and {turned:.2f} rad: what was mapped before does not fit what comes after"
        yield warning(
            "tf", text, "map in a frame that never jumps (map_frame: odom, REP 105), or correct the odometry's source"
        )


def _there_and_back(steps: FloatArray, took_s: FloatArray, least: float) -> npt.NDArray[np.bool_]:
    """(N - 2,): whether a step and the one after it are large, short in time, and cancel each other but for a half."""
    size, both = np.linalg.norm(steps, axis=1), np.linalg.norm(steps[:-1] + steps[1:], axis=1)
    smaller = np.minimum(size[:-1], size[1:])
    is_short = np.maximum(took_s[:-1], took_s[1:]) < BACK_S
    return np.asarray((smaller > least) & (both < smaller / 2) & is_short, np.bool_)


def _jumps(steps: FloatArray, took_s: FloatArray, least: float, least_rate: float) -> npt.NDArray[np.bool_]:
    """(N - 1,): whether a step is larger and faster than motion, and three times faster than nine tenths of the others."""
    size = np.linalg.norm(steps, axis=1)
    rate = size / np.maximum(took_s, 1e-9)
    return np.asarray((size > least) & (rate > max(least_rate, 3 * float(np.quantile(rate, 0.9)))), np.bool_)


def check_up(
    intake: Intake, names: FrameNames, frames: Mapping[str, str], stamps_ns: Mapping[str, Sequence[int]], tilt: str
) -> list[Finding]:
    """Whether z of the map points up, as far as robot and pictures tell: both hang upside down in a frame whose z points down.

    Args:
        intake: knows the transforms.
        names: the chosen frames.
        frames: frame of each sensor that sent something.
        stamps_ns: stamps of its messages.
        tilt: how the robot leans in its map, told where nothing hangs upside down; empty if it does not.
    """
    stamp = max(stamps_ns[name][-1] for name in frames)
    cameras = [name for name in frames if intake.sensors[name].info_topic]
    try:
        T_map_base = intake.placement.lookup(names, names.base_frame, stamp)
        poses = [intake.placement.lookup(names, frames[name], stamps_ns[name][-1]) for name in cameras]
    except (LookupTransformError, IndexError):
        return []
    advice = "the map needs z up (REP 103): publish odometry in ENU, not NED, or map in a frame that is"
    if T_map_base[2, 2] < -UPSIDE_DOWN:
        return [warning("frames", f"z of '{names.base_frame}' points down in '{names.map_frame}'", advice)]
    if poses and all(pose[2, 1] > UPSIDE_DOWN for pose in poses):
        text = f"by their frames all cameras hang upside down in '{names.map_frame}'"
        return [warning("frames", text, f"if they do not: {advice}")]
    if tilt:
        return [
            warning("frames", tilt, "map in a frame that is aligned with gravity; set base_frame to an upright one")
        ]
    return []
