# SPDX-License-Identifier: Apache-2.0
"""What is sent once, what comes late, and robots that share transforms, over real DDS."""

import itertools
import sys
import time

import numpy as np
import pytest
from wall_ahead import MODEL, SETTINGS, T_BASE_CAM, wall_seen_m

from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import StampedTransform

START_NS, STEP_NS = time.time_ns(), 500_000_000  # faster than the clock: none of it is called old


class World:
    """Publishers by topic, and what one node says of its map."""

    def __init__(self, graph, node="/occupancy_nn"):
        from occupancy_nn_ros.ros.qos import LATCHED_QOS, STATUS_QOS, TF_QOS, TF_STATIC_QOS

        self.graph, self.node, self.publishers = graph, node, {}
        self.volatile, self.latched, self.numbers = TF_QOS, TF_STATIC_QOS, itertools.count()
        graph.listen(f"{node}/occupancy_grid", names.OCCUPANCY_GRID, LATCHED_QOS)
        graph.listen(f"{node}/status", names.MAP_STATUS, STATUS_QOS)
        graph.listen("/diagnostics", names.DIAGNOSTIC_ARRAY, STATUS_QOS)

    def offer(self, topic, msgtype, *, latched=False):
        from occupancy_nn_ros.ros.message_types import interface_class

        qos = self.latched if latched else self.volatile
        self.publishers[topic] = self.graph.node.create_publisher(interface_class(msgtype), topic, qos)
        return self.publishers[topic]

    def send(self, topic, cdr):
        self.publishers[topic].publish(cdr)

    def seen_m(self):
        return wall_seen_m(self.graph, self.node)

    def text(self):
        """What diagnostics say of the node."""
        entries = [deserialize(names.DIAGNOSTIC_ARRAY, cdr).status[0] for cdr in self.graph.received["/diagnostics"]]
        return next((e.message for e in reversed(entries) if f"/{e.name}" == self.node), "")

    def drops(self):
        received = self.graph.received[f"{self.node}/status"]
        status = deserialize(names.MAP_STATUS, received[-1]) if received else None
        return dict(zip(status.drop_reasons, status.drop_counts, strict=True)) if status else {}

    def until(self, condition, step, timeout_s=30.0):
        """Send moments of message time, ten in a second of the clock on the wall, until something holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"{self.text()} {self.drops()}"
            step(START_NS + next(self.numbers) * STEP_NS)
            self.graph.spin(0.1)


def depth(stamp_ns, frame="eye", wall_m=2.0):
    return encode_depth_image(stamp_ns, frame, np.full((24, 32), wall_m, np.float32))


def moved(stamp_ns, base="base_link", parent="odom"):
    return encode_tf([StampedTransform(stamp_ns, parent, base, np.eye(4))])


MOUNTS = encode_tf([StampedTransform(START_NS, "base_link", frame, T_BASE_CAM) for frame in ("eye", "back", "left")])


@pytest.fixture(autouse=True)
def begin_now(monkeypatch):
    """Message time begins with the test, which may run long after this module was loaded."""
    monkeypatch.setattr(sys.modules[__name__], "START_NS", time.time_ns())


@pytest.fixture
def world(graph):
    return World(graph)


def offer_robot(world, *, latched_images=False):
    world.offer("/front/depth/image_raw", names.IMAGE, latched=latched_images)
    world.offer("/tf", names.TF_MESSAGE)
    world.offer("/tf_static", names.TF_MESSAGE, latched=True).publish(MOUNTS)


def one_moment(world, *, tf=True):
    def step(stamp_ns):
        if tf:
            world.send("/tf", moved(stamp_ns))
        world.send("/front/depth/image_raw", depth(stamp_ns))

    return step


def test_intrinsics_sent_once_long_after_the_first_images(world, start_node):
    """Ten seconds of the sensors' time; the publisher appears with them. What waited too long is counted, what comes after is mapped."""
    offer_robot(world)
    node = start_node(*SETTINGS)
    waited = itertools.count()
    world.until(
        lambda: world.publishers["/front/depth/image_raw"].get_subscription_count() > 0 and next(waited) >= 28,
        one_moment(world),
    )
    assert world.seen_m() is None
    assert "no camera_info on /front/depth/camera_info" in world.text()
    dropped = world.drops()["no usable camera_info"]
    assert dropped >= 2
    info = encode_camera_info(START_NS, "eye", MODEL)
    world.offer("/front/depth/camera_info", names.CAMERA_INFO, latched=True).publish(info)
    world.until(lambda: world.seen_m() is not None, one_moment(world))
    assert world.seen_m() == pytest.approx(2.0, abs=0.21)
    assert node.stop()[0] == 0


def test_a_camera_that_appears_late_is_taken_before_the_map_is_begun_and_said_afterwards(world, start_node):
    """Its intrinsics and the first camera's are sent once, before the node listens, by who keeps them; so are images."""
    offer_robot(world, latched_images=True)
    world.offer("/front/depth/camera_info", names.CAMERA_INFO, latched=True).publish(
        encode_camera_info(START_NS, "eye", MODEL)
    )
    node = start_node(*SETTINGS)
    front = world.publishers["/front/depth/image_raw"]
    world.until(lambda: front.get_subscription_count() == 1 and not world.text().startswith(("unconf", "conf", "inact")),
                one_moment(world, tf=False))  # fmt: skip

    def both(stamp_ns, tf=True):
        one_moment(world, tf=tf)(stamp_ns)
        for name in ("back", "left"):
            if f"/{name}/depth/image_raw" in world.publishers:
                world.send(f"/{name}/depth/image_raw", depth(stamp_ns, name))

    def add(name):
        world.offer(f"/{name}/depth/camera_info", names.CAMERA_INFO, latched=True).publish(
            encode_camera_info(START_NS, name, MODEL)
        )
        return world.offer(f"/{name}/depth/image_raw", names.IMAGE)

    back = add("back")
    info = world.publishers["/back/depth/camera_info"]  # to images one may listen only to learn what they hold
    world.until(lambda: info.get_subscription_count() == 1, lambda stamp: both(stamp, tf=False))
    begun = itertools.count()
    world.until(lambda: world.seen_m() is not None and next(begun) > 20, both)  # and settled
    assert back.get_subscription_count() == 1
    left = add("left")
    world.until(lambda: "/left/depth/image_raw came after the map was begun, and is not used" in world.text(), both)
    assert left.get_subscription_count() == 0
    assert world.seen_m() == pytest.approx(2.0, abs=0.21)
    assert node.stop()[0] == 0


class SharedRobot:
    """A robot whose frames have its name before them, in one /tf with others, with images below its name."""

    def __init__(self, world, name, wall_m):
        self.world, self.name, self.wall_m = world, name, wall_m
        world.offer(f"/{name}/front/depth/camera_info", names.CAMERA_INFO)
        world.offer(f"/{name}/front/depth/image_raw", names.IMAGE)

    def mounts(self):
        pose = np.eye(4)
        pose[1, 3] = 30.0 * int(self.name[-1])  # side by side, far from each other
        return [
            StampedTransform(START_NS, "map", f"{self.name}/odom", pose),
            StampedTransform(START_NS, f"{self.name}/base_link", f"{self.name}/eye", T_BASE_CAM),
        ]

    def send(self, stamp_ns):
        self.world.send("/tf", moved(stamp_ns, f"{self.name}/base_link", f"{self.name}/odom"))
        info = encode_camera_info(stamp_ns, f"{self.name}/eye", MODEL)
        self.world.send(f"/{self.name}/front/depth/camera_info", info)
        self.world.send(f"/{self.name}/front/depth/image_raw", depth(stamp_ns, f"{self.name}/eye", self.wall_m))


def test_two_robots_with_prefixed_frames_in_one_tf(graph, start_node):
    """A node in the one's namespace maps with its camera alone; one in none takes both, and says so."""
    world, root = World(graph, "/robot1/occupancy_nn"), World(graph)
    robots = [SharedRobot(world, "robot1", 2.0), SharedRobot(world, "robot2", 4.0)]
    world.offer("/tf", names.TF_MESSAGE)
    mounts = [mount for robot in robots for mount in robot.mounts()]
    world.offer("/tf_static", names.TF_MESSAGE, latched=True).publish(encode_tf(mounts))
    nodes = [start_node(*SETTINGS, namespace=namespace) for namespace in ("/robot1", "")]

    def step(stamp_ns):
        for robot in robots:
            robot.send(stamp_ns)

    of_both = "'robot2/eye' moves with 'robot2/base_link', not with the robot ('robot1/base_link')"
    world.until(lambda: world.seen_m() is not None and of_both in root.text(), step)
    assert world.seen_m() == pytest.approx(2.0, abs=0.21)
    assert "robot2" not in world.text()
    assert world.publishers["/robot2/front/depth/image_raw"].get_subscription_count() == 1
    assert [node.stop()[0] for node in nodes] == [0, 0]
