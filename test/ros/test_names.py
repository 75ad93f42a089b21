# SPDX-License-Identifier: Apache-2.0
"""Namespaces, remapped and relative names, over real DDS: whose images a node takes, and with whose transforms it places them."""

import itertools

import numpy as np
import pytest
from wall_ahead import MODEL, SETTINGS, T_BASE_CAM, wall_seen_m

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import StampedTransform

START_NS = 1_700_000_000_000_000_000
NAMESPACED_TF = ("-r", "/tf:=tf", "-r", "/tf_static:=tf_static")


class Robot:
    """Publishes what a depth camera sees of a wall at some distance, all under one prefix."""

    def __init__(self, graph, prefix, wall_m, image="front/depth/image_raw", info="front/depth/camera_info"):
        self.graph, self.wall_m = graph, wall_m
        self.image, self.info = f"{prefix}/{image}", f"{prefix}/{info}"
        self.tf, self.tf_static = f"{prefix}/tf", f"{prefix}/tf_static"
        self.topics = {
            self.image: names.IMAGE, self.info: names.CAMERA_INFO, self.tf: names.TF_MESSAGE, self.tf_static: names.TF_MESSAGE,
        }  # fmt: skip
        from occupancy_nn_ros.ros.message_types import interface_class
        from occupancy_nn_ros.ros.qos import TF_QOS, TF_STATIC_QOS

        self.publishers = {
            topic: graph.node.create_publisher(
                interface_class(kind), topic, TF_STATIC_QOS if topic == self.tf_static else TF_QOS
            )
            for topic, kind in self.topics.items()
        }
        self.listen(f"{prefix}/occupancy_nn")
        self.publishers[self.tf_static].publish(encode_tf([StampedTransform(START_NS, "base_link", "eye", T_BASE_CAM)]))

    def listen(self, node):
        from occupancy_nn_ros.ros.qos import LATCHED_QOS, STATUS_QOS

        self.node = node
        self.graph.listen(f"{node}/occupancy_grid", names.OCCUPANCY_GRID, LATCHED_QOS)
        self.graph.listen(f"{node}/status", names.MAP_STATUS, STATUS_QOS)

    def is_heard(self):
        """Whether a node has taken the camera: to its images one may listen only to learn what they hold."""
        return all(self.publishers[topic].get_subscription_count() > 0 for topic in (self.image, self.info))

    def is_left_alone(self):
        return not any(self.publishers[topic].get_subscription_count() for topic in (self.image, self.info))

    def send(self, n):
        stamp = START_NS + n * 200_000_000
        self.publishers[self.tf].publish(encode_tf([StampedTransform(stamp, "odom", "base_link", np.eye(4))]))
        self.publishers[self.info].publish(encode_camera_info(stamp, "eye", MODEL))
        depth = np.full((24, 32), self.wall_m, np.float32)
        self.publishers[self.image].publish(encode_depth_image(stamp, "eye", depth))

    def wall_seen_m(self):
        return wall_seen_m(self.graph, self.node)


def send_until_mapped(graph, *robots):
    """Send until the walls are on the robots' grids, whatever a busy machine loses; returns how often."""
    counter = itertools.count()

    def is_mapped():
        n = next(counter)
        for robot in robots:  # in phase: stamps alone do not tell them apart
            robot.send(n)
        graph.spin(0.1)
        return n >= 10 and all(robot.wall_seen_m() is not None for robot in robots)

    graph.until(is_mapped)
    return next(counter)


def test_two_robots_in_one_graph_map_their_own_rooms(graph, start_node):
    robots = [Robot(graph, "/robot1", 2.0), Robot(graph, "/robot2", 4.0)]
    for n in (1, 2):
        start_node(*SETTINGS, *NAMESPACED_TF, namespace=f"/robot{n}")
    graph.until(lambda: all(robot.is_heard() for robot in robots))
    send_until_mapped(graph, *robots)
    assert [robot.wall_seen_m() for robot in robots] == pytest.approx([2.0, 4.0], abs=0.21)
    assert [robot.publishers[robot.image].get_subscription_count() for robot in robots] == [1, 1]


def test_a_node_takes_no_other_robots_cameras_while_its_own_are_missing(graph, start_node):
    from occupancy_nn_ros.ros.qos import STATUS_QOS

    other = Robot(graph, "/robot2", 2.0)
    graph.listen("/diagnostics", names.DIAGNOSTIC_ARRAY, STATUS_QOS)
    node = start_node(*SETTINGS, *NAMESPACED_TF, namespace="/robot1")

    def text():
        received = graph.received["/diagnostics"]
        return deserialize(names.DIAGNOSTIC_ARRAY, received[-1]).status[0].message if received else ""

    graph.until(lambda: "topics of other robots (/robot2) are theirs: set this node's namespace" in text())
    graph.spin(4.0)  # beyond the patience after which it looks elsewhere
    assert other.is_left_alone()
    assert node.stop()[0] == 0


def test_a_silent_node_takes_its_grid_back(graph, start_node):
    robot = Robot(graph, "", 2.0)
    node = start_node(*SETTINGS, "-p", "outputs.stale_after_s:=3.0")
    graph.until(robot.is_heard)
    sent = send_until_mapped(graph, robot)

    def cells():
        return set(
            np.unique(deserialize(names.OCCUPANCY_GRID, graph.received[f"{robot.node}/occupancy_grid"][-1]).data)
        )

    assert {0, 100} <= cells()
    graph.until(lambda: cells() == {-1})
    for n in range(sent, sent + 6):
        robot.send(n)
        graph.spin(0.2)
    graph.until(lambda: {0, 100} <= cells())
    code, output = node.stop()
    assert code == 0 and output.count("the grids go out as unknown") == 1


def test_cameras_outside_the_namespace_are_taken_late_and_said(graph, start_node):
    shared = Robot(graph, "", 2.0)
    node = start_node(*SETTINGS, namespace="/robot1")
    graph.until(shared.is_heard)
    code, output = node.stop()
    assert code == 0
    assert "no sensors in /robot1; taking those elsewhere: /front/depth/image_raw" in output


@pytest.mark.parametrize(
    ("namespace", "arguments"),
    [
        ("", ("-p", "eye.image_topic:=/cam/image", "-r", "/cam/image:=/front/pic", "-r", "/cam/camera_info:=/front/cal")),
        ("", ("-p", "eye.image_topic:=front/pic", "-p", "eye.camera_info_topic:=front/cal")),
        ("/robot1", ("-p", "eye.image_topic:=front/pic", "-p", "eye.camera_info_topic:=front/cal", *NAMESPACED_TF)),
        # Rules apply once: what /front/pic would be remapped to is not what the first rule leads to.
        ("", ("-p", "eye.image_topic:=/a", "-p", "eye.camera_info_topic:=/front/cal", "-r", "/a:=/front/pic", "-r", "/front/pic:=/a")),
    ],
    ids=["remapped", "relative", "relative in a namespace", "swapped"],
)  # fmt: skip
def test_remapped_and_relative_names_of_inputs(graph, start_node, namespace, arguments):
    robot = Robot(graph, namespace, 2.0, image="front/pic", info="front/cal")
    node = start_node(
        *SETTINGS, "-p", "cameras:=[eye]", "-p", "eye.kind:=depth", *arguments, **({"namespace": namespace} if namespace else {})
    )  # fmt: skip
    graph.until(robot.is_heard)
    send_until_mapped(graph, robot)
    assert robot.wall_seen_m() == pytest.approx(2.0, abs=0.21)
    assert node.stop()[0] == 0
