# SPDX-License-Identifier: Apache-2.0
"""Solid matter of meshes, watertight or not, against the primitives that they are meshes of."""

import numpy as np
import pytest

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.mesh_grid import make_grid

CELL = 0.02


def box(low, high):
    """Twelve triangles of a box."""
    ends = np.array([low, high], dtype=np.float64)
    corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    return np.array([corners[[a, b, c]] for a, b, c, d in quads for b, c in ((b, c), (c, d))])


def box_distance(points, low, high):
    middle, half = (np.add(low, high)) / 2, np.subtract(high, low) / 2
    outside = np.abs(points - middle) - half
    return np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(axis=1), 0)


def sphere(radius, rings=24):
    """Triangles of a ball around the origin."""
    across, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij")
    points = radius * np.stack([np.sin(across) * np.cos(around), np.sin(across) * np.sin(around), np.cos(across)], -1)
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    return np.concatenate([np.stack(t, axis=-2).reshape(-1, 3, 3) for t in ((a, b, c), (a, c, d))])


def somewhere(count=4000, reach=0.7):
    return np.random.default_rng(2).uniform(-reach, reach, (count, 3)).astype(np.float32)


@pytest.mark.parametrize("missing", [(), (0, 1), (4, 5), (3,), (0, 1, 7)])
def test_a_box_with_holes_is_the_box(missing):
    """Whole faces and single triangles are missing; four of six directions still tell inside from outside."""
    low, high = (-0.5, -0.31, -0.22), (0.5, 0.31, 0.22)
    grid = make_grid(np.delete(box(low, high), missing, axis=0), CELL)
    points = somewhere()
    true = box_distance(points, low, high)
    clear = np.abs(true) > 1.8 * CELL
    assert ((grid.distance(points) < 0) == (true < 0))[clear].all()
    near = clear & (np.abs(true) < 0.12)
    assert np.abs(grid.distance(points) - true)[near].max() < 2.5 * CELL
    assert abs((grid.distance(points) - true)[near].mean()) < 0.3 * CELL


def test_a_ball_is_the_ball():
    grid = make_grid(sphere(0.4), CELL)
    points = somewhere(reach=0.55)
    true = np.linalg.norm(points, axis=1) - 0.4
    near = np.abs(true) < 0.12
    assert np.abs(grid.distance(points) - true)[near].max() < 2 * CELL
    assert abs((grid.distance(points) - true)[near].mean()) < 0.4 * CELL


def test_a_sheet_is_there_and_has_no_inside():
    sheet = np.array(
        [[(-0.5, -0.5, 0.1), (0.5, -0.5, 0.1), (0.5, 0.5, 0.1)], [(-0.5, -0.5, 0.1), (0.5, 0.5, 0.1), (-0.5, 0.5, 0.1)]]
    )
    points = somewhere(reach=0.4) * np.array([1, 1, 0.3], np.float32)
    distance = make_grid(sheet, CELL).distance(points)
    assert (distance >= 0).all()
    np.testing.assert_allclose(distance, np.abs(points[:, 2] - 0.1), atol=CELL)


def test_what_is_shut_in_is_solid():
    """A cupboard of boards: nobody sees into it, so it is a block."""
    boards = np.concatenate([
        box((-0.5, -0.5, -0.5), (0.5, 0.5, -0.47)), box((-0.5, -0.5, 0.47), (0.5, 0.5, 0.5)),
        box((-0.5, -0.5, -0.5), (0.5, -0.47, 0.5)), box((-0.5, 0.47, -0.5), (0.5, 0.5, 0.5)),
        box((-0.5, -0.5, -0.5), (-0.47, 0.5, 0.5)), box((0.47, -0.5, -0.5), (0.5, 0.5, 0.5)),
    ])  # fmt: skip
    middle = np.zeros((1, 3), np.float32)
    assert make_grid(boards, CELL).distance(middle)[0] < -0.4
    assert make_grid(boards[12:], CELL).distance(middle)[0] > 0.3  # without floor and top one looks through


def test_far_points_are_far():
    grid = make_grid(box((-0.1, -0.1, -0.1), (0.1, 0.1, 0.1)), CELL)
    assert grid.distance(np.array([(3.1, 0, 0)], np.float32))[0] == pytest.approx(3.0, abs=2 * CELL)


def test_no_triangles_and_too_many_cells():
    with pytest.raises(SimulationError, match="no triangles"):
        make_grid(np.zeros((0, 3, 3)), CELL)
    with pytest.raises(SimulationError, match="expected at most"):
        make_grid(box((-9, -9, -9), (9, 9, 9)), CELL)
