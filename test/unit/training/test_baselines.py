# SPDX-License-Identifier: Apache-2.0
"""The baselines of benchmarks/: depth of a plane that is known, columns a pixel falls into, and training that goes on."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import baselines
import baselines_train
from baselines_bev import LIFTED, BevNetwork
from baselines_depth import DepthMapper, GreyView, PlaneSweepDepth, perfect_depth, sweep, without_speckles
from baselines_learned import WithoutPast, best_seen, load_baseline, make_predictor
from baselines_train import calibrate_baseline, train_baseline

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import CheckpointError
from occupancy_nn_ros.evaluation.calibrate import LabelledLogits
from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint, save_checkpoint
from occupancy_nn_ros.network.matching import FeatureMaps
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.training.dataset import SampleSource
from occupancy_nn_ros.training.loop import TrainConfig
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedDepth, PosedImage, Prediction, VoxelState

K = np.array([[110.0, 0, 79.5], [0, 110, 59.5], [0, 0, 1]])
R_BASE_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def pose(x, y, z=0.7):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R_BASE_OPTICAL, (x, y, z)
    return T


def picture_of_wall(T, wall_x, texture):
    """A view of a textured wall at x = wall_x, straight ahead; 64 texture pixels a metre."""
    v, u = np.indices((120, 160))
    depth = wall_x - T[0, 3]
    y = T[1, 3] - (u - K[0, 2]) / K[0, 0] * depth
    z = T[2, 3] - (v - K[1, 2]) / K[1, 1] * depth
    return cv2.remap(
        texture, ((y + 8) * 64).astype(np.float32), ((z + 8) * 64).astype(np.float32), cv2.INTER_LINEAR
    ), np.full((120, 160), depth, np.float32)


@pytest.fixture
def texture(rng):
    fine = rng.integers(0, 255, (1024, 1024)).astype(np.float32)
    return cv2.GaussianBlur(fine, (0, 0), 1.5) * 3 - 255


def test_the_sweep_finds_the_depth_of_a_wall(texture):
    places = [pose(0, 0), pose(0, 0.12), pose(0, -0.12), pose(-0.1, 0.05)]
    views = [GreyView(picture_of_wall(T, 2.5, texture)[0], np.ones((120, 160), bool), K, T) for T in places]
    depth = sweep(views[0], views[1:])
    inner = depth[12:-12, 20:-20]
    assert (inner > 0).mean() > 0.9
    assert np.abs(inner[inner > 0] / 2.5 - 1).max() < 0.03
    assert np.median(np.abs(inner[inner > 0] / 2.5 - 1)) < 0.005
    flat = [GreyView(view.image * 0 + 90, view.mask, K, view.T_map_cam) for view in views]
    assert (sweep(flat[0], flat[1:]) == 0).all()


def test_small_patches_of_depth_are_taken_out():
    depth = np.full((40, 40), 2.0, np.float32)
    depth[5:8, 5:8], depth[20:30, 20:30], depth[35:, :] = 1.0, 3.0, 0.0
    cleaned = without_speckles(depth)
    assert (cleaned[5:8, 5:8] == 0).all()
    assert (cleaned[20:30, 20:30] == 3).all() and (cleaned[35:] == 0).all()
    assert cleaned[0, 0] == 2


def test_maps_of_a_wall_from_pictures_and_from_depth(texture):
    """The robot walks sideways along a wall; the first keyframe has no neighbours and so no depth."""
    model = CameraModel(160, 120, K, "none", np.zeros(0))
    config = Config(voxel_size_m=0.2)
    swept, perfect = DepthMapper(config, PlaneSweepDepth()), DepthMapper(config, perfect_depth)
    assert swept.prediction is None and swept.view("odom") is None
    for n in range(5):
        T = pose(0, 0.1 * n)
        grey, depth = picture_of_wall(T, 2.45, texture)
        colour = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        base = np.eye(4)
        base[1, 3] = 0.1 * n
        images, depths = (PosedImage("c", n, colour, model, T),), (PosedDepth("c", n, depth, model, T),)
        swept.step(Keyframe(n * 10**9, base, images=images))
        perfect.step(Keyframe(n * 10**9, base, depths=depths))
        alone = swept.prediction
        assert bool(alone.visible.any()) == (n > 0)
    for mapper, near, share in ((swept, 1, 0.7), (perfect, 0, 0.97)):
        view, alone = mapper.view("odom"), mapper.prediction
        occupied = np.argwhere(view.state == VoxelState.OCCUPIED) + view.window.origin
        assert len(occupied) > 60
        assert (np.abs(occupied[:, 0] - 12) <= near).mean() > share
        assert np.median(occupied[:, 0]) == 12  # 2.4 to 2.6 m
        assert set(np.unique(alone.visible)) == {0.0, 1.0}
        assert ((alone.logit > 0) <= (alone.visible > 0)).all()
        # Within 8 m, from 1.6 m below (the map begins at 1.2 m) to 2.4 m above.
        assert alone.window.shape == (80, 80, 18)
        assert alone.window.origin[2] == -6


def test_each_pixel_falls_into_its_column(tiny):
    torch.manual_seed(0)
    network = BevNetwork(tiny)
    h, w = 6, 8
    views = Views(
        torch.zeros(1, 3, 48, 64), torch.tensor([[[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]]),
        torch.from_numpy(pose(0.3, -0.2)).float()[None],
    )  # fmt: skip
    bin_index = 5
    depth_logits = torch.full((1, tiny.depth_bins, h, w), -40.0)
    depth_logits[:, bin_index] = 40.0
    lifted = torch.zeros(1, LIFTED, h, w)
    lifted[0, 3] = 1 + torch.arange(h * w).view(h, w)
    base = torch.tensor([0.1, 0.0, 0.0])
    columns = network._splat(views, lifted, depth_logits, base)[0]
    depth, expected = float(network.image_bins.centers[bin_index]), torch.zeros(columns.shape[1:])
    cell, low = network.grid.cell_m, network.grid.low_m
    for v in range(h):
        for u in range(w):
            x = 0.3 + depth - 0.1
            y = -0.2 - (8 * u + 3.5 - 31.5) / 40 * depth
            z = 0.7 - (8 * v + 3.5 - 23.5) / 40 * depth
            if low[2] <= z < low[2] + network.grid.shape[2] * cell:
                expected[int((x - low[0]) // cell), int((y - low[1]) // cell)] += lifted[0, 3, v, u]
    torch.testing.assert_close(columns[3], expected)
    assert (columns.sum(dim=0) - columns[3]).abs().max() == 0
    assert (expected > 0).sum() >= 4


def test_heights_are_channels(tiny):
    network = BevNetwork(tiny)
    x, y, z = network.grid.shape
    assert (x, y, z) == (24, 24, 8) and network.grid.cell_m == 0.4
    cells = 7 * z
    network.trunk.forward = lambda columns: torch.arange(float(cells)).view(1, cells, 1, 1).expand(1, cells, x, y)
    views = Views(torch.zeros(1, 3, 48, 64), torch.eye(3)[None], torch.eye(4)[None])
    depth = torch.zeros(1, tiny.depth_bins, 6, 8)
    features = torch.zeros(1, tiny.feature_channels, 6, 8)
    scene = network.lift(views, FeatureMaps(features, features), (depth,), torch.zeros(3))
    heights = network.grid.low_m[2] + (torch.arange(z) + 0.5) * 0.4
    points = torch.stack([torch.full((z,), 1.0), torch.full((z,), -2.0), heights], dim=1)
    logits, _ = network.query(scene, points, torch.full((z,), 0.2))
    torch.testing.assert_close(logits, torch.arange(float(cells)).view(7, z).T)


def test_samples_without_past(data):
    source = SampleSource(sorted(data.glob("*.safetensors")), 3)
    seen = set()
    for step in range(12):
        whole, now, one = source.sample(step), *(WithoutPast(source, one_view=o).sample(step) for o in (False, True))
        assert len(now.images) == now.views == whole.views == len(now.depth_m)
        assert torch.equal(now.images, whole.images[: whole.views])
        assert len(one.images) == one.views == 1
        (same,) = [n for n in range(whole.views) if torch.equal(one.T_world_cam[0], whole.T_world_cam[n])]
        assert torch.equal(one.depth_m[0], whole.depth_m[same]) and torch.equal(one.images[0], whole.images[same])
        assert torch.equal(one.points, whole.points)
        seen.add((whole.views, same))
    assert len(seen) > 3


@pytest.mark.parametrize("kind", ["one_view", "bev"])
def test_baselines_train_go_on_and_are_read_back(tmp_path, data, tiny, kind):
    config = TrainConfig(name="t", steps=4, batch=1, warmup=1, save_every=2, device="cpu", model=tiny)
    losses, steps = [], []
    whole = train_baseline(kind, config, data, tmp_path / "whole", lambda step, loss: losses.append(loss))
    train_baseline(kind, TrainConfig(**{**vars(config), "steps": 2}), data, tmp_path / "parts", lambda *_: None)
    parts = train_baseline(kind, config, data, tmp_path / "parts", lambda step, loss: steps.append(step))
    assert steps == [3, 4] and len(losses) == 4 and np.isfinite(losses).all()
    first, second = load_baseline(kind, whole), load_baseline(kind, parts)
    assert first.record["baseline"] == kind and first.record["step"] == 4
    # The first two steps of the shorter run had another learning rate, so the weights differ, but their names do not.
    assert first.network.state_dict().keys() == second.network.state_dict().keys()
    if kind == "bev":
        with pytest.raises(CheckpointError):
            load_baseline("one_view", whole)


def test_a_birds_eye_view_network_starts_from_another(tmp_path, data, tiny):
    config = TrainConfig(name="t", steps=1, batch=1, warmup=1, device="cpu", model=tiny)
    first = train_baseline("bev", config, data, tmp_path / "first", lambda *_: None)
    slow = replace(config, initial=str(first), learning_rate=1e-6)
    second = train_baseline("bev", slow, data, tmp_path / "second", lambda *_: None)
    before, after = (dict(load_baseline("bev", path).network.named_parameters()) for path in (first, second))
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-5, rtol=0)


def test_a_birds_eye_view_network_begins_with_the_encoder_of_a_model(tmp_path, data, tiny):
    trained = OccupancyNetwork(tiny)
    with torch.no_grad():
        for weight in trained.encoder.parameters():
            weight.add_(0.25)
    save_checkpoint(Checkpoint(trained), tmp_path / "model.safetensors")
    config = TrainConfig(name="t", steps=1, batch=1, warmup=1, device="cpu", model=tiny, learning_rate=1e-6)
    path = train_baseline("bev", config, data, tmp_path / "out", lambda *_: None, str(tmp_path / "model.safetensors"))
    begun = dict(load_baseline("bev", path).network.encoder.named_parameters())
    for name, weight in trained.encoder.named_parameters():
        torch.testing.assert_close(begun[name], weight, atol=1e-5, rtol=0)


def test_calibration_is_fitted_to_raw_logits(monkeypatch, tiny):
    def logits(predictor):
        assert predictor.calibration == Calibration()
        yield LabelledLogits(torch.tensor([2.0, 2.0, 2.0, -1.0]), torch.ones(4).bool(), torch.tensor([1.0, 1, 0, 0]))
        yield LabelledLogits(torch.tensor([0.0, 0.0]), torch.zeros(2).bool(), torch.tensor([1.0, 0]))

    monkeypatch.setattr(baselines_train, "collect_logits", logits)
    old = Checkpoint(BevNetwork(tiny), Calibration(visible_offset=3.0), {"step": 5})
    new = calibrate_baseline("bev", old)
    # Two of three logits of 2 are occupied: there the fitted log-odds are log 2.
    assert 2 * new.calibration.visible_scale + new.calibration.visible_offset == pytest.approx(np.log(2), abs=0.01)
    assert new.calibration.inferred_offset == pytest.approx(0.0, abs=1e-6)
    assert new.network is old.network and new.record == old.record


@pytest.mark.parametrize(("kind", "initial"), [("one_view", ""), ("bev", "runs/bev.safetensors")])
def test_only_a_new_birds_eye_view_network_takes_an_encoder(tmp_path, data, kind, initial):
    config = tmp_path / "c.yaml"
    config.write_text(f"initial: '{initial}'")
    command = ["train", kind, "--data", str(data), "--out", str(tmp_path / "out"), "--config", str(config)]
    with pytest.raises(SystemExit, match=r"encoder is nano for .*, expected a new bev"):
        baselines.main([*command, "--encoder", "nano"])


def test_one_view_answers_with_the_view_that_sees_best(tmp_path, data, tiny):
    config = TrainConfig(name="t", steps=1, batch=1, warmup=1, device="cpu", model=tiny)
    path = train_baseline("one_view", config, data, tmp_path / "out", lambda *_: None)
    predictor = make_predictor("one_view", load_baseline("one_view", path))
    model = CameraModel(160, 120, K, "none", np.zeros(0))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(2)]
    images = [PosedImage(str(n), 0, pictures[n], model, pose(0, 0.3 * n)) for n in range(2)]
    window = LatticeWindow(0.2, (-20, -20, -4), (40, 40, 14))
    both = predictor.predict(Keyframe(0, np.eye(4), images=tuple(images)), window)
    alone = [predictor.predict(Keyframe(0, np.eye(4), images=(image,)), window) for image in images]
    first = alone[0].visible >= alone[1].visible
    assert 0.1 < first.float().mean() < 1
    torch.testing.assert_close(both.logit, torch.where(first, alone[0].logit, alone[1].logit))
    torch.testing.assert_close(both.visible, torch.maximum(alone[0].visible, alone[1].visible))


def test_best_of_two_answers_by_hand():
    window = LatticeWindow(0.2, (0, 0, 0), (1, 1, 2))

    def answer(value, visible):
        shape = (1, 1, 2)
        return Prediction(
            window, torch.full(shape, value), torch.full(shape, value / 10), torch.full((6, *shape), value),
            torch.tensor(visible).view(shape),
        )  # fmt: skip

    got = best_seen([answer(1.0, [0.2, 0.9]), answer(2.0, [0.4, 0.1])])
    assert got.logit.flatten().tolist() == [2.0, 1.0]
    assert got.weight.flatten().tolist() == pytest.approx([0.2, 0.1])
    assert got.class_logits[4].flatten().tolist() == [2.0, 1.0]
    assert got.visible.flatten().tolist() == pytest.approx([0.4, 0.9])
    with pytest.raises(ValueError, match="0 answers"):
        best_seen([])


def test_table():
    lines = baselines.table([{"name": "sweep", "iou": 0.25, "mcc": 0.5}], {"IoU": "iou", "MCC": "mcc"}).splitlines()
    assert lines == ["| | IoU | MCC |", "|---|---|---|", "| sweep | 0.250 | 0.500 |"]
