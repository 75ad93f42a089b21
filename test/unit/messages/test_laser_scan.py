# SPDX-License-Identifier: Apache-2.0
"""A laser scan as points, and back."""

import numpy as np
import pytest

from occupancy_nn_ros.errors import MessageError
from occupancy_nn_ros.messages.laser_scan import decode_laser_scan, encode_laser_scan


def test_a_scan_becomes_its_points_without_what_is_not_known():
    ranges = np.array(
        [2.0, np.inf, 3.0, np.nan, 0.05, 30.0, 4.0, 1.0], np.float32
    )  # from -180 degrees on, in steps of 45
    header, points = decode_laser_scan(encode_laser_scan(7_000_000_005, "laser", ranges, (0.1, 20.0)))
    assert (header.stamp_ns, header.frame_id) == (7_000_000_005, "laser")
    half = np.sqrt(0.5)
    assert points == pytest.approx(np.array([[-2, 0, 0], [0, -3, 0], [0, 4, 0], [-half, half, 0]]), abs=1e-5)
    assert points.dtype == np.float32


def test_an_empty_and_a_broken_scan():
    message = encode_laser_scan(1, "laser", np.full(40, 2.0, np.float32), (0.1, 20.0))
    assert decode_laser_scan(encode_laser_scan(1, "laser", np.zeros(0, np.float32), (0.1, 20.0)))[1].shape == (0, 3)
    with pytest.raises(MessageError):
        decode_laser_scan(message[:60])
