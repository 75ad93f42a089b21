# SPDX-License-Identifier: Apache-2.0
"""Over real DDS the node places the robot as the player does: by odometry that comes later than the cameras, and never by itself."""

import pytest
from room_drive import SETTINGS, head, images, odometry, pose_with_covariance, static

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.typestore import deserialize

NODE = "/occupancy_nn"


@pytest.mark.parametrize("use_sim_time", [False, True])
def test_odometry_of_a_topic_that_appears_late_places_a_camera_on_a_moving_head(use_sim_time, graph, start_node):
    """Also with simulated time of which nothing comes: the graph is looked at on a steady clock."""
    output = map_drive(graph, start_node, head(), odometry(), f"use_sim_time={str(use_sim_time).lower()}")
    assert "map frame 'odom', robot frame 'base_link': /odometry places the robot (pose of 'base_link')" in output


def test_poses_of_another_type_than_expected_that_appear_late_place_the_robot(graph, start_node):
    """The node listens for odometry on ``pose_topic`` until somebody publishes something else there."""
    seen = [*static(), *images()]
    output = map_drive(graph, start_node, seen, pose_with_covariance("/amcl_pose"), "pose_topic=/amcl_pose")
    assert "/amcl_pose places the robot" in output


def map_drive(graph, start_node, seen, late, *settings):
    """What a node says that maps a drive, of which some messages' topics appear once it listens to all others."""
    from occupancy_nn_ros.ros.qos import STATUS_QOS

    settings = [*SETTINGS, "keyframes.distance_m=0.2", *settings]
    node = start_node(*(part for item in settings for part in ("-p", item.replace("=", ":="))))
    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    for message in {message.topic: message for message in seen}.values():
        graph.offer(message.topic, message.msgtype)
    graph.wait_for_node(list(graph.publishers))
    graph.offer(late[0].topic, late[0].msgtype)
    graph.wait_for_node([late[0].topic])
    graph.spin(1.0)
    for message in sorted([*seen, *late], key=lambda message: message.recorded_ns):
        graph.publishers[message.topic].publish(message.cdr)
        graph.spin(0.005)

    def status():
        found = graph.received[f"{NODE}/status"]
        return deserialize(names.MAP_STATUS, found[-1]) if found else None

    graph.until(lambda: status() is not None and status().keyframes >= 3)
    assert status().header.frame_id == "odom"
    code, output = node.stop()
    assert code == 0, output
    return output
