# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_odometry, encode_tf
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intake import MAX_MESSAGE_BYTES, Intake
from occupancy_nn_ros.values import CameraModel, StampedTransform

SECOND = 1_000_000_000
T0 = 1_000 * SECOND
MODEL = CameraModel(8, 6, np.array([[5.0, 0, 4], [0, 5, 3], [0, 0, 1]]), "plumb_bob", np.zeros(5))
OPTICAL = make_transform((0.1, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
SENSOR = SensorStream("front", "/front/image_raw", IMAGE, "/front/camera_info")


def image(stamp, frame="front_optical"):
    return encode_image(stamp, frame, np.zeros((6, 8, 3), np.uint8))


def motion(stamp, x, parent="odom"):
    pose = np.eye(4)
    pose[0, 3] = x
    return encode_tf([StampedTransform(stamp, parent, "base_link", pose)])


STATIC = encode_tf([StampedTransform(0, "base_link", "front_optical", OPTICAL)])


@pytest.fixture
def intake():
    return Intake(load_config([], ["keyframes.distance_m=0.05"]), [SENSOR])


def prepare(intake, parent="odom"):
    intake.receive("/tf_static", STATIC)
    intake.receive("/front/camera_info", encode_camera_info(T0, "front_optical", MODEL))
    intake.receive("/tf", motion(T0, 0.0, parent))


def test_keyframe_waits_for_the_transform_that_brackets_it(intake):
    prepare(intake)
    assert intake.receive("/front/image_raw", image(T0 + SECOND // 10)) == []
    assert "known from" in intake.waiting_for()[0]
    (raw,) = intake.receive("/tf", motion(T0 + SECOND // 5, 1.0))
    assert raw.stamp_ns == T0 + SECOND // 10
    assert raw.T_map_base[0, 3] == pytest.approx(0.5)
    assert raw.frames[0].T_map_sensor[:3, 3] == pytest.approx([0.6, 0, 0.5])
    assert intake.waiting_for() == []


@pytest.mark.parametrize(("ahead_s", "said"), [(0.0, False), (0.4, False), (3.0, True), (60.0, True)])
def test_a_camera_whose_clock_runs_ahead_is_named(ahead_s, said):
    rear = SensorStream("rear", "/rear/image_raw", IMAGE, "/rear/camera_info")
    intake = Intake(load_config([], ["sync.max_wait_s=0.5"]), [SENSOR, rear])
    for step in range(4):
        intake.receive("/front/image_raw", image(T0 + step * SECOND // 10))
        intake.receive("/rear/image_raw", image(T0 + step * SECOND // 10 + int(ahead_s * SECOND)))
    expected = f"stamps of 'rear' are {ahead_s:.1f} s ahead of those of 'front'"
    assert [text.startswith(expected) for text in intake.clock_gaps()] == [True] * said


def test_a_set_whose_transform_never_comes_is_dropped_after_the_wait(intake):
    prepare(intake)
    for n in range(1, 4):
        intake.receive("/tf", motion(T0 + n * SECOND // 50, 0.0))
    intake.receive("/front/image_raw", image(T0 + SECOND // 10))
    later = T0 + SECOND // 10 + intake.config.sync.max_wait_s * SECOND + 1
    assert intake.receive("/front/image_raw", image(int(later))) == []
    assert intake.dropped["no transform at its stamp"] == 1


def test_an_image_older_than_all_transforms_is_dropped_at_once(intake):
    prepare(intake)
    assert intake.receive("/front/image_raw", image(T0 - SECOND // 10)) == []
    assert intake.dropped["no transform at its stamp"] == 1


def test_missing_camera_info_is_said_and_nothing_is_made_up(intake):
    intake.receive("/tf_static", STATIC)
    intake.receive("/tf", motion(T0, 0.0))
    intake.receive("/tf", motion(T0 + SECOND, 1.0))
    assert intake.receive("/front/image_raw", image(T0 + SECOND // 2)) == []
    assert intake.waiting_for() == ["no camera_info on /front/camera_info (front)"]
    (raw,) = intake.receive("/front/camera_info", encode_camera_info(T0, "front_optical", MODEL))
    assert raw.frames[0].model.width == 8


def test_map_frame_is_the_trees_own_where_odom_does_not_exist(intake):
    prepare(intake, parent="world")
    (raw,) = intake.receive("/front/image_raw", image(T0))
    assert intake.frame_names.map_frame == "world"
    assert raw.T_map_base[0, 3] == 0


def test_a_configured_map_frame_is_never_replaced():
    intake = Intake(load_config([], ["map_frame=earth"]), [SENSOR])
    prepare(intake)
    intake.receive("/front/image_raw", image(T0))
    assert intake.frame_names is None
    assert "'earth'" in intake.problems["transform"]


@pytest.mark.parametrize(
    ("topic", "message", "reason"),
    [
        ("/front/image_raw", b"\x00\x01\x00\x00", "/front/image_raw: message does not decode"),
        ("/tf", motion(T0, 0.0)[:40], "/tf: message does not decode"),
        ("/tf", motion(T0, float("nan")), "/tf: invalid transform"),
        (
            "/front/camera_info",
            encode_camera_info(T0, "f", CameraModel(8, 6, np.full((3, 3), np.nan), "plumb_bob", np.zeros(5))),
            "/front/camera_info: no usable camera_info",
        ),
    ],
)
def test_bad_messages_are_counted_with_their_topic(intake, topic, message, reason):
    prepare(intake)
    assert intake.receive(topic, message) == []
    assert intake.dropped == {reason: 1}
    (raw,) = intake.receive("/front/image_raw", image(T0))
    assert raw.stamp_ns == T0


def test_an_oversized_message_is_not_looked_at(intake):
    prepare(intake)
    assert intake.receive("/front/image_raw", bytes(MAX_MESSAGE_BYTES + 1)) == []
    assert intake.dropped == {"/front/image_raw: message too large": 1}
    assert intake.received["front"] == 0


def test_intrinsics_may_change_and_bad_ones_count_each_time(intake):
    prepare(intake)
    wide = CameraModel(8, 6, np.array([[2.0, 0, 4], [0, 2, 3], [0, 0, 1]]), "plumb_bob", np.zeros(5))
    bad = CameraModel(8, 6, np.zeros((3, 3)), "plumb_bob", np.zeros(5))
    focal = []
    for stamp, model in ((1, MODEL), (2, wide), (3, wide), (4, bad), (5, bad), (6, MODEL)):
        intake.receive("/front/camera_info", encode_camera_info(T0 + stamp, "front_optical", model))
        focal.append(intake.model_of("front").K[0, 0])
    assert focal == [5, 2, 2, 2, 2, 5]
    assert intake.dropped == {"/front/camera_info: no usable camera_info": 2}


def test_an_image_that_waits_keeps_the_intrinsics_of_its_time(intake):
    """A driver that changes its resolution sends both from the next image on; that one may be here before a pose is."""
    half = CameraModel(4, 3, MODEL.K / 2, "plumb_bob", MODEL.D)
    prepare(intake)
    for tenth, model in ((1, MODEL), (9, half)):
        stamp = T0 + tenth * SECOND // 10
        intake.receive("/front/camera_info", encode_camera_info(stamp, "front_optical", model))
        assert intake.receive("/front/image_raw", image(stamp)) == []
    raws = intake.receive("/tf", motion(T0 + SECOND, 1.0))
    assert [raw.frames[0].model.width for raw in raws] == [8, 4]
    assert intake.intrinsics.changes == {"front": 1}


def test_camera_info_of_another_clock_holds_from_when_it_came(intake):
    half = CameraModel(4, 3, MODEL.K / 2, "plumb_bob", MODEL.D)
    prepare(intake)
    intake.receive("/front/image_raw", image(T0 + SECOND // 10))
    intake.receive("/front/camera_info", encode_camera_info(T0 + 1000 * SECOND, "front_optical", half))
    intake.receive("/front/image_raw", image(T0 + 9 * SECOND // 10))
    raws = intake.receive("/tf", motion(T0 + SECOND, 1.0))
    assert raws[-1].frames[0].model.width == 4


def test_two_publishers_of_camera_info_are_told(intake):
    other = CameraModel(
        8, 6, np.diag([6.0, 6.0, 1.0]) + np.array([[0, 0, 4], [0, 0, 3], [0, 0, 0]]), "plumb_bob", np.zeros(5)
    )
    for n in range(6):
        intake.receive("/front/camera_info", encode_camera_info(T0 + n, "front_optical", (MODEL, other)[n % 2]))
    assert intake.problems["front: camera_info"] == (
        "/front/camera_info of 'front' changes back and forth, 5 times between 8x6 fx 5.0 and 8x6 fx 6.0: two publishers that disagree?"
    )


@pytest.mark.parametrize(
    ("K", "words"),
    [
        ([[5.0, 0, 0], [0, 5, 0], [4, 3, 1]], "expected 0 below the diagonal"),
        ([[5.0, 0, 0], [0, 5, 0], [0, 0, 1]], "the centre cx, cy of K is 0, 0"),
        ([[0.4, 0, 0.5], [0, 0.4, 0.5], [0, 0, 1]], "focal length is 0.4 for images 8 wide, expected pixels"),
    ],
    ids=["by columns", "no centre", "normalised"],
)
def test_intrinsics_that_are_those_of_no_lens_are_refused_by_name(intake, K, words):
    model = CameraModel(8, 6, np.array(K), "plumb_bob", np.zeros(5))
    intake.receive("/front/camera_info", encode_camera_info(T0, "front_optical", model))
    intake.receive("/front/image_raw", image(T0))
    (text,) = intake.waiting_for()
    assert words in text and intake.model_of("front") is None


@pytest.mark.parametrize(
    ("D", "is_lens"), [([-0.3, 0.08, 0, 0, 0], True), ([0.1, -0.2, 0, 0, 0], True), ([-3.0, 0, 0, 0, 0], False)]
)
def test_distortion_under_which_hardly_any_pixel_has_a_ray(intake, D, is_lens):
    model = CameraModel(640, 480, np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1]]), "plumb_bob", np.array(D))
    intake.receive("/front/camera_info", encode_camera_info(T0, "front_optical", model))
    assert (intake.model_of("front") is not None) == is_lens


def drive(intake, of):
    """A camera and odometry: fifty samples, the n-th of which is at x = of(n)."""
    prepare(intake)
    for n in range(1, 50):
        intake.receive("/tf", motion(T0 + n * SECOND // 20, of(n)))
        intake.receive("/front/image_raw", image(T0 + n * SECOND // 20 - SECOND // 50))
    return intake.problems.get("poses that jump", "")


def test_two_sources_of_one_transform_are_told_while_driving(intake):
    """As wheel odometry and a filter that both publish it, 10 cm apart."""
    text = drive(intake, lambda n: 0.02 * n + 0.1 * (n % 2))
    assert text.startswith("'base_link' in 'odom' goes back and forth from sample to sample, ")


def test_a_pose_that_jumps_is_told_and_one_that_drives_is_not(intake):
    text = drive(intake, lambda n: 0.02 * n + (1.5 if n > 30 else 0.0))
    assert text.startswith(
        "'base_link' in 'odom' jumped 1 times, by up to 1.52 m and 0.00 rad: what was mapped before does not fit"
    )


def test_steady_driving_is_not_told(intake):
    assert drive(intake, lambda n: 0.2 * n) == ""
    assert not intake.problems


def test_stamps_of_zero_are_named(intake):
    prepare(intake)
    intake.receive("/front/image_raw", image(0))
    assert intake.problems["front: stamp"].startswith("/front/image_raw: stamps are zero, expected when")


def test_a_camera_clock_that_runs_ahead_is_no_transform_that_stopped(intake):
    prepare(intake)
    for n in range(1, 30):
        intake.receive("/tf", motion(T0 + n * SECOND // 10, 0.01 * n))
        intake.receive("/front/image_raw", image(T0 + 60 * SECOND + n * SECOND // 10))
    assert "known from" in intake.problems["transform"] and "came" not in intake.problems["transform"]


def test_a_dead_camera_is_told(intake):
    both = Intake(intake.config, [SENSOR, SensorStream("back", "/back/image_raw", IMAGE, "/back/camera_info")])
    for n in range(60):
        both.receive("/front/image_raw", image(T0 + n * SECOND // 10))
    assert both.problems["dead"] == "nothing from 'back' (/back/image_raw) for 5 s: mapping without"
    both.receive("/back/image_raw", image(T0 + 6 * SECOND))
    assert both.problems["dead"] == "all sensors are back"


def test_a_loop_of_transforms_is_refused_and_the_tree_stays(intake):
    prepare(intake)
    intake.receive("/tf", encode_tf([StampedTransform(T0, "base_link", "odom", np.eye(4))]))
    assert intake.dropped == {"/tf: invalid transform": 1}
    assert len(intake.receive("/front/image_raw", image(T0))) == 1


def test_a_jump_back_in_time_clears_the_buffers_and_mapping_goes_on(intake):
    prepare(intake)
    assert len(intake.receive("/front/image_raw", image(T0))) == 1
    back = T0 - 100 * SECOND
    intake.receive("/tf", motion(back, 0.0))
    assert intake.time_jumps == 0  # a transform alone may be of another clock
    (raw,) = intake.receive("/front/image_raw", image(back))
    assert intake.time_jumps == 1
    assert raw.stamp_ns == back
    assert "time jumped back" in intake.problems["time"]


def test_frames_between_keyframes_are_not_handed_on(intake):
    prepare(intake)
    intake.receive("/tf", motion(T0 + SECOND // 2, 0.01))
    stamps = [T0, T0 + SECOND // 10, T0 + SECOND // 5]
    assert [len(intake.receive("/front/image_raw", image(stamp))) for stamp in stamps] == [1, 0, 0]
    assert intake.received["front"] == 3
    assert not intake.dropped


def test_odometry_places_the_robot_where_it_is_chosen():
    intake = Intake(load_config([], ["pose_topic=/odom"]), [SENSOR])
    intake.receive("/tf_static", STATIC)
    intake.receive("/front/camera_info", encode_camera_info(T0, "front_optical", MODEL))
    pose = make_transform((3, 0, 0), (0, 0, 0, 1))
    intake.receive("/odom", encode_odometry(StampedTransform(T0, "odom", "base_link", pose)))
    (raw,) = intake.receive("/front/image_raw", image(T0))
    assert raw.T_map_base[0, 3] == 3


def test_flush_hands_out_what_waits_and_counts_what_cannot_be_placed(intake):
    prepare(intake)
    intake.receive("/front/image_raw", image(T0 + SECOND // 10))
    assert intake.flush() == []
    assert intake.dropped["end of recording"] == 1


def test_frames_that_wait_take_no_more_memory_than_they_may():
    """Two cameras, of which one is silent: 32 MiB for frames hold five pairs of 3 MB, whatever ``sync.queue`` says."""
    sensors = [SENSOR, SensorStream("back", "/back/image_raw", IMAGE, "/back/camera_info")]
    intake = Intake(load_config([], ["sync.queue_mib=32", "sync.queue=20"]), sensors)
    picture = np.zeros((1000, 1000, 3), np.uint8)
    for n in range(12):
        intake.receive("/front/image_raw", encode_image(T0 + n * SECOND // 10, "front_optical", picture))
    assert intake.frames.queue == 5
    assert intake.dropped == {"front: queue full": 7}


def test_sets_that_wait_for_transforms_take_no_more_memory_than_they_may():
    intake = Intake(load_config([], ["sync.queue_mib=32", "sync.max_wait_s=60"]), [SENSOR])
    picture = np.zeros((1000, 1000, 3), np.uint8)
    for n in range(16):
        intake.receive("/front/image_raw", encode_image(T0 + n * SECOND // 10, "front_optical", picture))
    assert intake.dropped == {"too many sets wait for transforms": 5}  # eleven of 3 MB fit into 33.5
