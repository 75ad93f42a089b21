# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.simulation.measurement_errors import EXACT, MeasurementErrors
from occupancy_nn_ros.simulation.world import Solid, World
from occupancy_nn_ros.training import dataset
from occupancy_nn_ros.training.augmentation import flip_or_turn, random_filter
from occupancy_nn_ros.training.dataset import Sample, SampleSource, make_sample
from occupancy_nn_ros.training.shards import IGNORED, read_shard
from occupancy_nn_ros.training.simulated_shards import label_points


def assert_same(first: Sample, second: Sample):
    for name in Sample.__dataclass_fields__:
        a, b = getattr(first, name), getattr(second, name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def test_a_step_gets_the_same_sample_whatever_came_before(tmp_path, write_shard, shard_arrays):
    for n in range(3):
        write_shard(tmp_path / f"{n}.safetensors", shard_arrays(n))
    paths = sorted(tmp_path.glob("*.safetensors"))
    source = SampleSource(paths, seed=4)
    samples = [source.sample(step) for step in range(8)]
    again = SampleSource(paths[::-1], seed=4)
    for step in (7, 0, 3):
        assert_same(again.sample(step), samples[step])
    other = SampleSource(paths, seed=5)
    differs = [not torch.equal(other.sample(n).points, samples[n].points) for n in range(8)]
    assert all(differs)
    assert len({s.points.sum().item() for s in samples}) == 8


def test_shapes(room_shard):
    for seed in range(12):
        sample = make_sample(room_shard, 3, np.random.default_rng(seed), augment=True)
        total = len(sample.images)
        assert 1 <= sample.views <= 3 and total % sample.views == 0 and total <= 12
        assert sample.images.shape == (total, 64, 96, 3) and sample.images.dtype == torch.uint8
        assert sample.K.shape == (total, 3, 3) and sample.T_world_cam.shape == (total, 4, 4)
        assert sample.depth_m.shape == (sample.views, 16, 24) and sample.depth_m.dtype == torch.float32
        assert sample.points.shape == (256, 3) and sample.labels.shape == (256,)
        assert sample.edge_m == pytest.approx(0.2)


def test_without_augmentation_a_sample_is_the_shard_around_the_base(room_shard):
    sample = make_sample(room_shard, 2, np.random.default_rng(0), augment=False)
    base = room_shard.T_map_base[2, :3, 3]
    assert sample.views == 3 and len(sample.images) == 9
    np.testing.assert_array_equal(sample.images.numpy()[:3], room_shard.images[2])
    np.testing.assert_array_equal(sample.images.numpy()[3:6], room_shard.images[1])
    np.testing.assert_allclose(sample.points.numpy(), room_shard.points_m[2] - base, atol=1e-6)
    np.testing.assert_allclose(
        sample.T_world_cam.numpy()[:3, :3, 3], room_shard.T_map_cam[2, :, :3, 3] - base, atol=1e-6
    )


def project(points, pose, K):
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    return local[:, :2] / local[:, 2:] * (K[0, 0], K[1, 1]) + (K[0, 2], K[1, 2]), local[:, 2]


@pytest.mark.parametrize("seed", range(8))
def test_augmented_surface_points_land_on_the_augmented_depth(room_shard, ray_cast, seed):
    """Points of the walls, labelled as surface, are seen where and as far as the turned or mirrored views say."""
    shard, frame = room_shard, 3
    u, v = np.meshgrid(np.arange(24) * 4 + 2, np.arange(16) * 4 + 2)
    surface = [ray_cast(pose.astype(float), shard.K[0].astype(float), u, v)[1] for pose in shard.T_map_cam[frame]]
    shard.points_m[frame, :] = surface[0].reshape(-1, 3)[np.arange(256) % 384]
    sample = make_sample(shard, frame, np.random.default_rng(seed), augment=True)
    matches = 0
    for view in range(sample.views):
        pose, K = sample.T_world_cam[view].double().numpy(), sample.K[view].double().numpy()
        pixels, depth = project(sample.points.double().numpy(), pose, K)
        cells = np.floor(pixels / 4).astype(int)
        near = np.abs(pixels - (cells * 4 + 1.5)).max(axis=1) < 0.6  # these are the centres of this view's own cells
        near &= (cells >= 0).all(axis=1) & (cells[:, 0] < 24) & (cells[:, 1] < 16) & (depth > 0.1)
        if near.sum() < 240:
            continue  # another camera's points
        matches += 1
        expected = sample.depth_m[view].numpy()[cells[near, 1], cells[near, 0]]
        np.testing.assert_allclose(depth[near], expected, rtol=2e-3)
    assert matches <= 1
    if sample.views == 3:
        assert matches == 1


@pytest.mark.parametrize("seed", range(6))
def test_turned_and_mirrored_pictures_show_the_same_places(room_shard, place_color, seed):
    """Half of the seeds mirror; in either case a wall point has its own colour where it is projected."""
    shard, frame = room_shard, 2
    poses, K = shard.T_map_cam[frame].astype(np.float64), np.tile(shard.K[0].astype(np.float64), (3, 1, 1))
    walls = np.random.default_rng(9).uniform((-4, -3, 0), (4, 3, 2.5), (3000, 3))
    walls[::2, 0] = np.where(walls[::2, 0] > 0, 4.0, -4.0)
    walls[1::2, 1] = np.where(walls[1::2, 1] > 0, 3.0, -3.0)
    images, _, turned, intrinsics, points = flip_or_turn(
        shard.images[frame], shard.depth_m[frame], poses, K, walls, np.random.default_rng(seed)
    )
    compared = 0
    for view in range(3):
        pixels, depth = project(points, turned[view], intrinsics[view])
        pixel = np.round(np.where(depth[:, None] > 0.3, pixels, -9)).astype(int)
        inside = (pixel >= 1).all(axis=1) & (pixel[:, 0] < 95) & (pixel[:, 1] < 63)
        got = images[view][pixel[inside, 1], pixel[inside, 0]].astype(int)
        expected = place_color(walls[inside]).astype(int)
        assert (np.abs(got - expected).max(axis=1) < 12).mean() > 0.97
        compared += inside.sum()
    assert compared > 300


def test_labels_stay_while_poses_and_intrinsics_are_measured(room_shard, monkeypatch):
    """The first base is where it is, so points and depth are those of exact poses, and the past is off by what was asked."""
    samples = []
    for errors in (EXACT, MeasurementErrors(position_m=0.02, rotation_rad=0.01, focal=0.02)):
        monkeypatch.setattr(dataset, "flip_or_turn", lambda *sample: sample[:5])
        samples.append(make_sample(room_shard, 3, np.random.default_rng(6), augment=True, errors=errors))
    exact, measured = samples
    assert torch.equal(exact.points, measured.points) and torch.equal(exact.depth_m, measured.depth_m)
    now, past = slice(0, exact.views), slice(exact.views, None)
    assert len(exact.T_world_cam) > exact.views
    torch.testing.assert_close(exact.T_world_cam[now], measured.T_world_cam[now])
    off = (exact.T_world_cam[past] - measured.T_world_cam[past])[:, :3, 3].norm(dim=1)
    assert 0.003 < off.mean() < 0.08
    ratio = measured.K[:, 0, 0] / exact.K[:, 0, 0]
    assert 0.0005 < (ratio - 1).abs().mean() < 0.08
    torch.testing.assert_close(measured.K[:, 1, 1] / exact.K[:, 1, 1], ratio)


@pytest.mark.parametrize("seed", range(8))
def test_a_random_filter_does_the_same_to_all_images(room_shard, seed):
    """Wherever two images show the same pixels around, they do so afterwards."""
    images = room_shard.images[:2].reshape(-1, 64, 96, 3).copy()
    images[1] = np.roll(images[0], (4, 7), axis=(0, 1))
    out = random_filter(images, np.random.default_rng(seed))
    assert out.shape == images.shape and out.dtype == np.uint8 and not np.array_equal(out, images)
    np.testing.assert_array_equal(out[1, 8:60, 12:90], out[0, 4:56, 5:83])
    assert out.std() > 1 and abs(out.mean() - images.mean()) < 12


def test_no_shards():
    with pytest.raises(TrainingError, match="no training shards"):
        SampleSource([], 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("labels"), "cannot read shard"),
        (lambda a: a.update(K=a["K"][:2]), r"K is \(2, 3, 3\), expected \(3, 3, 3\)"),
        (lambda a: a.update(labels=a["labels"][:, :9]), "labels is"),
        (lambda a: a.update(depth_m=a["depth_m"][..., :5]), "depth_m is"),
        (lambda a: a.update(images=a["images"][..., :1]), "images is"),
        (lambda a: a.update(images=a["images"][0]), "at least two frames"),
        (lambda a: a.update({k: v[:1] for k, v in a.items() if k != "K"}), "at least two frames"),
        (lambda a: a["T_map_cam"].__setitem__((0, 0, 0, 3), np.nan), "T_map_cam holds numbers that are not finite"),
        (lambda a: a["labels"].__setitem__((0, 0), 9), "labels name classes"),
    ],
)
def test_shards_that_do_not_fit_are_refused(tmp_path, write_shard, shard_arrays, change, words):
    arrays = shard_arrays()
    change(arrays)
    path = write_shard(tmp_path / "x.safetensors", {k: np.ascontiguousarray(v) for k, v in arrays.items()})
    with pytest.raises(TrainingError, match=words):
        read_shard(path)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_truncated_shards_are_refused(tmp_path, write_shard, keep):
    whole = write_shard(tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(TrainingError, match="cannot read shard"):
        SampleSource([tmp_path / "x.safetensors"], 0).sample(0)


def test_foreign_and_missing_files_are_refused(tmp_path, write_shard):
    with pytest.raises(TrainingError, match="not a training shard"):
        read_shard(write_shard(tmp_path / "x.safetensors", form="something else"))
    with pytest.raises(TrainingError, match="cannot read shard"):
        read_shard(tmp_path / "none.safetensors")


def test_labels_of_points():
    world = World("w", 0, (Solid("box", (0, 0, 1), (1, 1, 1), 0, 3, 0),), (-3, -3, 3, 3))
    points = np.array([(2, 0, 1), (0.95, 0, 1), (1.05, 0, 1), (0, 0, 1), (2, 2, 0.05), (2, 2, -1)], np.float32)
    assert label_points(world, points, 0.2, 0.0).tolist() == [0, 3, 3, IGNORED, 1, IGNORED]
