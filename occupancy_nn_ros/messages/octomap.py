# SPDX-License-Identifier: Apache-2.0
"""An OctoMap tree as ``octomap_msgs/Octomap``, as octomap_server publishes it: for MoveIt's planning scene and RViz's OctoMap display."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.messages.cdr import CdrWriter


def encode_octomap(stamp_ns: int, frame_id: str, resolution_m: float, nodes: bytes) -> bytes:
    """A binary OcTree.

    Args:
        stamp_ns: time of the newest data.
        frame_id: the map frame.
        resolution_m: edge of a voxel.
        nodes: depth-first, 16 bits for each node that has children, as in a .bt file after its header.
    """
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.put("B", 1)
    writer.string("OcTree")
    writer.put("d", resolution_m)
    writer.block(len(nodes), np.frombuffer(nodes, np.int8), 1)
    return writer.bytes()
