# SPDX-License-Identifier: Apache-2.0
import threading
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from occupancy_nn_ros.errors import ExtrapolationError, LookupTransformError, TransformError
from occupancy_nn_ros.geometry.poses import check_transform, invert, make_transform
from occupancy_nn_ros.sync.pose_buffer import PoseBuffer
from occupancy_nn_ros.values import StampedTransform

S = 1_000_000_000


def pose(x=0.0, y=0.0, z=0.0, *, yaw=0.0, pitch=0.0):
    return make_transform((x, y, z), Rotation.from_euler("zy", [yaw, pitch]).as_quat())


def put(buffer, stamp, parent, child, matrix, *, is_static=False):
    buffer.set_transform(StampedTransform(stamp, parent, child, matrix), is_static=is_static)


@pytest.fixture
def robot():
    """map -> odom -> base -> (left, right), the last two static, base moving for two seconds."""
    buffer = PoseBuffer()
    put(buffer, 0, "base", "left", pose(0.2, 0.1, 0.5, yaw=0.5, pitch=0.2), is_static=True)
    put(buffer, 0, "base", "right", pose(0.2, -0.1, 0.5, yaw=-0.5), is_static=True)
    for n in range(3):
        put(buffer, n * S, "map", "odom", pose(n * 0.1, 0, 0, yaw=0.02 * n))
        put(buffer, n * S, "odom", "base", pose(n, 2 * n, 0, yaw=0.5 * n))
    return buffer


def test_chains_of_static_and_moving_edges_by_hand(robot):
    odom, base = pose(0.1, 0, 0, yaw=0.02), pose(1, 2, 0, yaw=0.5)
    left, right = pose(0.2, 0.1, 0.5, yaw=0.5, pitch=0.2), pose(0.2, -0.1, 0.5, yaw=-0.5)
    np.testing.assert_allclose(robot.lookup("map", "left", S), odom @ base @ left, atol=1e-12)
    np.testing.assert_allclose(robot.lookup("left", "map", S), invert(odom @ base @ left), atol=1e-12)
    np.testing.assert_allclose(robot.lookup("left", "right", 5 * S), invert(left) @ right, atol=1e-12)
    np.testing.assert_allclose(robot.lookup("odom", "base", S), base, atol=1e-12)


def test_between_samples_every_edge_is_interpolated(robot):
    stamp = int(1.25 * S)
    odom = pose(0.125, 0, 0, yaw=0.025)
    base = pose(1.25, 2.5, 0, yaw=0.625)
    np.testing.assert_allclose(robot.lookup("map", "base", stamp), odom @ base, atol=1e-12)


@given(st.floats(0, 1), st.tuples(*[st.floats(-1, 1)] * 4), st.tuples(*[st.floats(-1, 1)] * 4))
def test_interpolation_twin(fraction, first, second):
    """scipy's Slerp and a straight line."""
    if min(np.linalg.norm(first), np.linalg.norm(second)) < 0.1:
        return
    buffer = PoseBuffer()
    put(buffer, 0, "odom", "base", make_transform((1, 2, 3), first))
    put(buffer, S, "odom", "base", make_transform((4, 0, -1), second))
    stamp = round(fraction * S)
    got = buffer.lookup("odom", "base", stamp)
    turns = Rotation.from_quat([first, second])
    if (turns[0].inv() * turns[1]).magnitude() < 3.1:
        expected = Slerp([0, S], turns)(stamp).as_matrix()
        np.testing.assert_allclose(got[:3, :3], expected, atol=1e-7)
    np.testing.assert_allclose(
        got[:3, 3], np.interp(stamp, [0, S], [0, 1]) * np.array([3, -2, -4]) + (1, 2, 3), atol=1e-9
    )


def test_samples_may_arrive_out_of_order():
    buffer = PoseBuffer()
    for n in (3, 0, 2, 1):
        put(buffer, n * S, "odom", "base", pose(n * n))
    assert buffer.lookup("odom", "base", int(2.5 * S))[0, 3] == pytest.approx(6.5)
    assert buffer.lookup("odom", "base", int(0.5 * S))[0, 3] == pytest.approx(0.5)


def test_a_second_sample_of_a_stamp_replaces_the_first():
    buffer = PoseBuffer()
    put(buffer, S, "odom", "base", pose(1))
    put(buffer, S, "odom", "base", pose(2))
    assert buffer.lookup("odom", "base", S)[0, 3] == 2


@pytest.mark.parametrize(("stamp", "is_future"), [(-1, False), (2 * S + 1, True), (10 * S, True)])
def test_extrapolation_is_an_error_that_says_which_way(robot, stamp, is_future):
    with pytest.raises(ExtrapolationError, match=r"'(base|odom)'.*known from 0\.000 to 2\.000") as caught:
        robot.lookup("map", "left", stamp)
    assert caught.value.is_future is is_future


def test_a_single_sample_holds_only_at_its_stamp():
    buffer = PoseBuffer()
    put(buffer, S, "odom", "base", pose(1))
    assert buffer.lookup("odom", "base", S)[0, 3] == 1
    for stamp, is_future in ((S - 1, False), (S + 1, True)):
        with pytest.raises(ExtrapolationError) as caught:
            buffer.lookup("odom", "base", stamp)
        assert caught.value.is_future is is_future


def test_static_edges_hold_at_any_time(robot):
    for stamp in (-(10**18), 0, 10**19):
        np.testing.assert_allclose(robot.lookup("base", "right", stamp), pose(0.2, -0.1, 0.5, yaw=-0.5), atol=1e-12)


@pytest.mark.parametrize(("target", "source"), [("map", "ghost"), ("ghost", "map"), ("ghost", "ghost"), ("a", "b")])
def test_unknown_frames_are_errors_and_never_identity(robot, target, source):
    with pytest.raises(LookupTransformError, match="frames that exist: base, left, map, odom, right"):
        robot.lookup(target, source, S)
    with pytest.raises(LookupTransformError, match="none"):
        PoseBuffer().lookup(target, source, S)


def test_a_known_frame_relative_to_itself_is_identity(robot):
    np.testing.assert_array_equal(robot.lookup("map", "map", 99 * S), np.eye(4))
    np.testing.assert_array_equal(robot.lookup("/left", "left", 99 * S), np.eye(4))


def test_two_trees_are_not_connected(robot):
    put(robot, S, "world", "other", pose(1))
    with pytest.raises(LookupTransformError, match="no transform from 'other' to 'map'") as caught:
        robot.lookup("map", "other", S)
    assert not isinstance(caught.value, ExtrapolationError)


def test_the_cache_is_bounded_in_time():
    buffer = PoseBuffer(cache_ns=2 * S)
    for n in range(100):
        put(buffer, n * S, "odom", "base", pose(n))
    assert len(buffer.track("base").stamps) == 3
    assert buffer.lookup("odom", "base", 97 * S)[0, 3] == 97
    with pytest.raises(ExtrapolationError):
        buffer.lookup("odom", "base", 96 * S)
    put(buffer, 50 * S, "odom", "base", pose(-1))
    assert buffer.too_old == 1
    assert len(buffer.track("base").stamps) == len(buffer.track("base")._poses) == 3


def test_the_cache_is_bounded_in_number(monkeypatch):
    monkeypatch.setattr("occupancy_nn_ros.sync.pose_track.MAX_SAMPLES", 10)
    buffer = PoseBuffer()
    for n in range(50):
        put(buffer, n, "odom", "base", pose(n))
    assert len(buffer.track("base").stamps) == len(buffer.track("base")._poses) == 10
    assert buffer.lookup("odom", "base", 49)[0, 3] == 49


def test_loops_are_refused_and_leave_the_tree_as_it_was(robot):
    before = robot.lookup("map", "left", S)
    for child, parent in (("map", "left"), ("odom", "base"), ("base", "base")):
        with pytest.raises(TransformError, match=r"loop|two different"):
            put(robot, S, parent, child, pose(1))
    np.testing.assert_array_equal(robot.lookup("map", "left", S), before)


def test_a_loop_through_a_very_long_chain_is_refused():
    buffer = PoseBuffer()
    for n in range(400):
        put(buffer, 0, f"f{n}", f"f{n + 1}", pose(1), is_static=True)
    with pytest.raises(TransformError, match="loop"):
        put(buffer, 0, "f400", "f0", pose(1), is_static=True)
    assert buffer.lookup("f0", "f400", 0)[0, 3] == 400


def test_a_frame_may_change_its_parent(robot):
    put(robot, 5 * S, "map", "base", pose(7))
    assert robot.parent("base") == "map"
    assert robot.lookup("map", "base", 5 * S)[0, 3] == 7
    with pytest.raises(ExtrapolationError):
        robot.lookup("map", "base", S)  # what was said under the old parent is gone
    put(robot, 0, "odom", "left", pose(3), is_static=True)
    assert robot.lookup("odom", "left", S)[0, 3] == 3


def test_static_and_moving_may_change_places():
    buffer = PoseBuffer()
    put(buffer, S, "odom", "base", pose(1), is_static=True)
    assert buffer.is_static("base")
    put(buffer, 2 * S, "odom", "base", pose(2))
    assert not buffer.is_static("base")
    with pytest.raises(ExtrapolationError):
        buffer.lookup("odom", "base", 9 * S)
    put(buffer, 0, "odom", "base", pose(4), is_static=True)
    put(buffer, 5, "odom", "base", pose(5), is_static=True)
    assert buffer.lookup("odom", "base", 9 * S)[0, 3] == 5


def test_clear_keeps_what_is_static(robot):
    robot.clear()
    assert robot.frames() == {"base", "left", "right"}
    assert robot.lookup("base", "left", 0).shape == (4, 4)
    with pytest.raises(LookupTransformError):
        robot.lookup("map", "left", S)


@pytest.mark.parametrize(
    ("parent", "child", "matrix"),
    [
        ("", "base", np.eye(4)),
        ("odom", "/", np.eye(4)),
        ("odom", "base", np.full((4, 4), np.nan)),
        ("odom", "base", np.ones((4, 4))),
    ],
)
def test_unusable_transforms_are_refused(parent, child, matrix):
    buffer = PoseBuffer()
    with pytest.raises(TransformError):
        put(buffer, 0, parent, child, matrix)
    assert buffer.frames() == set()


def test_leading_slashes_do_not_matter():
    buffer = PoseBuffer()
    put(buffer, 0, "/odom", "base", pose(1), is_static=True)
    assert buffer.lookup("odom", "/base", 0)[0, 3] == 1


def test_readers_never_see_a_half_written_tree(robot):
    stop, poses = threading.Event(), []

    def read():
        while not stop.is_set():
            with suppress(ExtrapolationError):
                poses.append(robot.lookup("map", "left", 2 * S))

    thread = threading.Thread(target=read)  # an error in it fails the test
    thread.start()
    for n in range(2000):
        put(robot, 2 * S + n * S // 50, "odom", "base", pose(n))
    stop.set()
    thread.join()
    assert poses
    for matrix in poses[::50]:
        check_transform(matrix)


@pytest.mark.parametrize(("moved", "yaw", "is_known"), [(0.15, 0.1, True), (1.5, 0.0, False), (0.0, 0.6, False)])
def test_no_pose_is_made_up_while_localisation_corrects_itself(moved, yaw, is_known):
    """A robot may drive at 15 m/s; odom does not in map."""
    buffer = PoseBuffer()
    for stamp, x, angle in ((0, 0.0, 0.0), (S // 10, moved, yaw)):
        put(buffer, stamp, "map", "odom", pose(x, yaw=angle))
        put(buffer, stamp, "odom", "base", pose(1.5 * x))
    assert buffer.lookup("odom", "base", S // 20)[0, 3] == pytest.approx(0.75 * moved)
    if is_known:
        assert buffer.lookup("map", "odom", S // 20)[0, 3] == pytest.approx(moved / 2)
        return
    with pytest.raises(ExtrapolationError, match=rf"moves {moved:.2f} m and turns {yaw:.2f} rad"):
        buffer.lookup("map", "base", S // 20)


@pytest.mark.parametrize(
    ("seconds", "moved", "yaw", "is_known"),
    [
        (5.0, 0.0, 0.0, True),  # it stood still: the gap hides nothing
        (5.0, 0.09, 0.09, True),
        (5.0, 0.2, 0.0, False),
        (5.0, 0.0, 0.2, False),
        (1.0, 5.0, 3.0, True),
        (0.02, 0.5, 0.3, True),  # 25 m/s
        (0.02, 20.0, 0.0, False),
        (0.02, 0.0, 2.0, False),
        (0.001, 0.1, 0.1, True),  # noise of samples close to each other
    ],
)
def test_no_pose_is_made_up_across_a_gap_or_a_jump(seconds, moved, yaw, is_known):
    buffer = PoseBuffer()
    end = round(seconds * S)
    put(buffer, 0, "odom", "base", pose())
    put(buffer, end, "odom", "base", pose(moved, yaw=yaw))
    assert buffer.lookup("odom", "base", end)[0, 3] == pytest.approx(moved)
    if is_known:
        assert buffer.lookup("odom", "base", end // 2)[0, 3] == pytest.approx(moved / 2)
        return
    with pytest.raises(ExtrapolationError, match=rf"moves {moved:.2f} m and turns {yaw:.2f} rad") as caught:
        buffer.lookup("odom", "base", end // 2)
    assert not caught.value.is_future
