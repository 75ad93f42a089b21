# SPDX-License-Identifier: Apache-2.0
"""What MuJoCo shows against rays traced through the same primitives by their exact distance."""

import numpy as np
import pytest

from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import EQUIDISTANT, PLUMB_BOB, camera_model, camera_pose
from occupancy_nn_ros.simulation.world import GROUND, Mover, Solid, World

SCENE = World(
    "test", 3,
    (
        Solid("box", (3.0, 0.5, 0.8), (0.3, 0.9, 0.8), 0.4, 2, 1),
        Solid("cylinder", (2.0, -1.0, 0.6), (0.3, 0.3, 0.6), 0.0, 3, 2),
        Solid("box", (5.0, 0.0, 1.5), (0.1, 4.0, 1.5), 0.0, 2, 4),  # shown as a row of tiles
        Solid("sphere", (1.6, 0.6, 1.0), (0.25,) * 3, 0.0, 5, 3, 0),
    ),
    (-5.0, -5.0, 5.0, 5.0), movers=(Mover((0.0, 1.0), ((0.0, 0.0, 0.0), (0.0, -1.2, 0.0))),),
)  # fmt: skip


@pytest.fixture(scope="module")
def renderer():
    try:
        opened = WorldRenderer(SCENE)
        opened.render(camera_model(32, 32, 60), np.eye(4))
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with opened:
        yield opened


def trace(origin, directions, time_s, reach=30.0):
    """Sphere tracing: distances along unit rays to the first surface, NaN for the sky."""
    along = np.zeros(len(directions))
    for _ in range(300):
        along += np.maximum(SCENE.signed_distance(origin + along[:, None] * directions, time_s), 0)
        along = np.minimum(along, reach)
    surface = SCENE.signed_distance(origin + along[:, None] * directions, time_s)
    return np.where((along < reach) & (surface < 2e-3), along, np.nan)


def labels_at(points, time_s):
    return SCENE.occupied_cubes(points, 0.02, time_s)


@pytest.mark.parametrize("time_s", [0.0, 0.7])
@pytest.mark.parametrize("lens", [("none", ()), PLUMB_BOB, EQUIDISTANT], ids=["pinhole", "plumb_bob", "equidistant"])
def test_depth_is_that_of_the_primitives(renderer, lens, time_s):
    model, pose = camera_model(96, 72, 80, *lens), camera_pose(0.0, 0.1, 0.9, 0.05, 0.12)
    renderer.set_time(time_s)
    view = renderer.render(model, pose)
    assert view.image.shape == (72, 96, 3) and view.image.dtype == np.uint8
    u, v = np.meshgrid(np.arange(96), np.arange(72))
    tangents = unproject(model, np.stack([u, v], -1))
    rays = np.column_stack([tangents, np.ones(len(tangents))])
    lengths = np.linalg.norm(rays, axis=1)
    along = trace(pose[:3, 3], rays / lengths[:, None] @ pose[:3, :3].T, time_s)
    expected = (along / lengths).reshape(72, 96)
    # Pixels at the edge of something are one or the other; nearest-neighbour lookup moves others by half a pixel.
    rim = np.pad(expected, 2, mode="edge")
    around = np.stack([rim[y : y + 72, x : x + 96] for y in range(5) for x in range(5)])
    smooth = np.isfinite(around).all(axis=0) & (np.ptp(around, axis=0) < 0.5)
    smooth &= (np.abs(tangents) < 1.45).all(axis=1).reshape(72, 96)
    assert smooth.mean() > 0.5
    error = np.abs(view.depth_m - expected)[smooth]
    slope = np.ptp(around[[7, 11, 12, 13, 17]], axis=0)[smooth] / 2
    assert (error < 0.02 + slope).mean() > 0.999  # a pixel where things of like depth overlap is forgiven
    assert np.median(error) < 0.02
    hits = pose[:3, 3] + (along[:, None] + 0.01) * (rays / lengths[:, None] @ pose[:3, :3].T)
    classes = labels_at(hits.astype(np.float32), time_s).reshape(72, 96)
    assert (view.classes == classes)[smooth].mean() > 0.97


def test_sky_has_neither_depth_nor_class(renderer):
    view = renderer.render(camera_model(48, 48, 60), camera_pose(0, 0, 5.0, 0, -0.9))
    assert not view.depth_m.any() and not view.classes.any()
    assert view.image.any()


def test_without_classes_the_picture_is_the_same(renderer):
    model, pose = camera_model(48, 32, 70), camera_pose(0, 0, 0.9, 0, 0.1)
    full, quick = renderer.render(model, pose), renderer.render(model, pose, with_classes=False)
    np.testing.assert_array_equal(full.image, quick.image)
    np.testing.assert_array_equal(full.depth_m, quick.depth_m)
    assert full.classes.any() and not quick.classes.any()


def test_a_level_camera_sees_the_ground_at_the_analytic_depth(renderer):
    model = camera_model(64, 64, 80)
    view = renderer.render(model, camera_pose(0, 0, 0.5, np.pi, 0.0))  # away from everything
    v = np.arange(45, 60)
    expected = 0.5 / ((v - model.K[1, 2]) / model.K[1, 1])
    np.testing.assert_allclose(view.depth_m[v, 20], expected, atol=0.02)
    assert (view.classes[v, 20] == GROUND).all()


@pytest.mark.parametrize("time_s", [0.0, 0.7])
def test_lidar_ranges_are_those_of_the_primitives(renderer, time_s):
    renderer.set_time(time_s)
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(800, 3)) * (1, 1, 0.3)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    origin = np.array([0.1, -0.2, 0.8])
    ranges = renderer.scan(origin, directions, 12.0)
    expected = trace(origin, directions, time_s)
    expected[expected > 12] = np.nan
    both = np.isfinite(ranges) & np.isfinite(expected)
    assert both.sum() > 300
    assert (np.isfinite(ranges) == np.isfinite(expected)).mean() > 0.99  # the rest grazes an edge
    assert (np.abs(ranges - expected)[both] < 0.02).mean() > 0.99
    assert np.median(np.abs(ranges - expected)[both]) < 1e-3
    assert np.nanmax(ranges) <= 12.0
