# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import cv2
import numpy as np
import pytest

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth, PosedImage
from occupancy_nn_ros.visualization.colors import CLASS_COLORS, class_colors, depth_colors, height_colors
from occupancy_nn_ros.visualization.depth_picture import GAP, TILE_WIDTH, draw_depths
from occupancy_nn_ros.visualization.top_down import FREE_COLOR, UNKNOWN_COLOR, draw_top_down, top_down_image
from occupancy_nn_ros.visualization.voxel_picture import BACKGROUND, draw_voxels, render_voxels


@pytest.fixture
def view():
    """Free floor, one pillar at cell (5, 7), one column unknown."""
    state = np.zeros((16, 12, 8), np.int8)
    state[5, 7, :] = 1
    state[2, 2, :] = -1
    classes = np.where(state == 1, 3, 0).astype(np.uint8)
    pose = np.eye(4)
    return MapView(
        0, "odom", LatticeWindow(0.25, (0, 0, 0), state.shape), pose, state, (state == 1).astype(np.float32), classes
    )


def test_top_down_shows_obstacle_free_and_unknown(view):
    image = top_down_image(view, GridConfig())
    assert image.shape == (16, 12, 3)
    assert tuple(image[0, 0]) == FREE_COLOR
    assert tuple(image[2, 2]) == UNKNOWN_COLOR
    top = height_colors(np.array([1.375]), view)[0]
    assert np.array_equal(image[5, 7], top)


def test_pictures_are_written_and_differ_with_the_map(view, tmp_path):
    path = np.array([[0.5, 0.5, 0], [2.0, 1.0, 0]])
    draw_top_down(view, tmp_path / "a.png", path_m=path, truth=view)
    draw_voxels(view, tmp_path / "b.png", path_m=path)
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > cv2.imread(str(tmp_path / "a.png")).shape[0]
    assert cv2.imread(str(tmp_path / "b.png")).shape == (1000, 1400, 3)


def test_cubes_cover_the_middle_and_what_is_above_the_cut_is_left_out(view):
    def covered(cut):
        picture = render_voxels(view, color_by="class", yaw_deg=-55, pitch_deg=45, cut_above_m=cut)
        return (np.abs(picture.astype(int) - BACKGROUND) > 6).any(axis=2)

    tall, low = covered(2.0), covered(0.5)
    assert tall[500, 700] and not tall[5, 5]
    aspect = [np.ptp(np.flatnonzero(m.any(axis=1))) / np.ptp(np.flatnonzero(m.any(axis=0))) for m in (tall, low)]
    assert aspect[0] > 2 * aspect[1]


def test_empty_map_gives_an_empty_picture(view):
    view.state[:] = 0
    picture = render_voxels(view, yaw_deg=0, pitch_deg=45, cut_above_m=2.0)
    assert (picture == BACKGROUND).all()


def test_depth_lies_below_the_picture_it_belongs_to(tmp_path, rng):
    """A wide camera beside a tall one, whose depth images are coarser; the second sees its left half only."""
    model, looks = CameraModel(1, 1, np.eye(3), "none", np.zeros(0)), []
    for name, (height, width) in (("wide", (100, 200)), ("tall", (160, 200))):
        image = np.full((height, width, 3), rng.integers(0, 255, 3), np.uint8)
        depth = np.full((height // 4, width // 4), 2.0, np.float32)
        looks.append((PosedImage(name, 0, image, model, np.eye(4)), PosedDepth(name, 0, depth, model, np.eye(4))))
    looks[1][1].depth_m[:, 25:] = 0
    draw_depths(looks, tmp_path / "depth.png")
    picture = cv2.imread(str(tmp_path / "depth.png"))[..., ::-1]
    assert picture.shape == (2 * 320 + GAP, 2 * TILE_WIDTH + GAP, 3)
    two_metres = depth_colors(np.array([2.0]))[0]
    second, below = TILE_WIDTH + GAP, 320 + GAP
    assert (picture[:200, :TILE_WIDTH] == looks[0][0].image[0, 0]).all()
    assert (picture[:320, second:] == looks[1][0].image[0, 0]).all()
    assert (picture[200:320][:, :TILE_WIDTH] == 255).all()
    assert (picture[below : below + 200, :TILE_WIDTH] == two_metres).all()
    assert (picture[below:, second : second + TILE_WIDTH // 2] == two_metres).all()
    assert (picture[below:, second + TILE_WIDTH // 2 :] == 0).all()


def test_colours(view):
    assert np.array_equal(class_colors(np.array([0, 6, 200])), CLASS_COLORS[[0, 6, 6]])
    low, high = height_colors(np.array([-1.0, 5.0]), view).astype(int)
    assert low[2] > low[0] and high[0] > high[2]


def test_a_file_that_cannot_be_written_is_an_error(view, tmp_path):
    with pytest.raises(OSError, match="cannot write"):
        draw_voxels(view, tmp_path / "missing" / "b.png")


def test_pictures_leave_the_programs_backend_alone():
    """A notebook that imports them goes on to show its figures."""
    code = (
        "import sys, matplotlib\nmatplotlib.use('svg')\n"
        "import occupancy_nn_ros.visualization.top_down, occupancy_nn_ros.visualization.voxel_picture\n"
        "import occupancy_nn_ros.visualization.depth_picture\n"
        "assert matplotlib.get_backend().lower() == 'svg'\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
