# SPDX-License-Identifier: Apache-2.0
"""RayIoU on grids whose rays end at known places, and against a walk that takes every voxel's slabs by themselves."""

import numpy as np
import pytest

from occupancy_nn_ros.evaluation.ray_iou import UNNAMED, RayEnds, RayScore, first_hits, rays_from, spinning_rays
from occupancy_nn_ros.values import LatticeWindow

EDGE = 0.5
WINDOW = LatticeWindow(EDGE, (-4, 2, -1), (12, 9, 7))


def slow_first_hits(labels, window, origins, directions):
    """Of all occupied voxels that a ray's slabs cross, the one that it enters first; a slow twin."""
    corners = (np.argwhere(labels > 0) + window.origin) * window.voxel_size_m
    ids, label, distance = labels[labels > 0], [], []
    grid_low = np.array(window.origin) * window.voxel_size_m
    grid_high = grid_low + np.array(window.shape) * window.voxel_size_m
    for origin, way in zip(origins, directions, strict=True):
        low, high = (corners - origin) / way, (corners + window.voxel_size_m - origin) / way
        enter, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        crossed = (enter < leave) & (leave > 0)
        if not crossed.any() or (origin < grid_low).any() or (origin >= grid_high).any():
            label.append(0), distance.append(0.0)
            continue
        first = np.flatnonzero(crossed)[np.argmin(enter[crossed])]
        label.append(ids[first]), distance.append(max(0.0, enter[first]))
    return np.array(label), np.array(distance)


def test_rays_end_where_the_slow_twin_says(rng):
    labels = np.where(rng.random(WINDOW.shape) < 0.06, rng.integers(1, 4, WINDOW.shape), 0).astype(np.uint8)
    low = np.array(WINDOW.origin) * EDGE
    origins = low + rng.uniform(-0.05, 1.05, (800, 3)) * np.array(WINDOW.shape) * EDGE
    directions = rng.normal(size=(800, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    got = first_hits(labels, WINDOW, origins, directions)
    label, distance = slow_first_hits(labels, WINDOW, origins, directions)
    assert 200 < (label > 0).sum() < 750
    np.testing.assert_array_equal(got.label, label)
    np.testing.assert_allclose(got.distance_m, distance, atol=1e-5)


def test_rays_along_an_axis_and_from_inside():
    labels = np.zeros(WINDOW.shape, np.uint8)
    labels[9, 3, 3] = 2
    origin = (np.array([2, 3, 3]) + WINDOW.origin + 0.5) * EDGE
    origins = np.stack([origin, origin, (np.array([9, 3, 3]) + WINDOW.origin + 0.5) * EDGE, origin - 100])
    ends = first_hits(labels, WINDOW, origins, np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    assert ends.label.tolist() == [2, 0, 2, 0]
    np.testing.assert_allclose(ends.distance_m, [6.5 * EDGE, 0, 0, 0])


def test_the_lidar_of_the_original_has_39_elevations():
    rays = spinning_rays(1)
    assert rays.shape == (39 * 360, 3)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)
    elevation = np.unique(np.round(np.rad2deg(np.arcsin(rays[:, 2])), 3))
    assert elevation[0] == pytest.approx(-45.0)
    assert elevation[9] == pytest.approx(-5.711, abs=1e-3)
    np.testing.assert_allclose(np.diff(elevation[9:]), 0.63, atol=2e-3)
    assert 12.0 < elevation[-1] < 12.7  # just past 0.21 rad


def test_eight_places_of_a_drive_are_asked():
    origins, directions = rays_from(np.arange(60.0).reshape(20, 3))
    assert len(origins) == len(directions) == 8 * 39 * 120
    assert np.unique(origins[:, 0]).tolist() == [0, 9, 15, 24, 33, 42, 48, 57]
    assert len(np.unique(rays_from(np.zeros((1, 3)))[0], axis=0)) == 1


def test_ray_iou_by_hand():
    """Five rays; the last has no truth. Off by 0, 0.7 and 1.5 m, one of the wrong class, one that hits nothing."""
    true = RayEnds(np.array([1, 1, 2, 2, 0], np.uint8), np.array([2.0, 2, 3, 3, 0], np.float32))
    claimed = RayEnds(np.array([1, 1, 2, 1, 1], np.uint8), np.array([2.0, 2.7, 4.5, 3, 1], np.float32))
    score = RayScore.of(claimed, true, 0.25, classes=3)
    figures = score.figures("x_")
    # class 1: two true, three claimed; class 2: two true, one claimed; class 3 is not in the truth.
    assert figures["x_ray_miou_1m"] == pytest.approx((2 / 3 + 0 / 3) / 2)
    assert figures["x_ray_miou_2m"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figures["x_ray_miou_1vox"] == pytest.approx((1 / 4 + 0 / 3) / 2)
    # distance alone: four rays, all claimed
    assert figures["x_ray_iou_1m"] == pytest.approx(3 / 5)
    assert figures["x_ray_iou_4m"] == pytest.approx(1.0)
    assert figures["x_ray_iou_4vox"] == pytest.approx(3 / 5)
    assert figures["x_ray_iou_2vox"] == pytest.approx(2 / 6)
    doubled = (score + score).figures("x_")
    assert doubled == pytest.approx(figures)


def test_a_wall_that_is_too_near_by_one_voxel_is_right_at_two_voxels_only():
    true, shifted = np.zeros((2, 40, 40, 10), np.uint8)
    true[30], shifted[29] = 2, 2
    window = LatticeWindow(0.1, (0, 0, 0), true.shape)
    angle = np.linspace(-0.3, 0.3, 51)
    ways = np.stack([np.cos(angle), np.sin(angle), np.zeros(51)], axis=1)
    origins = np.tile([0.55, 2.0, 0.5], (51, 1))
    ends = [first_hits(grid, window, origins, ways) for grid in (shifted, true)]
    figures = RayScore.of(ends[0], ends[1], 0.1, classes=6).figures()
    assert figures["ray_iou_1vox"] == 0.0
    assert figures["ray_iou_2vox"] == figures["ray_miou_1m"] == 1.0


def test_what_has_no_class_is_right_in_distance_alone():
    true = RayEnds(np.array([1, 2], np.uint8), np.array([2.0, 3], np.float32))
    claimed = RayEnds(np.array([UNNAMED, 2], np.uint8), np.array([2.0, 3], np.float32))
    figures = RayScore.of(claimed, true, 0.2, classes=6).figures()
    assert (figures["ray_iou_1vox"], figures["ray_miou_1vox"]) == (1.0, 0.5)


def test_without_rays_there_is_no_score():
    assert all(np.isnan(value) for value in RayScore.empty(6).figures().values())
