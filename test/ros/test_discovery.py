# SPDX-License-Identifier: Apache-2.0
"""Over real DDS the node takes the sensors and transforms that the player takes of a recording of the same messages."""

import re

import numpy as np
import pytest
from room_drive import MODEL, MOUNT, SETTINGS, START_NS

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_image, encode_tf
from occupancy_nn_ros.runtime.player import plan_play
from occupancy_nn_ros.values import StampedTransform

WALL = np.full((24, 32), 2.0, np.float32)
IMAGES = {
    "/front/depth/image_raw": lambda stamp: encode_depth_image(stamp, "eye", WALL),
    "/odd/range": lambda stamp: encode_image(stamp, "eye", WALL, "32FC1"),  # depth, which its name does not say
    "/show/depth/image": lambda stamp: encode_image(
        stamp, "eye", np.zeros((24, 32, 3), np.uint8)
    ),  # a picture of depth
    "/hot/thermal": lambda stamp: encode_image(stamp, "eye", np.full((24, 32), 3e4, np.uint16), "16UC1"),  # none at all
}
INFOS = ["/front/depth/camera_info", "/odd/camera_info", "/show/depth/camera_info", "/hot/camera_info"]
TAKEN = {"/front/depth/image_raw", "/odd/range"}


def messages(stamp_ns, tf="/tf", tf_static="/tf_static"):
    """What all of the robot's topics bring at one time: topic, type, bytes."""
    yield tf_static, names.TF_MESSAGE, encode_tf([StampedTransform(stamp_ns, "base_link", "eye", MOUNT)])
    yield tf, names.TF_MESSAGE, encode_tf([StampedTransform(stamp_ns, "odom", "base_link", np.eye(4))])
    for topic in INFOS:
        yield topic, names.CAMERA_INFO, encode_camera_info(stamp_ns, "eye", MODEL)
    for topic, image in IMAGES.items():
        yield topic, names.IMAGE, image(stamp_ns)


def offline(folder):
    """The topics that the player takes."""
    with BagWriter(folder / "bag") as writer:
        for stamp in range(START_NS, START_NS + 10**9, 10**8):
            for topic, msgtype, cdr in messages(stamp):
                writer.write(topic, msgtype, stamp, cdr)
    with BagReader(folder / "bag") as reader:
        return {sensor.topic for sensor in plan_play(reader, load_config([], SETTINGS)).sensors}


@pytest.fixture
def robot(graph):
    """Publishes everything; called with the names of its transforms, returns what sends one moment of it."""

    def start(tf="/tf", tf_static="/tf_static"):
        from occupancy_nn_ros.ros.message_types import interface_class
        from occupancy_nn_ros.ros.qos import STATUS_QOS, TF_QOS, TF_STATIC_QOS

        for topic, msgtype, _ in messages(0, tf, tf_static):
            qos = TF_STATIC_QOS if topic == tf_static else TF_QOS
            graph.publishers[topic] = graph.node.create_publisher(interface_class(msgtype), topic, qos)
        graph.listen("/occupancy_nn/status", names.MAP_STATUS, STATUS_QOS)
        stamps = iter(range(START_NS, START_NS + 10**13, 10**8))

        def send():
            for topic, _, cdr in messages(next(stamps), tf, tf_static):
                graph.publishers[topic].publish(cdr)
            graph.spin(0.1)

        return send

    return start


def keyframes(graph):
    from occupancy_nn_ros.messages.typestore import deserialize

    found = graph.received["/occupancy_nn/status"]
    return deserialize(names.MAP_STATUS, found[-1]).keyframes if found else 0


def taken(output):
    """The sensors that the node said it takes, of the last time that it said so."""
    last = output.rpartition("looking for sensors anew")[2]
    return set(re.findall(r"\]: \w+: (/\S+), camera_info", last))


def arguments():
    return [part for item in SETTINGS for part in ("-p", item.replace("=", ":=", 1))]


@pytest.mark.parametrize("is_early", [True, False])
def test_what_images_hold_decides_as_it_does_in_a_bag(is_early, graph, robot, start_node, tmp_path):
    """Whether they come before the node looks for them, or only once it has chosen by names alone."""
    assert offline(tmp_path) == TAKEN
    send = robot()
    node = start_node(*arguments())
    if not is_early:
        graph.wait_for_node(["/tf", "/front/depth/camera_info", "/front/depth/image_raw"])

    def is_mapping():
        send()
        return keyframes(graph) >= 2

    graph.until(is_mapping)
    # Who was asked once is not listened to any longer.
    graph.until(lambda: not graph.publishers["/hot/thermal"].get_subscription_count())
    code, output = node.stop()
    assert code == 0, output
    assert taken(output) == TAKEN, output
    assert ("looking for sensors anew" in output) == (not is_early)


def test_transforms_in_a_namespace_are_found_where_nobody_publishes_others(graph, robot, start_node):
    send = robot(tf="/robot1/tf", tf_static="/robot1/tf_static")
    node = start_node(*arguments())

    def is_mapping():
        send()
        return keyframes(graph) >= 2

    graph.until(is_mapping)
    code, output = node.stop()
    assert code == 0, output
    assert "nobody publishes /tf: transforms are taken from /robot1/tf and /robot1/tf_static" in output
