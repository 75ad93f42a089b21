# SPDX-License-Identifier: Apache-2.0
import itertools
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import MapFileError, TransformError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.names import IMAGE, OCCUPANCY_GRID, POINT_CLOUD, VOXEL_GRID
from occupancy_nn_ros.messages.sensors import encode_depth_image, encode_image, encode_point_cloud
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.memory import MemoryWatch
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import CameraModel, VoxelState

NODE = Path(__file__).parents[3] / "occupancy_nn_ros" / "ros" / "node.py"
SECOND = 1_000_000_000
MODEL = CameraModel(64, 48, np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]), "none", np.zeros(0))
CAMERA = make_transform((0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
SENSOR = SensorStream("depth", "/depth/image", IMAGE, "/depth/camera_info", kind="depth")
ALL = {topic.name for topic in OUTPUTS if topic.is_available}
HEAVY = {topic.name for topic in OUTPUTS if topic.is_available and topic.group == "voxels"}
GRIDS = ["occupancy_grid", "occupancy_probability", "cost_grid", "scan", "moving", "distance_field"]


def wall(stamp_ns, x_m=0.0, depth_m=2.0, shape=(48, 64)):
    """A camera at height 0.5 m that looks along x at a wall ``depth_m`` ahead."""
    pose = make_transform((x_m, 0, 0), (0, 0, 0, 1))
    cdr = encode_depth_image(stamp_ns, "cam", np.full(shape, depth_m, np.float32))
    return RawKeyframe(stamp_ns, pose, (RawFrame(SENSOR, stamp_ns, "cam", cdr, MODEL, pose @ CAMERA),))


@pytest.fixture
def session():
    config = load_config([], ["source=depth", "voxel_size_m=0.25", "map.size_xy_m=8", "outputs.voxels_period_s=1"])
    return MappingSession(config, OccupancyPipeline(config))


def grid_cell(cdr, x, y):
    message = deserialize(OCCUPANCY_GRID, cdr)
    column = int(np.floor((x - message.info.origin.position.x) / message.info.resolution))
    row = int(np.floor((y - message.info.origin.position.y) / message.info.resolution))
    return int(message.data[row * message.info.width + column])


def test_a_wall_becomes_lethal_the_space_before_it_free_and_behind_it_unknown(session):
    for n in range(3):
        messages = session.process(wall(n * SECOND), "odom", {"occupancy_grid"})
    (grid,) = messages
    assert grid_cell(grid.cdr, 2.1, 0.1) == 100
    assert grid_cell(grid.cdr, 1.1, 0.1) == 0
    assert grid_cell(grid.cdr, 3.0, 0.1) == -1
    assert session.keyframes == 3


def test_voxel_layers_rays_to_the_free_endpoints_clear_what_is_free_and_nothing_else(session):
    """By the documented rule: a ray ends two cells before its point and clears all cells up to there."""
    for n in range(3):
        (cloud,) = session.process(wall(n * SECOND), "odom", {"free/depth/points"})
    header, points = decode_point_cloud(cloud.cdr)
    assert header.frame_id == "cam" and len(points) > 2000
    length = np.linalg.norm(points, axis=1)
    cleared = (length - 2 * 0.25) / length
    along = points[:, None] * (cleared[:, None] * np.linspace(0, 1, 40))[..., None]
    passed = along.reshape(-1, 3) @ CAMERA[:3, :3].T + CAMERA[:3, 3]
    states = session.query(passed, interpolate=False).state.reshape(len(points), 40)
    assert not (states == VoxelState.OCCUPIED).any()
    beyond = length * cleared > 1.25  # nearer than that nothing is seen at first
    assert (states[beyond, -1] == VoxelState.FREE).all()
    ends = points[:, 2] * cleared
    middle = (np.abs(points[:, :2]) < 0.3 * points[:, 2:]).all(axis=1)
    assert ends[middle] == pytest.approx(1.9, abs=0.2)  # the voxels before the wall, which begins at 2 m


def test_only_what_is_wanted_and_due_goes_out(session):
    assert session.process(wall(0), "odom", set()) == []
    names = [[m.name for m in session.process(wall(SECOND + n * SECOND // 2), "odom", ALL)] for n in range(3)]
    assert [len(n) for n in names] == [len(ALL), len(GRIDS), len(ALL)]
    assert names[1] == GRIDS


def sizes(messages):
    return sum(len(m.cdr) for m in messages if m.name in HEAVY)


def test_heavy_outputs_keep_to_their_limit_and_what_is_held_back_is_counted(session):
    """Keyframes come ten times a second, voxels are due once a second; half of that rate is allowed."""
    per_round = sizes(session.process(wall(0), "odom", ALL))
    config = load_config(
        [], [f"outputs.voxels_max_mb_s={per_round / 2 / 1e6}", "source=depth", "outputs.voxels_period_s=1"]
    )
    session.reconfigure(config)
    sent = {n: session.process(wall(n * SECOND // 10), "odom", ALL) for n in range(10, 71)}
    assert [n for n, messages in sent.items() if sizes(messages)] == [10, 30, 50, 70]
    assert sum(sizes(messages) for messages in sent.values()) == pytest.approx(4 * per_round, rel=0.01)
    assert all(len(messages) in (len(GRIDS), len(ALL)) for messages in sent.values())  # grids are not held back
    status = session.status(Intake(session.config, [SENSOR]), 7 * SECOND, "mapping")
    held = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
    assert held == {f"{name}: over outputs.voxels_max_mb_s": 3 * 10 for name in HEAVY}


def test_a_jump_back_in_time_frees_the_link_of_the_heavy_outputs(session):
    session.reconfigure(load_config([], ["outputs.voxels_max_mb_s=0.001", "source=depth"]))
    assert sizes(session.process(wall(100 * SECOND), "odom", ALL)) > 10_000  # ten seconds' worth and more
    assert sizes(session.process(wall(101 * SECOND), "odom", ALL)) == 0
    assert sizes(session.process(wall(SECOND), "odom", ALL)) > 10_000


def test_drop_offs_need_more_than_the_network(tiny_model):
    """Where only pictures come in, it is said that edges are missed; a depth camera is enough to say nothing."""
    settings = [f"model={tiny_model}", "voxel_size_m=0.25", "map.size_xy_m=8", "grid.max_step_down_m=0.2"]
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    camera = SensorStream("front", "/front/image", IMAGE, "/front/camera_info")
    picture = RawFrame(camera, 0, "cam", encode_image(0, "cam", pixels), MODEL, CAMERA)
    for raw, is_said in ((RawKeyframe(0, np.eye(4), (picture,)), True), (wall(0), False)):
        config = load_config([], settings if is_said else [*settings, "source=depth"])
        session = MappingSession(config, OccupancyPipeline(config))
        session.process(raw, "odom", set())
        assert session.keyframes == 1
        assert ("sees most drop-offs late" in session.problems.get("drop-offs", "")) == is_said


def test_a_depth_camera_and_a_lidar_mark_the_map_beside_each_other(session):
    """The depth camera sees a wall 2 m ahead; the LiDAR sees a post behind the robot, which no camera looks at."""
    lidar = SensorStream("top", "/points", POINT_CLOUD, kind="cloud")
    post = np.stack([np.full(50, -1.625), np.full(50, 0.125), np.linspace(-0.2, 0.6, 50)], axis=1).astype(np.float32)
    for n in range(3):
        stamp, raw = n * SECOND, wall(n * SECOND)
        pose = make_transform((0, 0, 0.5), (0, 0, 0, 1))
        cloud = RawFrame(lidar, stamp, "top", encode_point_cloud(stamp, "top", post), None, pose)
        session.process(replace(raw, frames=(*raw.frames, cloud)), "odom", set())
    points = np.array([[2.1, 0.1, 0.6], [1.0, 0.1, 0.6], [-1.6, 0.1, 0.6], [-0.8, 0.1, 0.6], [-2.5, 0.1, 0.6]])
    assert session.query(points, interpolate=False).state.tolist() == [1, 0, 1, 0, -1]


def test_distance_field_grows_with_the_distance_to_the_wall(session):
    for n in range(3):
        messages = session.process(wall(n * SECOND), "odom", {"distance_field"})
    message = deserialize("sensor_msgs/msg/PointCloud2", messages[0].cdr)
    points = np.frombuffer(message.data, "<f4").reshape(-1, 4)
    ahead = points[np.abs(points[:, 1] - 0.125) < 1e-3]
    ahead = ahead[ahead[:, 0] < 2.0]
    assert ahead[:, 3] == pytest.approx(2.125 - ahead[:, 0], abs=1e-5)


def test_voxel_grid_message_holds_the_map(session):
    session.process(wall(0), "odom", set())
    messages = {m.name: m.cdr for m in session.final_outputs(ALL)}
    message, view = deserialize(VOXEL_GRID, messages["voxel_grid"]), session.view()
    assert (message.size_x, message.size_y, message.size_z) == view.window.shape
    assert np.array_equal(message.state, view.state.reshape(-1))
    assert {1, 0, -1} == set(np.unique(message.state))


def test_a_frame_that_does_not_decode_costs_itself_and_is_named(session):
    good = wall(0)
    bad = replace(good.frames[0], cdr=good.frames[0].cdr[:100])
    assert session.process(replace(good, frames=(bad,)), "odom", ALL) == []
    assert session.keyframes == 0
    assert session.dropped == {"depth: frame does not decode": 1, "keyframe without usable frames": 1}
    assert "/depth/image at 0.000 s" in session.problems["depth: frame does not decode"]
    session.process(replace(good, frames=(bad, *good.frames)), "odom", ALL)
    assert session.keyframes == 1


def test_another_thread_reads_copies_while_the_worker_counts(session):
    """Were the counters themselves read, adding them up would fail within moments: they grow in between."""
    done = threading.Event()

    def count():
        for n in itertools.count():
            session.dropped[f"reason {n % 5000}"] += 1
            if n % 5000 == 4999:
                session.dropped.clear()
            if done.is_set():
                return

    worker = threading.Thread(target=count)
    worker.start()
    try:
        intake = Intake(session.config, [SENSOR])
        for _ in range(300):
            assert all(number >= 1 for number in session.status(intake, 0, "mapping").drop_counts)
    finally:
        done.set()
        worker.join()


def test_what_was_dropped_elsewhere_stands_in_the_status_and_not_in_the_session(session):
    status = session.status(Intake(session.config, [SENSOR]), 0, "mapping", {"worker busy": 3})
    assert (status.drop_reasons, status.drop_counts) == (("worker busy",), (3,))
    assert not session.dropped


def test_classes_are_answered_at_points_as_the_view_holds_them(session):
    session.process(wall(0), "odom", set())
    grid = session.pipeline.map
    grid.class_evidence.copy_(torch.randint(0, 9, grid.class_evidence.shape, dtype=torch.int16))
    view, points = session.view(), np.random.default_rng(0).uniform(-4.5, 4.5, (4000, 3))
    cells = view.window.index_of(points)
    inside = ((cells >= 0) & (cells < view.window.shape)).all(axis=1)
    expected = np.where(inside, view.classes[tuple(np.where(inside[:, None], cells, 0).T)], 0)
    assert expected.any()
    assert np.array_equal(session.query(points, interpolate=False).classes, expected)
    assert session.query(np.full((1, 3), np.nan), interpolate=False).classes.tolist() == [0]


def test_a_picture_of_another_size_than_camera_info_says_is_refused(session):
    session.process(wall(0, shape=(24, 32)), "odom", ALL)
    assert "image is 32x24, camera_info says 64x48" in session.problems["depth: frame does not decode"]


def test_the_map_survives_a_jump_back_in_time(session):
    session.process(wall(100 * SECOND), "odom", set())
    before = session.view().state.copy()
    session.process(wall(SECOND), "odom", set())
    assert np.array_equal(session.view().state == 1, before == 1)


def test_query_answers_with_state_probability_and_class(session):
    for n in range(3):
        session.process(wall(n * SECOND), "odom", set())
    answer = session.query(np.array([[2.1, 0.1, 0.6], [1.0, 0.1, 0.6], [3.5, 0.1, 0.6], [99, 0, 0]]), interpolate=False)
    assert answer.state.tolist() == [1, 0, -1, -1]
    assert answer.probability[0] > 0.8 and answer.probability[1] < 0.3
    assert np.isnan(answer.probability[2:]).all()
    assert answer.classes.tolist() == [0, 0, 0, 0]


def test_a_saved_map_comes_back_and_one_of_another_frame_is_refused(session, tmp_path):
    from occupancy_nn_ros.mapping.map_file import save_map

    session.process(wall(0), "odom", set())
    state = session.view().state
    save_map(session.pipeline.map, tmp_path / "m.safetensors", "odom")
    save_map(session.pipeline.map, tmp_path / "other.safetensors", "map")
    session.clear()
    assert (session.view().state == -1).all()
    with pytest.raises(MapFileError, match=r"frame 'map'.*'odom'"):
        session.load_map(tmp_path / "other.safetensors")
    session.load_map(tmp_path / "m.safetensors")
    assert np.array_equal(session.view().state, state)


def test_a_map_in_a_frame_that_was_found_by_itself_loads_again(session, tmp_path):
    from occupancy_nn_ros.mapping.map_file import save_map

    session.process(wall(0), "world", set())
    state = session.view().state
    save_map(session.pipeline.map, tmp_path / "m.safetensors", session.frame_id)

    again = MappingSession(session.config, OccupancyPipeline(session.config))
    again.load_map(tmp_path / "m.safetensors")
    assert again.frame_id == "world"
    assert np.array_equal(again.view().state, state)
    assert again.process(wall(SECOND), "odom", set()) == [] and again.keyframes == 0
    assert again.problems["keyframe in another frame"] == "the map is in 'world', a keyframe in 'odom': clear the map"
    again.process(wall(SECOND), "world", set())
    assert again.keyframes == 1

    config = replace(session.config, map_frame="map")
    named = MappingSession(config, OccupancyPipeline(config))
    with pytest.raises(MapFileError, match=r"frame 'world'.*'map'"):
        named.load_map(tmp_path / "m.safetensors")


def test_a_cleared_map_may_be_in_any_frame(session, tmp_path):
    from occupancy_nn_ros.mapping.map_file import save_map

    session.process(wall(0), "world", set())
    save_map(session.pipeline.map, tmp_path / "m.safetensors", "world")
    again = MappingSession(session.config, OccupancyPipeline(session.config))
    again.load_map(tmp_path / "m.safetensors")
    again.clear()
    assert again.frame_id == "odom"
    again.process(wall(SECOND), "odom", set())
    assert (again.keyframes, again.frame_id) == (1, "odom")


def test_status_reports_rate_age_drops_and_latency(session):
    intake = Intake(session.config, [SENSOR])
    intake.receive("/depth/image", b"junk")
    for n in range(5):
        session.process(wall(n * SECOND // 2), "odom", ALL)
    status = session.status(intake, 5 * SECOND, "mapping")
    assert status.keyframe_rate == pytest.approx(2.0)
    assert status.map_age == pytest.approx(3.0)
    assert dict(zip(status.drop_reasons, status.drop_counts, strict=True)) == {
        "/depth/image: message does not decode": 1
    }
    assert status.stages == ("decode", "integrate", "encode", "total")
    assert all(0 < a <= b for a, b in zip(status.latency_p50_ms, status.latency_p95_ms, strict=True))


def test_live_settings_take_effect(session):
    for n in range(2):
        session.process(wall(n * SECOND), "odom", set())
    assert (session.view().state == 1).sum() > 0
    config = load_config([], ["source=depth", "voxel_size_m=0.25", "map.size_xy_m=8", "map.occupied_probability=0.95"])
    session.reconfigure(config)
    assert (session.view().state == 1).sum() == 0


def test_stages_are_called_what_the_message_says(session):
    """``MapStatus.msg`` lists them in the order in which they come; two are added by the node, the last is the pipeline's."""
    session.process(wall(0), "odom", ALL)
    text = (Path(__file__).parents[3] / "msg" / "MapStatus.msg").read_text(encoding="utf-8")
    (comment,) = re.findall(r"^string\[\] stages +# (.*(?:\n +#.*)*)", text, re.M)
    assert re.findall(r"[a-z_]{5,}", comment.split(";")[0]) == [
        "decode",
        "integrate",
        "predict",
        "depth_model",
        "encode",
    ]
    told = [re.search(r"[a-z_]+", part)[0] for part in comment.split(";")[1:]]
    assert told == ["total", "stamp_to_grid", "without_network", "look_again"]
    own = list(session.latency.summary())
    assert own == ["decode", "integrate", "encode", "total"]  # no network here
    assert set(told) - {"total", "look_again"} <= set(re.findall(r'"(\w+)": total_s', NODE.read_text(encoding="utf-8")))


def test_a_second_look_is_timed_apart_and_its_failure_costs_itself(session, monkeypatch):
    session.process(wall(0), "odom", ALL)
    session.look_again()
    assert "look_again" not in session.latency.summary()  # there is no network to look
    clock = SimpleNamespace(seconds=lambda: {"look_again": 0.25})
    monkeypatch.setattr(session.pipeline, "look_again", lambda: clock)
    session.look_again()
    assert session.latency.newest("look_again") == 0.25

    def fail():
        raise TransformError("no rigid transform")

    monkeypatch.setattr(session.pipeline, "look_again", fail)
    session.look_again()
    assert session.dropped["second look failed"] == 1
    assert session.problems["second look failed"] == "no rigid transform"


def test_a_keyframe_that_waited_too_long_is_dropped_and_counted(session):
    keyframe = replace(
        wall(10 * SECOND), ready_ns=11 * SECOND
    )  # its transforms came a second late, which is no fault of its own
    assert not session.is_late(keyframe, 16 * SECOND)
    assert not session.is_late(keyframe, 2 * SECOND)  # time was turned back meanwhile
    assert session.dropped == {}
    assert session.is_late(keyframe, 16 * SECOND + 1)
    assert session.dropped == {"waited longer than keyframes.max_age_s": 1}
    assert "waited 5.0 s" in session.problems["waited longer than keyframes.max_age_s"]


def test_a_computer_that_is_too_slow_maps_the_newest_keyframes_and_never_falls_further_behind(session):
    """Thirty keyframes a tenth of a second apart, each takes as long as four come in: simulated without a clock."""
    from occupancy_nn_ros.ros.worker import Worker

    started, go_on, newest_ns, ages_ns = threading.Semaphore(0), threading.Semaphore(0), [0], []

    def work(raw):
        ages_ns.append(newest_ns[0] - raw.stamp_ns)
        started.release()
        go_on.acquire()
        if not session.is_late(raw, newest_ns[0]):
            session.process(raw, "odom", ())

    def fail(error):
        raise error

    worker = Worker(work, fail)
    for n in range(30):
        newest_ns[0] = n * SECOND // 10
        worker.offer(replace(wall(newest_ns[0]), ready_ns=newest_ns[0]))
        if n % 4 == 0:
            if n:
                go_on.release()
            assert started.acquire(timeout=20)
    go_on.release()
    assert started.acquire(timeout=20)
    go_on.release()
    assert worker.stop()
    assert ages_ns[0] == 0 and set(ages_ns) <= {0, SECOND // 10}
    assert session.keyframes == len(ages_ns)
    assert session.keyframes + worker.overwritten == 30


def test_memory_over_the_limit_costs_remembered_places_and_is_said(session):
    session.pipeline.map = RollingMap(0.25, (16, 16, 16), replace(session.config.map, remember_mib=1))
    peaks = iter([60, 70, 80, 101])
    session.memory = MemoryWatch(100, lambda: next(peaks))
    for n in range(4):
        session.process(wall(n * SECOND, x_m=1.0 * n, depth_m=4.9 - n), "odom", ())
    assert session.keyframes == 4
    assert session.pipeline.map.store.dropped > 0
    assert "101 MiB of memory were taken, max_memory_mib is 100" in session.problems["memory"]
