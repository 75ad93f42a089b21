# SPDX-License-Identifier: Apache-2.0
"""Depth images of a room that is known by formula: what agrees is kept, what moves and what one view invents is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.labelling import agreement
from occupancy_nn_ros.labelling.agreement import agree, choose_views, finer
from occupancy_nn_ros.values import CameraModel, PosedDepth

MODEL = CameraModel(48, 36, np.array([[40.0, 0, 23.5], [0, 40, 17.5], [0, 0, 1]]), "none", np.zeros(0))
ROOM = np.array([[-3.0, -2.5, 0.0], [4.0, 2.5, 2.4]])
AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
BOX = np.array([[1.4, -0.4, 0.0], [1.8, 0.4, 1.8]])
"""What stands in the room for a while."""


def camera(x, y, yaw=0.0):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_euler("z", yaw).as_matrix() @ AXES, (x, y, 1.0)
    return pose


def rays():
    u, v = np.meshgrid(np.arange(MODEL.width), np.arange(MODEL.height))
    return np.stack([(u - 23.5) / 40, (v - 17.5) / 40, np.ones(u.shape)], axis=-1)


def look(pose, n=0, box=False):
    """Exact depth image from inside of the room."""
    ways, origin = rays() @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide="ignore"):
        depth = (np.where(ways > 0, ROOM[1] - origin, ROOM[0] - origin) / ways).min(axis=-1)
        low, high = ((edge - origin) / ways for edge in BOX)
    enter, leave = np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)
    hit = (enter < leave) & (enter > 0)
    depth = np.where(box & hit, enter, depth)
    return PosedDepth("front", n, depth.astype(np.float32), MODEL, pose), hit


PATH = [camera(0.1 * n - 1.0, 0.12 * n - 0.6, 0.05 * n) for n in range(10)]


def test_exact_depth_is_kept_as_it_is():
    depths = [look(pose, n)[0] for n, pose in enumerate(PATH)]
    for depth, found in zip(depths, agree(depths), strict=True):
        kept = found.depth.depth_m > 0
        assert kept.mean() > 0.5
        error = np.abs(found.depth.depth_m[kept] / depth.depth_m[kept] - 1)
        # Other views' pixels lie beside this one's; between them depth is exact on planes, not where these meet.
        assert np.median(error) < 1e-5 and (error < 0.01).mean() > 0.95 and error.max() < 0.05
        assert not (found.doubtful.depth_m > 0).any()
        assert (found.depth.stamp_ns, found.depth.camera) == (depth.stamp_ns, "front")


def test_the_mean_of_what_agrees_is_better_than_each(rng):
    exact = [look(pose, n)[0] for n, pose in enumerate(PATH)]
    noisy = [
        PosedDepth(d.camera, d.stamp_ns, (d.depth_m * rng.normal(1, 0.02, d.depth_m.shape)).astype(np.float32), MODEL, d.T_map_cam)
        for d in exact
    ]  # fmt: skip
    errors = {"given": [], "kept": []}
    for true, given_depth, found in zip(exact, noisy, agree(noisy), strict=True):
        kept = found.depth.depth_m > 0
        errors["given"].append(given_depth.depth_m[kept] / true.depth_m[kept] - 1)
        errors["kept"].append(found.depth.depth_m[kept] / true.depth_m[kept] - 1)
    given_rms, kept_rms = (np.sqrt(np.mean(np.concatenate(e) ** 2)) for e in errors.values())
    assert kept_rms < 0.6 * given_rms


def test_what_stands_there_for_one_look_is_doubtful_and_not_kept():
    depths = [look(pose, n, box=n == 5)[0] for n, pose in enumerate(PATH)]
    hit = look(PATH[5])[1]
    found = list(agree(depths))
    assert hit.sum() > 100
    assert not (found[5].depth.depth_m[hit] > 0).any()
    doubtful = found[5].doubtful.depth_m > 0
    assert doubtful[hit].mean() > 0.8 and not doubtful[~hit].any()
    np.testing.assert_array_equal(found[5].doubtful.depth_m[doubtful], depths[5].depth_m[doubtful])
    for n in (2, 8):  # the others go on as if it had not been
        assert not (found[n].doubtful.depth_m > 0).any() and (found[n].depth.depth_m > 0).mean() > 0.55


def test_what_one_view_invents_is_not_kept(rng):
    depths = [look(pose, n)[0] for n, pose in enumerate(PATH)]
    wrong = rng.random(depths[4].depth_m.shape) < 0.3
    depths[4].depth_m[wrong] *= np.where(rng.random(int(wrong.sum())) < 0.5, 0.7, 1.4).astype(np.float32)
    found = list(agree(depths))[4]
    assert not (found.depth.depth_m[wrong] > 0).any()
    assert (found.depth.depth_m[~wrong] > 0).mean() > 0.6


def test_views_from_one_place_say_nothing():
    depths = [look(camera(0.0, 0.003 * n, 0.05 * n), n)[0] for n in range(8)]
    assert not any((found.depth.depth_m > 0).any() for found in agree(depths))


def test_unknown_pixels_stay_unknown():
    depths = [look(pose, n)[0] for n, pose in enumerate(PATH)]
    depths[3].depth_m[:10], depths[3].depth_m[10:20] = 0, np.nan
    found = list(agree(depths))[3]
    assert not (found.depth.depth_m[:20] > 0).any() and (found.depth.depth_m[20:] > 0).any()
    assert np.isfinite(found.depth.depth_m).all()


def test_a_finer_image_shows_the_same_surfaces():
    depth, _ = look(PATH[3])
    depth.depth_m[:6] = 0
    found = finer(depth)
    assert found.depth_m.shape == (72, 96) and (found.model.width, found.model.height) == (96, 72)
    u, v = np.meshgrid(np.arange(96), np.arange(72))
    K, pose = found.model.K, found.T_map_cam
    ways = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1) @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        true = (np.where(ways > 0, ROOM[1] - pose[:3, 3], ROOM[0] - pose[:3, 3]) / ways).min(axis=-1)
    assert not (found.depth_m[:12] > 0).any() and (found.depth_m[12:] > 0).all()
    error = np.abs(found.depth_m[12:] / true[12:] - 1)
    assert np.median(error) < 1e-5 and (error < 0.02).mean() > 0.95 and error.max() < 0.06


def test_nothing_comes_of_nothing():
    assert list(agree([])) == []
    (alone,) = agree([look(PATH[0])[0]])
    assert not (alone.depth.depth_m > 0).any() and not (alone.doubtful.depth_m > 0).any()


@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_views_are_chosen_from_other_places_that_look_the_same_way(seed, count):
    rng = np.random.default_rng(seed)
    places, cosines = rng.normal(0, 0.5, (count, 3)), rng.uniform(-1, 1, count)
    chosen = choose_views(np.zeros(3), places, cosines)
    assert len(chosen) <= agreement.MOST_VIEWS and len(set(chosen.tolist())) == len(chosen)
    assert (cosines[chosen] > agreement.LEAST_COSINE).all()
    distance = np.linalg.norm(places[chosen], axis=1)
    assert (np.diff(distance) >= 0).all() and (distance > agreement.PLACE_M / 4).all()


def test_a_robot_that_waits_does_not_outvote_the_rest():
    """A hundred looks from one place are one."""
    waiting = np.tile([0.5, 0, 0], (100, 1)) + np.linspace(0, 0.01, 100)[:, None] / 2
    chosen = choose_views(np.zeros(3), np.vstack([waiting, [[0.2, 0.3, 0], [1.0, 0, 0]]]), np.ones(102))
    assert len(chosen) == 3 and {100, 101} <= set(chosen.tolist())


@pytest.mark.parametrize("turn", [0.0, np.pi])
def test_cameras_that_look_elsewhere_are_not_asked(turn):
    others = [look(camera(-0.5 + 0.15 * n, 0.3, turn), n)[0] for n in range(5)]
    found = next(agree([look(camera(0, 0, 0), 9)[0], *others]))
    assert (found.depth.depth_m > 0).any() == (turn == 0)
