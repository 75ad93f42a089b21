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


REPEATER = """
import threading

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.messages.maps import encode_occupancy_grid
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutMessage
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.values import GridSlice

rclpy.init()
node = rclpy.create_node("repeater")
context = NodeContext(node, load_config([], ["outputs.grid_repeat_s=0.1"]), phase="active")
publishers = OutputPublishers(context)
executor = SingleThreadedExecutor()
executor.add_node(node)


def send(stamp):
    grid = encode_occupancy_grid(GridSlice(stamp, "odom", 0.2, (0.0, 0.0, 0.0), np.zeros((9, 9), np.int8)))
    publishers.publish([OutMessage(OUTPUTS[0], stamp, grid)])


def work():  # as the worker's thread does, whose second keyframe takes long
    while publishers.wanted() != {"occupancy_grid"}:
        pause.wait(0.05)
    pause.wait(1.0)
    send(1)
    pause.wait(0.8)
    send(2)
    pause.wait(0.6)
    context.is_paused = True
    pause.wait(0.6)
    publishers.forget()
    context.is_paused = False
    pause.wait(0.6)
    rclpy.shutdown()


pause = threading.Event()
threading.Thread(target=work).start()
try:
    executor.spin()
except Exception:
    pass
"""


def test_grids_go_out_at_their_rate_while_a_keyframe_takes_long_and_the_old_never_follows_the_new(graph):
    from rclpy.qos import DurabilityPolicy, QoSProfile

    graph.listen(
        "/repeater/occupancy_grid",
        names.OCCUPANCY_GRID,
        QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    )
    sender = subprocess.Popen([sys.executable, "-c", REPEATER])
    try:
        graph.until(lambda: sender.poll() is not None)
        graph.spin(0.5)
    finally:
        sender.kill()
    grids = [peek_header(cdr).stamp_ns for cdr in graph.received["/repeater/occupancy_grid"]]
    assert grids == sorted(grids)
    assert 3 <= grids.count(1) <= 9
    assert 2 <= grids.count(2) <= 7  # none while it is paused, none after the map was forgotten


WITHOUT_OCTOMAP = """
import sys
sys.modules["octomap_msgs"] = sys.modules["octomap_msgs.msg"] = None
import rclpy
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.publishers import OutputPublishers
rclpy.init()
node = rclpy.create_node("sender")
publishers = OutputPublishers(NodeContext(node, Config()))
print(*(name for name, _ in node.get_publisher_names_and_types_by_node("sender", "/")))
rclpy.shutdown()
"""


def test_a_message_package_that_is_missing_costs_its_topic_and_is_said_in_one_line(graph):
    done = subprocess.run([sys.executable, "-c", WITHOUT_OCTOMAP], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    topics = done.stdout.split()
    assert "/sender/occupancy_grid" in topics and "/sender/markers" in topics
    assert "/sender/octomap_binary" not in topics
    (line,) = [line for line in done.stderr.splitlines() if "octomap" in line]
    assert "~/octomap_binary is left out: octomap_msgs is not installed" in line
