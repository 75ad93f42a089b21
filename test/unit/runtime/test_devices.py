# SPDX-License-Identifier: Apache-2.0
"""Everything that may run on a GPU, on a stand-in for one: no tensors are mixed up, and the answers are the CPU's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_in_device import DEVICE, MixedDevicesError, OnDevice, no_host_waits, stand_in_device

from occupancy_nn_ros.config import Config, MapConfig, NetworkConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.distance_field import distance_field, distance_field_on_device
from occupancy_nn_ros.mapping.map_file import load_map, save_map
from occupancy_nn_ros.mapping.queries import cast_rays
from occupancy_nn_ros.mapping.ray_integration import integrate_depth, integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.runtime.device_predictor import load_predictor
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedDepth, PosedImage, Prediction

SECOND = 1_000_000_000
CAMERA = CameraModel(48, 36, np.array([[30.0, 0, 23.5], [0, 30, 17.5], [0, 0, 1]]), "none", np.zeros(0))
LOOK_ALONG_X = make_transform((0.0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
CLASSES = 6


@pytest.fixture
def device(monkeypatch):
    with stand_in_device(monkeypatch.setattr) as name:
        yield name


def test_the_stand_in_tells_devices_apart(device):
    there, here = torch.zeros(4, 5, device=device), torch.ones(4, 5)
    assert there.device == DEVICE and there[1:].device == DEVICE and (there + 1).device == DEVICE
    assert here.device.type == "cpu" and there.cpu().device.type == "cpu" and here.to(there).device == DEVICE
    there[1:3] += 2.0
    there[there > 1] = 7.0
    assert there.sum().item() == 70 and type(there) is OnDevice and type(there.cpu()) is torch.Tensor
    for mixed in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: here.index_add(0, there[0].long(), here),
    ):
        with pytest.raises(MixedDevicesError):
            mixed()
    for read in (lambda: there.numpy(), lambda: np.asarray(there)):
        with pytest.raises(TypeError):
            read()


def drive(place):
    """A map on a device that has gone through everything a map can; returns it and what it answered on the way."""
    rng = np.random.default_rng(2)
    config = MapConfig(remember_mib=4, clear_in_view_s=0.5, forget_beyond_m=4.0)
    grid = RollingMap(0.25, (32, 32, 12), config, device=place, num_classes=CLASSES)
    answers = []
    for step in range(4):
        stamp = SECOND * (1 + step)
        grid.move_to(make_transform((0.6 * step, -0.3 * step, 0), (0, 0, 0, 1)))
        grid.forget(stamp)
        low = np.add(grid.window.origin, (2, -3, 1))
        shape = (20, 24, 10)
        logit, weight = rng.normal(0, 2, shape), rng.uniform(0, 1, shape) * (rng.random(shape) < 0.8)
        classes = rng.normal(0, 1, (CLASSES, *shape))
        tensors = (torch.from_numpy(values).float().to(place) for values in (logit, weight, classes))
        grid.integrate(Prediction(LatticeWindow(0.25, tuple(low.tolist()), shape), *tensors), stamp)
        image = rng.uniform(0.5, 6.0, (36, 48)).astype(np.float32)
        depth = PosedDepth("front", stamp, image, CAMERA, LOOK_ALONG_X)
        answers.append(integrate_depth(grid, depth).counts)
        rays = rng.normal(0, 0.2, (1, 3)), rng.normal(0, 3, (200, 3))
        answers.append(integrate_rays(grid, *rays, stamp).counts)
    points = rng.uniform(-3, 3, (300, 3))
    for mode in ("nearest", "trilinear"):
        answers += [np.nan_to_num(part, nan=-1.0).tolist() for part in grid.query(points, mode=mode)]
    hits = cast_rays(grid, rng.normal(0, 0.3, (60, 3)), rng.normal(0, 1, (60, 3)), 5.0)
    answers += [np.asarray(value).ravel().tolist() for value in vars(hits).values()]
    return grid, answers


def test_a_map_on_a_device_equals_one_on_the_cpu(monkeypatch, tmp_path):
    here, expected = drive("cpu")
    view = here.view(5 * SECOND, "odom", np.eye(4))
    save_map(here, tmp_path / "here.map", "odom")
    with stand_in_device(monkeypatch.setattr) as device:
        there, got = drive(device)
        assert there.log_odds.device == DEVICE
        seen = there.view(5 * SECOND, "odom", np.eye(4))
        save_map(there, tmp_path / "there.map", "odom")
        there.clear()
        load_map(there, tmp_path / "here.map")
        loaded = there.view(5 * SECOND, "odom", np.eye(4))
    assert len(got) == len(expected) == 15
    for answer, one in zip(got, expected, strict=True):
        np.testing.assert_allclose(answer, one, atol=1e-5)
    assert (seen.state == view.state).mean() > 0.9999 and (seen.classes == view.classes).mean() > 0.999
    np.testing.assert_allclose(seen.probability, view.probability, atol=0.02)
    assert (loaded.state == view.state).mean() > 0.999
    assert len(set(np.unique(view.state))) == 3


def test_a_view_is_one_download(monkeypatch):
    with stand_in_device(monkeypatch.setattr) as device:
        there, _ = drive(device)
        with no_host_waits() as copies:
            view = there.view(5 * SECOND, "odom", np.eye(4))
    assert copies == {"downloads": 1, "waits": 1} and len(set(np.unique(view.state))) == 3


@pytest.mark.parametrize("shape", [(30, 40), (1, 7), (12, 9, 14)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.4])
def test_distances_on_a_device(device, monkeypatch, shape, share):
    monkeypatch.setattr("occupancy_nn_ros.mapping.distance_field.CELLS_AT_ONCE", 500)
    occupied = np.random.default_rng(1).random(shape) < share
    there = torch.from_numpy(occupied).to(device)
    for limit_m in (0.05, 1.5, 20.0):
        with no_host_waits():
            got = distance_field_on_device(there, 0.1, limit_m)
        assert got.device == DEVICE
        np.testing.assert_array_equal(got.cpu().numpy(), distance_field(occupied, 0.1, limit_m))


def keyframes():
    rng = np.random.default_rng(9)
    model = CameraModel(160, 120, np.array([[110.0, 0, 80], [0, 110, 60], [0, 0, 1]]), "none", np.zeros(0))
    for n in range(3):
        base = make_transform((0.3 * n, 0.1 * n, 0), (0, 0, 0, 1))
        sides = (LOOK_ALONG_X, make_transform((0, 0.1, 0.5), (-0.35, 0.61, -0.61, 0.35)))
        images = tuple(
            PosedImage(str(c), n, rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), model, base @ side)
            for c, side in enumerate(sides)
        )
        yield Keyframe(n * SECOND, base, images)


def mapped(config, model):
    pipeline = OccupancyPipeline(config, load_predictor(str(model), config.network))
    pipeline.warm_up()
    for frame in keyframes():
        pipeline.step(frame)
    return pipeline, pipeline.view("odom")


def test_the_whole_pipeline_on_a_device(monkeypatch, tiny_model):
    network = NetworkConfig(device="cpu", coarse_m=0.0)  # a device is asked about all voxels
    config = Config(voxel_size_m=0.2, network=network)
    _, expected = mapped(config, tiny_model)
    with stand_in_device(monkeypatch.setattr):
        pipeline, view = mapped(replace(config, network=replace(network, device="auto")), tiny_model)
        assert pipeline.predictor.device.type == "cuda"
        assert all(isinstance(tensor, OnDevice) for tensor in pipeline.predictor.network.state_dict().values())
        assert pipeline.prediction.logit.device == pipeline.map.log_odds.device == DEVICE
    assert (view.state == expected.state).mean() > 0.999  # rectified grey levels differ by rounding
    assert len(set(np.unique(view.state))) == 3
