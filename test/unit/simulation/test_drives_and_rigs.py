# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size, check_camera, unproject
from occupancy_nn_ros.geometry.poses import check_transform, rotation_angle
from occupancy_nn_ros.simulation.drives import Drive, plan_drive
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rigs import camera_pose, lidar_directions, named_rig, random_rig
from occupancy_nn_ros.simulation.world import Solid, World


@pytest.mark.parametrize(
    ("kind", "seed"), [("indoor", 0), ("indoor", 4), ("warehouse", 1), ("street", 2), ("indoor_heldout", 3)]
)
@pytest.mark.parametrize("handheld", [False, True])
def test_drives_stay_clear_of_everything_that_stands(kind, seed, handheld):
    world = build_world(kind, seed)
    still = World("still", 0, tuple(s for s in world.solids if s.mover < 0), world.bounds)
    drive = plan_drive(world, seed, 12.0, 10.0, handheld=handheld)
    assert len(drive.stamps_s) == len(drive.T_map_base) == 120
    places = drive.T_map_base[:, :3, 3]
    for height in (0.15, 0.6, 1.1):
        at_height = np.column_stack([places[:, :2], np.full(len(places), height)])
        assert still.signed_distance(at_height).min() > 0.1
    for pose in drive.T_map_base:
        check_transform(pose)
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) * 10
    assert speeds.max() < 2.5
    turns = [rotation_angle(a, b) for a, b in zip(drive.T_map_base[:-1], drive.T_map_base[1:], strict=True)]
    assert max(turns) < 1.0
    if not handheld:
        assert (places[:, 2] == 0).all()


def test_the_same_seed_drives_the_same_way():
    world = build_world("indoor", 0)
    first, second, other = (plan_drive(world, seed, 5.0, 5.0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.T_map_base, second.T_map_base)
    assert np.abs(first.T_map_base - other.T_map_base).max() > 0.1


def test_a_world_without_free_floor_is_refused():
    full = World("full", 0, (Solid("box", (0, 0, 1), (6, 6, 1), 0, 2, 0),), (-3.0, -3.0, 3.0, 3.0))
    with pytest.raises(SimulationError, match="free cells"):
        plan_drive(full, 0, 5.0, 5.0)


def test_poses_between_stamps():
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, :3], poses[1, 0, 3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]], 2.0
    drive = Drive(np.array([0.0, 2.0]), poses)
    middle = drive.pose(1.0)
    assert middle[0, 3] == 1.0
    np.testing.assert_allclose(middle[:2, 0], (np.sqrt(0.5), np.sqrt(0.5)), atol=1e-12)
    np.testing.assert_allclose(drive.pose(-1.0), poses[0], atol=1e-12)
    np.testing.assert_allclose(drive.pose(9.0), poses[1], atol=1e-12)


@pytest.mark.parametrize("name", ["front", "stereo", "surround4", "surround6"])
def test_named_rigs_are_real_cameras(name):
    rig = named_rig(name)
    for camera in rig.cameras:
        check_camera(camera.model)
        check_transform(camera.T_base_cam)
        u, v = np.meshgrid(np.linspace(0, camera.model.width - 1, 9), np.linspace(0, camera.model.height - 1, 9))
        assert np.isfinite(unproject(camera.model, np.stack([u, v], -1))).all()  # every pixel has a ray
        assert Rectifier(camera.model, *canvas_size(camera.model, 12288, 32)).mask.mean() > 0.5
        ahead = camera.T_base_cam[:3, 2]
        assert -0.2 < ahead[2] < -0.05  # every camera looks a little down ...
        assert abs(camera.T_base_cam[2, 0]) < 1e-9  # ... and none is rolled
    assert len({camera.name for camera in rig.cameras}) == len(rig.cameras)


def test_unknown_rigs_name_the_known_ones():
    with pytest.raises(SimulationError, match=r"unknown rig 'tripod'.*surround6"):
        named_rig("tripod")


def test_camera_pose_looks_where_it_should():
    pose = camera_pose(1, 2, 3, np.pi / 2, 0.2)
    np.testing.assert_allclose(pose[:3, 3], (1, 2, 3))
    np.testing.assert_allclose(pose[:3, 2], (0, np.cos(0.2), -np.sin(0.2)), atol=1e-12)  # left, tilted down
    np.testing.assert_allclose(pose[:3, 0], (1, 0, 0), atol=1e-12)  # the image's right is the map's x


def test_random_rigs_are_usable():
    for seed in range(20):
        rig = random_rig(np.random.default_rng(seed))
        assert 1 <= len(rig.cameras) <= 5
        assert len({(c.model.width, c.model.height) for c in rig.cameras}) == 1
        for camera in rig.cameras:
            check_camera(camera.model)
            check_transform(camera.T_base_cam)


def test_lidar_directions():
    directions = lidar_directions(4, 8)
    assert directions.shape == (32, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert np.rad2deg(np.arcsin(directions[:, 2].min())) == pytest.approx(-25)
    assert np.rad2deg(np.arcsin(directions[:, 2].max())) == pytest.approx(15)
