# SPDX-License-Identifier: Apache-2.0
"""A 2D scan as ``sensor_msgs/LaserScan``."""

from __future__ import annotations

import math

import numpy as np

from occupancy_nn_ros.messages.cdr import CdrWriter
from occupancy_nn_ros.messages.headers import Header, peek_header
from occupancy_nn_ros.messages.names import LASER_SCAN
from occupancy_nn_ros.messages.typestore import deserialize
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


def decode_laser_scan(cdr: bytes | memoryview) -> tuple[Header, Float32Array]:
    """Points (N, 3) of a scan in its own frame, all at z = 0; what is at the upper limit, beyond one, or not known is left out.

    Raises:
        MessageError: the bytes do not decode.
    """
    header, scan = peek_header(cdr), deserialize(LASER_SCAN, cdr)
    ranges = np.asarray(scan.ranges, dtype=np.float64)
    angles = scan.angle_min + scan.angle_increment * np.arange(len(ranges))
    known = np.isfinite(ranges) & (ranges >= scan.range_min) & (ranges < scan.range_max) & np.isfinite(angles)
    ranges, angles = ranges[known], angles[known]
    points = np.column_stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros(len(ranges))])
    return header, points.astype(np.float32)
