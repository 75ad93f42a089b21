# SPDX-License-Identifier: Apache-2.0
"""What a box holds is unknown afterwards, in the window and among remembered places; all else stays to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.errors import TransformError
from occupancy_nn_ros.mapping.clearing import Box, clear_box
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import Prediction, VoxelState

EDGE, SHAPE = 0.2, (20, 18, 9)


def filled(origin=(3, -50, -4), **config):
    """A map in which about half of the voxels are known, with classes."""
    grid = RollingMap(EDGE, SHAPE, MapConfig(**config))
    grid.move_origin(origin)
    rng = np.random.default_rng(1)
    logit = torch.from_numpy(rng.normal(0, 3, SHAPE).astype(np.float32))
    weight = torch.from_numpy((rng.random(SHAPE) < 0.5).astype(np.float32))
    classes = torch.from_numpy(rng.normal(0, 1, (6, *SHAPE)).astype(np.float32))
    grid.integrate(Prediction(grid.window, logit, weight, classes), 10**9)
    return grid


def box_at(center, size, turn=(0.0, 0.0, 0.0)):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), center
    return Box(pose, size)


def by_definition(box, window):
    """Centres in the box, and the voxel that holds its middle."""
    centers = (np.stack(np.meshgrid(*map(np.arange, window.shape), indexing="ij"), -1) + window.origin + 0.5) * EDGE
    local = (centers - box.T_map_box[:3, 3]) @ box.T_map_box[:3, :3]
    inside = (np.abs(local) <= box.size_m / 2).all(axis=-1)
    middle = tuple(window.index_of(box.T_map_box[:3, 3]))
    if all(0 <= i < n for i, n in zip(middle, window.shape, strict=True)):
        inside[middle] = True
    return inside


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_turned_box_is_cleared_as_defined_and_the_rest_stays(seed):
    rng = np.random.default_rng(seed)
    grid = filled()
    low = grid.window.origin_m
    center = low + rng.uniform(-0.5, 1.5, 3) * np.array(SHAPE) * EDGE
    box = box_at(center, rng.uniform(0.05, 3.0, 3), rng.normal(0, 1, 3))
    before = [t.numpy().copy() for t in grid.window_tensors()]
    expected = by_definition(box, grid.window)
    cleared = clear_box(grid, box)
    log_odds, seen_ms, evidence = (t.numpy() for t in grid.window_tensors())
    assert cleared == int((expected & (before[1] >= 0)).sum())
    assert (seen_ms[expected] < 0).all() and (log_odds[expected] == 0).all() and (evidence[expected] == 0).all()
    for now, then in zip((log_odds, seen_ms, evidence), before, strict=True):
        np.testing.assert_array_equal(now[~expected], then[~expected])
    assert (grid.view(0, "map", np.eye(4)).state[expected] == VoxelState.UNKNOWN).all()


def test_remembered_places_are_cleared_too():
    cleared, seen = {}, {}
    for name in ("box", "nothing"):
        grid = filled(remember_mib=4)
        origin = grid.window.origin
        box = box_at(grid.window.origin_m + 1.4, (1.0, 1.4, 0.8), (0, 0, 0.5))
        inside = by_definition(box, grid.window)
        grid.move_origin((origin[0] + 100, origin[1], origin[2]))
        cleared[name] = clear_box(grid, box) if name == "box" else 0
        grid.move_origin(origin)
        seen[name] = grid.window_tensors()[1].numpy() >= 0
    assert cleared["box"] == int((seen["nothing"] & inside).sum()) > 20
    assert not seen["box"][inside].any()
    np.testing.assert_array_equal(seen["box"][~inside], seen["nothing"][~inside])


def test_a_box_that_holds_no_centre_clears_the_voxel_around_it_and_one_that_covers_all_clears_all():
    grid = filled()
    known = grid.window_tensors()[1].numpy() >= 0
    i, j, k = np.argwhere(known)[0]
    corner = grid.window.origin_m + (np.array([i, j, k]) + 0.1) * EDGE
    assert clear_box(grid, box_at(corner, (0.01, 0.01, 0.01))) == 1
    assert clear_box(grid, box_at((0, 0, 0), (1e6, 1e6, 1e6))) == known.sum() - 1
    assert clear_box(grid, box_at((500, 0, 0), (1, 1, 1))) == 0


@pytest.mark.parametrize("size", [(1, 1, 0), (1, -1, 1), (1, np.nan, 1), (1, 1), (1, 1, 1e12)])
def test_what_is_no_box_is_refused(size):
    with pytest.raises(TransformError, match="size of the box is"):
        Box(np.eye(4), np.array(size))
    with pytest.raises(TransformError, match="pose of the box"):
        Box(2 * np.eye(4), np.ones(3))
