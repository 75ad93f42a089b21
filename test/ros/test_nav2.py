# SPDX-License-Identifier: Apache-2.0
"""The topics in config/nav2 as the live node offers them: names, types, and a QoS that Nav2's subscriptions match."""

from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "config" / "nav2"


def topics(values):
    """Every topic that a settings file names."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from topics(value)
        elif key in ("topic", "map_topic"):
            yield value


def test_nav2_finds_the_topics_that_its_settings_name(graph, start_node):
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    named = {topic for path in FOLDER.glob("*.yaml") for topic in topics(yaml.safe_load(path.read_text()))}
    assert named == {"/occupancy_nn/occupancy_grid", "/occupancy_nn/occupied_voxels"}
    start_node("-p", "source:=depth")
    graph.until(lambda: all(graph.node.count_publishers(topic) for topic in named))
    offered = {topic: graph.node.get_publishers_info_by_topic(topic)[0] for topic in named}
    grid, cloud = offered["/occupancy_nn/occupancy_grid"], offered["/occupancy_nn/occupied_voxels"]
    assert grid.topic_type == "nav_msgs/msg/OccupancyGrid"
    assert grid.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL  # map_subscribe_transient_local: true
    assert grid.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert cloud.topic_type == "sensor_msgs/msg/PointCloud2"
    assert cloud.qos_profile.reliability == ReliabilityPolicy.RELIABLE  # serves Nav2's best-effort subscription too
