# SPDX-License-Identifier: Apache-2.0
"""Grids and voxel lists cut on a GPU, on a stand-in for one: those of the host, value for value, and no wait."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from stand_in_device import no_host_waits, stand_in_device

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping import device_terrain
from occupancy_nn_ros.mapping.costs import cost_slice
from occupancy_nn_ros.mapping.device_slices import (
    band_mask,
    cost_values,
    occupancy_values,
    occupied_voxels,
    probability_values,
)
from occupancy_nn_ros.mapping.device_view import DeviceMap
from occupancy_nn_ros.mapping.slices import band_mask as band_mask_here
from occupancy_nn_ros.mapping.slices import occupancy_slice, probability_slice
from occupancy_nn_ros.mapping.terrain import ground_height
from occupancy_nn_ros.values import LatticeWindow, MapView, VoxelState

BASE = make_transform((0.7, -1.3, 0.31), (0, 0, 0.3, 0.95))


def random_view(seed, shape=(23, 17, 14)):
    """Ground with steps and holes, obstacles, and things nobody knows."""
    rng = np.random.default_rng(seed)
    state = rng.choice(np.array([-1, 0, 0, 0, 1], np.int8), shape).astype(np.int8)
    state[rng.random(shape[:2]) < 0.3] = VoxelState.FREE
    if seed % 2:
        height = 3 + np.round(np.cumsum(rng.integers(-1, 2, shape[0])) / 3).astype(int).clip(-2, 4)
        layers = np.arange(shape[2])
        state[layers[None, None] > height[:, None, None] + 1 + 0 * state] = VoxelState.FREE
        floor = np.broadcast_to(layers == height[:, None, None], shape) & (rng.random(shape) < 0.8)
        state[floor] = VoxelState.OCCUPIED
    if seed == 4:
        state[state == VoxelState.OCCUPIED] = VoxelState.UNKNOWN
    probability, classes = rng.random(shape).astype(np.float32), rng.integers(0, 7, shape).astype(np.uint8)
    window = LatticeWindow(0.15, (-8, -17, -5), shape)
    return MapView(7, "odom", window, BASE, state, probability, classes)


def on_device(view, device):
    state, probability, classes = (
        torch.from_numpy(part).to(device) for part in (view.state, view.probability, view.classes)
    )
    left_out = torch.zeros((), dtype=torch.int64, device=device)
    where = view.stamp_ns, view.frame_id, view.window, view.T_map_base
    return DeviceMap(*where, state, probability, lambda: classes, left_out)


def host(tensor):
    return tensor.cpu().numpy()


BANDS = [(0.2, 1.6), (-3.0, 9.0), (0.4, 0.4), (30.0, 40.0)]


@pytest.mark.parametrize("seed", range(5))
def test_grids_are_those_of_the_host(monkeypatch, seed):
    view = random_view(seed)
    settings = list(product(BANDS, ("base", "ground"), (1, 4), (0.0, 0.2), (0.0, 0.1)))
    with stand_in_device(monkeypatch.setattr) as device:
        there = on_device(view, device)
        for (low, high), reference, known, down, up in settings:
            grid = GridConfig(
                min_height_m=low, max_height_m=high, reference=reference, min_known_voxels=known, max_step_down_m=down,
                max_step_up_m=up,
            )  # fmt: skip
            with no_host_waits() as copies:
                got, percent, mask = (
                    occupancy_values(there, grid),
                    probability_values(there, grid),
                    band_mask(there, grid),
                )
            assert not copies
            np.testing.assert_array_equal(host(got), occupancy_slice(view, grid).values)
            np.testing.assert_array_equal(host(percent), probability_slice(view, grid).values)
            np.testing.assert_array_equal(host(mask), band_mask_here(view, grid))


@pytest.mark.parametrize("margins", ["", "person=0.4, object=1.05", "structure=9"])
@pytest.mark.parametrize("costs", ["", "person=20.5, vegetation=30, ground=0"])
def test_costs_are_those_of_the_host(monkeypatch, costs, margins):
    with stand_in_device(monkeypatch.setattr) as device:
        for seed, reference, down in ((0, "base", 0.0), (1, "ground", 0.2), (4, "base", 0.0)):
            view = random_view(seed)
            there = on_device(view, device)
            grid = GridConfig(class_costs=costs, class_margins_m=margins, reference=reference, max_step_down_m=down)
            with no_host_waits() as copies:
                got = cost_values(there, grid, occupancy_values(there, grid))
            assert not copies
            np.testing.assert_array_equal(host(got), cost_slice(view, grid, occupancy_slice(view, grid)).values)


@pytest.mark.parametrize("at_once", [1 << 23, 400])
def test_ground_is_that_of_the_host(monkeypatch, at_once):
    monkeypatch.setattr(device_terrain, "CELLS_AT_ONCE", at_once)
    with stand_in_device(monkeypatch.setattr) as device:
        for seed in range(5):
            view = random_view(seed, (9 + seed, 21, 10))
            np.testing.assert_array_equal(
                host(device_terrain.ground_height(on_device(view, device))), ground_height(view)
            )


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_gaps_are_filled_as_scipy_fills_them(share):
    """Of several cells equally near, too: grids of few cells have many such."""
    rng = np.random.default_rng(3)
    for shape in [(7, 7), (30, 41), (1, 9), (12, 1)]:
        values, seen = rng.random(shape), rng.random(shape) < share
        seen[rng.integers(shape[0]), rng.integers(shape[1])] = True
        nearest = distance_transform_edt(~seen, return_distances=False, return_indices=True)
        got = device_terrain.filled(torch.from_numpy(values), torch.from_numpy(seen))
        np.testing.assert_array_equal(got.numpy(), values[tuple(nearest)])


def test_lists_hold_the_occupied_voxels_in_order(monkeypatch):
    view = random_view(0)
    grid = GridConfig(min_height_m=0.0, max_height_m=1.0)
    with stand_in_device(monkeypatch.setattr) as device:
        there = on_device(view, device)
        for mask, mask_here in ((None, np.ones((1, 1, 1), bool)), (band_mask(there, grid), band_mask_here(view, grid))):
            expected = np.flatnonzero((view.state == VoxelState.OCCUPIED) & mask_here)
            for most in (len(expected) + 50, len(expected), 100):
                with no_host_waits() as copies:
                    lists = occupied_voxels(there, mask, most)
                assert not copies and int(lists["count"].cpu()) == len(expected) > 100
                fit = min(most, len(expected))
                np.testing.assert_array_equal(host(lists["index"])[:fit], expected[:fit])
                np.testing.assert_array_equal(host(lists["classes"])[:fit], view.classes.ravel()[expected[:fit]])
                np.testing.assert_array_equal(
                    host(lists["probability"])[:fit], view.probability.ravel()[expected[:fit]]
                )
