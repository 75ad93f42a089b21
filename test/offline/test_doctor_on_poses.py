# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of transforms that place everything, and of which the map would be wrong all the same."""

import numpy as np
import pytest
from room_drive import SECOND, START_NS, examine, images, moves, odometry, pose, static, write

from occupancy_nn_ros.geometry.poses import make_transform

FLIP = make_transform((0, 0, 0), (1, 0, 0, 0))


def shifted(metres, yaw=0.0):
    return lambda stamp: make_transform((metres, 0, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2))) @ pose(stamp)


def jump(metres, yaw=0.0):
    """A localisation that finds after two seconds that it was wrong."""

    def correction(stamp):
        is_late = stamp > START_NS + 2 * SECOND
        return make_transform((metres * is_late, 0, 0), (0, 0, np.sin(yaw * is_late / 2), np.cos(yaw * is_late / 2)))

    return correction


def later(messages, ns):
    return [type(m)(m.recorded_ns + ns, m.topic, m.msgtype, m.cdr) for m in messages]


def warnings(tmp_path, *parts, settings=()):
    checks = examine(write(tmp_path / "bag", images(), *parts), *settings)
    return [text for level, _, text, _ in checks if level != "ok"]


@pytest.mark.parametrize("parts", [(static(), moves()), (static(), odometry())], ids=["tf", "odometry"])
def test_one_steady_source_is_well(tmp_path, parts):
    assert warnings(tmp_path, *parts) == []


@pytest.mark.parametrize("period_ns", [20_000_000, 200_000_000], ids=["as often", "now and then"])
def test_two_publishers_of_one_transform_are_told(tmp_path, period_ns):
    """Wheel odometry and a filter both publish odom -> base_link: the robot is now here, now there."""
    rival = moves(of=shifted(0.1), period_ns=period_ns, ahead_ns=5_000_000)
    (text,) = warnings(tmp_path, static(), moves(), rival)
    assert text.startswith("'base_link' in 'odom' goes back and forth from sample to sample ")
    assert "by 0.10 m" in text and "two publishers that disagree" in text


def test_two_poses_at_one_stamp_are_told(tmp_path):
    rival = later(moves(of=shifted(0.05)), 1000)
    (text,) = warnings(tmp_path, static(), moves(), rival)
    assert text == f"'base_link' in 'odom' has {len(rival)} times two poses at one stamp: two publishers that disagree"


@pytest.mark.parametrize(("metres", "yaw"), [(0.8, 0.0), (0.0, 0.5)])
def test_a_map_frame_that_jumps_is_told_and_one_that_does_not_is_the_way_out(tmp_path, metres, yaw):
    corrections = moves("map", "odom", jump(metres, yaw))
    (text,) = warnings(tmp_path, static(), moves(), corrections, settings=("map_frame=map",))
    assert text.startswith(f"'odom' in 'map' jumps once, by up to {metres:.2f} m and {yaw:.2f} rad")
    assert warnings(tmp_path / "2", static(), moves(), corrections) == []


def test_small_corrections_are_no_jumps(tmp_path):
    assert warnings(tmp_path, static(), moves(), moves("map", "odom", jump(0.1)), settings=("map_frame=map",)) == []


def test_odometry_topics_are_judged_too(tmp_path):
    (text,) = warnings(tmp_path, static(), odometry(of=lambda stamp: jump(1.0)(stamp) @ pose(stamp)))
    assert text.startswith("'base_link' in 'odom' jumps once, by up to 1.01 m")


def test_two_static_transforms_of_one_camera_are_told(tmp_path):
    other = static(T=make_transform((0.3, 0, 0.5), (-0.5, 0.5, -0.5, 0.5)), recorded_ns=START_NS + SECOND)
    texts = warnings(tmp_path, static(), static(recorded_ns=START_NS + 1), other, moves())
    assert texts == ["'eye' has static transforms to 'base_link' that differ: the newest is used"]


def test_a_world_whose_z_points_down_is_told(tmp_path):
    """NED, with a robot in the usual axes, and with one in those of NED."""
    (text,) = warnings(tmp_path, static(), moves(of=lambda stamp: FLIP @ pose(stamp)))
    assert text == "z of 'base_link' points down in 'odom'"
    mount = FLIP @ make_transform((0.1, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
    texts = warnings(tmp_path / "2", static(T=mount), moves(of=lambda stamp: FLIP @ pose(stamp) @ FLIP))
    assert "by their frames all cameras hang upside down in 'odom'" in texts
