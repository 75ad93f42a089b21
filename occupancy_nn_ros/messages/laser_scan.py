# SPDX-License-Identifier: Apache-2.0
"""A 2D scan as ``sensor_msgs/LaserScan``."""

from __future__ import annotations

import math

from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.values import Float32Array


def encode_laser_scan(stamp_ns: int, frame_id: str, ranges_m: Float32Array, limits_m: tuple[float, float]) -> bytes:
    """A full turn from -pi on, counter-clockwise, taken in one moment.

    Args:
        stamp_ns: when it holds.
        frame_id: frame of the scan, z up.
        ranges_m: (N,) ranges by REP 117: ``inf`` beyond the limit, NaN not known.
        limits_m: least and greatest range.
    """
    step = 2 * math.pi / max(len(ranges_m), 1)
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.put("f", -math.pi, math.pi - step, step, 0.0, 0.0, *limits_m)
    writer.block(len(ranges_m), ranges_m.astype("<f4"), 4)
    writer.put("I", 0)
    return writer.bytes()
