# SPDX-License-Identifier: Apache-2.0
"""A depth camera that sees a wall, over real DDS: how a node is told to map it, and where its grid shows it."""

from __future__ import annotations

import numpy as np

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import CameraModel

MODEL = CameraModel(32, 24, np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]]), "plumb_bob", np.zeros(5))
T_BASE_CAM = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.8], [0, 0, 0, 1]])
SETTINGS = ("-p", "source:=depth", "-p", "keyframes.max_period_s:=0.2", "-p", "map.size_xy_m:=12.0")


def wall_seen_m(graph, node):
    """Where the nearest lethal cells ahead lie in a node's newest grid, from the map frame's origin; None before there are any."""
    received = graph.received[f"{node}/occupancy_grid"]
    if not received:
        return None
    grid = deserialize(names.OCCUPANCY_GRID, received[-1])
    cells = np.asarray(grid.data).reshape(grid.info.height, grid.info.width) == 100
    columns = np.flatnonzero(cells.any(axis=0))
    return grid.info.origin.position.x + columns[0] * grid.info.resolution if len(columns) else None
