# SPDX-License-Identifier: Apache-2.0
"""The transform tree answers as tf2 does, whose library is compared with where it is installed."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import ExtrapolationError, LookupTransformError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import StampedTransform

tf2_py = pytest.importorskip("tf2_py", reason="tf2_py is not installed; it comes with a ROS distribution")

PERIOD_NS, SAMPLES = 97_000_001, 40
LAST_NS = (SAMPLES - 1) * PERIOD_NS
START_NS = 1_700_000_000_123_456_789
TREE = {"odom": "map", "base": "odom", "mast": "base", "front": "mast", "rear": "base", "beacon": "map"}
STATIC = ("mast", "rear", "beacon")


def message(parent, child, stamp_ns, T):
    """A geometry_msgs TransformStamped."""
    from geometry_msgs.msg import TransformStamped

    sent = TransformStamped()
    sent.header.frame_id, sent.child_frame_id = parent, child
    sent.header.stamp.sec, sent.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    place, turn = sent.transform.translation, sent.transform.rotation
    place.x, place.y, place.z = T[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = Rotation.from_matrix(T[:3, :3]).as_quat().tolist()
    return sent


def walk(rng, is_static):
    """Transforms at every stamp: a random one, then small steps from it."""
    turn, place = Rotation.random(random_state=int(rng.integers(2**31))), rng.normal(0, 3, 3)
    for index in range(1 if is_static else SAMPLES):
        yield START_NS + index * PERIOD_NS, make_transform(place, turn.as_quat())
        turn, place = turn * Rotation.from_rotvec(rng.normal(0, 0.05, 3)), place + rng.normal(0, 0.03, 3)


@pytest.fixture(scope="module")
def trees():
    """The same transforms in tf2's buffer and in ours."""
    from rclpy.duration import Duration

    rng = np.random.default_rng(11)
    theirs, ours = tf2_py.BufferCore(Duration(seconds=60)), PoseBuffer(60_000_000_000)
    for child, parent in TREE.items():
        is_static = child in STATIC
        for stamp_ns, T in walk(rng, is_static):
            add = theirs.set_transform_static if is_static else theirs.set_transform
            add(message(parent, child, stamp_ns, T), "test")
            ours.set_transform(StampedTransform(stamp_ns, parent, child, T), is_static=is_static)
    return theirs, ours


def ask(theirs, target, source, stamp_ns):
    """What tf2 says, as a matrix."""
    from rclpy.time import Time

    found = theirs.lookup_transform_core(target, source, Time(nanoseconds=stamp_ns)).transform
    place, turn = found.translation, found.rotation
    return make_transform(np.array([place.x, place.y, place.z]), np.array([turn.x, turn.y, turn.z, turn.w]))


def test_any_frames_at_any_stamp(trees):
    theirs, ours = trees
    rng = np.random.default_rng(5)
    frames = ["map", *TREE]
    for _ in range(500):
        target, source = rng.choice(frames, 2)
        stamp_ns = START_NS + int(rng.integers(LAST_NS + 1))
        got, expected = ours.lookup(target, source, stamp_ns), ask(theirs, target, source, stamp_ns)
        np.testing.assert_allclose(got, expected, atol=1e-9, err_msg=f"{target} <- {source} at {stamp_ns}")


@pytest.mark.parametrize("stamp_ns", [START_NS, START_NS + 7 * PERIOD_NS, START_NS + LAST_NS])
def test_at_the_samples_themselves(trees, stamp_ns):
    theirs, ours = trees
    np.testing.assert_allclose(ours.lookup("map", "front", stamp_ns), ask(theirs, "map", "front", stamp_ns), atol=1e-12)


@pytest.mark.parametrize("stamp_ns", [START_NS - 1, START_NS + LAST_NS + 1])
def test_neither_extrapolates(trees, stamp_ns):
    theirs, ours = trees
    with pytest.raises(tf2_py.ExtrapolationException):
        ask(theirs, "map", "front", stamp_ns)
    with pytest.raises(ExtrapolationError) as refused:
        ours.lookup("map", "front", stamp_ns)
    assert refused.value.is_future == (stamp_ns > START_NS)


def test_static_frames_are_known_at_any_stamp(trees):
    theirs, ours = trees
    np.testing.assert_allclose(ours.lookup("mast", "rear", 1), ask(theirs, "mast", "rear", 1), atol=1e-12)


def test_neither_knows_a_frame_that_does_not_exist(trees):
    theirs, ours = trees
    with pytest.raises(tf2_py.LookupException):
        ask(theirs, "map", "wing", START_NS)
    with pytest.raises(LookupTransformError, match="wing"):
        ours.lookup("map", "wing", START_NS)


@pytest.fixture(scope="module")
def by_tf2():
    """Our tree with a tf2_ros buffer behind it, and the same transforms."""
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed; it comes with a ROS distribution")
    from occupancy_nn_ros.ros.tf2_transforms import Tf2Store

    rng = np.random.default_rng(11)
    tree = PoseBuffer(60_000_000_000, Tf2Store(60_000_000_000))
    tree.advance(START_NS)
    for child, parent in TREE.items():
        for stamp_ns, T in walk(rng, child in STATIC):
            tree.set_transform(StampedTransform(stamp_ns, parent, child, T), is_static=child in STATIC)
            tree.advance(stamp_ns)
    return tree


def test_with_tf2_behind_it_our_tree_says_what_tf2_says(trees, by_tf2):
    theirs, _ = trees
    rng = np.random.default_rng(5)
    frames = ["map", *TREE]
    for _ in range(200):
        target, source = rng.choice(frames, 2)
        stamp_ns = START_NS + int(rng.integers(LAST_NS + 1))
        np.testing.assert_allclose(
            by_tf2.lookup(target, source, stamp_ns), ask(theirs, target, source, stamp_ns), atol=1e-12
        )


def test_a_stamp_of_zero_is_not_the_latest():
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed; it comes with a ROS distribution")
    from occupancy_nn_ros.ros.tf2_transforms import Tf2Store

    tree = PoseBuffer(60_000_000_000, Tf2Store(60_000_000_000))
    tree.advance(0)
    for stamp_ns in (0, PERIOD_NS):
        tree.set_transform(
            StampedTransform(stamp_ns, "odom", "base", make_transform((stamp_ns * 1e-9, 0, 0), (0, 0, 0, 1)))
        )
    assert tree.lookup("odom", "base", 0)[0, 3] == 0
    assert tree.lookup("odom", "base", PERIOD_NS)[0, 3] == pytest.approx(0.097, abs=1e-6)
