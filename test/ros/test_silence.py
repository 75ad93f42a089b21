# SPDX-License-Identifier: Apache-2.0
"""What a silent node says is wrong, over real DDS: in its log and on /diagnostics, within five seconds."""

import time

import numpy as np
import pytest

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import CameraModel, StampedTransform

MODEL = CameraModel(16, 12, np.array([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]]), "plumb_bob", np.zeros(5))
PROMISE_S = 5.0
TICK_S = 1.0


@pytest.fixture
def qos(graph):
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    keep = {"history": HistoryPolicy.KEEP_LAST, "depth": 10}
    return {
        "best_effort": QoSProfile(reliability=ReliabilityPolicy.BEST_EFFORT, **keep),
        "reliable": QoSProfile(reliability=ReliabilityPolicy.RELIABLE, **keep),
        "latched": QoSProfile(
            reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL, **keep
        ),
    }


class Bench:
    """Publishes and reads diagnostics."""

    def __init__(self, graph, qos):
        self.graph, self.qos, self.publishers, self.began = graph, qos, {}, None
        from occupancy_nn_ros.ros.qos import STATUS_QOS

        graph.listen("/diagnostics", names.DIAGNOSTIC_ARRAY, STATUS_QOS)

    def offer(self, topic, msgtype, profile="reliable"):
        from occupancy_nn_ros.ros.message_types import interface_class

        if topic in self.publishers:
            self.graph.node.destroy_publisher(self.publishers[topic])
        self.publishers[topic] = self.graph.node.create_publisher(interface_class(msgtype), topic, self.qos[profile])

    def text(self):
        received = self.graph.received["/diagnostics"]
        return deserialize(names.DIAGNOSTIC_ARRAY, received[-1]).status[0].message if received else ""

    def asked_reliability(self, topic):
        """What the node under test asks the publishers of a topic for."""
        (info,) = self.graph.node.get_subscriptions_info_by_topic(topic)
        return info.qos_profile.reliability.name

    def wait_for_start(self):
        """Until the first status of the active node, a second after it became that."""
        before = ("unconfigured", "configuring", "inactive")
        self.graph.until(lambda: self.text() and not self.text().startswith(before))
        self.began = time.monotonic() - TICK_S

    def until_says(self, *parts, timeout_s=15.0):
        """Spin until diagnostics hold all parts; returns the seconds since the node became active."""
        end = time.monotonic() + timeout_s
        while missing := [part for part in parts if part not in self.text()]:
            assert time.monotonic() < end, f"{missing} not in: {self.text()}"
            self.graph.spin(0.05)
        return time.monotonic() - self.began


@pytest.fixture
def bench(graph, qos):
    return Bench(graph, qos)


def camera_arguments(**cameras):
    listed = ["-p", f"cameras:=[{', '.join(cameras)}]"]
    return listed + [part for name, text in cameras.items() for item in text for part in ("-p", f"{name}.{item}")]


def stamp_now():
    return time.time_ns()


def test_every_silent_topic_is_named_with_its_reason(bench, graph, start_node):
    for name in "abcd":
        bench.offer(f"/{name}/image", names.IMAGE, "best_effort" if name == "b" else "reliable")
    bench.offer("/c/info", names.CAMERA_INFO)
    bench.offer("/d/pictures", names.IMAGE)
    node = start_node(
        "-p", "source:=depth", "-p", "pose_topic:=/odometry/filtered",
        *camera_arguments(
            a=["image_topic:=/a/image"],
            b=["image_topic:=/b/image", "qos_reliability:=reliable"],
            c=["image_topic:=/c/image", "camera_info_topic:=/c/camera_info"],
            d=["image_topic:=/d/image", "camera_info_topic:=/d/pictures"],
        ),
    )  # fmt: skip
    bench.wait_for_start()
    for _ in range(3):
        for name in "bcd":
            picture = encode_depth_image(stamp_now(), name, np.ones((12, 16), np.float32))
            bench.publishers[f"/{name}/image"].publish(picture)
        graph.spin(0.3)
    seconds = bench.until_says(
        "no message on /a/image (a): /bench offers it with a QoS that matches but sends nothing",
        "no message on /b/image (b): /bench publishes /b/image best effort, this node asks for reliable: set qos_reliability",
        "no camera_info on /c/camera_info (c): nobody publishes it; topics of its type: /c/info",
        "no camera_info on /d/pictures (d): it is published as sensor_msgs/msg/Image, expected sensor_msgs/msg/CameraInfo",
        "no message on /odometry/filtered (pose): nobody publishes it; topics of its type: none",
    )
    assert seconds < PROMISE_S
    assert [bench.asked_reliability(f"/{name}/image") for name in "abc"] == ["RELIABLE"] * 3  # a and c: as offered
    code, output = node.stop()
    assert code == 0
    assert "no map update for 4 s: no message on /a/image (a)" in output
    assert "asks for reliable" in output.split("no map update")[0]  # said once more as soon as DDS reports it


def test_a_wrong_topic_then_no_transform_then_mapping_then_wrong_images_then_none(bench, graph, start_node):
    bench.offer("/front/depth/image_raw", names.IMAGE)
    node = start_node("-p", "source:=depth", *camera_arguments(front=["image_topic:=/frnt/depth/image_raw"]))
    bench.wait_for_start()
    missing = "front.image_topic is /frnt/depth/image_raw, which does not exist; close to it: /front/depth/image_raw"
    assert bench.until_says(missing) < PROMISE_S

    for topic, kind in (("/frnt/depth/image_raw", names.IMAGE), ("/frnt/depth/camera_info", names.CAMERA_INFO)):
        bench.offer(topic, kind)
    bench.offer("/tf_static", names.TF_MESSAGE)  # volatile: a late listener would get nothing
    sending = time.monotonic()

    def send(with_transforms=False, shape=(12, 16)):
        now = stamp_now()
        if with_transforms:
            bench.publishers["/tf"].publish(
                encode_tf([StampedTransform(now + n * 10**8, "odom", "base_link", np.eye(4)) for n in (-1, 1)])
            )
        bench.publishers["/frnt/depth/camera_info"].publish(encode_camera_info(now, "lens", MODEL))
        bench.publishers["/frnt/depth/image_raw"].publish(encode_depth_image(now, "lens", np.ones(shape, np.float32)))
        graph.spin(0.1)

    parts = (
        "no transform from 'base_link' to 'odom'; frames that exist: none",
        "no message on /tf: nobody publishes it",
        "no message on /tf_static: /bench publishes /tf_static volatile, this node asks for transient local",
    )
    while not all(part in bench.text() for part in parts):
        assert time.monotonic() - sending < PROMISE_S + 2 * TICK_S, bench.text()
        send()

    assert bench.asked_reliability("/frnt/depth/image_raw") == "RELIABLE"
    bench.offer("/tf", names.TF_MESSAGE)
    bench.offer("/tf_static", names.TF_MESSAGE, "latched")
    mount = StampedTransform(0, "base_link", "lens", np.eye(4))
    bench.publishers["/tf_static"].publish(encode_tf([mount]))
    end = time.monotonic() + 20
    while bench.text() not in ("mapping",) and "more drops" not in bench.text():
        assert time.monotonic() < end, bench.text()
        send(with_transforms=True)
    bench.offer("/frnt/depth/image_raw", names.IMAGE, "best_effort")  # the driver comes back with another QoS
    graph.until(lambda: bench.asked_reliability("/frnt/depth/image_raw") == "BEST_EFFORT", 10.0)
    changed = time.monotonic()
    while "/frnt/depth/image_raw at" not in bench.text() or "image is 8x6, camera_info says 16x12" not in bench.text():
        assert time.monotonic() - changed < PROMISE_S + 2 * TICK_S, bench.text()
        send(with_transforms=True, shape=(6, 8))
    stopped = time.monotonic()
    graph.until(lambda: "/frnt/depth/image_raw (front) stopped: /bench offers it" in bench.text(), 15.0)
    assert time.monotonic() - stopped < PROMISE_S + 2 * TICK_S
    code, output = node.stop()
    assert code == 0
    assert missing in output


def test_a_camera_with_another_clock_is_named(bench, graph, start_node):
    cameras = {name: [f"image_topic:=/{name}/depth/image_raw"] for name in ("left", "right")}
    for name in cameras:
        bench.offer(f"/{name}/depth/image_raw", names.IMAGE)
        bench.offer(f"/{name}/depth/camera_info", names.CAMERA_INFO)
    start_node("-p", "source:=depth", *camera_arguments(**cameras))
    bench.wait_for_start()
    end = time.monotonic() + PROMISE_S + 2 * TICK_S
    while "stamps of 'right' are 3.0 s ahead of those of 'left'" not in bench.text():
        assert time.monotonic() < end, bench.text()
        for name, ahead_ns in (("left", 0), ("right", 3 * 10**9)):
            now = stamp_now() + ahead_ns
            bench.publishers[f"/{name}/depth/camera_info"].publish(encode_camera_info(now, name, MODEL))
            depth = encode_depth_image(now, name, np.ones((12, 16), np.float32))
            bench.publishers[f"/{name}/depth/image_raw"].publish(depth)
        graph.spin(0.1)
