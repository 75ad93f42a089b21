# SPDX-License-Identifier: Apache-2.0
"""A keyframe on a real GPU, from pixels to the bytes of topics; CUDA itself watches that the host does not wait meanwhile."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from device_drive import DEPTHS, MAPS, keyframe, session_on

from occupancy_nn_ros.config import GridConfig, MapConfig
from occupancy_nn_ros.mapping import ray_integration
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.device_slices import occupancy_values
from occupancy_nn_ros.mapping.distance_field import distance_field, distance_field_on_device
from occupancy_nn_ros.mapping.ray_integration import integrate_depth, integrate_depths, integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.slices import occupancy_slice
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutputEncoder
from occupancy_nn_ros.values import CameraModel, PosedDepth

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

CAMERA = CameraModel(48, 36, np.array([[30.0, 0, 23.5], [0, 30, 17.5], [0, 0, 1]]), "none", np.zeros(0))


@pytest.fixture
def watched():
    """A synchronising call raises; the one download waits for an event, which is allowed."""

    def begin():
        torch.cuda.set_sync_debug_mode("error")

    yield begin
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "settings", [(), ("grid.reference=ground", "grid.max_step_down_m=0.2", "grid.max_step_up_m=0.2")]
)
def test_no_keyframe_waits_for_the_device(tiny_model, watched, settings):
    session = session_on("cuda", tiny_model, settings)
    session.warm_up()
    for n in range(4):
        session.process(keyframe(n), "odom", MAPS)
    watched()
    messages = session.process(keyframe(4), "odom", MAPS | DEPTHS)
    torch.cuda.set_sync_debug_mode("default")
    source = MapSource(session.view(), session.config)
    expected = OutputEncoder(session.config).encode([topic for topic in OUTPUTS if topic.name in MAPS], source)
    made = {message.name: message.cdr for message in messages}
    assert {name: made[name] for name in MAPS} == {message.name: message.cdr for message in expected}
    assert not session.dropped and made.keys() == MAPS | DEPTHS


def test_a_replayed_keyframe_is_that_of_single_steps(tiny_model, monkeypatch):
    def grids():
        session = session_on("cuda", tiny_model)
        for n in range(5):
            messages = session.process(keyframe(n), "odom", {"voxel_grid"})
        return session.view(), messages

    recorded, _ = grids()
    monkeypatch.setattr("occupancy_nn_ros.runtime.device_predictor.can_capture", lambda device: False)
    stepped, _ = grids()
    assert (recorded.state == stepped.state).mean() > 0.999


def mapped(device):
    rng = np.random.default_rng(4)
    grid = RollingMap(0.2, (48, 40, 16), MapConfig(clear_in_view_s=0.5, max_range_m=6.0), device=device)
    pose = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])
    counts = []
    for n in range(3):
        depth = rng.uniform(0.4, 5.0, (36, 48)).astype(np.float32)
        depth[:4], depth[4, 4:9] = 0, np.nan
        counts.append(integrate_depth(grid, PosedDepth("front", n * 400_000_000, depth, CAMERA, pose)).counts)
        ends = rng.normal(0, 3, (400, 3))
        counts.append(integrate_rays(grid, [0.1, 0.1, 0.5], ends, n * 400_000_000).counts)
    return grid, counts


def test_rays_change_the_voxels_that_they_change_on_the_cpu(monkeypatch):
    monkeypatch.setattr(ray_integration, "use_kernels", lambda device: False)
    (here, expected), (there, got) = mapped("cpu"), mapped("cuda")
    assert got == expected and torch.equal(there.seen_ms.cpu(), here.seen_ms)
    torch.testing.assert_close(there.log_odds.cpu(), here.log_odds, atol=1e-5, rtol=1e-5)


def test_recorded_rays_are_those_of_single_images():
    maps = []
    for recorded in (False, True):
        rng = np.random.default_rng(5)
        grid = RollingMap(0.2, (48, 40, 16), MapConfig(clear_in_view_s=0.5, max_range_m=6.0), device="cuda")
        for n in range(4):
            pose = np.array([[0.0, 0, 1, 0.5 * n], [-1, 0, 0, -0.3 * n], [0, -1, 0, 0.5], [0, 0, 0, 1]])
            pixels, there = (
                torch.from_numpy(rng.uniform(0.4, 5.0, (36, 48)).astype(np.float32)).cuda(),
                torch.from_numpy(pose).cuda(),
            )
            depths = [DeviceDepth("c", n * 400_000_000 + k, pixels + k, CAMERA, pose, there) for k in range(2)]
            grid.move_to(pose)
            if recorded:
                integrate_depths(grid, depths)
                assert None not in grid.captured.values()
            else:
                for depth in depths:
                    integrate_depth(grid, depth)
        maps.append(grid)
    assert torch.equal(maps[0].log_odds, maps[1].log_odds) and torch.equal(maps[0].seen_ms, maps[1].seen_ms)


def test_grids_and_distances_are_those_of_the_host():
    grid, _ = mapped("cuda")
    content = grid.content(1, "map", np.eye(4))
    for settings in (GridConfig(), GridConfig(reference="ground", max_step_down_m=0.3, max_step_up_m=0.2)):
        for low in (-0.5, 0.0, 0.4):
            config = replace(settings, min_height_m=low)
            values = occupancy_values(content, config)
            np.testing.assert_array_equal(values.cpu().numpy(), occupancy_slice(content.view(), config).values)
            occupied = values == 100
            got = distance_field_on_device(occupied, 0.2, 2.0).cpu().numpy()
            np.testing.assert_array_equal(got, distance_field(occupied.cpu().numpy(), 0.2, 2.0))
