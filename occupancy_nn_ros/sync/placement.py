# SPDX-License-Identifier: Apache-2.0
"""Where sensors and robot are in the map: by the transform tree alone, or by odometry and the tree below the robot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import LookupTransformError
from occupancy_nn_ros.sync.frame_names import FrameNames, Patience, PoseSource, choose_frames
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.sync.pose_track import PoseTrack
from occupancy_nn_ros.sync.step_watch import LEAST_BACK
from occupancy_nn_ros.values import FloatArray, StampedTransform

ODOMETRY_AFTER_NS, ANY_ROOT_AFTER_NS = 2_000_000_000, 5_000_000_000
"""Odometry stands in for TF, and the root of a tree for the map's frame, when nothing new came for so long."""


class Placement:
    """Chooses the frames once it is certain enough which they are, and answers for poses in the map's.

    Time is that of the sensors' stamps.

    Attributes:
        poses: the transform tree.
        odometries: what could place the robot beside TF, by topic.
        names: the chosen frames, None until they are settled.
    """

    def __init__(self, config: Config, poses: PoseBuffer) -> None:
        """Nothing is known yet."""
        self.config, self.poses = config, poses
        self.odometries: dict[str, PoseSource] = {}
        self.names: FrameNames | None = None
        self._tracks: dict[str, PoseTrack] = {}
        self._now_ns: int | None = None
        self._known: tuple[str, ...] = ()
        self._known_since_ns = 0
        self._may_wait = True

    def advance(self, now_ns: int) -> None:
        """Note the newest stamp of the sensors."""
        if self._now_ns is None:
            for track in self._tracks.values():
                track.begin(now_ns)
        self._now_ns = now_ns
        self.poses.advance(now_ns)

    def rewind(self, now_ns: int) -> None:
        """Time was turned back."""
        self._now_ns = self._known_since_ns = now_ns
        self.poses.rewind(now_ns)
        for track in self._tracks.values():
            track.rewind(now_ns)

    def add_pose(self, topic: str, pose: StampedTransform) -> bool:
        """Take odometry or a pose; False if it was left out as too old, or because TF places the robot."""
        if self.names is not None and (self.names.pose is None or self.names.pose.topic != topic):
            return False
        frame = pose.target_frame or self.config.map_frame
        known = self._tracks.get(topic)
        if known is None or known.parent != frame:
            self._tracks[topic] = PoseTrack(frame, pose.source_frame or self.config.base_frame, self.poses.cache_ns)
        self.odometries[topic] = PoseSource(topic, frame, pose.source_frame)
        return self._tracks[topic].add(pose.stamp_ns, pose.T_target_source, self._now_ns)

    def choose(self, sensor_frames: Iterable[str]) -> FrameNames:
        """The settled frames, or those that a sensor's transforms offer now.

        Raises:
            UndecidedFramesError: none yet.
        """
        if self.names is not None:
            return self.names
        frames = list(sensor_frames)
        sensor = next((frame for frame in frames if self.poses.parent(frame) is not None), frames[0])
        return choose_frames(self.config, self.poses, sensor, self.odometries, self._patience(sensor))

    def settle(self, names: FrameNames) -> None:
        """Keep these frames from now on; odometry that is not among them is forgotten."""
        self.names = names
        kept = names.pose.topic if names.pose is not None else ""
        self._tracks = {topic: track for topic, track in self._tracks.items() if topic == kept}

    def end_waiting(self) -> None:
        """Nothing more will come: what is known must do."""
        self._may_wait = False

    def lookup(self, names: FrameNames, frame: str, stamp_ns: int) -> FloatArray:
        """``T_map_frame`` (4, 4) at a stamp.

        With odometry the transforms from the robot upwards are not asked: TF beside it changes nothing.

        Raises:
            LookupTransformError: not known, see :meth:`PoseBuffer.lookup`.
        """
        pose = names.pose
        if pose is None:
            return self.poses.lookup(names.map_frame, frame, stamp_ns)
        way = self.poses.path(frame, names.body)
        if frame != names.body and (pose.frame in way or (not way and self.poses.path(frame, names.map_frame))):
            return self.poses.lookup(names.map_frame, frame, stamp_ns)  # it stands in the world, not on the robot
        track = self._tracks.get(pose.topic)
        if track is None:
            raise LookupTransformError(f"no pose on {pose.topic}")
        T_map_body = track.at(stamp_ns, self._now_ns)
        if names.map_frame != pose.frame:
            T_map_body = self.poses.lookup(names.map_frame, pose.frame, stamp_ns) @ T_map_body
        return T_map_body if frame == names.body else T_map_body @ self.poses.lookup(names.body, frame, stamp_ns)

    def newest_stamp(self, names: FrameNames, frame: str) -> int:
        """The newest stamp at which a frame can be placed; the sensors' own where nothing on the way moves."""
        tracks = [self.track_of(names), *(self.poses.track(child) for child in self.way(names, frame))]
        newest = (track.newest(self._now_ns) for track in tracks if track is not None)
        return min((stamp for stamp in newest if stamp is not None), default=self._now_ns or 0)

    def track_of(self, names: FrameNames) -> PoseTrack | None:
        """The samples that place the robot beside TF, None where TF does."""
        return None if names.pose is None else self._tracks.get(names.pose.topic)

    def tracks(self, names: FrameNames, frames: Iterable[str]) -> Iterator[PoseTrack]:
        """All samples that place the robot and some of its frames."""
        pose = self.track_of(names)
        if pose is not None:
            yield pose
        for child in dict.fromkeys(c for frame in (names.base_frame, *frames) for c in self.way(names, frame)):
            track = self.poses.track(child)
            if track is not None:
                yield track

    def doubt(self, names: FrameNames) -> str:
        """What speaks against the chosen frames, worded for people; empty if nothing does."""
        parent = self.poses.parent(names.map_frame)
        if names.is_guess and parent is not None and names.pose is None:
            return f"map frame '{names.map_frame}' moves under '{parent}', which came later: set map_frame, or start it later"
        if names.is_guess:
            return f"map frame '{names.map_frame}': {names.reason}; set map_frame if it does not stand still"
        rivals = {
            child: given for child, given in self.poses.rivals.items() if child in self.way(names, names.base_frame)
        }
        return "; ".join(
            f"'{child}' has several parents ({', '.join(sorted(given))}): only '{self.poses.parent(child)}' is used"
            for child, given in sorted(rivals.items())
        )

    def disagreement(self, names: FrameNames, frames: Iterable[str]) -> str:
        """What of the samples that place robot and sensors is no motion of theirs, worded for people; empty if all is."""
        for track in self.tracks(names, frames):
            what, watch = f"'{track.child}' in '{track.parent}'", track.look_at_steps()
            if track.contradicted >= LEAST_BACK or watch.are_two:
                times = f"has {track.contradicted} times two poses at one stamp"
                if watch.are_two:
                    times = f"goes back and forth from sample to sample, {watch.back_and_forth} times"
                return f"{what} {times}: two publishers that disagree, or noise; the map is smeared"
            if watch.jumps:
                how = f"jumped {watch.jumps} times, by up to {watch.largest_m:.2f} m and {watch.largest_rad:.2f} rad"
                return f"{what} {how}: what was mapped before does not fit what comes after; map in a frame that never jumps (odom)"
        return ""

    def strangers(self, names: FrameNames, frames: Iterable[str]) -> str:
        """Sensors that move with another body than the robot, worded for people; empty if none does.

        What stands still in the map is none, nor is what moves on the robot.
        """
        if names.pose is not None:
            return ""
        own = [child for child in self.way(names, names.base_frame) if not self.poses.is_static(child)]
        for frame in frames if own else ():
            way = [child for child in self.way(names, frame) if not self.poses.is_static(child)]
            if way and not set(own) & set(way):
                return (
                    f"'{frame}' moves with '{way[0]}', not with the robot ('{names.base_frame}'): if it is another robot's, set this "
                    "node's namespace, or name the cameras"
                )
        return ""

    def way(self, names: FrameNames, frame: str) -> list[str]:
        """The frames whose transforms place a frame in the map, or on the robot where odometry places that."""
        path = self.poses.path(frame, names.map_frame if names.pose is None else names.body)
        return [child for child in path if self.poses.parent(child) in path]

    def _patience(self, sensor: str) -> Patience:
        """What has been waited for, since the last time that more became known of what is above a sensor."""
        if not self._may_wait:
            return Patience()
        now_ns = self._now_ns or 0
        known = (*self.poses.above(sensor), *self.odometries)
        if known != self._known:
            self._known, self._known_since_ns = known, now_ns
        waited_ns = now_ns - self._known_since_ns
        return Patience(waited_ns >= ODOMETRY_AFTER_NS, waited_ns >= ANY_ROOT_AFTER_NS)
