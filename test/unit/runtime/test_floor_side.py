# SPDX-License-Identifier: Apache-2.0
"""Depth images whose floor lies above the camera, seen by a level robot that drives straight: no turn tells anything of them."""

from dataclasses import replace

import numpy as np
import pytest
from box_room import BOXES, at, camera_at, depth_image, sweep

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.runtime.floor_side import FloorSide, floor_is_above

TURNED = np.s_[::-1, ::-1]
FLIPPED = np.s_[::-1]


def drive(way=None, height=0.5, pitch=10.0, base=0.0, noise=0.0, boxes=BOXES, steps=8):
    """What is refused of images taken every 0.25 m, and whether each spoils the map."""
    checks, refused, rng = FloorSide(), [], np.random.default_rng(3)
    for n in range(steps):
        depth = depth_image(camera_at(-2 + 0.25 * n, 0.2, height + base, pitch=pitch), boxes=boxes)
        image = depth.depth_m if way is None else depth.depth_m[way]
        image = (image * (1 + noise * rng.normal(size=image.shape))).astype(np.float32)
        try:
            checks.check(replace(depth, depth_m=image), at(-2 + 0.25 * n, 0.2, base))
        except ImplausibleError as error:
            refused.append((error.reason, error.spoils_map))
    return refused


@pytest.mark.parametrize("way", [TURNED, FLIPPED], ids=["turned by 180 degrees", "flipped upside down"])
@pytest.mark.parametrize(("height", "pitch", "base"), [(0.5, 10, 0.0), (0.3, 0, 0.0), (0.9, 15, 0.0), (0.4, 10, 0.2)])
def test_a_floor_above_the_camera_is_told_within_half_a_metre(way, height, pitch, base):
    refused = drive(way, height, pitch, base, noise=0.01)
    assert [spoils for _, spoils in refused] == [True] + [False] * (len(refused) - 1) and len(refused) >= 4
    assert {reason for reason, _ in refused} == {"depth is mirrored or turned over"}


@pytest.mark.parametrize("height", [0.2, 0.5, 0.9, 1.3, 1.6])
@pytest.mark.parametrize("pitch", [-20, 0, 10, 30])
def test_an_upright_image_is_never_refused(height, pitch):
    """At 1.3 m the ceiling is as far above the camera as the floor is below it."""
    assert drive(None, height, pitch, noise=0.01) == []


def test_a_camera_above_a_table_or_a_pit_is_not_refused():
    table = np.array([[[-2.9, -2.9, 0.0], [6.9, 2.9, 0.75]]])
    assert drive(None, 1.5, 20, boxes=table) == []
    assert drive(None, 0.4, 10, base=1.0) == []  # at the edge of a dock: the floor lies a metre below the base


def test_where_the_camera_is_as_high_as_the_room_is_symmetric_nothing_is_told():
    assert floor_is_above(depth_image(camera_at(-2, 0, 0.05)), at(-2, 0, 0)) is None
    depth = depth_image(camera_at(-2, 0.2, 1.3))
    assert floor_is_above(replace(depth, depth_m=depth.depth_m[FLIPPED]), at(-2, 0.2, 0)) is False


def test_a_floor_that_was_seen_three_times_ends_the_looking():
    checks = FloorSide()
    for n in range(6):
        depth = depth_image(camera_at(-2 + 0.25 * n, 0.2, 0.5, pitch=10))
        turned = replace(depth, depth_m=depth.depth_m[TURNED])
        checks.check(depth if n < 3 else turned, at(-2 + 0.25 * n, 0.2, 0))


@pytest.mark.parametrize(("height", "yaw"), [(0.5, 0), (0.9, 30)])
def test_a_lidar_that_hangs_upside_down_and_whose_frame_does_not(height, yaw):
    """Thirty-two rings down to 30 degrees; turned about its x axis, which its driver does not know."""
    rings, checks, refused = np.deg2rad(np.linspace(-30, 30, 32)), {True: FloorSide(), False: FloorSide()}, []
    for n in range(6):
        cloud = sweep(at(-2 + 0.25 * n, 0.2, height, yaw), rings=rings, steps=90)
        checks[False].check(cloud, at(-2 + 0.25 * n, 0.2, 0, yaw))
        try:
            checks[True].check(
                replace(cloud, points_m=cloud.points_m * np.float32([1, -1, -1])), at(-2 + 0.25 * n, 0.2, 0, yaw)
            )
        except ImplausibleError as error:
            refused.append((error.reason, error.spoils_map))
    assert refused == [("cloud is turned over", True)] + [("cloud is turned over", False)] * 3
