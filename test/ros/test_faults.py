# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on robots, done to the live node over DDS: it counts what it could not use, and goes on.

One node lives through the faults one after another. The sensors' topics are reliable, so that counts are exact: what a
fault does not touch arrives, once.
"""

import os
import signal

import faults
import numpy as np
import pytest
from faults import CAMERAS, NODE, Drive, Sent, Watcher

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import CameraModel

GRID = f"{NODE}/occupancy_grid"
UNPLACED = "no transform at its stamp"
UNMATCHED = "no matching frames of the other cameras"


def node_arguments(model, folder):
    settings = {
        "model": model,
        "map.size_xy_m": 8.0,
        "network.threads": 1,
        "map_folder": folder,
        "cameras": "[back, front]",
    }
    for camera in CAMERAS:
        settings |= {f"{camera}.image_topic": f"/{camera}/image_raw", f"{camera}.qos_reliability": "reliable"}
        settings |= {f"{camera}.qos_depth": 100}
    return [part for key, value in settings.items() for part in ("-p", f"{key}:={value}")]


class Bench:
    """A node, the drive that it sees, and what it says."""

    def __init__(self, graph, node, drive):
        self.graph, self.node, self.drive = graph, node, drive
        self.watch = Watcher(graph, node)
        drive.connect()
        self.last = faults.NOTHING

    def play(self, frames, *with_faults):
        """Drive on, and return what the node counted meanwhile."""
        self.drive.play(frames, *with_faults)
        return self.counted()

    def counted(self):
        """What the node counted since it was asked last."""
        before, self.last = self.last, self.watch.settled(self.drive)
        return self.last.since(before)

    def expect_health(self):
        """Nothing is lost, and keyframes come: every second frame is 16 cm further on."""
        counted = self.play(10)
        assert counted.dropped == {}
        assert counted.received == {"back": 10, "front": 10}
        assert 5 <= counted.keyframes <= 6
        assert counted.state == "mapping"


@pytest.fixture(scope="module")
def lasting(lasting_graph, start_lasting_node, small_bag, tiny_model, tmp_path_factory):
    from occupancy_nn_ros.ros.qos import LATCHED_QOS

    node = start_lasting_node(*node_arguments(tiny_model, tmp_path_factory.mktemp("maps")))
    lasting_graph.listen(GRID, names.OCCUPANCY_GRID, LATCHED_QOS)
    bench = Bench(lasting_graph, node, Drive(lasting_graph, small_bag))
    bench.play(12)
    bench.expect_health()
    return bench


@pytest.fixture
def bench(lasting):
    """The node in good health, which it must be in again after the test."""
    yield lasting
    assert lasting.node.process.poll() is None, "the node has died"
    lasting.expect_health()


def test_a_camera_dies_and_returns(bench):
    """The others are waited with for 5 s; then the map goes on without it, until it is back."""
    dead = bench.play(80, faults.without("/front/image_raw"))
    assert dead.received == {"back": 80, "front": 0}
    assert list(dead.dropped) == [f"back: {UNMATCHED}"]
    assert 40 <= dead.dropped[f"back: {UNMATCHED}"] <= 55
    assert 10 <= dead.keyframes <= 18
    back = bench.play(10)
    assert back.received == {"back": 10, "front": 10}
    assert sum(back.dropped.values()) <= 2
    assert back.keyframes >= 4


def test_stamps_out_of_order(bench):
    """Pairs of frames whose second comes first: the first comes too late, or its partner does."""
    counted = bench.play(20, faults.swapped("/front/image_raw"))
    assert counted.received == {"back": 20, "front": 20}
    assert sum(counted.dropped.values()) == 20
    assert set(counted.dropped) <= {f"{c}: {why}" for c in CAMERAS for why in (UNMATCHED, "older than the last set")}
    assert 5 <= counted.keyframes <= 10


def test_time_is_turned_back(bench):
    """As when a recording starts anew: what waited for its partners goes, and the map is made on."""
    bench.drive.start_ns -= 100 * 1_000_000_000
    counted = bench.play(10)
    assert counted.received == {"back": 10, "front": 10}
    # Until an image of the new time comes, a transform from it cannot be told from one of another clock.
    assert counted.dropped in ({}, {"/tf: transform much older than its frame's newest": 1})
    assert 5 <= counted.keyframes <= 6


def test_duplicates(bench):
    counted = bench.play(10, faults.twice("/front/image_raw"), faults.twice("/tf"))
    assert counted.received == {"back": 10, "front": 20}
    assert counted.dropped == {"front: duplicate stamp": 10}
    assert 5 <= counted.keyframes <= 6


def test_transforms_200_ms_late(bench):
    counted = bench.play(20, faults.late("/tf", 0.2))
    assert counted.dropped == {}
    assert 10 <= counted.keyframes <= 11


def test_no_transforms_for_5_s(bench):
    """No pose is made up across the gap: not while it lasts, and not when it ends."""
    counted = bench.play(50, faults.without("/tf"))
    # The last frames still wait: the transform after them may come.
    assert 80 <= counted.dropped[UNPLACED] < 100
    assert counted.keyframes == 0
    after = bench.play(10)
    assert after.dropped == {UNPLACED: 100 - counted.dropped[UNPLACED]}
    assert 5 <= after.keyframes <= 6


def test_the_pose_jumps(bench):
    """A frame between the two places belongs to neither; the map goes on at the new place."""

    def origin():
        return deserialize(names.OCCUPANCY_GRID, bench.graph.received[GRID][-1]).info.origin.position

    old, before = origin(), bench.drive.pose(2 * bench.drive.frame)
    messages = bench.drive.messages(1)
    bench.drive.jump[0, 3] += 20.0
    messages[-1] = bench.drive.transform(2 * bench.drive.frame - 1, messages[-1].stamp_ns)
    for message in messages:
        bench.drive.send(message)
    counted = bench.play(10)
    assert counted.dropped == {UNPLACED: 2}
    assert 5 <= counted.keyframes <= 6
    grid = deserialize(names.OCCUPANCY_GRID, bench.graph.received[GRID][-1])
    moved = np.array([grid.info.origin.position.x - old.x, grid.info.origin.position.y - old.y])
    driven = bench.drive.pose(2 * bench.drive.frame)[:2, 3] - before[:2, 3]
    assert np.abs(moved - driven).max() < 0.5
    assert (grid.data >= 0).sum() > 100


def test_wrong_encoding(bench):
    """The camera's frames are lost, the other one's are not."""

    def encode(message):
        return encode_image(message.stamp_ns, "front_optical", faults.pixels(message), "yuv9")

    counted = bench.play(10, faults.rewritten("/front/image_raw", encode))
    assert counted.keyframes >= 5
    assert list(counted.dropped) == ["front: frame does not decode"]
    assert 1 <= counted.dropped["front: frame does not decode"] <= 6


def halve_image(message):
    return encode_image(message.stamp_ns, "front_optical", np.ascontiguousarray(faults.pixels(message)[::2, ::2]))


def halve_intrinsics(message):
    full = faults.intrinsics(message)
    scale = np.diag([0.5, 0.5, 1.0])
    model = CameraModel(full.width // 2, full.height // 2, scale @ full.K, full.distortion_model, full.D)
    return encode_camera_info(message.stamp_ns, "front_optical", model)


def test_resolution_changes(bench):
    """With its camera_info a new resolution costs nothing; without, the camera's frames cannot be used."""
    halved = faults.rewritten("/front/image_raw", halve_image)
    both = bench.play(10, halved, faults.rewritten("/front/camera_info", halve_intrinsics))
    assert both.dropped == {}
    assert 5 <= both.keyframes <= 6
    lone = bench.play(10, halved)
    assert lone.keyframes >= 5
    assert list(lone.dropped) == ["front: frame does not decode"]


def test_an_oversized_message(bench):
    stamp = bench.drive.start_ns + bench.drive.frame * faults.FRAME_NS
    huge = encode_image(stamp, "front_optical", np.zeros((3000, 8000, 3), np.uint8))
    bench.drive.send(Sent(stamp, "/front/image_raw", stamp, huge))
    bench.drive.sent["front"] -= 1  # it is refused before it is counted as a frame
    bench.graph.until(lambda: bench.watch.next().dropped != bench.last.dropped)
    assert bench.counted().dropped == {"/front/image_raw: message too large": 1}


def test_a_storm_of_subscribers(bench):
    """Many come and go, on every output, while the node maps."""
    from occupancy_nn_ros.ros.message_types import interface_class
    from occupancy_nn_ros.ros.qos import LATCHED_QOS, STREAM_QOS
    from occupancy_nn_ros.runtime.outputs import OUTPUTS

    def storm(waves):
        got = []
        for _ in range(waves):
            subscriptions = [
                bench.graph.node.create_subscription(
                    interface_class(topic.msgtype), f"{NODE}/{topic.name}", got.append,
                    LATCHED_QOS if topic.is_latched else STREAM_QOS, raw=True,
                ) for topic in OUTPUTS if not topic.is_optional for _ in range(5)
            ]  # fmt: skip
            bench.drive.play(6)
            for subscription in subscriptions:
                bench.graph.node.destroy_subscription(subscription)
        return len(got)

    assert storm(2) > 0  # the first ones allocate what later ones use again
    bench.counted()
    assert storm(8) > 100
    counted = bench.counted()
    assert counted.dropped == {}
    assert 24 <= counted.keyframes <= 25
    assert counted.rss_mb < 30


@pytest.fixture
def own_domain(monkeypatch):
    """Where the node that lives through the other faults is not seen."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 19))


@pytest.mark.usefixtures("own_domain")
def test_sigterm_while_the_network_runs(graph, start_node, small_bag, tiny_model, tmp_path):
    """Keyframes come faster than they can be computed, so that one is always being worked on."""
    node = start_node(
        *node_arguments(tiny_model, tmp_path), "-p", "keyframes.distance_m:=0.0", "-p", "keyframes.min_period_s:=0.0"
    )
    bench = Bench(graph, node, Drive(graph, small_bag))
    busy = "worker busy: newer keyframe came first"
    while not (report := bench.watch.next()).dropped.get(busy) or not report.keyframes:
        for message in bench.drive.messages(20):
            bench.drive.send(message)
    for message in bench.drive.messages(20):
        bench.drive.send(message)
    code, output = node.stop()
    assert code == 0, output
    assert "Traceback" not in output and "had to be killed" not in output


@pytest.mark.usefixtures("own_domain")
def test_killed_and_started_again_with_the_saved_map(graph, start_node, small_bag, tiny_model, tmp_path):
    from geometry_msgs.msg import Point

    from occupancy_nn_ros.ros.qos import LATCHED_QOS

    arguments = [*node_arguments(tiny_model, tmp_path), "-p", "start_map:=kitchen.safetensors"]
    points = [Point(x=x, y=y, z=0.5) for x in np.arange(-1.9, 3, 0.4) for y in np.arange(-1.9, 2, 0.4)]

    def states():
        answer = graph.call(f"{NODE}/query_occupancy", "occupancy_nn_ros/srv/QueryOccupancy", points=points)
        return list(answer.state)

    first = start_node(*arguments)
    bench = Bench(graph, first, Drive(graph, small_bag))
    bench.play(12)  # the first camera_info may come later than the first images
    bench.expect_health()
    saved = graph.call(f"{NODE}/save_map", "occupancy_nn_ros/srv/SaveMap", file_path="kitchen.safetensors")
    assert saved.success, saved.message
    known = states()
    assert {-1, 1} <= set(known)
    bench.drive.play(3)
    code, _ = first.stop(signal.SIGKILL)
    assert code == -signal.SIGKILL

    second = start_node(*arguments)
    graph.listen(GRID, names.OCCUPANCY_GRID, LATCHED_QOS)
    graph.until(lambda: graph.received[GRID])  # the saved map, before any camera was seen
    assert states() == known
    bench.watch.node, bench.watch.base = second, dict(bench.drive.sent)
    while not bench.watch.next().received:  # it does not listen to the cameras yet
        pass
    graph.spin(faults.MATCHING_S)
    bench.drive.play(20)
    assert bench.watch.settled(bench.drive).chosen >= 8
    code, output = second.stop()
    assert code == 0, output
