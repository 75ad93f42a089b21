# SPDX-License-Identifier: Apache-2.0
"""Numbers that are no metres are told by what another sensor measures; right ones never are taken for such."""

from dataclasses import replace

import numpy as np
import pytest
from box_room import BOXES, MODEL, at, camera_at, depth_image, sweep

from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.runtime.depth_comparison import compare
from occupancy_nn_ros.runtime.sight_lines import CloudSight, DepthSight
from occupancy_nn_ros.values import PosedCloud, PosedDepth

CAMERA = camera_at(0.2, 0, 0.5, pitch=10)
PLACES = {"start": at(), "turned": at(1, -1, 0, 30), "corner": at(-2, -2, 0, 45), "between": at(4, -0.2, 0, 20)}


def lidar(pose, **scene):
    return CloudSight(sweep(pose @ at(0, 0, 0.9), **scene))


def scanner(pose, **scene):
    return CloudSight(sweep(pose @ at(0.1, 0, 0.3), rings=np.zeros(1), steps=360, **scene))


def other_camera(pose, **scene):
    return DepthSight(depth_image(pose @ camera_at(0.2, 0.2, 0.6, yaw=20), **scene))


JUDGES = {"LiDAR": lidar, "laser scanner": scanner, "depth camera": other_camera}


def changed(depth, change):
    return DepthSight(replace(depth, depth_m=change(depth.depth_m).astype(np.float32)))


def told(judged, judge, tolerance=0.08):
    verdict = compare(judged, judge, tolerance)
    return None if verdict is None else verdict.kind


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("factor", [10.0, 4.0, 1 / 0.3048, 1.5, 0.5, 0.256, 0.1])
def test_another_unit_is_told_with_its_factor(judge, factor):
    """0.1 and 0.25 mm, feet, 1/256 m and centimetres, from where there is more than one surface."""
    for pose in (PLACES["start"], PLACES["turned"]):
        verdict = compare(changed(depth_image(pose @ CAMERA), lambda z: z * factor), JUDGES[judge](pose), 0.08)
        assert verdict is not None
        assert verdict.kind == "factor" and verdict.factor == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("product", [1.0, 30.0])
def test_inverse_depth_and_disparity_fall_with_the_distance(judge, product):
    judged = changed(depth_image(CAMERA), lambda z: product / z)
    verdict = compare(judged, JUDGES[judge](at()), 0.08)
    assert verdict is not None
    assert verdict.kind == "inverse" and verdict.factor == pytest.approx(product, rel=0.05)


def along_rays(depth):
    v, u = np.mgrid[0 : depth.model.height, 0 : depth.model.width]
    tangents = unproject(depth.model, np.column_stack([u.ravel(), v.ravel()]))
    return depth.depth_m * np.sqrt(1 + (tangents**2).sum(axis=1)).reshape(u.shape)


@pytest.mark.parametrize("judge", ["LiDAR", "depth camera"])
@pytest.mark.parametrize("place", ["start", "turned"])
def test_distances_along_the_rays_are_told_from_depth(judge, place):
    depth = depth_image(PLACES[place] @ CAMERA)
    assert told(changed(depth, lambda _: along_rays(depth)), JUDGES[judge](PLACES[place])) == "along rays"


@pytest.mark.parametrize("judge", ["LiDAR", "depth camera"])
@pytest.mark.parametrize("factor", [0.5, 0.65, 2.0])
def test_pixels_of_another_camera_are_told(judge, factor):
    """Registered to a camera of another focal length, with the camera_info of this one."""
    K = MODEL.K.copy()
    K[:2, :2] *= factor
    image = depth_image(CAMERA, replace(MODEL, K=K))
    verdict = compare(DepthSight(replace(image, model=MODEL)), JUDGES[judge](at()), 0.08)
    assert verdict is not None
    assert verdict.kind == "focal length" and verdict.factor == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("judge", ["LiDAR", "depth camera"])
def test_numbers_without_a_rule_are_never_metres_twice(judge, rng):
    """A confidence map, and the raw numbers of a first Kinect, 1090 - 348 / z."""
    changes = (lambda z: rng.uniform(0.3, 1.0, z.shape), lambda z: (1090 - 348 / z) * 0.001)
    verdicts = [
        told(changed(depth_image(pose @ CAMERA), change), JUDGES[judge](pose))
        for pose in PLACES.values()
        for change in changes
    ]
    assert set(verdicts) <= {"nothing", None}
    assert verdicts.count("nothing") >= 3


def stereo(z, rng):
    """Noise that grows with the square of the distance, holes, and edges that are smeared."""
    z = z * (1 + 0.02 * z * rng.normal(size=z.shape))
    z = np.where(rng.random(z.shape) < 0.2, 0, z)
    smeared = np.roll(z, 3, axis=1)
    return np.where(np.abs(smeared - z) > 0.5, (z + smeared) / 2, z)


RIGHT = {
    "exact": lambda pose: DepthSight(depth_image(pose @ CAMERA)),
    "5 % too far": lambda pose: changed(depth_image(pose @ CAMERA), lambda z: 1.05 * z),
    "5 cm too high": lambda pose: DepthSight(
        replace(depth_image(pose @ camera_at(0.2, 0, 0.55, pitch=10)), T_map_cam=pose @ CAMERA)
    ),
    "10 cm too far ahead": lambda pose: DepthSight(
        replace(depth_image(pose @ camera_at(0.3, 0, 0.5, pitch=10)), T_map_cam=pose @ CAMERA)
    ),
    "3 degrees too low": lambda pose: DepthSight(
        replace(depth_image(pose @ camera_at(0.2, 0, 0.5, pitch=13)), T_map_cam=pose @ CAMERA)
    ),
    "4 degrees aside": lambda pose: DepthSight(
        replace(depth_image(pose @ camera_at(0.2, 0, 0.5, pitch=10, yaw=4)), T_map_cam=pose @ CAMERA)
    ),
}


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("kind", RIGHT)
def test_right_depth_is_never_taken_for_wrong(judge, kind):
    verdicts = [told(RIGHT[kind](pose), JUDGES[judge](pose)) for pose in PLACES.values()]
    assert set(verdicts) <= {"metres", None}
    assert verdicts.count("metres") >= 3


@pytest.mark.parametrize("judge", JUDGES)
def test_noisy_stereo_is_metres(judge, rng):
    verdicts = [
        told(changed(depth_image(pose @ CAMERA), lambda z: stereo(z, rng)), JUDGES[judge](pose))
        for pose in PLACES.values()
    ]
    assert set(verdicts) <= {"metres", None}


def test_what_one_of_them_cannot_see_says_nothing():
    """Something right before the camera, which hides nearly all that the LiDAR above sees; walls and floor never tell a unit."""
    for pose in PLACES.values():
        x, y = pose[:2, 3]
        near = np.array([[[x + 0.3, y - 0.5, 0.2], [x + 0.6, y + 0.5, 0.75]]])
        boxes = np.concatenate([BOXES, near])
        assert told(DepthSight(depth_image(pose @ CAMERA, boxes=boxes)), lidar(pose, boxes=boxes)) in ("metres", None)


def test_a_table_above_the_floor_is_no_other_unit():
    """Seen from one point, two parallel planes are in proportion: the camera sees the table's top, the LiDAR the floor."""
    top = np.array([[[-3.0, -3.0, 0.4], [7.0, 3.0, 0.41]]])
    camera = camera_at(0, 0, 1.0, pitch=60)
    low = CloudSight(sweep(at(0, 0, 0.2), rings=np.deg2rad(np.arange(-80, 1, 2.0)), boxes=[]))
    judged = DepthSight(depth_image(camera, boxes=top))
    lines = judged.towards(low.points)
    assert len(lines.measured) > 500
    assert np.ptp(lines.measured / lines.expected) < 0.02  # a perfect proportion
    assert told(judged, low) != "factor"


def test_a_pane_before_a_wall_is_no_other_unit():
    """The LiDAR sees the glass, the camera the wall behind it."""
    pane = np.array([[[2.0, -3.0, 0.0], [2.02, 3.0, 2.6]]])
    level = camera_at(0, 0, 0.9)
    small = replace(MODEL, K=np.array([[400.0, 0, 79.5], [0, 400, 59.5], [0, 0, 1]]))
    judged, seen = DepthSight(depth_image(level, small, boxes=[])), lidar(at(), boxes=pane)
    assert np.median(judged.towards(seen.points).measured) == pytest.approx(7.0)
    assert told(judged, seen) in ("nothing", None)


def test_one_wall_tells_no_proportion():
    for factor in (0.3, 3.0):
        wall = camera_at(5.5, 0, 1.2)
        small = replace(MODEL, K=np.array([[400.0, 0, 79.5], [0, 400, 59.5], [0, 0, 1]]))
        judged = changed(depth_image(wall, small), lambda z, by=factor: z * by)
        assert told(judged, other_camera(at(5.2, 0, 0.6))) in ("nothing", None)


def test_few_places_and_empty_looks_tell_nothing():
    depth = depth_image(CAMERA)
    nothing = DepthSight(replace(depth, depth_m=np.zeros_like(depth.depth_m)))
    unknown = DepthSight(replace(depth, depth_m=np.full_like(depth.depth_m, np.nan)))
    empty = CloudSight(PosedCloud("lidar", 0, np.zeros((0, 3), np.float32), np.eye(4)))
    few = CloudSight(PosedCloud("lidar", 0, np.ones((20, 3), np.float32), np.eye(4)))
    for judged in (DepthSight(depth), nothing, unknown, empty):
        for judge in (nothing, unknown, empty, few, DepthSight(depth_image(camera_at(0.2, 0, 0.5, yaw=180)))):
            assert compare(judged, judge, 0.08) is None


def test_a_fisheye_is_compared_by_its_rays():
    """160 degrees wide: the same by the LiDAR, and not if its distances are along the rays."""
    fisheye = replace(
        MODEL, distortion_model="equidistant", D=np.array([1e-3, 0, 0, 0]),
        K=np.array([[60.0, 0, 79.5], [0, 60, 59.5], [0, 0, 1]]),
    )  # fmt: skip
    depth = depth_image(CAMERA, fisheye)
    assert told(DepthSight(depth), lidar(at())) == "metres"
    assert told(changed(depth, lambda _: np.nan_to_num(along_rays(depth))), lidar(at())) == "along rays"


def test_a_cloud_in_millimetres_is_told_by_a_depth_camera():
    cloud = sweep(at(0, 0, 0.9))
    wrong = CloudSight(replace(cloud, points_m=1000 * cloud.points_m))
    judge = DepthSight(depth_image(CAMERA))
    verdict = compare(wrong, judge, 0.08)
    assert verdict is not None
    assert verdict.kind == "factor" and verdict.factor == pytest.approx(1000, rel=0.05)
    assert told(CloudSight(cloud), judge) == "metres"


def test_the_looks_stay_as_they_were():
    depth, cloud = depth_image(CAMERA), sweep(at(0, 0, 0.9))
    copies = depth.depth_m.copy(), cloud.points_m.copy()
    compare(DepthSight(depth), CloudSight(cloud), 0.08)
    assert isinstance(depth, PosedDepth)
    assert np.array_equal(depth.depth_m, copies[0]) and np.array_equal(cloud.points_m, copies[1])
