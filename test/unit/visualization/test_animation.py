# SPDX-License-Identifier: Apache-2.0
"""Frames of the growing map: what is drawn where, and how many are kept."""

import numpy as np
import pytest
from PIL import Image

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth, PosedImage, VoxelState
from occupancy_nn_ros.visualization.animation import MOST_FRAMES, PATH_COLOR, SPAN_M, WIDTH, MapAnimation
from occupancy_nn_ros.visualization.snapshot import Snapshot


def view_at(x, y, *occupied_m, edge=0.5, origin=(-20, -20, 0)):
    """Free everywhere but at some points; the robot stands at (x, y)."""
    window = LatticeWindow(edge, origin, (40, 40, 8))
    state = np.full(window.shape, VoxelState.FREE, np.int8)
    for point in occupied_m:
        state[tuple(window.index_of((*point, 1.1)))] = VoxelState.OCCUPIED
    pose = make_transform((x, y, 0), (0, 0, 0, 1))
    return MapView(1, "odom", window, pose, state, state * 1.0, np.zeros(window.shape, np.uint8))


def pixel_of(point, robot):
    """Column and row in the map's square, which is centred on the robot's cell."""
    scale = WIDTH / SPAN_M
    return round((point[0] - robot[0] + SPAN_M / 2) * scale), round((robot[1] + SPAN_M / 2 - point[1]) * scale)


@pytest.mark.parametrize("robot", [(0.0, 0.0), (6.0, -7.0)])
def test_the_map_is_drawn_around_the_robot_with_y_up(robot):
    animation = MapAnimation(GridConfig())
    wall = (robot[0] + 3.25, robot[1] + 2.25)
    animation.offer(Snapshot((), (), view_at(*robot, wall)))
    frame = animation._frames[0]
    assert frame.shape == (WIDTH, WIDTH, 3)
    u, v = pixel_of(wall, robot)
    assert np.abs(frame[v, u].astype(int) - frame[v, u - 40]).max() > 60  # an obstacle beside free space
    assert tuple(frame[pixel_of(robot, robot)[1], pixel_of(robot, robot)[0]]) == (208, 28, 139)


def test_a_robot_at_the_windows_edge_sees_grey_beyond_it():
    animation = MapAnimation(GridConfig())
    animation.offer(Snapshot((), (), view_at(9.5, 0.0)))
    assert tuple(animation._frames[0][WIDTH // 2, WIDTH - 1]) == (205, 205, 205)


def test_of_many_keyframes_some_are_kept_and_all_of_the_time_is_shown(tmp_path):
    animation = MapAnimation(GridConfig())
    shown = []
    for n in range(3 * MOST_FRAMES):
        if animation.wants():
            shown.append(n)
            animation.offer(Snapshot((), (), view_at(n * 0.02, 0.0)))
    assert MOST_FRAMES / 2 <= len(animation._frames) <= MOST_FRAMES
    assert shown[-1] >= 3 * MOST_FRAMES - animation._every
    assert animation.save(tmp_path / "map.gif")
    with Image.open(tmp_path / "map.gif") as picture:
        assert picture.n_frames == len(animation._frames)
        assert picture.size == (WIDTH, WIDTH)


def look_of(camera, rgb=(200, 30, 30)):
    """A picture of 40 x 30 pixels, and its depth."""
    model = CameraModel(40, 30, np.array([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]), "none", np.zeros(0))
    image = PosedImage(camera, 1, np.full((30, 40, 3), rgb, np.uint8), model, np.eye(4))
    return image, PosedDepth(camera, 1, np.full((30, 40), 2.0, np.float32), model, np.eye(4))


def test_cameras_stand_above_the_map_and_nothing_is_written_of_nothing(tmp_path):
    animation = MapAnimation(GridConfig())
    assert not animation.save(tmp_path / "map.gif")
    assert not (tmp_path / "map.gif").exists()
    images, depths = zip(look_of("left"), look_of("right", (30, 30, 200)), strict=True)
    animation.offer(Snapshot(images, depths, view_at(0, 0)))
    animation.offer(Snapshot((), (), view_at(0, 0)))
    above = round((2 * 304 - 4) * WIDTH / (2 * 404 - 4))  # two columns of two tiles, 400 pixels wide with gaps of 4
    assert animation._frames[0].shape == (WIDTH + above, WIDTH, 3)
    np.testing.assert_array_equal(animation._frames[0][50, [50, WIDTH - 50]], [(200, 30, 30), (30, 30, 200)])
    assert animation.save(tmp_path / "map.gif")
    with Image.open(tmp_path / "map.gif") as picture:
        assert picture.size == (WIDTH, WIDTH + above)


def test_one_camera_alone_stands_beside_the_map(tmp_path):
    animation = MapAnimation(GridConfig())
    image, depth = look_of("front")
    animation.offer(Snapshot((image,), (depth,), view_at(0, 0)))
    animation.offer(Snapshot((), (), view_at(0, 0)))
    width = round(400 * WIDTH / (2 * 304 - 4))
    assert animation._frames[0].shape == (WIDTH, width + WIDTH, 3)
    np.testing.assert_array_equal(animation._frames[0][100, 100], (200, 30, 30))
    assert animation.save(tmp_path / "map.gif")
    with Image.open(tmp_path / "map.gif") as picture:
        assert picture.size == (width + WIDTH, WIDTH)
        picture.seek(1)
        frame = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(frame[100, 100], (255, 255, 255))  # a keyframe without pictures
        np.testing.assert_array_equal(frame[WIDTH // 2, width + WIDTH // 2], PATH_COLOR)
