# SPDX-License-Identifier: Apache-2.0
"""Depth images and LiDAR sweeps into a map on a GPU: the same voxels by the same amounts as the reference, and no wait."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from stand_in_device import no_host_waits, stand_in_device

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping import captured_rays, ray_device, ray_integration
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth, integrate_depths, integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import CameraModel, PosedCloud, PosedDepth

CAMERA = CameraModel(48, 36, np.array([[30.0, 0, 23.5], [0, 30, 17.5], [0, 0, 1]]), "none", np.zeros(0))
LOOK_ALONG_X = make_transform((0.0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))


def images():
    """Walls, a near thing, pixels without depth or with numbers that are none, and depths beyond range and window."""
    rng = np.random.default_rng(4)
    for n in range(4):
        depth = rng.uniform(0.4, 5.0, (36, 48)).astype(np.float32)
        depth[10:20, 10:20] = 1.0
        depth[:4], depth[4, 4:9], depth[30, :5], depth[31, :5], depth[20:24] = 0, np.nan, np.inf, -1, 40.0
        pose = make_transform((0.3 * n, 0.1 * n, 0), (0, 0, np.sin(0.2 * n), np.cos(0.2 * n))) @ LOOK_ALONG_X
        yield PosedDepth("front", 1_000_000_000 + 400_000_000 * n, depth, CAMERA, pose)


def sweeps():
    """Points all around, some without a value, at the sensor itself, or beyond range and window."""
    rng = np.random.default_rng(5)
    for n in range(3):
        points = rng.normal(0, 3, (400, 3)).astype(np.float32)
        points[:3], points[3], points[4], points[5] = np.nan, np.inf, 0.0, (40.0, 0, 0)
        pose = make_transform((0.3 * n, 0.2, 0.6), (0, 0, np.sin(0.3 * n), np.cos(0.3 * n)))
        yield PosedCloud("lidar", 2_000_000_000 + 300_000_000 * n, points, pose)


def carved(device, edge=0.2):
    grid = RollingMap(edge, (48, 40, 16), MapConfig(clear_in_view_s=0.5, max_range_m=6.0), device=device)
    statistics = []
    for image in images():
        grid.move_to(image.T_map_cam)
        statistics.append(integrate_depth(grid, image, 0.5))
    for sweep in sweeps():
        grid.move_to(sweep.T_map_sensor)
        statistics.append(integrate_cloud(grid, sweep))
    ends = np.random.default_rng(6).normal(0, 2, (300, 3))
    statistics.append(integrate_rays(grid, ends * 0.1, ends, 3_000_000_000))  # each from its own place
    statistics.append(integrate_rays(grid, np.zeros(3), np.zeros((0, 3)), 3_000_000_000))
    return grid, statistics


@pytest.mark.parametrize("at_once", [1 << 23, 5000])
def test_a_device_carves_what_the_reference_does(monkeypatch, at_once):
    monkeypatch.setattr(ray_device, "CELLS_AT_ONCE", at_once)
    monkeypatch.setattr(ray_integration, "use_kernels", lambda device: False)
    here, expected = carved("cpu")
    with stand_in_device(monkeypatch.setattr) as device:
        there, got = carved(device)
        assert got == expected
    log_odds, seen = (tensor.as_subclass(torch.Tensor) for tensor in (there.log_odds, there.seen_ms))
    assert expected[0].not_finite == 5 and expected[4].not_finite == 4 and expected[4].too_short == 1
    assert all(statistics.hits > 100 for statistics in expected[:-1]) and expected[-1].counts == (0, 0, 0, 0, 0)
    assert torch.equal(seen, here.seen_ms)
    torch.testing.assert_close(log_odds, here.log_odds, atol=1e-5, rtol=1e-5)


def test_nothing_is_waited_for(monkeypatch):
    with stand_in_device(monkeypatch.setattr) as device:
        grid, _ = carved(device)
        before, image, sweep = grid.log_odds.clone(), next(images()), next(sweeps())
        grid.forget(4_000_000_000)
        with no_host_waits() as copies:
            grid.forget(5_000_000_000)
            done = integrate_depth(grid, image), integrate_cloud(grid, sweep)
        assert copies == {"uploads": 2}  # pixels and points
        assert not torch.equal(grid.log_odds, before)
        assert done[0].hits > 100 and done[1].used == 395


def predicted(device):
    """Images as a network on a device leaves them there, two at a time, with the robot further on each time."""
    looks = list(images())
    for n in range(4):
        pair = []
        for look in (looks[n], looks[3 - n]):
            pose = make_transform((0.7 * n, -0.4 * n, 0.15 * n), (0, 0, 0, 1)) @ look.T_map_cam
            there = torch.from_numpy(look.depth_m).to(device), torch.from_numpy(pose).to(device)
            pair.append(DeviceDepth("c", look.stamp_ns + n * 700_000_000, there[0], CAMERA, pose, there[1]))
        yield pair


def test_recorded_rays_are_those_of_single_images(monkeypatch):
    """Recorded in one place and at one time, replayed in others."""
    maps = []
    with stand_in_device(monkeypatch.setattr) as device:
        for recorded in (False, True):
            grid = RollingMap(
                0.2, (48, 40, 16), MapConfig(clear_in_view_s=0.5, max_range_m=6.0, below_m=1.0), device=device
            )
            for pair in predicted(device):
                grid.move_to(pair[0].T_map_cam)
                if not recorded:
                    for depth in pair:
                        integrate_depth(grid, depth, 0.5)
                    continue
                before = len(grid.captured)
                with no_host_waits() if before else nullcontext() as copies:
                    integrate_depths(grid, pair, 0.5)
                assert not copies and len(grid.captured) == 1
            maps.append(grid)
    single, replayed = ([part.as_subclass(torch.Tensor) for part in (grid.log_odds, grid.seen_ms)] for grid in maps)
    assert torch.equal(single[0], replayed[0]) and torch.equal(single[1], replayed[1])
    assert (single[0] > 0.5).sum() > 200 and (single[0] < -0.5).sum() > 1000


def test_what_cannot_be_recorded_is_done_step_by_step(monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(captured_rays, "Captured", refuse)
    with stand_in_device(monkeypatch.setattr) as device:
        grid = RollingMap(0.2, (48, 40, 16), MapConfig(max_range_m=6.0), device=device)
        for pair in predicted(device):
            integrate_depths(grid, pair, 0.5)
        assert (grid.log_odds > 0.3).sum().item() > 50
    assert caplog.text.count("not recorded") == 1
