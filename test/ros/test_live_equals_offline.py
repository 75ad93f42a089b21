# SPDX-License-Identifier: Apache-2.0
"""One bag through DDS and through the offline player gives the same map, bit for bit."""

from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.images import decode_depth, decode_image
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.visualization.colors import depth_colors
from occupancy_nn_ros.visualization.depth_picture import GAP

GRID, VOXELS = "/occupancy_nn/occupancy_grid", "/occupancy_nn/voxel_grid"
DEPTH, PICTURES = "/occupancy_nn/depth/front/image", "/occupancy_nn/pictures"
MARKERS = "/occupancy_nn/markers"
SETTINGS = {"map.size_xy_m": 8.0, "network.threads": 1, "network.sure_depth": 0.1}


def write_mask(folder):
    """The back camera sees the robot in the lower third of its pictures."""
    mask = np.zeros((120, 160), np.uint8)
    mask[80:] = 255
    assert cv2.imwrite(str(folder / "back.png"), mask)
    return folder / "back.png"


def play_offline(bag, model, out):
    cameras = [f"cameras.back.mask={write_mask(out)}", "cameras.front.mask="]
    config = load_config([], [f"model={model}", *cameras, *(f"{key}={value}" for key, value in SETTINGS.items())])
    with BagReader(bag) as reader:
        play_bag(reader, plan_play(reader, config), out)
    with BagReader(out / "map.mcap") as reader:
        return {topic: [m.cdr for m in reader.messages([topic])] for topic in (GRID, VOXELS, DEPTH)}


def play_live(graph, bag, keyframe_stamps):
    """Publish a bag's messages; after each message wait for the grid of any keyframe that it may have completed."""
    with BagReader(bag) as reader:
        topics = {topic: info.msgtype for topic, info in reader.topics.items()}
        for topic, msgtype in topics.items():
            graph.offer(topic, msgtype)
        graph.wait_for_node(topics)
        messages = list(reader.messages())
    done = 0
    for message in messages:
        graph.publishers[message.topic].publish(message.cdr)
        graph.spin(0.01)
        while done < len(keyframe_stamps) and message.stamp_ns > keyframe_stamps[done] + 100_000_000:
            stamp = keyframe_stamps[done]
            graph.until(lambda: graph.received[GRID] and peek_header(graph.received[GRID][-1]).stamp_ns >= stamp)  # noqa: B023
            done += 1


def check_picture(cdr, depth_cdr):
    """The lower one of two rows is the front camera, with its depth image at the right."""
    header, pixels = decode_image(names.IMAGE, cdr)
    sent, depth_m = decode_depth(names.IMAGE, depth_cdr)
    assert (header.stamp_ns, header.frame_id) == (sent.stamp_ns, "base_link")
    height, width = pixels.shape[0] // 2 - GAP // 2, pixels.shape[1] // 2 - GAP // 2
    colors = depth_colors(np.where(depth_m > 0, depth_m, np.nan))
    own = min(height, round(width * depth_m.shape[0] / depth_m.shape[1]))
    expected = cv2.resize(colors, (width, own), interpolation=cv2.INTER_NEAREST).astype(int)
    off = np.abs(pixels[height + GAP :, width + GAP :][:own] - expected)
    assert off.max() <= 8  # the depth image is in whole millimetres
    assert pixels[height + GAP :, :width].std() > 10


TF2 = pytest.param(
    "tf2",
    marks=pytest.mark.skipif(
        find_spec("tf2_ros") is None, reason="tf2_ros is not installed; it comes with a ROS distribution"
    ),
)


@pytest.mark.parametrize("tf_source", ["builtin", TF2])
def test_same_bag_same_map(tf_source, graph, start_node, small_bag, tiny_model, tmp_path):
    from occupancy_nn_ros.ros.qos import LATCHED_QOS, STREAM_QOS

    offline = play_offline(small_bag, tiny_model, tmp_path)
    stamps = [peek_header(cdr).stamp_ns for cdr in offline[GRID][:-1]]
    assert len(stamps) == 6  # the robot moves 8 cm from frame to frame, a keyframe is due every 10 cm
    cameras = {"cameras": "[back, front]", "back.mask": tmp_path / "back.png"}
    settings = {"model": tiny_model, "tf_source": tf_source, **cameras, **SETTINGS}
    node = start_node(*(part for key, value in settings.items() for part in ("-p", f"{key}:={value}")))
    graph.listen(GRID, names.OCCUPANCY_GRID, LATCHED_QOS)
    graph.listen(DEPTH, names.IMAGE, STREAM_QOS)
    graph.listen(PICTURES, names.IMAGE, STREAM_QOS)
    play_live(graph, small_bag, stamps)
    graph.until(lambda: peek_header(graph.received[GRID][-1]).stamp_ns >= stamps[-1])

    live = {peek_header(cdr).stamp_ns: bytes(cdr) for cdr in graph.received[GRID]}
    *of_keyframes, final = offline[GRID]  # the final one holds the second look that follows the last keyframe
    assert live == {peek_header(cdr).stamp_ns: cdr for cdr in of_keyframes} and final != of_keyframes[-1]

    graph.until(lambda: len(graph.received[DEPTH]) >= len(offline[DEPTH]))
    assert [bytes(cdr) for cdr in graph.received[DEPTH]] == offline[DEPTH]
    assert len(offline[DEPTH]) == 6
    assert len(np.unique(decode_depth(names.IMAGE, offline[DEPTH][-1])[1])) > 100
    graph.until(lambda: len(graph.received[PICTURES]) >= 6)
    check_picture(graph.received[PICTURES][-1], offline[DEPTH][-1])

    # A subscriber that joins late gets the last grid, and outputs that nobody listened to before.
    late = []
    from occupancy_nn_ros.ros.message_types import interface_class

    graph.node.create_subscription(interface_class(names.OCCUPANCY_GRID), GRID, late.append, LATCHED_QOS)
    graph.listen(VOXELS, names.VOXEL_GRID, LATCHED_QOS)
    graph.until(lambda: late and graph.received[VOXELS])
    values = np.array(late[-1].data)
    assert set(np.unique(values)) <= {-1, 0, 100}
    assert (values == 100).sum() > 0 and (values == -1).sum() > 0
    assert np.array_equal(values, deserialize(names.OCCUPANCY_GRID, of_keyframes[-1]).data)
    assert bytes(graph.received[VOXELS][-1]) == offline[VOXELS][-1]
    # So does a second one of a topic whose last message DDS does not keep.
    graph.listen(MARKERS, names.MARKER_ARRAY, STREAM_QOS)
    graph.until(lambda: graph.received[MARKERS])
    again = []
    graph.node.create_subscription(interface_class(names.MARKER_ARRAY), MARKERS, again.append, STREAM_QOS)
    graph.until(lambda: again)
    assert len(again[0].markers[0].points) > 0
    code, output = node.stop()
    assert code == 0, output
    assert ("transforms by tf2_ros" in output) == (tf_source == "tf2")
