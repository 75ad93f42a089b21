# SPDX-License-Identifier: Apache-2.0
"""Edges of the ground: stairs, docks, ramps and kerbs, as voxels and as a depth camera sees them."""

from __future__ import annotations

import numpy as np
import pytest

from occupancy_nn_ros.config import GridConfig, MapConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.ray_integration import integrate_depth
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.slices import occupancy_slice
from occupancy_nn_ros.mapping.terrain import drop_offs, seen_ground, steps_up
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth

EDGE = 0.1
SHAPE = (40, 20, 30)
ORIGIN = (-20, -10, -20)
R_BASE_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def terrain(height_of, *, seen_below=True):
    """A map of ground whose surface is at ``height_of(x)``: free above it, occupied just below, unknown deeper."""
    state = np.full(SHAPE, -1, np.int8)
    for i in range(SHAPE[0]):
        height = height_of((i + ORIGIN[0] + 0.5) * EDGE)
        top = SHAPE[2] if height is None else round(height / EDGE) - ORIGIN[2]
        state[i, :, max(top, 0) :] = 0
        if height is not None and top > 0 and (seen_below or height >= -1e-9):
            state[i, :, top - 1] = 1
    if not seen_below:
        lost = np.array([height_of((i + ORIGIN[0] + 0.5) * EDGE) is None for i in range(SHAPE[0])])
        state[lost, :, -ORIGIN[2] - 1 :] = 0  # the floor's own voxels are seen to be empty, and nothing below
    window = LatticeWindow(EDGE, ORIGIN, SHAPE)
    return MapView(0, "map", window, np.eye(4), state, np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8))


def marked_x(mask):
    """x of the marked columns' centres, which must be marked along all of y."""
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:, :1], mask.shape))
    return [round(float((i + ORIGIN[0] + 0.5) * EDGE), 2) for i in np.flatnonzero(mask[:, 0])]


def test_flat_ground_and_gentle_ramps_have_no_edges():
    for slope in (0.0, 0.1, -0.1, 0.3, -0.3):
        view = terrain(lambda x, slope=slope: slope * x)
        assert marked_x(drop_offs(view, 0.15)) == []
        assert marked_x(steps_up(view, 0.15)) == []


@pytest.mark.parametrize(("drop", "is_lethal"), [(0.1, False), (0.2, False), (0.4, True), (0.8, True)])
def test_the_ground_may_fall_as_far_as_the_robot_can_drive_down(drop, is_lethal):
    view = terrain(lambda x: 0.0 if x < 1.0 else -drop)
    assert marked_x(drop_offs(view, 0.2)) == ([1.05] if is_lethal else [])


def test_where_the_floor_ends_and_nothing_is_seen_below_is_an_edge():
    view = terrain(lambda x: 0.0 if x < 1.0 else None, seen_below=False)
    assert marked_x(drop_offs(view, 0.2)) == [1.05]


def test_the_border_of_what_was_seen_is_no_edge():
    """A camera's lowest rays pass the floor's voxels in one column or two, and end on the floor of the next."""
    view = terrain(lambda x: 0.0)
    view.state[:9] = -1
    view.state[9:11, :, -ORIGIN[2] - 1 :] = 0
    assert marked_x(drop_offs(view, 0.2)) == []
    view.state[8, :, -ORIGIN[2] - 1 :] = 0  # three columns without a floor are an edge
    assert marked_x(drop_offs(view, 0.2)) == [-0.95]


def test_floors_that_are_filled_end_at_their_surface():
    """A network says that what lies below a floor is occupied, far down, and with holes."""
    view = terrain(lambda x: 0.0 if x < 1.0 else -0.8)
    view.state[:30, :, 13:19] = 1
    view.state[::3, ::2, 16] = -1
    np.testing.assert_allclose(seen_ground(view)[:29], 0.0, atol=1e-9)  # the last has lower ground beside it
    assert marked_x(drop_offs(view, 0.2)) == [1.05]
    above = occupancy_slice(view, GridConfig(min_height_m=0.15, max_height_m=0.8, reference="ground")).values
    assert (above[:27] == 0).all()


@pytest.mark.parametrize("behind", [0, -1])
def test_a_box_on_the_floor_is_no_edge_whether_or_not_what_is_behind_it_was_seen(behind):
    view = terrain(lambda x: 0.0)
    view.state[28:32, 6:14, 20:24] = 1  # 0.4 m high
    view.state[29:31, 7:13, 19:23] = -1  # its inside
    view.state[32:37, 6:14, 19] = 1 if behind == 0 else -1
    view.state[32:37, 6:14, 20:23] = behind
    assert not drop_offs(view, 0.2).any()
    beside = np.zeros(SHAPE[:2], bool)
    beside[27:33, 5:15] = True
    assert not steps_up(view, 0.2)[~beside].any()


def test_where_nothing_at_all_was_seen_is_unknown_and_no_edge():
    view = terrain(lambda x: 0.0)
    view.state[30:] = -1
    assert marked_x(drop_offs(view, 0.2)) == []


@pytest.mark.parametrize(("kerb", "is_lethal"), [(0.1, False), (0.2, True), (0.5, True)])
def test_a_kerb_is_a_step_up_from_below_and_none_from_above(kerb, is_lethal):
    view = terrain(lambda x: 0.0 if x < 1.0 else kerb)
    assert marked_x(steps_up(view, 0.1)) == ([1.05] if is_lethal else [])


def test_above_the_ground_a_ramp_is_free_and_a_box_on_it_is_not():
    view = terrain(lambda x: 0.3 * max(x, 0.0))
    view.state[32, 5:8, 24:28] = 1
    by_base = occupancy_slice(view, GridConfig(min_height_m=0.25)).values
    by_ground = occupancy_slice(view, GridConfig(min_height_m=0.25, reference="ground")).values
    assert (by_base[35:] == 100).all()
    assert (by_ground[35:] == 0).all()
    assert (by_ground[32, 5:8] == 100).all()


def look(camera_x, height_of, far=12.0):
    """What a depth camera at 0.6 m, pitched down by 25 degrees, measures of ground that falls in one step."""
    model = CameraModel(160, 120, np.array([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]]), "none", np.zeros(0))
    pitch = np.deg2rad(25.0)
    tilt = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    pose = make_transform((camera_x, 0.0, 0.6), (0, 0, 0, 1))
    pose[:3, :3] = tilt @ R_BASE_OPTICAL
    v, u = np.mgrid[0:120, 0:160]
    rays = np.stack([(u - 79.5) / 100, (v - 59.5) / 100, np.ones(u.shape)], -1) @ pose[:3, :3].T
    depth = np.zeros(u.shape)
    for step in np.arange(far, 0.05, -0.01):  # the nearest point of the ray below the ground wins
        points = pose[:3, 3] + rays * step
        depth[points[..., 2] <= height_of(points[..., 0])] = step
    return PosedDepth("front", 0, depth.astype(np.float32), model, pose)


@pytest.mark.parametrize("drop", [0.5, 1.0, 5.0])
def test_a_depth_camera_that_drives_towards_a_dock_sees_its_edge(drop):
    """Every cell along the edge is lethal, and none that lies more than one before it."""

    def height(x):
        return np.where(x < 2.0, 0.0, -drop)

    grid = RollingMap(0.1, (80, 80, 36), MapConfig(below_m=2.0, above_m=1.6), num_classes=0)
    grid.move_to(np.eye(4))
    for camera_x in (0.0, 0.3, 0.6, 0.9):
        integrate_depth(grid, look(camera_x, height))
    values = occupancy_slice(grid.view(0, "map", np.eye(4)), GridConfig(max_step_down_m=0.15)).values
    x0, y0, _ = grid.window.origin
    lethal = values == 100
    near_y = slice(-8 - y0, 8 - y0)
    edge = lethal[20 - x0 : 22 - x0, near_y].any(axis=0)
    assert edge.all(), f"{(~edge).sum()} of {edge.size} cells of the edge are missed"
    assert not lethal[: 19 - x0].any(), f"phantom edges at {np.argwhere(lethal[: 19 - x0])}"


def test_ground_that_is_not_seen_is_not_a_number():
    view = terrain(lambda x: 0.0)
    view.state[:5] = -1
    heights = seen_ground(view)
    assert np.isnan(heights[:5]).all()
    np.testing.assert_allclose(heights[5:], 0.0)
