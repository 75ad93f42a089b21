# SPDX-License-Identifier: Apache-2.0
"""Messages that place things: transforms, odometry and poses, each with the harm that a bad one may do confined to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.messages.decode import decode_pose, decode_tf, decode_transform
from occupancy_nn_ros.messages.names import ODOMETRY, TF_MESSAGE
from occupancy_nn_ros.runtime.drop_counts import DropCounts, kind_of
from occupancy_nn_ros.sync.frame_names import FrameNames
from occupancy_nn_ros.sync.placement import Placement
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import StampedTransform

IGNORED = "transform much older than its frame's newest"


class PoseIntake:
    """Feeds a :class:`~occupancy_nn_ros.sync.placement.Placement`.

    Attributes:
        placement: knows where things are.
        tf_topics: topics of transforms, and whether they are static.
        pose_topics: topics of odometry and poses, with their message types.
        readers: take the bytes of a topic of transforms in place of the own decoder, and give them to :meth:`take_transform`.
    """

    def __init__(self, config: Config, poses: PoseBuffer, odometries: Sequence[str], losses: DropCounts) -> None:
        """Nothing came yet.

        Args:
            config: names of topics and frames.
            poses: the transform tree.
            odometries: topics that may place the robot where TF does not, unless ``pose_topic`` is set.
            losses: is told what cannot be used.
        """
        self.config, self.placement, self.losses = config, Placement(config, poses), losses
        self.tf_topics = {config.tf_topic: False, config.tf_static_topic: True}
        self.readers: dict[str, Callable[[bytes], None]] = {}
        self.pose_topics: dict[str, str] = (
            {config.pose_topic: config.pose_type} if config.pose_topic else dict.fromkeys(odometries, ODOMETRY)
        )

    @property
    def topics(self) -> dict[str, str]:
        """Every topic to listen to, with its message type."""
        return dict.fromkeys(self.tf_topics, TF_MESSAGE) | self.pose_topics

    def receive(self, topic: str, cdr: bytes) -> None:
        """Take a message of one of the topics.

        Raises:
            MessageError: it does not decode.
            TransformError: a pose that is none.
        """
        if topic in self.readers:
            self.readers[topic](cdr)
        elif topic in self.tf_topics:
            unusable: list[TransformError] = []
            transforms = decode_tf(cdr, unusable)
            self._refuse(topic, unusable)
            self.add_transforms(topic, transforms, is_static=self.tf_topics[topic])
        elif not self._add_pose(topic, cdr):
            self._note_old(topic, "a pose")

    def take_transform(self, topic: str, message: Any) -> None:
        """Take one TransformStamped of one of the topics, which another library has received; a bad one is counted."""
        try:
            transform = decode_transform(message)
        except TransformError as error:
            self._refuse(topic, [error])
            return
        self.add_transforms(topic, [transform], is_static=self.tf_topics[topic])

    def add_transforms(self, topic: str, transforms: Iterable[StampedTransform], *, is_static: bool) -> None:
        """Take transforms that came on a topic; those that cannot be used are counted."""
        for transform in transforms:
            try:
                is_taken = self.placement.poses.set_transform(transform, is_static=is_static)
            except TransformError as error:
                self._refuse(topic, [error])
                continue
            if not is_taken:
                self._note_left_out(topic, transform)

    def forget_others(self, names: FrameNames) -> list[str]:
        """Stop expecting odometry that does not place the robot; returns its topics."""
        kept = {self.config.pose_topic, names.pose.topic if names.pose is not None else ""}
        others = [topic for topic in self.pose_topics if topic not in kept]
        for topic in others:
            del self.pose_topics[topic]
        return others

    def _add_pose(self, topic: str, cdr: bytes) -> bool:
        pose = decode_pose(self.pose_topics[topic], cdr)
        return self.placement.add_pose(topic, pose) or self._is_unneeded(topic)

    def _is_unneeded(self, topic: str) -> bool:
        names = self.placement.names
        return names is not None and (names.pose is None or names.pose.topic != topic)

    def _refuse(self, topic: str, errors: Iterable[TransformError]) -> None:
        for error in errors:
            self.losses.add(f"{topic}: {kind_of(error)}", f"{topic}: {error}")

    def _note_left_out(self, topic: str, transform: StampedTransform) -> None:
        parent, child = transform.target_frame, transform.source_frame
        rivals = self.placement.poses.rivals.get(child, set())
        if self.placement.poses.parent(child) != parent and parent in rivals:
            named = ", ".join(f"'{name}'" for name in sorted(rivals))
            text = f"'{child}' has several parents ({named}): only '{self.placement.poses.parent(child)}' is used"
            self.losses.add(f"{topic}: frame with several parents", text)
        else:
            self._note_old(topic, f"the transform from '{child}' to '{parent}'")

    def _note_old(self, topic: str, what: str) -> None:
        self.losses.add(
            f"{topic}: {IGNORED}", f"{topic}: {what} has a stamp far behind its newest and was ignored: another clock?"
        )
