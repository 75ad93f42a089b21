# SPDX-License-Identifier: Apache-2.0
import pytest

from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, TF_MESSAGE
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.namespaces import other_robots, search_rings
from occupancy_nn_ros.runtime.pose_topics import own_transforms


def graph(*names):
    kinds = {"image": IMAGE, "camera_info": CAMERA_INFO, "tf": TF_MESSAGE}
    return {name: kinds[name.rsplit("/", 1)[-1]] for name in names}


TWO = graph("/robot1/tf", "/robot1/eye/image", "/robot10/tf", "/robot10/eye/image", "/tf", "/desk/image")


def images(ring):
    return sorted(name for name, kind in ring.items() if kind == IMAGE)


def test_the_own_namespace_then_what_is_nobodys():
    assert [images(ring) for ring in search_rings(TWO, "/robot1")] == [
        ["/robot1/eye/image"],
        ["/desk/image", "/robot1/eye/image"],
    ]
    assert other_robots(TWO, "/robot1") == ["/robot10"]


def test_a_node_in_the_root_takes_no_side_between_two_robots():
    assert [images(ring) for ring in search_rings(TWO, "/")] == [["/desk/image"]]


def test_the_only_robot_is_found_from_the_root_at_last():
    one = graph("/robot1/tf", "/robot1/eye/image")
    assert [images(ring) for ring in search_rings(one, "/")] == [[], ["/robot1/eye/image"]]


def test_a_robot_within_a_group_is_not_its_own_stranger():
    fleet = graph("/fleet/robot1/tf", "/fleet/robot1/image", "/fleet/tf")
    assert other_robots(fleet, "/fleet/robot1") == []
    assert other_robots(fleet, "/fleet") == ["/fleet/robot1"]


def test_what_is_named_is_in_every_ring():
    rings = search_rings(TWO, "/robot1", named=["/robot10/eye/image"])
    assert images(rings[0]) == ["/robot1/eye/image", "/robot10/eye/image"]


@pytest.mark.parametrize("namespace", ["/", "/robot1"])
def test_without_other_robots_there_is_little_to_choose(namespace):
    plain = graph("/tf", "/eye/image", "/eye/camera_info")
    assert images(search_rings(plain, namespace)[-1]) == ["/eye/image"]


def cameras(*topics):
    return [SensorStream("eye", topic, IMAGE, "") for topic in topics]


@pytest.mark.parametrize(
    ("topics", "taken", "expected"),
    [
        (graph("/robot1/tf", "/front/image"), "/front/image", {"/robot1/tf"}),  # a robot without cameras of its own
        (graph("/robot1/tf", "/robot1/eye/image"), "/robot1/eye/image", {"/robot1/tf"}),
        (graph("/robot1/tf", "/robot1/eye/image", "/front/image"), "/front/image", set()),
        (TWO, "/robot10/eye/image", {"/robot10/tf", "/tf"}),
    ],
)
def test_transforms_of_another_robot_with_sensors_are_none_of_ours(topics, taken, expected):
    found = own_transforms(topics, cameras(taken))
    assert {name for name, kind in found.items() if kind == TF_MESSAGE} == expected
