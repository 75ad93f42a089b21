# SPDX-License-Identifier: Apache-2.0
"""What no sensor can have seen is unknown: worlds that are drawn voxel by voxel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import maximum_filter

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.map_file import load_map, save_map
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.sight import drop_unseen, drop_unseen_on_device
from occupancy_nn_ros.values import VoxelState

UNKNOWN, FREE, OCCUPIED = VoxelState.UNKNOWN, VoxelState.FREE, VoxelState.OCCUPIED
EDGE = 0.2
SHAPE = (30, 30, 10)


def room(door=False):
    """A closed room of 4 m with a free fan behind its wall, and a surface in the distance that only the fan borders."""
    state = np.full(SHAPE, UNKNOWN, np.int8)
    state[2:22, 2:22, 1:9] = OCCUPIED
    state[3:21, 3:21, 2:8] = FREE
    state[22:29, 8:12, 4:6] = FREE
    state[29, 8:12, 4:6] = OCCUPIED
    if door:
        state[21, 9, 4:6] = FREE
    return state


def near(x, y, z):
    visited = np.zeros(SHAPE, bool)
    visited[x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3] = True
    return visited


def both(state, visited, edge=EDGE):
    """What the host says, after a GPU's way of saying it said the same."""
    said = drop_unseen(state, visited, edge)
    assert np.array_equal(said, drop_unseen_on_device(torch.from_numpy(state), torch.from_numpy(visited), edge).numpy())
    return said


def test_what_lies_behind_a_closed_wall_is_unknown_and_the_room_stays():
    state = room()
    said = both(state, near(10, 10, 5))
    assert (said[:22] == state[:22]).all()
    assert (said[22:] == UNKNOWN).all()


def test_through_a_door_it_can_be_seen():
    state = room(door=True)
    assert (both(state, near(10, 10, 5)) == state).all()


def test_surfaces_end_where_only_the_inside_of_things_can_be():
    state = np.full(SHAPE, OCCUPIED, np.int8)
    state[:10] = FREE
    said = both(state, near(4, 10, 5))
    assert (said[:14] == state[:14]).all()  # 0.8 m of 0.2 m voxels
    assert (said[14:] == UNKNOWN).all()


@pytest.mark.parametrize("visited", [near(25, 10, 5), np.zeros(SHAPE, bool)], ids=["beyond the wall", "nowhere"])
def test_where_most_would_go_all_stays(visited):
    assert (both(room(), visited) == room()).all()


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int8, (7, 6, 5), elements=st.sampled_from([-1, 0, 0, 1])),
    arrays(np.bool_, (7, 6, 5), elements=st.booleans()),
    st.integers(1, 3),
)
def test_it_is_what_flooding_voxel_by_voxel_finds(state, visited, voxels):
    free, occupied = state == FREE, state == OCCUPIED
    reached = visited & ~occupied
    while True:
        padded = np.pad(reached, 1)
        around = np.zeros_like(reached)
        for axis in range(3):
            for step in (-1, 1):
                around |= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        further = reached | (around & free)
        if (further == reached).all():
            break
        reached = further
    reached &= free
    expected = state.copy()
    if 2 * reached.sum() >= max(2, free.sum()):
        beside = maximum_filter(reached.astype(np.uint8), size=2 * voxels + 1, mode="constant") > 0
        expected[(free & ~reached) | (occupied & ~beside)] = UNKNOWN
    assert np.array_equal(both(state, visited, 0.8 / voxels), expected)


def mapped(state, config=None):
    grid = RollingMap(EDGE, SHAPE, config or MapConfig())
    grid.move_origin((0, 0, 0))
    log_odds = torch.from_numpy(np.choose(state + 1, [0.0, -2.0, 2.0]).astype(np.float32))
    for stored, given_ in grid.overlap(grid.window):
        grid.log_odds[stored], grid.seen_ms[stored] = (
            log_odds[given_],
            torch.from_numpy(state != UNKNOWN)[given_].int() - 1,
        )
    grid.visit(np.array([[2.0, 2.0, 1.0]]))
    return grid


def test_the_map_and_its_file_leave_it_out(tmp_path):
    grid = mapped(room())
    expected = both(room(), near(10, 10, 5))
    assert np.array_equal(grid.view(0, "odom", np.eye(4)).state, expected)
    assert np.array_equal(grid.unseen(), expected != room())
    behind, inside = [5.0, 2.0, 1.0], [2.0, 2.0, 1.0]
    assert grid.unseen_at(np.array([behind, inside, [99.0, 0, 0], [np.nan, 0, 0]])).tolist() == [
        True,
        False,
        False,
        False,
    ]
    save_map(grid, tmp_path / "map.safetensors", "odom")
    again = RollingMap(EDGE, SHAPE, MapConfig())
    load_map(again, tmp_path / "map.safetensors")
    assert np.array_equal(again.view(0, "odom", np.eye(4)).state, expected)
    kept = mapped(room(), MapConfig(drop_unseen=False))
    assert np.array_equal(kept.view(0, "odom", np.eye(4)).state, room()) and not kept.unseen().any()


def test_where_sensors_were_moves_with_the_window_and_is_cleared_with_the_map():
    grid = mapped(room())
    assert int(grid.visited.sum()) == 6 * 6 * 6  # 0.5 m each way
    grid.move_origin((12, 0, 0))
    assert int(grid.visited.sum()) == 1 * 6 * 6
    grid.clear()
    assert not grid.visited.any()
    grid.visit(np.array([[1e6, 0.0, 0.0]]))
    assert not grid.visited.any()
