# SPDX-License-Identifier: Apache-2.0
"""Numbers that sensors write where they measured nothing: unknown, counted, and said."""

from dataclasses import replace

import numpy as np
import pytest
from box_room import MODEL, at, camera_at, depth_image, sweep
from room_drive import examine, images, moves, play, static, write

from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.images import decode_depth
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.messages.sensors import encode_image
from occupancy_nn_ros.runtime.range_ends import RangeEnds, without_sphere
from occupancy_nn_ros.values import PosedCloud, VoxelState

END = 3.7


def clipped(T_map_cam, end=END, near=0.0):
    seen = depth_image(T_map_cam)
    return replace(seen, depth_m=np.clip(seen.depth_m, near, end).astype(np.float32))


def unknown(depth):
    return float((depth.depth_m == 0).mean())


@pytest.mark.parametrize("second", [{"x": 0.12}, {"yaw": 5.0}], ids=["forward", "turned"])
def test_a_number_that_stays_while_the_camera_moves_is_an_end(second):
    ends, first, next_ = RangeEnds(), clipped(camera_at(z=0.8)), clipped(camera_at(z=0.8, **second))
    share = float((next_.depth_m == np.float32(END)).mean())
    assert 0.1 < share < 0.9
    assert unknown(ends.trim(first)) == 0.0 and not ends.is_spoiled
    trimmed = ends.trim(next_)
    assert unknown(trimmed) == share and ends.is_spoiled
    assert ends.values_m == {float(np.float32(END))}
    assert ends.words().startswith(f"{round(share * MODEL.width * MODEL.height)} pixels so far hold 3.7 m, wherever")
    kept = trimmed.depth_m > 0
    np.testing.assert_array_equal(trimmed.depth_m[kept], next_.depth_m[kept])


def test_a_whole_number_of_metres_is_held_back_at_once():
    ends = RangeEnds()
    for _ in range(3):
        assert ends.words() == ""
        trimmed = ends.trim(clipped(camera_at(z=0.8), end=5.0))
        assert unknown(trimmed) > 0.05 and not ends.values_m and not ends.is_spoiled
    assert ends.words().startswith("many pixels hold 5 m: unknown until the camera moves")
    ends.trim(clipped(camera_at(0.2, z=0.8), end=5.0))
    assert ends.values_m == {5.0} and not ends.is_spoiled and "pixels so far hold 5 m" in ends.words()


def test_what_is_too_near_may_be_written_as_the_nearest():
    ends = RangeEnds()
    for x in (0.0, 0.15, 0.3):
        trimmed = ends.trim(clipped(camera_at(x, z=0.8), end=99.0, near=2.6))
    assert ends.values_m == {float(np.float32(2.6))} and unknown(trimmed) > 0.05


def test_a_wall_that_is_driven_along_or_towards_is_none():
    """The end wall of the room: one number for all of its pixels, which stays sideways and changes forward."""
    ends = RangeEnds()
    for x, y in ((0, 0), (0, 0.3), (0, 0.6), (0.3, 0.6), (0.6, 0.6)):
        looks = depth_image(camera_at(x + 0.003, y, z=0.8), boxes=())
        assert (ends.trim(looks).depth_m == looks.depth_m).all()
    assert not ends.values_m


@pytest.mark.parametrize("pitch", [0, 20, 90])
def test_a_level_floor_stays_what_it_is(pitch):
    """Each row of its pixels, and all of it for a camera that looks straight down, has one number wherever the robot goes."""
    ends = RangeEnds()
    for x, yaw in ((-1.003, 0), (-0.5, 20), (0, 40)):
        looks = depth_image(camera_at(x, 0, 0.6, yaw, pitch), boxes=())
        assert (ends.trim(looks).depth_m == looks.depth_m).all()
    assert not ends.values_m


def test_a_sphere_of_points_around_a_lidar_is_where_nothing_came_back():
    cloud = sweep(at(z=0.5))
    ranges = np.linalg.norm(cloud.points_m, axis=1)
    far = cloud.points_m * np.minimum(1.0, 3.0 / ranges)[:, None]
    trimmed, end = without_sphere(PosedCloud("lidar", 0, far.astype(np.float32), cloud.T_map_sensor))
    assert end == pytest.approx(3.0) and len(trimmed.points_m) == (ranges < 2.999).sum()
    same, none = without_sphere(cloud)
    assert none == 0.0 and same is cloud


def far_as(number, encoding, metres=3.0):
    """The drive with another number where its camera measures more than so many metres."""
    changed = []
    for m in images():
        if m.msgtype == IMAGE:
            depth, header = decode_depth(m.msgtype, m.cdr)[1], peek_header(m.cdr)
            depth = np.where(depth > metres, np.float32(number), depth)
            stored = depth if encoding == "32FC1" else np.round(depth * 1000).astype(np.uint16)
            m = replace(m, cdr=encode_image(header.stamp_ns, header.frame_id, stored, encoding))
        changed.append(m)
    return changed


@pytest.mark.parametrize(
    ("number", "encoding"), [(np.nan, "32FC1"), (10.0, "32FC1"), (3.01, "32FC1"), (65.535, "32FC1"), (10.0, "16UC1")]
)
def test_a_drive_whose_camera_ends_at_three_metres(tmp_path, number, encoding):
    """The map is that of NaN, whatever is written in its place; only what came before the end was known may differ."""
    maps = []
    for name, value in (("nan", np.nan), ("end", number)):
        kind = "32FC1" if np.isnan(value) else encoding
        maps.append(play(write(tmp_path / name, static(), moves(), far_as(value, kind)), "map.size_xy_m=24"))
    states = [result.view.state for result in maps]
    beyond = (states[1] == VoxelState.OCCUPIED) & (states[0] != VoxelState.OCCUPIED)
    assert beyond.sum() <= 0.01 * (states[0] == VoxelState.OCCUPIED).sum()
    assert (states[0] == VoxelState.OCCUPIED).sum() > 150
    if number == number:
        reason = "eye_depth: pixels or points at the end of the range"
        assert maps[1].summary["dropped"][reason] > 2000
        assert "taken as unknown" in maps[1].summary["problems"][reason]


def test_the_doctor_tells_of_the_end(tmp_path):
    found = examine(write(tmp_path / "bag", static(), moves(), far_as(10.0, "32FC1")))
    (text,) = [text for level, subject, text, _ in found if level == "warning"]
    assert text.endswith("hold 10 m, wherever the camera is: the end of its range, taken as unknown")
