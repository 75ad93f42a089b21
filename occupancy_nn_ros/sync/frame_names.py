# SPDX-License-Identifier: Apache-2.0
"""Which frames are the map's and the robot's, and what places the robot: read off the transform tree and the odometry there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import UndecidedFramesError
from occupancy_nn_ros.sync.frame_words import (
    OTHER_MAP_WORDS,
    USUAL_MAP_FRAMES,
    is_fixed_name,
    moves_with_robot,
    words_of,
)
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer


@dataclass(frozen=True)
class PoseSource:
    """Odometry or poses that place a frame of the robot.

    Attributes:
        topic: where they come from.
        frame: in which they are given.
        child: what they are the pose of, as the messages say; may be empty.
    """

    topic: str
    frame: str
    child: str


@dataclass(frozen=True)
class FrameNames:
    """The frames to map with.

    Attributes:
        map_frame: the fixed frame.
        base_frame: the robot's.
        reason: why these, worded for people.
        pose: what places the robot in place of TF, None for TF.
        body: the frame that ``pose`` places.
        is_guess: whether the map frame was taken for want of a better one.
    """

    map_frame: str
    base_frame: str
    reason: str = ""
    pose: PoseSource | None = None
    body: str = ""
    is_guess: bool = False


@dataclass(frozen=True)
class Patience:
    """What has been waited for: whether odometry may stand in for TF now, and whether any root may be the map's frame."""

    takes_odometry: bool = True
    takes_any_root: bool = True


def choose_frames(
    config: Config, poses: PoseBuffer, sensor_frame: str, odometries: Mapping[str, PoseSource], patience: Patience
) -> FrameNames:
    """The configured frames; a default that is not connected to the sensor is replaced by what transforms and odometry offer.

    The map frame is the configured one; else the one most like odom, map, world above the sensor; else that of odometry; else the
    root of the sensor's tree, unless it moves with the robot. The robot's is the configured one, else the highest moving one
    below the map's.

    Args:
        config: names of frames and of the pose topic.
        poses: the transform tree.
        sensor_frame: frame of a sensor.
        odometries: what places the robot beside TF, by topic; with ``pose_topic`` only that one counts.
        patience: what has been waited for.

    Raises:
        UndecidedFramesError: nothing that stands still is known; more may come.
    """
    above = poses.above(sensor_frame)
    if config.pose_topic:
        if config.pose_topic in odometries:
            return _by_pose(config, poses, above, odometries[config.pose_topic])
        if not patience.takes_any_root:
            raise UndecidedFramesError(f"no pose on {config.pose_topic} yet")
    _refuse_moving(config, poses)
    if (
        config.map_frame in above
        or poses.path(config.map_frame, sensor_frame)
        or config.map_frame != Config().map_frame
    ):
        return _by_transforms(config, poses, above, config.map_frame, "as configured")
    usual = _most_usual(above)
    if usual is not None:
        return _by_transforms(config, poses, above, usual, f"there is no '{config.map_frame}' above the sensors")
    is_alone = len(above) == 1
    if (
        patience.takes_odometry
        and odometries
        and not (is_alone and sensor_frame not in {o.child for o in odometries.values()})
    ):
        return _by_pose(config, poses, above, _best_odometry(config, poses, above, odometries))
    if is_alone:  # nothing is known of the sensor: the lookup will say so
        return FrameNames(config.map_frame, config.base_frame)
    return _by_root(config, poses, above, patience)


def _refuse_moving(config: Config, poses: PoseBuffer) -> None:
    """A map frame that is the robot's own would smear the map.

    Raises:
        UndecidedFramesError: the configured map frame is the robot's, or hangs on it.
    """
    name, base = config.map_frame, config.base_frame
    if name == base or (base in poses.above(name) and not is_fixed_name(name)):
        text = f"map_frame '{name}' moves with the robot ('{base}'): a map needs a frame that stands still"
        raise UndecidedFramesError(text)


def _most_usual(above: Mapping[str, tuple[str, ...]]) -> str | None:
    """Of the frames above the sensor the one that is named most like a fixed frame."""
    frames = list(above)[1:]
    for usual in USUAL_MAP_FRAMES:
        named = [frame for frame in frames if frame == usual] + [frame for frame in frames if usual in words_of(frame)]
        if named:
            return named[0]
    return next((frame for frame in frames if words_of(frame) & OTHER_MAP_WORDS), None)


def _by_transforms(
    config: Config,
    poses: PoseBuffer,
    above: Mapping[str, tuple[str, ...]],
    map_frame: str,
    reason: str,
    *,
    is_guess: bool = False,
) -> FrameNames:
    way = above.get(map_frame, ())
    poses.prefer(way)
    rivals = [
        f"'{child}' has several parents ({', '.join(sorted(poses.rivals[child]))})"
        for child in way
        if child in poses.rivals
    ]
    base = _base_frame(config, poses, way)
    return FrameNames(map_frame, base, "; ".join([reason, *rivals]), is_guess=is_guess)


def _base_frame(config: Config, poses: PoseBuffer, way: tuple[str, ...]) -> str:
    """The robot's frame on the way from a sensor up to the map frame."""
    base = config.base_frame
    if base != Config().base_frame or len(way) < 2 or poses.path(base, way[0]):
        return base
    moving = [frame for frame in way[:-1] if not poses.is_static(frame)]
    robots = [frame for frame in moving if not is_fixed_name(frame)] or moving
    return robots[-1] if robots else way[-2]


def _by_pose(config: Config, poses: PoseBuffer, above: Mapping[str, tuple[str, ...]], pose: PoseSource) -> FrameNames:
    """Odometry places its child where the sensors hang on it, else the robot's frame, whatever the messages call it."""
    sensor = next(iter(above))
    base = config.base_frame
    is_default = base == Config().base_frame
    fitting = [
        frame
        for frame in (pose.child, base)
        if frame and frame != pose.frame and (frame == sensor or poses.path(frame, sensor))
    ]
    body = fitting[0] if fitting else list(above)[-1] if is_default and len(above) > 1 else base
    if is_default and not poses.path(base, body):
        base = body
    map_frame = config.map_frame
    if map_frame != pose.frame and not _is_above(poses, map_frame, pose.frame):
        map_frame = pose.frame if map_frame == Config().map_frame else map_frame
    what = f"pose of '{pose.child}'" if pose.child == body else f"its child '{pose.child}' is taken for '{body}'"
    return FrameNames(map_frame, base, f"{pose.topic} places the robot ({what})", pose, body)


def _is_above(poses: PoseBuffer, frame: str, other: str) -> bool:
    return frame in poses.above(other)


def _best_odometry(
    config: Config, poses: PoseBuffer, above: Mapping[str, tuple[str, ...]], odometries: Mapping[str, PoseSource]
) -> PoseSource:
    """The one whose child carries the sensors, given in the most usual frame; of equals the first by name."""
    sensor = next(iter(above))

    def rank(pose: PoseSource) -> tuple[bool, bool, bool, str]:
        is_connected = pose.child == sensor or bool(poses.path(pose.child, sensor))
        return not is_connected, pose.child != config.base_frame, pose.frame != config.map_frame, pose.topic

    return min(odometries.values(), key=rank)


def _by_root(config: Config, poses: PoseBuffer, above: Mapping[str, tuple[str, ...]], patience: Patience) -> FrameNames:
    """The root of the sensor's tree, if nothing better came and it does not look like part of the robot.

    Raises:
        UndecidedFramesError: it does, or better may still come.
    """
    sensor, *_, root = above
    missing = f"no transform from '{config.base_frame}' to '{config.map_frame}'"
    text = f"{missing}: nothing above '{sensor}' stands still, its transforms end at '{root}'"
    if moves_with_robot(root, config.base_frame):
        raise UndecidedFramesError(f"{text}, which moves with the robot, and no odometry places it")
    if not patience.takes_any_root:
        raise UndecidedFramesError(f"{text}, which may get a parent yet")
    if all(poses.is_static(frame) for frame in above[root][:-1]):
        raise UndecidedFramesError(f"{text}, and nothing moves")
    return _by_transforms(
        config, poses, above, root, f"the root above '{sensor}', for want of a better one", is_guess=True
    )
