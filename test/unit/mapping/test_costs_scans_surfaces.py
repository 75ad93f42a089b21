# SPDX-License-Identifier: Apache-2.0
"""Grids of costs, scans and meshes cut from maps whose content is known."""

from __future__ import annotations

import numpy as np
import pytest

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.costs import cost_slice
from occupancy_nn_ros.mapping.scan import BEAMS, scan_ranges
from occupancy_nn_ros.mapping.slices import occupancy_slice
from occupancy_nn_ros.mapping.surface import save_mesh, surface_mesh
from occupancy_nn_ros.values import SEMANTIC_CLASSES, GridSlice, LatticeWindow, MapView

EDGE = 0.2
PERSON, VEGETATION = SEMANTIC_CLASSES.index("person") + 1, SEMANTIC_CLASSES.index("vegetation") + 1


def free_map(shape=(30, 30, 12)):
    """Free everywhere; the robot stands in the middle of the lowest layer."""
    window = LatticeWindow(EDGE, (-15, -15, 0), shape)
    return MapView(
        7,
        "odom",
        window,
        np.eye(4),
        np.zeros(shape, np.int8),
        np.full(shape, 0.1, np.float32),
        np.zeros(shape, np.uint8),
    )


def costs_of(view, grid):
    return cost_slice(view, grid, occupancy_slice(view, grid))


def put(view, cell, class_id):
    view.state[cell], view.classes[cell], view.probability[cell] = 1, class_id, 0.9


def test_a_cell_costs_what_its_dearest_class_does():
    view = free_map()
    put(view, (3, 3, 2), VEGETATION)
    put(view, (4, 4, 2), VEGETATION)
    put(view, (4, 4, 3), 0)  # of no known class: lethal
    put(view, (5, 5, 11), PERSON)  # above the band
    view.state[6, 6] = -1
    values = costs_of(view, GridConfig(class_costs="vegetation=30")).values
    assert [int(values[n, n]) for n in (3, 4, 5, 6, 7)] == [30, 100, 0, -1, 0]


def test_a_person_is_wider_than_he_is():
    view = free_map()
    put(view, (15, 15, 3), PERSON)
    values = costs_of(view, GridConfig(class_costs="person=80", class_margins_m="person=0.4")).values
    expected = np.zeros((30, 30))
    for x in range(30):
        for y in range(30):
            if np.hypot(x - 15, y - 15) * EDGE <= 0.4 + 1e-6:
                expected[x, y] = 80
    np.testing.assert_array_equal(values, expected)


def test_ground_that_falls_away_is_lethal_whatever_classes_cost():
    view = free_map()
    view.state[:15, :, 0] = 1
    values = costs_of(view, GridConfig(class_costs="ground=0", max_step_down_m=0.1)).values
    assert (values[15] == 100).all()
    assert (values[:14] == 0).all()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("tree=3", "^grid.class_costs: 'tree' is no class, expected one of ground"), ("person", "expected CLASS=NUMBER"),
        ("person=101", "is 101, expected 0 to 100"),
    ],
)  # fmt: skip
def test_costs_that_mean_nothing_are_refused(entries, words):
    with pytest.raises(ConfigError, match=words):
        GridConfig(class_costs=entries)


def grid_of(values):
    return GridSlice(7, "odom", EDGE, (-3.0, -3.0, 0.0), values.astype(np.int8))


def beam(angle_deg):
    return round((angle_deg + 180) / 360 * BEAMS) % BEAMS


def test_beams_end_at_walls_see_through_free_space_and_know_what_they_do_not_know():
    values = np.zeros((30, 30))
    values[25:27, :] = 100  # a wall ahead, 2.0 m from the robot at the origin
    values[:, :5] = -1  # unknown on the right from 2.0 m on
    ranges = scan_ranges(grid_of(values), np.eye(4), 2.8)
    assert ranges.shape == (BEAMS,)
    assert ranges[beam(0)] == pytest.approx(2.0, abs=EDGE / 4)
    assert ranges[beam(30)] == pytest.approx(2.0 / np.cos(np.pi / 6), abs=EDGE / 4)
    assert np.isnan(ranges[beam(-90)])
    assert np.isinf(ranges[beam(180)])
    assert np.isinf(ranges[beam(90)])


def test_a_scan_turns_with_the_robot():
    values = np.zeros((30, 30))
    values[25:27, :] = 100
    turned = make_transform((0.5, 0, 0), (0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)))  # a quarter turn to the left
    ranges = scan_ranges(grid_of(values), turned, 2.8)
    assert ranges[beam(-90)] == pytest.approx(1.5, abs=EDGE / 4)
    assert np.isinf(ranges[beam(0)])


def test_unknown_cells_at_the_robots_feet_hide_nothing():
    values = np.zeros((30, 30))
    values[13:17, 13:17] = -1
    values[25, :] = 100
    ranges = scan_ranges(grid_of(values), np.eye(4), 2.4)
    assert ranges[beam(0)] == pytest.approx(2.0, abs=EDGE / 4)
    assert np.isnan(scan_ranges(grid_of(np.full((30, 30), -1)), np.eye(4), 2.4)).all()


def test_the_end_of_the_grid_is_not_known():
    assert np.isnan(scan_ranges(grid_of(np.zeros((30, 30))), np.eye(4), 5.0)[beam(0)])


def ball(radius_m=1.5):
    view = free_map((30, 30, 30))
    view.state[:], view.probability[:] = 0, 0.0
    cells = (np.indices((30, 30, 30)).transpose(1, 2, 3, 0) + 0.5 + np.array(view.window.origin)) * EDGE
    gap = np.linalg.norm(cells - (0, 0, 3.0), axis=-1) - radius_m
    view.probability[:] = 1 / (1 + np.exp(np.clip(gap * 8, -6, 6)))
    view.state[view.probability > 0.5] = 1
    return view


def test_the_mesh_of_a_ball_is_a_ball():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    mesh = surface_mesh(ball())
    radii = np.linalg.norm(mesh.vertices_m - (0, 0, 3.0), axis=1)
    np.testing.assert_allclose(radii, 1.5, atol=0.02)
    a, b, c = (mesh.vertices_m[mesh.triangles[:, n]].astype(np.float64) for n in range(3))
    normals = np.cross(b - a, c - a)
    assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(4 * np.pi * 1.5**2, rel=0.02)
    outward = ((a + b + c) / 3 - (0, 0, 3.0) * np.ones(3)) * normals
    assert (outward.sum(axis=1) > 0).mean() > 0.99


def test_nothing_is_meshed_beside_unknown_voxels():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    view = ball()
    view.state[15:] = -1  # the half with x > 0 was never seen
    assert surface_mesh(view).vertices_m[:, 0].max() <= -EDGE / 2 + 1e-6
    view.state[:] = -1
    assert surface_mesh(view).vertices_m.shape == (0, 3)


def test_a_saved_mesh_is_read_by_others(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    mesh = surface_mesh(ball())
    colors = np.full((len(mesh.vertices_m), 3), (10, 20, 30), np.uint8)
    save_mesh(mesh, tmp_path / "ball.ply", "odom", colors)
    header, data = (tmp_path / "ball.ply").read_bytes().split(b"end_header\n", 1)
    assert f"element vertex {len(mesh.vertices_m)}\n".encode() in header
    assert f"element face {len(mesh.triangles)}\n".encode() in header
    vertices = np.frombuffer(data, [("position", "<f4", 3), ("color", "u1", 3)], len(mesh.vertices_m))
    np.testing.assert_array_equal(vertices["position"], mesh.vertices_m.astype(np.float32))
    assert (vertices["color"] == (10, 20, 30)).all()
    faces = np.frombuffer(data[vertices.nbytes :], [("count", "u1"), ("corners", "<i4", 3)])
    np.testing.assert_array_equal(faces["corners"], mesh.triangles)
