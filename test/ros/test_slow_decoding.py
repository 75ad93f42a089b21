# SPDX-License-Identifier: Apache-2.0
"""Pictures that take long to decode, over real DDS: everything else is received meanwhile."""

import cv2
import faults
import numpy as np
import pytest
from faults import CAMERAS, NODE, Drive, Sent

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize, header, make, serialize
from occupancy_nn_ros.ros.qos import STATUS_QOS
from occupancy_nn_ros.values import CameraModel, StampedTransform

HUGE = CameraModel(8192, 4096, np.array([[5000.0, 0, 4096], [0, 5000, 2048], [0, 0, 1]]), "none", np.zeros(0))
HUGE_EVERY, FRAMES = 10, 100
OVERTAKEN = "worker busy: newer keyframe came first"


@pytest.fixture(scope="module")
def huge_png():
    """A picture of 33 megapixels, the most that is decoded: about 100 MB once it is, which takes most of a second."""
    noise = np.random.default_rng(2).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (HUGE.width, HUGE.height), interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].reshape(-1)


def compressed(stamp_ns, data):
    return serialize(
        make("sensor_msgs/CompressedImage", header=header(stamp_ns, "huge_optical"), format="png", data=data)
    )


def with_huge_pictures(data):
    """Adds a camera whose picture goes with every tenth set of the others."""

    def add(messages):
        stamps = [m.stamp_ns for m in messages if m.topic == "/front/image_raw"][::HUGE_EVERY]
        infos = [Sent(t, "/huge/camera_info", t, encode_camera_info(t, "huge_optical", HUGE)) for t in stamps]
        return messages + infos + [Sent(t, "/huge/compressed", t, compressed(t, data)) for t in stamps]

    return add


def test_a_huge_picture_keeps_neither_transforms_nor_other_cameras_from_being_received(
    graph, start_node, small_bag, tiny_model, huge_png
):
    settings = {"model": tiny_model, "map.size_xy_m": 8.0, "network.threads": 1, "cameras": "[back, front, huge]"}
    settings |= {"huge.image_topic": "/huge/compressed", "huge.camera_info_topic": "/huge/camera_info"}
    for camera in CAMERAS:
        settings |= {f"{camera}.image_topic": f"/{camera}/image_raw", f"{camera}.qos_depth": 8}
    start_node(*(part for key, value in settings.items() for part in ("-p", f"{key}:={value}")))
    drive = Drive(graph, small_bag)
    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    graph.offer("/huge/compressed", names.COMPRESSED_IMAGE)
    graph.offer("/huge/camera_info", names.CAMERA_INFO)
    graph.wait_for_node(["/huge/compressed", "/huge/camera_info"])
    drive.connect()
    mount = make_transform((0, 0.2, 0.5), (-0.5, 0.5, -0.5, 0.5))
    graph.publishers["/tf_static"].publish(encode_tf([StampedTransform(1, "base_link", "huge_optical", mount)]))
    graph.spin(0.5)
    drive.play(FRAMES, with_huge_pictures(huge_png))
    status = lambda: deserialize(names.MAP_STATUS, graph.received[f"{NODE}/status"][-1])  # noqa: E731
    dropped = lambda: dict(zip(status().drop_reasons, map(int, status().drop_counts), strict=True))  # noqa: E731
    graph.until(lambda: status().keyframes + dropped().get(OVERTAKEN, 0) >= FRAMES // HUGE_EVERY - 1)
    received = dict(zip(status().camera_names, map(int, status().frames_received), strict=True))
    # Were they decoded where messages are received, eight would wait there for each that takes as long as twenty to come.
    assert min(received[camera] for camera in CAMERAS) >= 0.85 * FRAMES
    assert received["huge"] >= FRAMES // HUGE_EVERY - 1
    assert not any(reason.startswith("no transform") for reason in dropped())
    assert faults.NOTHING.keyframes < status().keyframes
