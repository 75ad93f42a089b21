# SPDX-License-Identifier: Apache-2.0
"""Transforms by tf2_ros: its TransformListener receives them, its Buffer keeps and interpolates them.

Between the two stands the intake. A tf2 buffer takes what comes: one stray stamp of another clock pushes out all that it holds,
of two parents the later one wins, and a jump is interpolated. What the intake's tree accepts goes into the buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from rclpy.time import Time

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ExtrapolationError, LookupTransformError, MessageError, MissingDependencyError
from occupancy_nn_ros.geometry.poses import make_transform, quaternion
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.qos import TF_QOS, TF_STATIC_QOS
from occupancy_nn_ros.runtime.pose_intake import PoseIntake
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import FloatArray, StampedTransform

AUTHORITY = "occupancy_nn"
NOT_LATEST_NS = 1
"""tf2 takes a stamp of 0 for "the latest", and a simulation may begin at 0: all stamps are this much later in the buffer."""


def uses_tf2(config: Config) -> bool:
    """Whether the node's transforms come from tf2_ros.

    Raises:
        MissingDependencyError: ``tf_source`` says so, and it is not installed.
    """
    is_there = find_spec("tf2_ros") is not None
    if config.tf_source == "tf2" and not is_there:
        raise MissingDependencyError(
            "tf_source is 'tf2' and tf2_ros is not installed: apt install ros-$ROS_DISTRO-tf2-ros-py, or tf_source 'auto'"
        )
    return is_there and config.tf_source != "builtin"


def make_pose_buffer(config: Config) -> PoseBuffer:
    """The node's transform tree, with a tf2 buffer behind it where that is used.

    Raises:
        MissingDependencyError: as :func:`uses_tf2`.
    """
    cache_ns = round(config.sync.tf_cache_s * 1e9)
    return PoseBuffer(cache_ns, Tf2Store(cache_ns) if uses_tf2(config) else None)


class Tf2Store:
    """A ``tf2_ros.Buffer`` as a :class:`~occupancy_nn_ros.sync.transform_store.TransformStore`."""

    def __init__(self, cache_ns: int) -> None:
        """Keep moving transforms for ``cache_ns`` behind the newest."""
        self._cache = Duration(nanoseconds=cache_ns)
        self._message = interface_class("geometry_msgs/msg/TransformStamped")
        self.clear()

    def clear(self) -> None:
        """Begin with an empty buffer: ``Buffer.clear`` keeps static transforms, and what a frame once was."""
        from tf2_ros import Buffer

        self._buffer = Buffer(self._cache)

    def put(self, transform: StampedTransform, *, is_static: bool) -> None:
        """Take a transform."""
        message = self._message()
        message.header.frame_id, message.child_frame_id = transform.target_frame, transform.source_frame
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(transform.stamp_ns + NOT_LATEST_NS, 1_000_000_000)
        place, turn = message.transform.translation, message.transform.rotation
        place.x, place.y, place.z = transform.T_target_source[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = quaternion(transform.T_target_source).tolist()
        add = self._buffer.set_transform_static if is_static else self._buffer.set_transform
        add(message, AUTHORITY)

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int) -> FloatArray:
        """``T_target_source`` (4, 4) at a stamp.

        Raises:
            LookupTransformError: tf2 does not know it.
            ExtrapolationError: nor at this stamp.
        """
        from tf2_ros import ExtrapolationException, TransformException

        stamp = Time(nanoseconds=max(stamp_ns + NOT_LATEST_NS, NOT_LATEST_NS))  # rclpy has none before 0
        try:
            found = self._buffer.lookup_transform(target_frame, source_frame, stamp).transform
        except ExtrapolationException as error:
            raise ExtrapolationError(f"tf2: {error}", is_future=False) from None
        except TransformException as error:
            raise LookupTransformError(f"tf2: {error}") from None
        place, turn = found.translation, found.rotation
        return make_transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


class Tf2Listener:
    """A ``tf2_ros.TransformListener`` whose transforms go through an intake.

    The listener asks a node for subscriptions and hands transforms to a buffer. This is both for it: the subscriptions are the
    receiver's, on the topics that are configured, in order with the images; the buffer is behind the intake's checks.
    """

    def __init__(self, poses: PoseIntake, subscribe: Callable[[str], Any]) -> None:
        """Listen from now on.

        Args:
            poses: is given the messages, has the listener read them, and takes the transforms.
            subscribe: given a topic of TFMessage; whoever gives it also unsubscribes.
        """
        from tf2_ros import TransformListener

        self._poses, self._subscribe = poses, subscribe
        self._topics = {is_static: topic for topic, is_static in poses.tf_topics.items()}
        self._listener = TransformListener(self, self, qos=TF_QOS, static_qos=TF_STATIC_QOS)

    def create_subscription(self, kind: Any, topic: str, callback: Callable[[Any], None], *_: Any, **__: Any) -> Any:
        """What the listener asks of a node."""
        name = self._topics[topic.endswith("static")]

        def read(cdr: bytes) -> None:
            try:
                message = deserialize_message(cdr, kind)
            except Exception as error:  # rclpy keeps its class to itself
                raise MessageError(f"rclpy cannot read it: {error}") from None
            callback(message)

        self._poses.readers[name] = read
        return self._subscribe(name)

    def destroy_subscription(self, subscription: Any) -> None:
        """What the listener asks of a node when it ends; its subscriptions have ended with the receiver."""

    def set_transform(self, transform: Any, authority: str) -> None:
        """What the listener asks of a buffer; ``authority`` is not known in ROS 2."""
        self._poses.take_transform(self._topics[False], transform)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """What the listener asks of a buffer."""
        self._poses.take_transform(self._topics[True], transform)
