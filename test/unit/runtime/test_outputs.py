# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.messages.decode import decode_camera_info
from occupancy_nn_ros.messages.images import decode_depth
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, POINT_CLOUD
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.map_source import DepthSource, MapSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutputEncoder, depth_topics, output_topics
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth, VoxelState

MODEL = CameraModel(4, 3, np.array([[5.0, 0, 1.5], [0, 6, 1], [0, 0, 1]]), "none", np.zeros(0))


def sensors(*names):
    return [SensorStream(name, f"/{name}", IMAGE) for name in names]


def names_of(topics):
    return [topic.name for topic in topics]


def test_cameras_that_the_network_sees_have_depth_topics():
    config, lidar = load_config(), SensorStream("top", "/points", POINT_CLOUD, kind="cloud")
    topics = output_topics(config, [*sensors("front"), lidar])
    assert topics[: len(OUTPUTS)] == OUTPUTS
    assert [(topic.name, topic.msgtype, topic.group) for topic in topics[len(OUTPUTS) :]] == [
        ("pictures", IMAGE, "depth"),
        ("depth/front/image", IMAGE, "depth"),
        ("depth/front/camera_info", CAMERA_INFO, "depth"),
        ("free/front/points", POINT_CLOUD, "voxels"),
    ]
    never_sure = output_topics(load_config([], ["network.sure_depth=1"]), sensors("front"))
    assert names_of(never_sure[len(OUTPUTS) :]) == ["free/front/points"]


@pytest.mark.parametrize(("camera", "token"), [("rear-left", "rear_left"), ("0", "_0"), ("größe", "gr__e")])
def test_any_camera_has_a_name_that_a_topic_may_have(camera, token):
    assert names_of(depth_topics(camera)) == [f"depth/{token}/image", f"depth/{token}/camera_info"]


def test_every_topic_has_a_name_of_its_own_and_a_period_in_the_settings():
    config = load_config([], ["outputs.grid_period_s=1", "outputs.voxels_period_s=2", "outputs.depth_period_s=3"])
    topics = output_topics(config, sensors("front", "rear"))
    assert len(set(names_of(topics))) == len(topics) == 18
    assert [topic.period_s(config) for topic in topics] == [1] * 6 + [2] * 5 + [3] * 5 + [2] * 2
    assert names_of(topic for topic in topics if topic.is_latched) == [
        "occupancy_grid", "occupancy_probability", "cost_grid", "distance_field", "voxel_grid", "octomap_binary",
        "pictures",
    ]  # fmt: skip


def test_depth_images_go_out_in_the_cameras_own_frame_and_stamp(rng):
    depth_m = rng.uniform(0.3, 9, (3, 4)).astype(np.float32)
    depth_m[1, 2] = 0
    depth = PosedDepth("front", 7_000_000_123, depth_m, MODEL, np.eye(4))
    encoder = OutputEncoder(load_config())
    image, info = encoder.encode(depth_topics("front"), DepthSource(depth, "front_optical"))
    assert (image.name, image.topic.msgtype, image.stamp_ns) == ("depth/front/image", IMAGE, 7_000_000_123)
    header, decoded = decode_depth(IMAGE, image.cdr)
    assert (header.frame_id, header.stamp_ns) == ("front_optical", 7_000_000_123)
    assert np.abs(decoded - depth_m).max() <= 0.00051 and decoded[1, 2] == 0
    header, model = decode_camera_info(info.cdr)
    assert (info.name, header.frame_id) == ("depth/front/camera_info", "front_optical")
    assert (model.width, model.height) == (4, 3)
    assert np.array_equal(model.K, MODEL.K) and not model.D.any()


def test_depth_images_keep_their_period_for_each_camera():
    encoder, topics = OutputEncoder(load_config([], ["outputs.depth_period_s=0.5"])), depth_topics("front")
    wanted = {"depth/front/image", "occupancy_grid"}
    sent = []
    for tenth in range(12):
        stamp_ns = tenth * 100_000_000
        depth = PosedDepth("front", stamp_ns, np.ones((3, 4), np.float32), MODEL, np.eye(4))
        due = encoder.due(topics, stamp_ns, wanted)
        assert set(names_of(due)) <= {"depth/front/image"}
        sent += [tenth for _ in encoder.encode(due, DepthSource(depth, "eye"))]
    assert sent == [0, 5, 10]
    assert len(encoder.due(depth_topics("rear"), 1_100_000_000, {"depth/rear/image"})) == 1


def test_what_is_for_other_programs_alone_may_be_missing(monkeypatch):
    optional = {topic.name: topic for topic in OUTPUTS if topic.is_optional}
    assert optional.keys() == {"moving", "mesh", "octomap_binary"}
    assert optional["octomap_binary"].is_available
    monkeypatch.setattr("occupancy_nn_ros.runtime.outputs.find_spec", lambda name: None)
    assert not optional["mesh"].is_available


def room():
    """A window 4 m high around a robot at 1.2 m above its bottom, whose middle column is occupied from floor to ceiling."""
    shape = (3, 3, 20)
    state = np.full(shape, VoxelState.UNKNOWN, np.int8)
    state[1, 1] = VoxelState.OCCUPIED
    T_map_base = np.eye(4)
    T_map_base[2, 3] = 1.2
    return MapView(
        stamp_ns=5, frame_id="odom", window=LatticeWindow(0.2, (0, 0, 0), shape), T_map_base=T_map_base,
        probability=np.full(shape, 0.9, np.float32), state=state, classes=np.zeros(shape, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "lowest_m", "highest_m"),
    [
        ([], 1.5, 2.7),  # 0.2 to 1.6 m above a base at 1.2 m
        (["outputs.markers_min_height_m=-50", "outputs.markers_max_height_m=50"], 0.1, 3.9),
    ],
)
def test_markers_show_the_band_between_floor_and_ceiling(settings, lowest_m, highest_m):
    source = MapSource(room(), load_config([], settings))
    heights = source.voxels_of_markers.points_m[:, 2]
    assert (heights.min(), heights.max()) == pytest.approx((lowest_m, highest_m), abs=1e-5)
    assert len(source.voxels.points_m) == 20  # the cloud holds them all


@pytest.mark.parametrize(
    ("settings", "lowest_m", "highest_m"),
    [
        ([], 1.5, 2.7),
        (["outputs.markers_min_height_m=-50", "outputs.markers_max_height_m=50"], 0.1, 3.9),
    ],
)
def test_so_does_the_mesh(settings, lowest_m, highest_m):
    pytest.importorskip("skimage")
    view = room()
    view.state[:] = np.where(view.state == VoxelState.OCCUPIED, VoxelState.OCCUPIED, VoxelState.FREE)
    view.probability[:] = np.where(view.state == VoxelState.OCCUPIED, 0.9, 0.1)
    (mesh,) = (topic for topic in OUTPUTS if topic.name == "mesh")
    (marker,) = deserialize(mesh.msgtype, mesh.encode(MapSource(view, load_config([], settings)))).markers
    heights = np.array([corner.z for corner in marker.points])
    assert (heights.min(), heights.max()) == pytest.approx((lowest_m, highest_m), abs=1e-5)
