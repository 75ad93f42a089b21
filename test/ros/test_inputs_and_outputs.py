# SPDX-License-Identifier: Apache-2.0
"""Inputs besides cameras and TF, over real DDS: odometry in place of TF, a LiDAR beside the cameras. And what the same
node offers: heavy outputs within their limit, and the topics that the settings for Nav2 name.
"""

from pathlib import Path

import numpy as np
import yaml
from box_drive import STEPS, TOPICS, counted, write_drive

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.decode import decode_tf
from occupancy_nn_ros.messages.sensors import encode_odometry, encode_point_cloud, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import StampedTransform

NODE = "/occupancy_nn"
NAV2 = Path(__file__).parents[2] / "config" / "nav2"
MAST = make_transform((0, 0, 0.5), (0, 0, 1, 0))  # stands at the start and looks back
WALL_M = 2.1


def messages(bag):
    """The bag's, with odometry for /tf and a LiDAR on a mast that sees a wall 2.1 m behind the start."""
    across, up = np.meshgrid(np.linspace(-0.9, 0.9, 40), np.linspace(-0.4, 0.4, 20))
    points = np.stack([np.full_like(up, WALL_M), across, up], axis=-1).reshape(-1, 3).astype(np.float32)
    yield "/tf_static", names.TF_MESSAGE, encode_tf([StampedTransform(0, "odom", "mast", MAST)])
    with BagReader(bag) as reader:
        for message in reader.messages():
            if message.topic == "/tf":
                yield "/odometry", names.ODOMETRY, encode_odometry(decode_tf(message.cdr)[0])
                continue
            yield message.topic, message.msgtype, message.cdr
            if message.topic == "/front/image_raw":
                yield "/mast/points", names.POINT_CLOUD, encode_point_cloud(message.stamp_ns, "mast", points)


def send(graph, sent, pause_s):
    """Offer the topics of messages, wait until the node listens to all, and publish one after the other."""
    topics = {topic: msgtype for topic, msgtype, _ in sent}
    for topic, msgtype in topics.items():
        graph.offer(topic, msgtype)
    graph.wait_for_node(topics)
    for topic, _, cdr in sent:
        graph.publishers[topic].publish(cdr)
        graph.spin(pause_s)


def test_cameras_and_a_lidar_placed_by_odometry(graph, start_node, small_bag, tiny_model):
    from geometry_msgs.msg import Point

    from occupancy_nn_ros.ros.qos import LATCHED_QOS, STATUS_QOS

    cameras = {"front": "/front/image_raw", "back": "/back/image_raw", "mast": "/mast/points"}
    settings = {
        "model": tiny_model, "map.size_xy_m": 8.0, "network.threads": 1, "network.gain": 0.05,
        "outputs.voxels_period_s": 0.0, "outputs.voxels_max_mb_s": 0.05, "cameras": f"[{', '.join(cameras)}]", "pose_topic": "/odometry",
        **{f"{name}.image_topic": topic for name, topic in cameras.items()},
    }  # fmt: skip
    start_node(*(part for key, value in settings.items() for part in ("-p", f"{key}:={value}")))
    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    graph.listen(f"{NODE}/voxel_grid", names.VOXEL_GRID, LATCHED_QOS)
    sent = list(messages(small_bag))
    send(graph, sent, 0.02)

    def status():
        return deserialize(names.MAP_STATUS, graph.received[f"{NODE}/status"][-1])

    graph.until(lambda: graph.received[f"{NODE}/status"] and status().keyframes >= 3)
    assert list(status().camera_names) == list(cameras)
    assert status().frames_received.min() >= 6
    assert {"predict", "integrate"} <= set(status().stages)
    # A grid takes the link of 0.05 MB/s for longer than the recording lasts: the others are held back and counted.
    assert [len(cdr) > 65_000 for cdr in graph.received[f"{NODE}/voxel_grid"]] == [True]
    drops = dict(zip(status().drop_reasons, status().drop_counts, strict=True))
    assert 2 <= drops["voxel_grid: over outputs.voxels_max_mb_s"] <= status().keyframes - 1
    points = [Point(x=-WALL_M, y=float(y), z=0.5) for y in (-0.5, 0.1, 0.5)] + [Point(x=-1.0, y=0.0, z=0.5)]
    answer = graph.call(f"{NODE}/query_occupancy", "occupancy_nn_ros/srv/QueryOccupancy", points=points)
    assert list(answer.state) == [1, 1, 1, 0]

    assert_nav2_finds_its_topics(graph.node)


def test_a_depth_camera_that_the_lidar_contradicts_is_left_out_live(graph, start_node, tmp_path):
    """0.1 mm in 16UC1, by another sensor of the same node: counted, said, and nothing of it stays."""
    from occupancy_nn_ros.ros.qos import STATUS_QOS

    settings = {"source": "depth", "map.size_xy_m": 10.0, "cameras": "[lidar, front]"}
    settings |= {f"{name}.image_topic": TOPICS[name] for name in ("lidar", "front")}
    node = start_node(*(part for key, value in settings.items() for part in ("-p", f"{key}:={value}")))
    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    with BagReader(write_drive(tmp_path / "drive.mcap", counted(0.0001), sensors=("lidar", "front"))) as reader:
        sent = [(message.topic, message.msgtype, message.cdr) for message in reader.messages()]
    send(graph, sent, 0.05)

    def dropped():
        status = deserialize(names.MAP_STATUS, graph.received[f"{NODE}/status"][-1])
        return dict(zip(status.drop_reasons, status.drop_counts, strict=True))

    graph.until(
        lambda: graph.received[f"{NODE}/status"] and dropped().get("front: depth is not in metres", 0) >= STEPS - 3
    )
    assert {reason.split(": ")[0] for reason in dropped()} == {"front"}
    graph.spin(2.5)  # warnings are looked for once a second or so
    code, output = node.stop()
    assert code == 0
    assert "set cameras.front.depth_unit_m to 0.0001" in output


def named_topics(values):
    """Every topic that a settings file of Nav2 names."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from named_topics(value)
        elif key in ("topic", "map_topic"):
            yield value


def assert_nav2_finds_its_topics(node):
    """Names, types, and a QoS that Nav2's subscriptions match."""
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    named = {topic for path in NAV2.glob("*.yaml") for topic in named_topics(yaml.safe_load(path.read_text()))}
    assert named == {f"{NODE}/occupancy_grid", f"{NODE}/occupied_voxels"}
    (grid,), (cloud,) = (node.get_publishers_info_by_topic(topic) for topic in sorted(named))
    assert grid.topic_type == "nav_msgs/msg/OccupancyGrid"
    assert grid.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL  # map_subscribe_transient_local: true
    assert grid.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert cloud.topic_type == "sensor_msgs/msg/PointCloud2"
    assert cloud.qos_profile.reliability == ReliabilityPolicy.RELIABLE  # serves Nav2's best-effort subscription too
