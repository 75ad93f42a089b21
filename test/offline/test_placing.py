# SPDX-License-Identifier: Apache-2.0
"""Other people's transforms and odometry: the same drive with their stamps, frames and topics gives the same map, or none with a clear
word of the doctor; never another one.
"""

from dataclasses import replace

import numpy as np
import pytest
from room_drive import (
    MOUNT,
    SECOND,
    START_NS,
    examine,
    head,
    images,
    moves,
    odometry,
    play,
    pose,
    pose_stamped,
    pose_with_covariance,
    static,
    tf,
    write,
)

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.sensors import encode_tf
from occupancy_nn_ros.values import StampedTransform, VoxelState


def still(stamp_ns):
    return make_transform((0, 0, 0), (0, 0, 0, 1))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The drive as it should be."""
    result = play(write(tmp_path_factory.mktemp("plain") / "bag", static(), moves(), images()))
    assert result.summary["keyframes"] == 25
    assert not result.summary["dropped"]
    assert (result.view.state == VoxelState.OCCUPIED).sum() > 500
    return result


@pytest.fixture(scope="module")
def nodding(tmp_path_factory):
    """The drive with the camera on a moving head."""
    return play(write(tmp_path_factory.mktemp("nodding") / "bag", moves(), head()))


def assert_same(result, expected):
    """Keyframes, poses and voxels are the same to the bit."""
    assert result.summary["keyframes"] == expected.summary["keyframes"], result.summary["problems"]
    np.testing.assert_array_equal(result.path_m, expected.path_m)
    assert result.view.window == expected.view.window
    np.testing.assert_array_equal(result.view.probability, expected.view.probability)
    np.testing.assert_array_equal(result.view.state, expected.view.state)


def of(checks, level):
    return [check for check in checks if check[0] == level]


def said(checks, level, *words):
    """Whether some check of this level says all of these words."""
    return any(check[0] == level and all(word in " ".join(check[1:]) for word in words) for check in checks)


AMCL = moves("map", "odom", still, period_ns=100_000_000, ahead_ns=SECOND)


def at_offset(ahead_s, period_ns=50_000_000):
    return moves("eye", "tag_7", still, period_ns=period_ns, ahead_ns=int(ahead_s * SECOND))


@pytest.mark.parametrize("map_frame", ["odom", "map"])
def test_amcl_dates_its_transform_a_second_ahead(plain, tmp_path, map_frame):
    bag = write(tmp_path / "bag", static(), moves(), images(), AMCL)
    assert_same(play(bag, f"map_frame={map_frame}"), plain)
    checks = examine(bag, f"map_frame={map_frame}")
    assert {check[0] for check in checks} == {"ok"}, checks
    assert said(checks, "ok", "'odom' in 'map' is dated 1", "s ahead of the images, as AMCL") == (map_frame == "map")


def test_ros_1_robot_state_publisher_dates_fixed_joints_half_a_second_ahead(plain, tmp_path):
    joint = moves("base_link", "eye", lambda s: MOUNT, period_ns=50_000_000, ahead_ns=SECOND // 2)
    bag = write(tmp_path / "bag", joint, moves(), images())
    assert_same(play(bag), plain)
    checks = examine(bag)
    assert {check[0] for check in checks} == {"ok"}, checks
    assert said(checks, "ok", "'eye' in 'base_link' is dated 0.5 s ahead")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (at_offset(1.5), ()),
        (at_offset(-1.5), ()),
        (at_offset(1.5) + at_offset(-1.5), ("tag_7", "more than 1 s behind")),
        (at_offset(-1_700_000_000), ()),
        (at_offset(3600.0), ("tag_7", "dated 3600.2 s ahead", "use_sim_time")),
        (at_offset(3600.0) + at_offset(0), ("tag_7", "ahead")),
    ],
)
def test_a_frame_that_nobody_needs_is_from_another_clock(plain, tmp_path, others, words):
    bag = write(tmp_path / "bag", static(), moves(), images(), others)
    assert_same(play(bag), plain)
    checks = examine(bag)
    assert not of(checks, "problem")
    assert [said(checks, "warning", *words)] == [bool(words)] if words else not of(checks, "warning")


def test_one_needed_sample_from_another_clock_costs_itself(plain, tmp_path):
    strays = [
        tf(START_NS + 3600 * SECOND, "odom", "base_link", pose(START_NS), recorded_ns=START_NS + n * SECOND)
        for n in (1, 2)
    ]
    strays += [tf(START_NS - 60 * SECOND, "odom", "base_link", pose(START_NS), recorded_ns=START_NS + 3 * SECOND)]
    bag = write(tmp_path / "bag", static(), moves(), images(), strays)
    result = play(bag)
    assert_same(result, plain)
    assert result.summary["dropped"] == {"/tf: transform much older than its frame's newest": 1}
    assert said(examine(bag), "warning", "base_link", "ahead of the sensors")


def test_all_transforms_of_another_clock_are_named(tmp_path):
    bag = write(tmp_path / "bag", static(), moves(ahead_ns=3600 * SECOND), images())
    assert play(bag).view is None
    checks = examine(bag)
    assert said(checks, "problem", "'base_link' to 'odom' is dated 3595.1 s ahead of the sensors: another clock")


@pytest.mark.parametrize("late_s", [0.4, 3.0])
def test_transforms_that_arrive_late_are_waited_for(plain, tmp_path, late_s):
    bag = write(tmp_path / "bag", static(), moves(late_ns=int(late_s * SECOND)), images())
    result = play(bag)
    assert_same(result, plain)
    assert said(examine(bag), "warning", f"'base_link' in 'odom' becomes known {late_s:.0f}.") == (late_s > 1)


def test_odometry_of_one_sample_a_second(plain, tmp_path):
    """What lies between two samples a second apart is known when the second comes."""
    bag = write(tmp_path / "bag", static(), moves(period_ns=SECOND), images())
    result = play(bag)
    assert result.summary["keyframes"] == plain.summary["keyframes"]
    np.testing.assert_allclose(result.path_m, plain.path_m, atol=0.01)
    assert not result.summary["dropped"]


@pytest.mark.parametrize("kind", ["tf", "topic"])
def test_odometry_that_starts_late_is_waited_for(nodding, tmp_path, kind):
    late = moves(start_s=3.0) if kind == "tf" else odometry(start_s=3.0)
    bag = write(tmp_path / "bag", late, head())
    result = play(bag)
    frames = result.summary["frames"]
    assert (frames["map"], frames["base"]) == ("odom", "base_link")
    path = nodding.path_m[nodding.path_m[:, 0] >= pose(START_NS + 3 * SECOND)[0, 3]]
    assert len(result.path_m) >= len(path)
    assert result.path_m[0, 0] == pytest.approx(pose(START_NS + 3 * SECOND + 7_000_000)[0, 3], abs=1e-3)
    checks = examine(bag)
    assert said(checks, "warning", "'base_link' in 'odom' is known only from 3.0 s after the first image")
    assert said(checks, "warning", "30 of 50 frame sets could not be placed")


def test_the_pose_only_in_odometry_and_the_camera_on_a_moving_joint(nodding, tmp_path):
    bag = write(tmp_path / "bag", odometry(), head())
    result = play(bag)
    assert result.summary["frames"]["pose_topic"] == "/odometry"
    assert_same(result, nodding)
    checks = examine(bag)
    assert {check[0] for check in checks} == {"ok"}, checks
    assert said(checks, "ok", "/odometry places the robot (pose of 'base_link')")


def test_without_anything_that_stands_still_there_is_no_map(tmp_path):
    bag = write(tmp_path / "bag", head())
    assert play(bag).view is None
    assert said(examine(bag), "problem", "end at 'base_link', which moves with the robot", "start the odometry")


def test_a_map_frame_that_is_the_robots_own_is_refused(tmp_path):
    bag = write(tmp_path / "bag", static(), moves(), images())
    assert play(bag, "map_frame=base_link").view is None
    assert said(examine(bag, "map_frame=base_link"), "problem", "'base_link' moves with the robot")


def test_a_root_of_unusual_name_is_taken_and_called_a_guess(plain, tmp_path):
    bag = write(tmp_path / "bag", static("shell"), moves("arena", "shell"), images())
    result = play(bag)
    assert result.summary["frames"]["map"] == "arena"
    assert result.summary["frames"]["base"] == "shell"
    assert_same(result, plain)
    assert said(examine(bag), "warning", "map frame 'arena'", "for want of a better one", "set map_frame")


@pytest.mark.parametrize(
    "rival",
    [
        moves("map", "base_link", period_ns=30_000_000),
        static("base_footprint", "base_link", still(0)),
        static("base_footprint", "base_link", still(0), recorded_ns=START_NS + SECOND),
    ],
)
def test_two_parents_of_base_link_are_named_and_one_is_used(plain, tmp_path, rival):
    bag = write(tmp_path / "bag", static(), moves(), images(), rival)
    result = play(bag)
    assert_same(result, plain)
    assert "'base_link' has several parents" in result.summary["frames"]["reason"]
    checks = examine(bag)
    assert said(checks, "warning", "'base_link' has several parents", "only 'odom' is used", "one parent")


@pytest.mark.parametrize("child", ["base_link", "base_footprint", ""])
@pytest.mark.parametrize("beside", [[], moves("map", "base_link", still), moves("odom", "base_link", still), AMCL])
def test_a_pose_topic_owns_the_pose(plain, tmp_path, child, beside):
    bag = write(tmp_path / "bag", static(), odometry(child=child), images(), beside)
    assert_same(play(bag, "pose_topic=/odometry"), plain)
    checks = examine(bag, "pose_topic=/odometry")
    assert not of(checks, "problem")
    assert said(checks, "ok", "/odometry places the robot", f"'{child}'")


def test_pose_stamped_places_the_robot(plain, tmp_path):
    bag = write(tmp_path / "bag", static(), pose_stamped(), images(), moves("odom", "base_link", still))
    settings = ("pose_topic=/pose", "pose_type=geometry_msgs/msg/PoseStamped")
    assert_same(play(bag, *settings), plain)
    assert not of(examine(bag, *settings), "problem")


@pytest.mark.parametrize(
    "settings", [(), ("pose_type=geometry_msgs/msg/PoseStamped",)], ids=["default", "another type"]
)
def test_amcl_pose_places_the_robot_whatever_pose_type_says(plain, tmp_path, settings):
    """The bag knows the type of the topic that is named."""
    path = write(tmp_path / "bag", static(), pose_with_covariance("/amcl_pose"), images())
    assert_same(play(path, "pose_topic=/amcl_pose", *settings), plain)
    assert said(examine(path, "pose_topic=/amcl_pose", *settings), "ok", "/amcl_pose places the robot")


def test_poses_that_nobody_named_are_advised(tmp_path):
    checks = examine(write(tmp_path / "bag", static(), pose_with_covariance("/amcl_pose"), images()))
    assert said(checks, "problem", "nothing above 'eye' stands still", "set pose_topic=/amcl_pose")


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        ("robot1/eye", "set cameras.eye_depth.frame_id to 'eye'"),
        ("elsewhere", "set cameras.eye_depth.frame_id"),
        ("", "neither its messages nor its camera_info name a frame"),
    ],
)
def test_frames_that_tf_does_not_have_come_with_those_that_it_has(tmp_path, frame, advice):
    """A prefix in the driver's frames alone, another name, and none at all."""
    checks = examine(write(tmp_path / "bag", static(), moves(), images(frame)))
    assert said(checks, "problem", f"no transform from '{frame}' to 'odom'", advice)


def test_a_pose_topic_that_brings_no_poses_is_a_problem(tmp_path):
    path = write(tmp_path / "bag", static(), moves(), images())
    checks = examine(path, "pose_topic=/eye/depth/camera_info")
    assert said(checks, "problem", "/eye/depth/camera_info", "set pose_topic to a topic of poses")


def test_the_odometrys_child_is_the_frame_that_it_places(plain, tmp_path):
    """Odometry of a frame beside the robot's, fixed to it."""
    offset = make_transform((0, 0, 0.2), (0, 0, 0, 1))
    foot = odometry(child="base_footprint", of=lambda s: pose(s) @ make_transform((0, 0, -0.2), (0, 0, 0, 1)))
    bag = write(tmp_path / "bag", static(), static("base_footprint", "base_link", offset), foot, images())
    result = play(bag, "pose_topic=/odometry")
    assert result.summary["keyframes"] == plain.summary["keyframes"]
    np.testing.assert_allclose(result.path_m, plain.path_m, atol=1e-9)


def test_of_several_odometries_the_connected_one_is_taken(plain, tmp_path):
    other = odometry(child="robot2/base_link", of=still, topic="/a_robot2/odometry")
    bag = write(tmp_path / "bag", static(), odometry(), other, images())
    result = play(bag)
    assert result.summary["frames"]["pose_topic"] == "/odometry"
    assert_same(result, plain)
    assert said(examine(bag), "warning", "several odometries (/a_robot2/odometry, /odometry): /odometry is taken")


BAD = [
    StampedTransform(
        START_NS, "base_link", "arm", np.diag([1, 1, 1, 1]) + np.array([[0, 0, 0, np.nan]] + 3 * [[0.0] * 4])
    ),
    StampedTransform(START_NS, "wing", "wing", np.eye(4)),
    StampedTransform(START_NS, "eye", "base_link", np.eye(4)),
]


@pytest.mark.parametrize("bad", BAD, ids=["nan", "own parent", "loop"])
def test_one_bad_transform_costs_itself_and_not_its_message(plain, tmp_path, bad):
    both = encode_tf([StampedTransform(START_NS, "base_link", "eye", MOUNT), bad])
    bag = write(tmp_path / "bag", [replace(message, cdr=both) for message in static()], moves(), images())
    result = play(bag)
    assert_same(result, plain)
    assert result.summary["dropped"] == {"/tf_static: invalid transform": 1}


def test_static_transforms_that_are_recorded_late_hold_for_the_whole_bag(plain, tmp_path):
    bag = write(tmp_path / "bag", static(recorded_ns=START_NS + 4 * SECOND), moves(), images())
    assert_same(play(bag), plain)
    checks = examine(bag)
    assert said(checks, "warning", "static transforms of 'eye' were recorded up to 3.9 s after the first image")


@pytest.mark.parametrize(
    ("times", "words"), [(1, "it came once, as one that moves"), (5, "it stood still, and came no more")]
)
def test_a_mount_that_was_sent_as_a_moving_one_is_called_that(tmp_path, times, words):
    """The clocks are well: it was published on /tf when its node started, and belongs on /tf_static."""
    mount = [tf(START_NS + n, "base_link", "eye", MOUNT) for n in range(times)]
    path = write(tmp_path / "bag", mount, moves(), images())
    (advice,) = [
        advice for level, _, text, advice in of(examine(path), "problem") if text.startswith("odom") and words in text
    ]
    assert advice.startswith("have its node send it on /tf_static")
    assert "belongs on /tf_static" in play(path).summary["cause"]


def test_odometry_that_stopped_is_called_that(tmp_path):
    """Nobody meant it to be static: it moved before."""
    path = write(tmp_path / "bag", static(), moves()[:60], images())
    ((text, advice),) = [
        (text, advice) for level, subject, text, advice in examine(path) if level == "problem" and subject != "map"
    ]
    silent_s = float(text.rpartition(": nothing of it came for ")[2].removesuffix(" s"))
    assert silent_s == pytest.approx(3.75, abs=0.1)
    assert advice == "see why what publishes it has stopped"


def test_relative_names_are_those_of_the_root(plain, tmp_path):
    path = write(tmp_path / "bag", static(), moves(), images())
    names = ["cameras.eye.image_topic=eye/depth/image_raw", "cameras.eye.camera_info_topic=eye/depth/camera_info"]
    assert_same(play(path, *names, "tf_topic=tf"), plain)
    assert [text for level, _, text, _ in examine(path, *names) if level == "problem"] == []


@pytest.mark.parametrize("robots", [1, 2])
def test_transforms_in_a_namespace_are_found_in_a_bag_that_has_no_other(plain, tmp_path, robots):
    parts = [static(topic="/robot1/tf_static"), moves(topic="/robot1/tf"), images(folder="/robot1/eye")]
    if robots == 2:
        parts += [static(topic="/robot2/tf_static"), moves(topic="/robot2/tf", of=still)]
    bag = write(tmp_path / "bag", *parts)
    result = play(bag)
    assert_same(result, plain)
    assert result.summary["config"]["tf_topic"] == "/robot1/tf"
    assert {check[0] for check in examine(bag)} == {"ok"}


def test_transforms_on_topics_of_any_name(plain, tmp_path):
    bag = write(tmp_path / "bag", static(topic="/poses/mounts"), moves(topic="/poses/now"), images())
    assert_same(play(bag, "tf_topic=/poses/now", "tf_static_topic=/poses/mounts"), plain)


def test_a_bag_played_twice_in_a_row(plain, tmp_path):
    """Time goes back by the length of the drive; transforms go first."""
    first = [*static(), *moves(), *images()]
    again = [replace(m, recorded_ns=m.recorded_ns + 6 * SECOND) for m in [*moves(), *images()]]
    bag = write(tmp_path / "bag", first, again)
    result = play(bag)
    assert result.summary["keyframes"] == 2 * plain.summary["keyframes"]
    assert "time jumped back" in result.summary["problems"]["time"]
