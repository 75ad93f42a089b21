# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of what places sensors and robot in the map: transforms, odometry, frames and their clocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from occupancy_nn_ros.doctor.findings import ENOUGH, SOME, Finding, WhySilent, ok, problem, warning
from occupancy_nn_ros.doctor.pose_samples import check_samples, check_up
from occupancy_nn_ros.errors import ExtrapolationError, LookupTransformError, UndecidedFramesError
from occupancy_nn_ros.messages.names import ODOMETRY, POINT_CLOUD, POSE_TYPES, TF_MESSAGE
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.plausibility import odd_mounting
from occupancy_nn_ros.sync.frame_names import FrameNames
from occupancy_nn_ros.sync.pose_track import AHEAD_NS, DATED_AHEAD_NS

LATE_NS = 500_000_000
"""Transforms that begin, or become known, later than this after the images are worth telling."""

END = "end of recording"


def check_pose_topic(intake: Intake, why_silent: WhySilent) -> list[Finding]:
    """Whether the pose topic, if there is one, brings something."""
    topic = intake.config.pose_topic
    if not topic:
        return []
    bad = next((text for reason, text in intake.problems.items() if reason.startswith(f"{topic}: ")), "")
    if bad and topic not in intake.placement.odometries:
        return [problem("pose", bad, "set pose_topic to a topic of poses, or leave it empty to use TF")]
    if topic in intake.heard:
        return [ok("pose", f"{topic} places the robot")]
    text = f"no message on {topic}: {why_silent(topic, intake.config.pose_type)}"
    return [warning("pose", text, "set pose_topic and pose_type, or leave pose_topic empty to use TF")]


def check_transforms(
    intake: Intake,
    frames: Mapping[str, str],
    stamps_ns: Mapping[str, Sequence[int]],
    topics: Mapping[str, str],
    why_silent: WhySilent,
    tilt: str,
) -> list[Finding]:
    """Whether each sensor can be placed in the map at the stamps of its messages.

    Args:
        intake: knows the transforms; it was flushed.
        frames: frame of each sensor that sent something.
        stamps_ns: stamps of its messages.
        topics: message type of every topic there is.
        why_silent: tells why a topic brings nothing.
        tilt: how the robot leans in its map, as it was seen on its way; empty if it does not.
    """
    found = list(_check_clocks(intake))
    if intake.time_jumps:
        found.append(warning("time", intake.problems["time"], "do not play bags in a loop onto a running node"))
    if not frames:
        return found
    try:
        names = intake.placement.choose(frames.values())
    except UndecidedFramesError as error:
        return [
            *found,
            *_check_topics(intake, why_silent),
            problem("frames", str(error), _frame_advice(intake, topics)),
        ]
    found += _check_names(intake, names)
    found += _check_tracks(intake, names, frames.values(), min(stamps[0] for stamps in stamps_ns.values() if stamps))
    if text := intake.placement.strangers(names, frames.values()):
        found.append(warning("frames", text, "name the cameras of this robot, or run the node in its namespace"))
    found += check_samples(intake, names, frames.values())
    found += check_up(intake, names, frames, stamps_ns, tilt)
    chains = {name: _check_chain(intake, name, frame, names, stamps_ns[name], topics) for name, frame in frames.items()}
    if any(chain.level == "problem" for chain in chains.values()):
        found += _check_topics(intake, why_silent)
    for name, frame in frames.items():
        found.append(chains[name])
        found += _check_optical(intake, name, frame, names, stamps_ns[name])
    return found


def _check_topics(intake: Intake, why_silent: WhySilent) -> Iterator[Finding]:
    for topic, is_static in intake.poses.tf_topics.items():
        if topic not in intake.heard and (is_static or not intake.config.pose_topic):
            text = f"no message: {why_silent(topic, TF_MESSAGE)}"
            yield warning(
                topic, text, "start what publishes the robot's transforms, or set tf_topic and tf_static_topic"
            )


def _check_clocks(intake: Intake) -> Iterator[Finding]:
    """Transforms whose stamps are not of the sensors' clock; needed or not, they are left out."""
    for frame in sorted(intake.placement.poses.frames()):
        track = intake.placement.poses.track(frame)
        if track is None or not track.stamps or not intake.newest_ns:
            continue
        ahead_ns = track.stamps[-1] - intake.newest_ns
        if ahead_ns > AHEAD_NS:
            text = f"the transform from '{frame}' to '{track.parent}' is dated {ahead_ns * 1e-9:.1f} s ahead of the sensors"
            yield warning(
                "clocks", f"{text}: it is left out", "have its node use the sensors' clock (use_sim_time, chrony)"
            )
        elif track.behind:
            text = f"{track.behind} transforms of '{frame}' have stamps more than 1 s behind its newest"
            yield warning("clocks", f"{text}: two clocks", "look for a second publisher of it, or one on another clock")


def _check_names(intake: Intake, names: FrameNames) -> list[Finding]:
    text = f"map frame '{names.map_frame}', robot frame '{names.base_frame}'"
    doubt = intake.placement.doubt(names)
    others = [topic for topic in intake.placement.odometries if names.pose is not None and topic != names.pose.topic]
    is_connected = names.pose is not None or bool(intake.placement.poses.path(names.map_frame, names.base_frame))
    found = [] if doubt or not is_connected else [ok("frames", f"{text}: {names.reason}" if names.reason else text)]
    if doubt and names.is_guess:
        found.append(warning("frames", doubt, "set map_frame and base_frame, or pose_topic"))
    elif doubt:
        found.append(warning("frames", doubt, "publish one of them under another name: a frame has one parent"))
    if others:
        taken = names.pose.topic if names.pose is not None else ""
        text = f"several odometries ({', '.join(sorted([taken, *others]))}): {taken} is taken"
        found.append(warning("pose", text, "set pose_topic to the one that is right"))
    return found


def _check_tracks(intake: Intake, names: FrameNames, frames: Iterable[str], first_ns: int) -> Iterator[Finding]:
    """Whether what places the robot begins with the images, keeps up with them, and is dated as they are."""
    for track in intake.placement.tracks(names, frames):
        if not track.stamps or track.stamps[0] > intake.newest_ns + AHEAD_NS:
            continue
        what = f"'{track.child}' in '{track.parent}'"
        is_dated_ahead = track.ahead_ns >= DATED_AHEAD_NS
        late_ns = track.stamps[0] - (track.ahead_ns if is_dated_ahead else 0) - first_ns
        if late_ns > LATE_NS:
            text = f"{what} is known only from {late_ns * 1e-9:.1f} s after the first image on: what is seen before is not mapped"
            yield warning("frames", text, "start the odometry before the cameras, or wait for it")
        if is_dated_ahead:
            ahead = f"{what} is dated {track.ahead_ns * 1e-9:.1f} s ahead of the images"
            yield ok("clocks", f"{ahead}, as AMCL and ROS 1's robot_state_publisher do: used at the images' stamps")
        if track.delay_ns > LATE_NS + round(intake.config.sync.max_wait_s * 1e9):
            text = (
                f"{what} becomes known {track.delay_ns * 1e-9:.1f} s after the images' stamps: the map is late by that"
            )
            yield warning(
                "clocks", text, "compare the clocks of camera and odometry (chrony), or speed the odometry up"
            )


def _check_chain(
    intake: Intake, name: str, frame: str, names: FrameNames, stamps_ns: Sequence[int], topics: Mapping[str, str]
) -> Finding:
    chain = f"{names.map_frame} -> {names.base_frame} -> {frame}"
    # The first frames may have come before any transform was received, the newest may still wait for theirs.
    wait_ns = round(intake.config.sync.max_wait_s * 1e9)
    settled = [s for s in stamps_ns if stamps_ns[0] + wait_ns <= s <= intake.newest_ns - wait_ns] or stamps_ns
    failed: list[LookupTransformError] = []
    for stamp in settled:
        try:
            intake.placement.lookup(names, names.base_frame, stamp)
            intake.placement.lookup(names, frame, stamp)
        except LookupTransformError as error:
            failed.append(error)
    if not failed:
        return ok(name, f"{chain}: known at all {len(settled)} stamps")
    if not isinstance(failed[-1], ExtrapolationError):
        return problem(name, str(failed[-1]), _link_advice(name, frame, names, intake, topics))
    share = 1 - len(failed) / len(settled)
    text = f"{chain}: known at {share:.0%} of {len(settled)} stamps; {failed[-1]}"
    if share >= ENOUGH:
        return ok(name, text)
    advice = f"compare the clocks of camera and odometry (use_sim_time, chrony), or set cameras.{name}.time_offset_s"
    if failed[-1].ending == "stopped":
        advice = "see why what publishes it has stopped"
    if failed[-1].ending == "mount":
        topic = intake.config.tf_static_topic
        advice = f"have its node send it on {topic}, latched: static_transform_publisher, StaticTransformBroadcaster"
    return problem(name, text, advice) if share < SOME else warning(name, text, advice)


def _link_advice(name: str, frame: str, names: FrameNames, intake: Intake, topics: Mapping[str, str]) -> str:
    poses, advice = intake.placement.poses, []
    if not frame:
        advice.append(f"set cameras.{name}.frame_id: neither its messages nor its camera_info name a frame")
    elif not poses.path(names.base_frame, frame):
        alike = sorted(
            other for other in poses.frames() if other.rpartition("/")[2] == frame.rpartition("/")[2] and other != frame
        )
        to = f" to '{alike[0]}'" if alike else ""
        advice.append(f"publish the mount of '{frame}' in /tf_static, or set cameras.{name}.frame_id{to}")
    if names.pose is None and not poses.path(names.map_frame, names.base_frame):
        advice.append(_frame_advice(intake, topics))
    return ", ".join(advice)


def _frame_advice(intake: Intake, topics: Mapping[str, str]) -> str:
    advice = "set map_frame and base_frame to frames that exist, or start the odometry"
    odometry = sorted(topic for topic, msgtype in topics.items() if msgtype in POSE_TYPES)
    odometry.sort(key=lambda topic: topics[topic] != ODOMETRY)
    return f"{advice}, or set pose_topic={odometry[0]}" if odometry and not intake.config.pose_topic else advice


def _check_optical(intake: Intake, name: str, frame: str, names: FrameNames, stamps_ns: Sequence[int]) -> list[Finding]:
    """Whether a camera's frame is the optical one, z forward: a body frame, z up, would have it look at the sky."""
    if intake.sensors[name].msgtype == POINT_CLOUD:
        return []
    try:
        T_map_cam = intake.placement.lookup(names, frame, stamps_ns[-1])
        T_map_base = intake.placement.lookup(names, names.base_frame, stamps_ns[-1])
    except LookupTransformError:
        return []
    text = odd_mounting(frame, T_map_cam, T_map_base)
    return [warning(name, text, f"set cameras.{name}.frame_id to its optical frame (z forward)")] if text else []


def check_statics(late_s: Mapping[str, float]) -> list[Finding]:
    """Static transforms of a bag that were recorded after the first image.

    Args:
        late_s: how many seconds after it, by frame.
    """
    if not late_s:
        return []
    frames = ", ".join(f"'{frame}'" for frame in sorted(late_s))
    text = f"the static transforms of {frames} were recorded up to {max(late_s.values()):.1f} s after the first image"
    advice = "the player uses them from the start; a node that listens to ros2 bag play maps nothing before they come"
    return [warning("/tf_static", text, advice)]


def check_keyframes(intake: Intake, keyframes: int) -> Finding:
    """Whether maps would come of it all, and where the frame sets went that became none."""
    dropped = intake.dropped
    if not keyframes:
        reasons = [*intake.silent_topics().values(), intake.problems.get("transform"), *dropped, "nothing came"]
        text = f"no map update would be made: {next(filter(None, reasons))}"
        return problem("map", text, "solve the problems above")
    text = f"{keyframes} map updates would be made"
    if dropped:
        text = f"{text}, {sum(dropped.values())} frames dropped, most: {max(dropped, key=lambda r: dropped[r])}"
    lost = intake.sets - intake.placed - intake.unfinished
    if lost <= (1 - ENOUGH) * intake.sets:
        return ok("map", text)
    text = f"{text}; {lost} of {intake.sets} frame sets could not be placed"
    goes_on = lost - intake.lost_early > (1 - SOME) * (intake.sets - intake.lost_early)
    advice = "solve the problems above, or compare the clocks of cameras and transforms"
    return problem("map", text, advice) if goes_on else warning("map", text, advice)
