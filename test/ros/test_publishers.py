# SPDX-License-Identifier: Apache-2.0
"""What is sent arrives, between two processes over real DDS with its usual half megabyte of shared memory."""

import subprocess
import sys

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.headers import peek_header

ROUNDS = 60
SENDER = f"""
import time

import numpy as np
import rclpy

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.messages.maps import encode_occupancy_grid
from occupancy_nn_ros.messages.sensors import encode_point_cloud
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutMessage
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.values import GridSlice

rclpy.init()
publishers = OutputPublishers(NodeContext(rclpy.create_node("sender"), Config()))
while publishers.wanted() != {{"occupancy_grid", "occupied_voxels"}}:
    time.sleep(0.05)
time.sleep(1.0)  # until the other side knows them as well
topics = {{topic.name: topic for topic in OUTPUTS}}
points, cells = np.zeros((70_000, 3), np.float32), np.zeros((200, 200), np.int8)
for stamp in range(1, {ROUNDS} + 1):
    grid = encode_occupancy_grid(GridSlice(stamp, "odom", 0.2, (0.0, 0.0, 0.0), cells))
    cloud = encode_point_cloud(stamp, "odom", points)
    publishers.publish([
        OutMessage(topics["occupancy_grid"], stamp, grid),
        OutMessage(topics["occupied_voxels"], stamp, cloud),
    ])
    time.sleep(0.15)
"""


def test_no_grid_is_lost_to_the_cloud_that_is_sent_with_it(graph):
    from rclpy.qos import DurabilityPolicy, QoSProfile

    waiting = QoSProfile(depth=ROUNDS, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    graph.listen("/sender/occupancy_grid", names.OCCUPANCY_GRID, waiting)
    graph.listen("/sender/occupied_voxels", names.POINT_CLOUD, QoSProfile(depth=ROUNDS))
    sender = subprocess.Popen([sys.executable, "-c", SENDER])
    try:
        graph.until(lambda: sender.poll() is not None)
        graph.spin(0.5)
    finally:
        sender.kill()
    assert sender.wait() == 0
    grids = [peek_header(cdr).stamp_ns for cdr in graph.received["/sender/occupancy_grid"]]
    assert grids == list(range(1, ROUNDS + 1))
