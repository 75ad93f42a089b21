# SPDX-License-Identifier: Apache-2.0
import numpy as np

from occupancy_nn_ros.evaluation.imperfect import JITTER, imperfect
from occupancy_nn_ros.evaluation.truth import TrueKeyframe
from occupancy_nn_ros.geometry.poses import rotation_angle
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.rigs import named_rig
from occupancy_nn_ros.values import Keyframe, PosedDepth, PosedImage

RIG = named_rig("stereo")


def true_frames(count=40):
    """Grey pictures and a wall at 2 m, seen from a base that drives straight on."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(count)
    drive = Drive(np.arange(count) / 3.0, poses)
    frames = []
    for stamp, pose in enumerate(poses):
        images, depths = [], []
        for camera in RIG.cameras:
            shape = (camera.model.height, camera.model.width)
            T_map_cam = pose @ camera.T_base_cam
            image = np.full((*shape, 3), 90, np.uint8)
            images.append(PosedImage(camera.name, stamp, image, camera.model, T_map_cam))
            depths.append(PosedDepth(camera.name, stamp, np.full(shape, 2, np.float32), camera.model, T_map_cam))
        frames.append(
            TrueKeyframe(Keyframe(stamp, pose, images=tuple(images)), Keyframe(stamp, pose, depths=tuple(depths)))
        )
    return frames, drive


def test_truth_stays_and_what_is_measured_is_off_by_what_odometry_is_off():
    frames, drive = true_frames()
    given = list(imperfect(frames, RIG, drive, seed=3))
    assert len(given) == len(frames)
    shifts, turns = [], []
    for true, told in zip(frames, given, strict=True):
        assert told.depths is true.depths
        shifts.append(told.images.T_map_base[:3, 3] - true.images.T_map_base[:3, 3])
        turns.append(rotation_angle(told.images.T_map_base, true.images.T_map_base))
    assert 0.5 < np.std(shifts[1:]) / JITTER.position_m < 1.5
    assert 0.8 < np.sqrt(np.mean(np.square(turns[1:])) / 3) / JITTER.rotation_rad < 1.25
    assert np.abs(np.mean(shifts[1:], axis=0)).max() < JITTER.position_m  # it does not drift


def test_calibration_is_wrong_for_the_whole_drive_alike():
    frames, drive = true_frames(3)
    told = [frame.images for frame in imperfect(frames, RIG, drive, seed=3)]
    first, last = told[0].images[0], told[2].images[0]
    np.testing.assert_array_equal(first.model.K, last.model.K)
    assert 0 < abs(first.model.K[0, 0] / RIG.cameras[0].model.K[0, 0] - 1) < 0.05
    mounts = [np.linalg.inv(frame.T_map_base) @ frame.images[0].T_map_cam for frame in told]
    np.testing.assert_allclose(mounts[0], mounts[2], atol=1e-12)
    assert not np.allclose(mounts[0], RIG.cameras[0].T_base_cam, atol=1e-5)


def test_the_same_seed_makes_the_same_errors():
    frames, drive = true_frames(2)
    first, second, other = (list(imperfect(frames, RIG, drive, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[1].images.images[1].image, second[1].images.images[1].image)
    np.testing.assert_array_equal(first[1].images.T_map_base, second[1].images.T_map_base)
    assert not np.array_equal(first[1].images.T_map_base, other[1].images.T_map_base)
