# SPDX-License-Identifier: Apache-2.0
"""A simulated drive recorded as a real robot would: what is said of its cameras is off, what its depth camera measures is not."""

from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.runtime.player import read_keyframes
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.imperfect_rig import ImperfectRig
from occupancy_nn_ros.simulation.recording import RecordingOptions, record_drive
from occupancy_nn_ros.simulation.rigs import Rig, RigCamera, camera_model, camera_pose
from occupancy_nn_ros.simulation.world import Solid, World

RIG = Rig("small", (RigCamera("front", camera_model(96, 64, 80), camera_pose(0.1, 0, 0.6, 0, 0.1)),))
WALL_M = 3.0
WORLD = World("wall", 1, (Solid("box", (WALL_M + 0.1, 0, 0), (0.1, 9, 9), 0.0, 1, 1),), (-1.0, -2.0, 2.0, 2.0))
POSES = np.tile(np.eye(4), (4, 1, 1))
POSES[:, 0, 3] = 0.2 * np.arange(4)
DRIVE = Drive(np.arange(4) / 5.0, POSES)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    def make(name, **options):
        try:
            options = RecordingOptions(truth_voxel_m=0, has_lidar=False, jpeg_quality=0, **options)
            return record_drive(WORLD, RIG, DRIVE, tmp_path_factory.mktemp(name), options)
        except MissingDependencyError as error:
            pytest.skip(str(error))

    return make


def keyframes(bag, source):
    config = load_config()
    every = replace(config.keyframes, min_period_s=0.0, max_period_s=0.0, distance_m=0.0)
    return list(read_keyframes(bag, replace(config, source=source, keyframes=every)))


def test_cameras_are_off_as_told_and_depth_is_exact(record):
    bag, told = record("imperfect", is_imperfect=True), ImperfectRig(RIG, DRIVE, WORLD.seed)
    seen = keyframes(bag, "network")
    assert len(seen) == len(POSES)
    for keyframe, base in zip(seen, told.drive.T_map_base, strict=True):
        np.testing.assert_allclose(keyframe.T_map_base, base, atol=1e-9)
        np.testing.assert_allclose(keyframe.images[0].T_map_cam, base @ told.T_base_cam[0], atol=1e-9)
        np.testing.assert_allclose(keyframe.images[0].model.K, told.K[0])
    assert np.abs(seen[-1].T_map_base - POSES[-1]).max() > 1e-4
    for keyframe, true in zip(keyframes(bag, "depth"), POSES, strict=True):
        depth = keyframe.depths[0]
        np.testing.assert_allclose(depth.T_map_cam, true @ RIG.cameras[0].T_base_cam, atol=1e-9)
        np.testing.assert_allclose(depth.model.K, RIG.cameras[0].model.K)
        ahead = (depth.T_map_cam[:3, :3] @ [0, 0, 1])[0] * depth.depth_m[32, 48]
        assert depth.T_map_cam[0, 3] + ahead == pytest.approx(WALL_M, abs=0.05)


def test_pictures_are_those_of_other_cameras(record):
    plain, other = (keyframes(record(name, is_imperfect=name == "b"), "network") for name in ("a", "b"))
    for first, second in zip(plain, other, strict=True):
        assert np.array_equal(first.images[0].model.K, RIG.cameras[0].model.K)
        assert np.abs(first.images[0].image.astype(int) - second.images[0].image).mean() > 3
