# SPDX-License-Identifier: Apache-2.0
"""Recordings of a camera before a wall become shards, or are refused with the reason; nothing unfinished looks finished."""

import json

import numpy as np
import pytest
from box_drive import STEPS, counted, write_drive
from fake_pool import FakePool
from safetensors import safe_open
from wall_bag import OFFSET, T0, WALL_M, write_bag

from occupancy_nn_ros.bags.reader import BagPart
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import BagError, CalibrationError
from occupancy_nn_ros.labelling import frames as label_frames
from occupancy_nn_ros.labelling import range_labels
from occupancy_nn_ros.labelling.bags import Outcome, label_bags, label_into, shard_name
from occupancy_nn_ros.labelling.plan import LabelPlan
from occupancy_nn_ros.training.dataset import SampleSource
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED, Shard, read_shard


@pytest.fixture(autouse=True, scope="module")
def _small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_frames, "FRAMES", 6)
        yield


def plan(start=0.0, end=float("inf"), *settings):
    config = load_config([], ["voxel_size_m=0.2", "keyframes.distance_m=0.01", *settings])
    return LabelPlan(config, BagPart(start, end))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bag") / "wall.mcap")


@pytest.fixture(scope="module")
def labelled(bag, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels")
    return out, label_into(bag, out, plan())


def origin_of(path):
    with safe_open(str(path), framework="np") as file:
        return np.array([float(v) for v in file.metadata()["origin_m"].strip("[]").split()])


def test_a_bag_becomes_shards_of_a_wall(bag, labelled):
    out, labels = labelled
    name = shard_name(bag)
    assert name.startswith("wall_") and labels.shards == (f"{name}_000.safetensors", f"{name}_001.safetensors")
    assert labels.keyframes == 8 and labels.dropped == {}
    shards = [read_shard(out / shard) for shard in labels.shards]
    assert [len(shard.images) for shard in shards] == [6, 2]
    occupied = free = 0
    for shard, path in zip(shards, labels.shards, strict=True):
        np.testing.assert_array_equal(origin_of(out / path), OFFSET)
        assert shard.images.shape[1:] == (1, 192, 256, 3) and shard.visible is not None
        np.testing.assert_allclose(shard.T_map_cam[:, 0, 2, 3], 1.0, atol=1e-6)
        np.testing.assert_allclose(np.diff(shard.T_map_base[:, 1, 3]), 0.02, atol=1e-6)
        assert set(np.unique(shard.edge_m.round(6))) <= {np.float32(0.2), np.float32(0.4)}
        x, edge = shard.points_m[..., 0], shard.edge_m[:, None]
        hit, clear = shard.labels == OCCUPIED, shard.labels == 0
        assert (np.abs(x - WALL_M) <= 0.376 * edge + 1e-3)[hit].all()
        assert (x + edge / 2 <= WALL_M)[clear].all()
        # Half a point's cube may lie beside the picture; all others are seen.
        assert (shard.visible[hit | clear] == 1).mean() > 0.9
        known = np.isfinite(shard.depth_m)
        assert known.mean() > 0.9
        np.testing.assert_allclose(shard.depth_m[known].astype(float), WALL_M, atol=0.06)
        assert (np.abs(shard.depth_m[known] - WALL_M) < 2e-3).mean() > 0.6
        occupied, free = occupied + int(hit.sum()), free + int(clear.sum())
    assert (labels.occupied, labels.free) == (occupied, free)
    assert occupied > 8 * 1600 and free > 8 * 4000


def test_training_takes_them(labelled):
    out, labels = labelled
    source = SampleSource([out / shard for shard in labels.shards], seed=1)
    sample = source.sample(0)
    assert sample.points.abs().max() < 15 and sample.depth_m.isfinite().float().mean() > 0.9
    assert set(sample.labels.unique().tolist()) <= {0, OCCUPIED, IGNORED}


def test_a_lidar_does_too(tmp_path):
    bag = write_bag(tmp_path / "lidar.mcap", ("tf", "camera", "info", "lidar"), frames=8)
    labels = label_into(bag, tmp_path / "out", plan())
    shard = read_shard(tmp_path / "out" / labels.shards[0])
    hit = shard.labels == OCCUPIED
    assert labels.keyframes == 8 and hit.sum() > 8 * 1600
    assert (np.abs(shard.points_m[..., 0] - WALL_M) <= 0.376 * shard.edge_m[:, None] + 1e-3)[hit].all()
    known = np.isfinite(shard.depth_m)
    assert known.mean() > 0.9
    np.testing.assert_allclose(shard.depth_m[known].astype(float), WALL_M, atol=0.06)


def test_a_part_of_the_recording_is_labelled_with_that_part_alone(bag, tmp_path, monkeypatch):
    stamps = []
    decode = range_labels.RangeLabeller._decode_scan
    monkeypatch.setattr(
        range_labels.RangeLabeller, "_decode_scan", lambda s, f: stamps.append(f.stamp_ns) or decode(s, f)
    )
    labels = label_into(bag, tmp_path, plan(0.2, 0.6))
    shard = read_shard(tmp_path / labels.shards[0])
    assert labels.keyframes == 4
    assert shard.images[:, 0, 96, 128, 0].tolist() == list(range(2, 6))
    assert (min(stamps) - T0, max(stamps) - T0) == (200_000_000, 500_000_000)


def test_a_finished_bag_is_kept_and_other_settings_replace_it(bag, tmp_path, monkeypatch):
    first = label_into(bag, tmp_path, plan(0.0, 0.5))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("occupancy_nn_ros.labelling.bags.label_bag", None)
        assert label_into(bag, tmp_path, plan(0.0, 0.5)) == first
    second = label_into(bag, tmp_path, plan(0.3, 0.5))
    assert (first.keyframes, second.keyframes) == (5, 2)
    after = {path.name for path in tmp_path.iterdir()}
    assert after == set(before)
    assert read_shard(tmp_path / second.shards[0]).images.shape[0] == 2
    (tmp_path / second.shards[0]).unlink()
    assert label_into(bag, tmp_path, plan(0.3, 0.5)) == second
    assert (tmp_path / second.shards[0]).exists()


def test_pictures_for_larger_networks(bag, tmp_path):
    labels = label_into(bag, tmp_path, LabelPlan(plan().config, BagPart(0.0, 0.25), scale=2))
    shard = read_shard(tmp_path / labels.shards[0])
    assert shard.images.shape == (3, 1, 384, 512, 3) and shard.depth_m.shape == (3, 1, 96, 128)
    known = np.isfinite(shard.depth_m)
    assert known.mean() > 0.9
    np.testing.assert_allclose(shard.depth_m[known].astype(float), WALL_M, atol=0.06)


def test_labels_are_the_same_each_time(bag, labelled, tmp_path):
    out, labels = labelled
    again = label_into(bag, tmp_path, plan())
    assert again == labels
    for path in labels.shards:
        first, second = read_shard(out / path), read_shard(tmp_path / path)
        for name in Shard.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_an_interrupted_bag_leaves_nothing_that_looks_finished(bag, tmp_path, monkeypatch):
    """The first shard is written, then the power goes."""
    make, made = label_frames.FrameMaker.make, []

    def interrupted(*arguments):
        made.append(1)
        if len(made) == 8:
            raise KeyboardInterrupt
        return make(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(label_frames.FrameMaker, "make", interrupted)
        with pytest.raises(KeyboardInterrupt):
            label_into(bag, tmp_path, plan())
    assert list(tmp_path.iterdir()) == []
    # Even what a killed process leaves is swept up by the next run.
    partial = tmp_path / f"{shard_name(bag)}.partial"
    partial.mkdir()
    (partial / "old_000.safetensors").write_bytes(b"half of a file")
    labels = label_into(bag, tmp_path, plan(0.0, 0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*labels.shards, f"{shard_name(bag)}.json"])


def test_pictures_that_do_not_decode_cost_their_keyframe(tmp_path):
    bag = write_bag(tmp_path / "broken.mcap", frames=6, encoding=lambda n: "rgb8" if n != 2 else "strange")
    labels = label_into(bag, tmp_path / "out", plan())
    assert labels.keyframes == 5
    assert labels.dropped == {"keyframe with a picture that does not decode": 1}


REFUSALS = {
    "no_range.mcap": (("tf", "camera", "info"), "has no range sensor, expected depth images or point clouds; it has: "),
    "no_camera.mcap": (("tf", "info", "depth"), "has no camera images"),
    "no_tf.mcap": (("camera", "info", "depth"), "no transform from 'base_link' to 'odom'"),
    "no_info.mcap": (("tf", "camera", "depth"), "no camera_info"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bags_that_lack_something_are_refused_with_the_reason(name, tmp_path):
    has, reason = REFUSALS[name]
    with pytest.raises(BagError, match=reason):
        label_into(write_bag(tmp_path / name, has, frames=4), tmp_path / "out", plan())
    assert list((tmp_path / "out").iterdir()) == []


def test_other_reasons_to_refuse(bag, tmp_path):
    with pytest.raises(BagError, match=r"no range scan .* can be used; no message on /eye/depth/image_raw"):
        label_into(bag, tmp_path, plan(50.0))
    with pytest.raises(BagError, match=r"1 keyframes could be made of .*, expected at least 2"):
        label_into(bag, tmp_path, plan(0.0, 0.05))
    zoom = write_bag(tmp_path / "zoom.mcap", frames=4, focal=lambda n: 40.0 + n)
    with pytest.raises(CalibrationError, match=r"'eye' changes its intrinsics"):
        label_into(zoom, tmp_path, plan())


def test_the_command_labels_what_it_can_and_says_why_not_the_rest(bag, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.mcap").write_bytes(b"no bag at all")
    bags = [str(bag), str(tmp_path / "empty"), str(tmp_path / "junk.mcap"), str(bag)]
    out = tmp_path / "out"
    options = ["--out", str(out), "--end", "0.6", "--set", "keyframes.distance_m=0.01", "--processes", "1"]
    assert main(["label", *bags, *options, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)["bags"]
    assert [item["bag"] for item in result] == bags[:3]
    assert result[0]["labels"]["keyframes"] == 2 and result[0]["refused"] == ""
    assert "no metadata.yaml" in result[1]["refused"] and result[1]["labels"] is None
    assert "is no MCAP file" in result[2]["refused"]
    assert len(list(out.glob("*.safetensors"))) == len(result[0]["labels"]["shards"]) == 1


def test_parts_that_are_none_are_refused(bag, tmp_path, capsys):
    assert main(["label", str(bag), "--out", str(tmp_path), "--start", "3", "--end", "2"]) == 1
    assert "start is 3 and end 2 s" in capsys.readouterr().err


def test_labels_at_a_url_are_the_same_and_made_once(bag, labelled, tmp_path):
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'occupancy-nn-ros[remote]'")
    url, (near, labels) = f"file://{tmp_path}/far", labelled
    far, label = tmp_path / "far", lambda part=plan(): label_bags([bag], url, part, FakePool())  # noqa: B008
    assert label() == [Outcome(bag, labels)]
    names = sorted(path.name for path in near.iterdir())
    assert sorted(path.name for path in far.iterdir()) == names
    for shard in labels.shards:
        assert (far / shard).read_bytes() == (near / shard).read_bytes()
    stamps = [(far / name).stat().st_mtime_ns for name in names]
    assert label() == [Outcome(bag, labels)]
    assert [(far / name).stat().st_mtime_ns for name in names] == stamps
    (far / labels.shards[1]).unlink()  # as if sending had broken off
    assert label() == [Outcome(bag, labels)]
    assert sorted(path.name for path in far.iterdir()) == names
    (other,) = label(plan(0.0, 0.6))
    assert sorted(path.name for path in far.iterdir()) == sorted([*other.labels.shards, f"{shard_name(bag)}.json"])
    assert len(other.labels.shards) == 1


def test_a_place_that_cannot_be_used_refuses_the_bag_by_name(bag, tmp_path, capsys):
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'occupancy-nn-ros[remote]'")
    (tmp_path / "file").write_text("no folder")
    (outcome,) = label_bags([bag], f"file://{tmp_path}/file/x", plan(), FakePool())
    assert outcome.labels is None and outcome.refused.startswith(
        f"cannot list file://{tmp_path}/file/x: NotADirectoryError"
    )
    assert main(["label", str(bag), "--out", "memory://x", "--format", "numpy"]) == 1
    assert "--format numpy writes into a folder, got memory://x" in capsys.readouterr().err


def labels_of_a_drive(path, out, *how, **more):
    settings = load_config([], ["voxel_size_m=0.1", "keyframes.distance_m=0.05", "map.size_xy_m=10"])
    return label_into(write_drive(path, *how, **more), out, LabelPlan(settings, BagPart()))


def test_a_sensor_that_measures_no_metres_labels_nothing(tmp_path):
    """Beside a LiDAR it is left out, from the start on; alone it refuses the recording, with what to set."""
    both, alone = ("lidar", "eye", "front"), ("eye", "front")
    wrong = labels_of_a_drive(tmp_path / "a.mcap", tmp_path / "a", counted(0.01), sensors=both)
    lidar = labels_of_a_drive(tmp_path / "b.mcap", tmp_path / "b", sensors=("lidar", "eye"))
    assert (wrong.keyframes, wrong.free, wrong.occupied) == (lidar.keyframes, lidar.free, lidar.occupied)
    assert wrong.dropped == {"front_depth: depth is not in metres": 1}
    with pytest.raises(BagError, match=r"no range scan of .*c.mcap can be used; .*set depth_unit_m"):
        labels_of_a_drive(tmp_path / "c.mcap", tmp_path / "c", counted(0.0001), sensors=alone)
    right = labels_of_a_drive(tmp_path / "d.mcap", tmp_path / "d", sensors=alone)
    assert right.keyframes == STEPS and right.dropped == {}
