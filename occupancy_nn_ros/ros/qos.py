# SPDX-License-Identifier: Apache-2.0
"""Named QoS profiles, each with its reason."""

from collections.abc import Collection

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

TF_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE)
"""Transforms, as tf2 subscribes to them."""

LATCHED_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Grids and maps: who joins late gets the last one, as Nav2's StaticLayer and RViz's Map display expect."""

TF_STATIC_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Static transforms, as tf2 subscribes to them."""

STREAM_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Clouds and markers: only the newest matters."""

STATUS_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Status and diagnostics."""


def sensor_qos(
    reliability: str, depth: int, offered: Collection[QoSProfile], *, takes_latched: bool = False
) -> QoSProfile:
    """Images, clouds, poses and camera_info.

    Args:
        reliability: ``reliable``, ``best_effort``, or ``auto``: reliable if all publishers are, because large best-effort
            images get lost between processes; else best effort, which gets data from either kind.
        depth: messages that may wait.
        offered: what the topic's publishers offer now.
        takes_latched: whether what was sent before is still true, as intrinsics are and images are not: it is asked for where all
            publishers keep it.
    """
    all_reliable = bool(offered) and all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
    is_reliable = all_reliable if reliability == "auto" else reliability == "reliable"
    policy = ReliabilityPolicy.RELIABLE if is_reliable else ReliabilityPolicy.BEST_EFFORT
    is_latched = takes_latched and bool(offered)
    is_latched &= all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    durability = DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy, durability=durability)
