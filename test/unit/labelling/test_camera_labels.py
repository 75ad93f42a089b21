# SPDX-License-Identifier: Apache-2.0
"""A camera drives through a room that is known by formula; its depth is exact, noisy, or that of a model of somebody's own."""

import numpy as np
import pytest
import room_drive as room

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import BagError, CheckpointError
from occupancy_nn_ros.labelling import camera_labels
from occupancy_nn_ros.labelling.bags import label_into
from occupancy_nn_ros.labelling.plan import LabelPlan
from occupancy_nn_ros.labelling.recording_sweep import Look
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED, read_shard
from occupancy_nn_ros.values import CameraModel, PosedDepth

LENGTH_S = 2.6
GREY_PER_M = 50
SEEN = CameraModel(96, 72, np.array([[60.0, 0, 47.5], [0, 60, 35.5], [0, 0, 1]]), "none", np.zeros(0))
"""The camera, with as many pixels as the network would tell the depth of."""


def exact(K, pose, u, v):
    """Depth at which the rays of pixels leave the room."""
    ways = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1) @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        walls = np.where(ways > 0, room.ROOM[1] - pose[:3, 3], room.ROOM[0] - pose[:3, 3]) / ways
    return walls.min(axis=-1)


def pictures(of=room.pose, color=None):
    """Pictures whose grey is depth, or of one colour."""
    found = []
    for stamp in room.stamps(200_000_000, LENGTH_S):
        depth = room.depth(of(stamp) @ room.MOUNT)
        grey = np.clip(np.round(depth * GREY_PER_M), 0, 255).astype(np.uint8)
        grey = np.full_like(grey, color(stamp)) if color and color(stamp) is not None else grey
        image = encode_image(stamp, "eye", np.repeat(grey[..., None], 3, axis=2))
        info = encode_camera_info(stamp, "eye", room.MODEL)
        found += [
            room.Message(stamp, "/eye/camera_info", names.CAMERA_INFO, info),
            room.Message(stamp, "/eye/image_raw", names.IMAGE, image),
        ]
    return found


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("room") / "room.mcap"
    return room.write(path, room.static(), room.moves(), pictures())


class StandInSweep:
    """What the network would see if it were perfect, less what is done to it."""

    def __init__(self, network, config):
        pass

    def change(self, number, depth_m):
        return depth_m

    def looks(self, keyframes):
        for number, keyframe in enumerate(keyframes):
            (image,) = keyframe.images
            u, v = np.meshgrid(np.arange(SEEN.width), np.arange(SEEN.height))
            depth_m = self.change(number, exact(SEEN.K, image.T_map_cam, u, v).astype(np.float32))
            depth = PosedDepth(image.camera, image.stamp_ns, depth_m, SEEN, image.T_map_cam)
            yield Look(keyframe, (depth,))


@pytest.fixture
def sweep(monkeypatch, tiny_model):
    def use(change=None):
        kind = type("Changed", (StandInSweep,), {} if change is None else {"change": lambda s, n, d: change(n, d)})
        monkeypatch.setattr(camera_labels, "RecordingSweep", kind)

    use()
    return use


def plan(tiny_model, *settings):
    options = [f"model={tiny_model}", "voxel_size_m=0.2", "network.device=cpu", *settings]
    return LabelPlan(load_config([], options), sensor="cameras")


def inside(points, margin):
    return ((points > room.ROOM[0] + margin) & (points < room.ROOM[1] - margin)).all(axis=-1)


def shards_of(folder, labels):
    return [read_shard(folder / name) for name in labels.shards]


def exact_cells(shard, frame):
    """True depth at the centres of the cells of labels."""
    rows, columns = shard.depth_m.shape[2:]
    v, u = np.mgrid[0:rows, 0:columns] * 4 + 1.5
    K, pose = shard.K[0].astype(float), shard.T_map_cam[frame, 0].astype(float)
    pose[:3, 3] += origin_of(shard)
    return exact(K, pose, u, v)


def origin_of(shard):
    """Shards begin at the first keyframe's base, rounded to metres."""
    return room.pose(room.START_NS)[:3, 3].round()


@pytest.mark.usefixtures("sweep")
def test_labels_are_those_of_the_room(bag, tiny_model, tmp_path):
    labels = label_into(bag, tmp_path, plan(tiny_model))
    assert labels.keyframes >= 12 and labels.dropped == {}
    assert labels.occupied > 300 * labels.keyframes and labels.free > 2000 * labels.keyframes
    for shard in shards_of(tmp_path, labels):
        points = shard.points_m + origin_of(shard)
        edge = shard.edge_m[:, None]
        occupied, free = shard.labels == OCCUPIED, shard.labels == 0
        # An occupied cube holds a piece of wall, floor or ceiling, up to the error of an interpolated depth.
        assert inside(points, 0.7 * edge[..., None])[occupied].mean() < 0.01
        assert inside(points, -0.1)[free].mean() > 0.995
        for frame in range(len(shard.images)):
            known = np.isfinite(shard.depth_m[frame, 0])
            error = np.abs(shard.depth_m[frame, 0][known] / exact_cells(shard, frame)[known] - 1)
            assert known.mean() > 0.3 and np.median(error) < 0.01 and (error < 0.1).mean() > 0.95


def test_what_is_there_for_one_look_is_neither_free_nor_occupied(bag, tiny_model, tmp_path, sweep):
    """A thing stands 1 m before the camera at the eighth keyframe alone."""
    middle = (slice(18, 54), slice(24, 72))

    def stand_before(number, depth_m):
        if number == 8:
            depth_m[middle] = 1.0
        return depth_m

    sweep(stand_before)
    labels = label_into(bag, tmp_path, plan(tiny_model))
    (shard, *_) = shards_of(tmp_path, labels)
    frame = 8
    local = (shard.points_m[frame] - shard.T_map_cam[frame, 0, :3, 3]) @ shard.T_map_cam[frame, 0, :3, :3]
    near = (np.abs(local[:, 2] - 1.0) < 0.35) & (np.abs(local[:, :2]) < 0.15).all(axis=1)
    assert not (near & (shard.labels[frame] != IGNORED)).any()
    before = (np.abs(local[:, 2] - 0.3) < 0.1) & (np.abs(local[:, :2]) < 0.1).all(axis=1)
    assert (before & (shard.labels[frame] == OCCUPIED)).sum() == 0
    beside = shard.labels[frame] == 0
    assert beside.sum() > 1000


def test_a_camera_that_stays_where_it_is_is_refused(tiny_model, tmp_path):
    still = room.moves(of=lambda stamp: room.pose(room.START_NS))
    bag = room.write(tmp_path / "still.mcap", room.static(), still, pictures())
    with pytest.raises(BagError, match=r"move by 0.00 m in all, expected at least 0.15 m: without motion"):
        label_into(bag, tmp_path / "out", plan(tiny_model, "keyframes.max_period_s=0.2"))
    assert list((tmp_path / "out").iterdir()) == []


def test_views_that_do_not_agree_are_refused(bag, tiny_model, tmp_path, sweep, rng):
    sweep(lambda number, depth_m: (depth_m * rng.uniform(0.3, 3, depth_m.shape)).astype(np.float32))
    with pytest.raises(
        BagError, match=r"agree on the depth of \d\.\d% of their pixels, expected at least 2%"
    ) as raised:
        label_into(bag, tmp_path, plan(tiny_model))
    assert "calibrate-cameras" in raised.value.advice


@pytest.mark.usefixtures("sweep")
def test_a_covered_camera_costs_its_keyframes_or_the_bag(tiny_model, tmp_path):
    later = room.START_NS + 1_900_000_000
    bag = room.write(
        tmp_path / "later.mcap", room.static(), room.moves(), pictures(color=lambda s: 8 if s > later else None)
    )
    labels = label_into(bag, tmp_path / "out", plan(tiny_model))
    assert labels.dropped == {"eye: picture shows nothing": 4} and labels.keyframes >= 8
    bag = room.write(tmp_path / "all.mcap", room.static(), room.moves(), pictures(color=lambda s: 8))
    with pytest.raises(BagError, match=r"0 keyframes could be made .*/eye/image_raw: picture shows nothing: all of it"):
        label_into(bag, tmp_path / "out", plan(tiny_model))


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    """A depth network whose output is the mean of the three colours: depth in units of its own."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 96, 128))
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    node = onnx.helper.make_node("ReduceMean", ["image", "axes"], ["out"], keepdims=1)
    graph = onnx.helper.make_graph([node], "mean", [image], [out], [axes])
    path = tmp_path_factory.mktemp("own") / "mean.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), str(path))
    path.with_suffix(".yaml").write_text("output: depth\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    return path


def test_a_model_of_ones_own_measures_in_metres(bag, own_model, tiny_model, tmp_path, sweep):
    """The network knows a third of the pixels, a fifth of those wrong; the model knows all of them, in grey levels."""
    rng = np.random.default_rng(3)

    def spoil(number, depth_m):
        wrong = np.where(rng.random(depth_m.shape) < 0.2, 1.5, 1.0)
        return (depth_m * wrong * (rng.random(depth_m.shape) < 0.5)).astype(np.float32)

    sweep(spoil)
    sparse = label_into(bag, tmp_path / "sparse", plan(tiny_model))
    taught = label_into(bag, tmp_path / "taught", plan(tiny_model, f"network.depth_model={own_model}"))
    assert taught.dropped == {}
    known = {}
    for name, labels in (("sparse", sparse), ("taught", taught)):
        shards = shards_of(tmp_path / name, labels)
        known[name] = np.mean([np.isfinite(shard.depth_m).mean() for shard in shards])
    assert known["taught"] > known["sparse"] + 0.2
    for shard in shards:
        for frame in range(len(shard.images)):
            there = np.isfinite(shard.depth_m[frame, 0])
            error = np.abs(shard.depth_m[frame, 0][there] / exact_cells(shard, frame)[there] - 1)
            assert np.median(error) < 0.02


def test_looks_without_anchors_are_left_out_and_counted(bag, own_model, tiny_model, tmp_path, sweep, monkeypatch):
    """The network knows nothing of three keyframes: the ground that others saw gives their scale, or nothing does."""
    sweep(lambda number, depth_m: depth_m * (number not in (5, 6, 7)))
    settings = f"network.depth_model={own_model}"
    anchored = label_into(bag, tmp_path / "anchored", plan(tiny_model, settings))
    with monkeypatch.context() as patch:
        patch.setattr("occupancy_nn_ros.labelling.teacher.Ground.height", lambda self, place: None)
        left_out = label_into(bag, tmp_path / "left_out", plan(tiny_model, settings))
    reason = "eye: nothing anchors the depth model's scale"
    assert left_out.dropped.pop(reason) == 3 and left_out.keyframes == anchored.keyframes - 3
    assert reason not in anchored.dropped


def test_a_file_that_is_no_depth_model_is_refused(bag, tiny_model, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    (tmp_path / "notes.onnx").write_text("not a model")
    with pytest.raises(CheckpointError, match="cannot read depth model"):
        label_into(bag, tmp_path / "out", plan(tiny_model, f"network.depth_model={tmp_path / 'notes.onnx'}"))
