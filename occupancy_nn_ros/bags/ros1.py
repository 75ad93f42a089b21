# SPDX-License-Identifier: Apache-2.0
"""ROS 1 messages to CDR, each topic by the definition that came with it."""

from __future__ import annotations

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from occupancy_nn_ros.bags.recorded_file import Channel
from occupancy_nn_ros.errors import MessageError

HEADER = "std_msgs/msg/Header"
OLD_NAMES = {"tf2_msgs/msg/TFMessage": ("tf/msg/tfMessage", "tf2_msgs/msg/TFMessage")}


class Ros1Converter:
    """Converts the messages of one channel."""

    def __init__(self, channel: Channel) -> None:
        """Read the channel's definition; types that it leaves out are taken from ROS Noetic.

        Raises:
            MessageError: the type cannot be put together.
        """
        self._type, self._store = _store_for(channel)

    def to_cdr(self, data: bytes) -> bytes:
        """The message in ROS 2's encoding, whose header has no sequence number.

        Raises:
            MessageError: the bytes do not decode.
        """
        try:
            return bytes(self._store.ros1_to_cdr(data, self._type))
        except Exception as error:  # rosbags checks nothing itself
            raise MessageError(f"{len(data)} bytes of ROS 1 do not decode as {self._type}: {error!r}") from None


def _store_for(channel: Channel) -> tuple[str, Typestore]:
    noetic = get_typestore(Stores.ROS1_NOETIC).fielddefs
    errors = []
    for name in OLD_NAMES.get(channel.msgtype, (channel.msgtype,)):
        for use_own in (True, False):
            try:
                own = get_types_from_msg(channel.definition, name) if use_own and channel.definition else {}
                store = get_typestore(Stores.EMPTY)
                store.register({**noetic, **own, HEADER: get_typestore(Stores.ROS2_JAZZY).fielddefs[HEADER]})
                store.generate_msgdef(name)  # all that it is made of is known
            except Exception as error:
                errors.append(repr(error))
            else:
                return name, store
    raise MessageError(f"type {channel.msgtype} cannot be put together: {'; '.join(errors)}")
