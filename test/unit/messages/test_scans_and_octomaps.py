# SPDX-License-Identifier: Apache-2.0
"""Messages for other nodes, read back by other libraries."""

import numpy as np
import pytest

from occupancy_nn_ros.mapping.exports import octree
from occupancy_nn_ros.messages.laser_scan import encode_laser_scan
from occupancy_nn_ros.messages.names import LASER_SCAN, OCTOMAP
from occupancy_nn_ros.messages.octomap import encode_octomap
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.values import LatticeWindow, MapView

STAMP = 1_700_000_000_123_456_789


def test_laser_scan():
    ranges = np.array([1.0, np.inf, np.nan, 2.5], np.float32)
    cdr = encode_laser_scan(STAMP, "base_link", ranges, (0.05, 12.0))
    message = deserialize(LASER_SCAN, cdr)
    assert (message.header.frame_id, message.header.stamp.nanosec) == ("base_link", 123_456_789)
    assert message.angle_min == pytest.approx(-np.pi)
    assert message.angle_increment == pytest.approx(np.pi / 2)
    assert message.angle_max == pytest.approx(np.pi / 2)
    assert (message.range_min, message.range_max) == pytest.approx((0.05, 12.0))
    assert (message.time_increment, message.scan_time, len(message.intensities)) == (0, 0, 0)
    np.testing.assert_array_equal(message.ranges, ranges)
    assert serialize(message) == cdr


def test_octomap_is_what_octomap_reads(tmp_path):
    """A .bt file is a header and the very bytes of the message."""
    pyoctomap = pytest.importorskip("pyoctomap", reason="pyoctomap is not built for this machine")
    rng = np.random.default_rng(3)
    shape, origin = (9, 8, 7), (-4, 3, -2)
    state = rng.integers(-1, 2, shape).astype(np.int8)
    view = MapView(
        STAMP, "odom", LatticeWindow(0.25, origin, shape), np.eye(4), state, state * 1.0, np.zeros(shape, np.uint8)
    )
    nodes, count = octree(view)
    message = deserialize(OCTOMAP, encode_octomap(STAMP, "odom", 0.25, nodes))
    assert (message.header.frame_id, message.binary, message.id, message.resolution) == ("odom", True, "OcTree", 0.25)
    header = f"# Octomap OcTree binary file\n#\nid {message.id}\nsize {count}\nres {message.resolution}\ndata\n"
    (tmp_path / "map.bt").write_bytes(header.encode() + message.data.tobytes())
    tree = pyoctomap.OcTree(0.25)
    assert tree.readBinary(str(tmp_path / "map.bt"))
    for cell in np.ndindex(*shape):
        center = (np.array(cell) + origin + 0.5) * 0.25
        node = tree.search(center)
        found = -1 if node is None else int(tree.isNodeOccupied(node))
        assert found == state[cell], cell
