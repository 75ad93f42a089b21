# SPDX-License-Identifier: Apache-2.0
"""Voxels have the colours that cameras see of them, in a world painted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_in_device import stand_in_device

from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import MapConfig, load_config
from occupancy_nn_ros.errors import MapFileError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping import voxel_colors as voxel_colors_module
from occupancy_nn_ros.mapping.color_kernels import find_open_faces
from occupancy_nn_ros.mapping.exports import save_ply
from occupancy_nn_ros.mapping.map_file import FORMAT, VERSION, load_map, read_map, save_map
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.surface import surface_mesh
from occupancy_nn_ros.mapping.voxel_colors import LOOKS, _faces_towards, add_colors
from occupancy_nn_ros.mapping.warm_up import warm_up
from occupancy_nn_ros.runtime.device_source import DeviceCutter
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.values import NO_COLOR, CameraModel, PosedImage, VoxelState
from occupancy_nn_ros.visualization.colors import surface_colors, voxel_colors

EDGE, SHAPE, ORIGIN = 0.5, (16, 12, 8), (-4, -6, 0)
RED, BLUE, GREEN = (200, 10, 30), (20, 40, 220), (10, 180, 90)
WALL_X = 8  # window index; its near face stands at x = 2.0 m
CAMERA = CameraModel(320, 240, np.array([[160.0, 0, 159.5], [0, 160, 119.5], [0, 0, 1]]), "none", np.zeros(0))
FORWARD = make_transform((0.0, 0.0, 2.0), (-0.5, 0.5, -0.5, 0.5))  # looks along x; 2 m above the floor of the map


def picture(left, right):
    pixels = np.empty((240, 320, 3), np.uint8)
    pixels[:, :160], pixels[:, 160:] = left, right
    return pixels


def look(pixels, pose=FORWARD):
    return (PosedImage("front", 0, pixels, CAMERA, pose),)


def wall_map(config=None, cells=((slice(WALL_X, WALL_X + 1), slice(None), slice(None)),), device="cpu"):
    """Free but for a wall one voxel thick, which the camera sees in full at its middle."""
    grid = RollingMap(EDGE, SHAPE, config or MapConfig(), device=device)
    grid.keep_colors()
    log_odds = torch.full(SHAPE, -3.0)
    for cell in cells:
        log_odds[cell] = 3.0
    grid.replace_content(
        ORIGIN, log_odds, torch.ones(SHAPE, dtype=torch.bool), torch.zeros((*SHAPE, 6), dtype=torch.int16)
    )
    return grid


def colors_of(grid):
    return grid.view(0, "odom", np.eye(4)).colors


def test_each_voxel_has_the_colour_of_its_part_of_the_picture():
    """The picture's left half is red: that is the wall's part at y > 0."""
    grid = wall_map()
    add_colors(grid, look(picture(RED, BLUE)))
    wall = colors_of(grid)[WALL_X]
    # Seen at 2 m with a field of view of 90 by 73 degrees: y from -2 to 2 m and z from 0.5 to 3.5 m, by their faces' centres.
    seen = wall[2:10, 1:7]
    assert (seen[4:] == RED).all() and (seen[:4] == BLUE).all()
    assert (wall[:2] == NO_COLOR).all() and (wall[10:] == NO_COLOR).all() and (wall[:, 0] == NO_COLOR).all()


def test_what_is_hidden_is_not_painted():
    behind, beside = (12, 6, 4), (12, 11, 4)
    grid = wall_map(cells=((WALL_X, slice(4, 8), slice(None)), behind, beside))
    add_colors(grid, look(picture(GREEN, GREEN), make_transform((0.0, 1.0, 2.0), (-0.5, 0.5, -0.5, 0.5))))
    colors = colors_of(grid)
    assert tuple(colors[behind]) == NO_COLOR
    assert tuple(colors[beside]) == GREEN


def test_what_a_mask_covers_is_not_looked_at():
    """The mask hides the picture's right half, where the robot's arm is red."""
    mask = np.zeros((240, 320), bool)
    mask[:, 160:] = True
    (image,), grid = look(picture(GREEN, RED)), wall_map()
    add_colors(grid, (replace(image, model=replace(CAMERA, mask=mask)),))
    wall = colors_of(grid)[WALL_X]
    assert (wall[6:10, 1:7] == GREEN).all() and (wall[:6] == NO_COLOR).all()


def test_a_camera_that_looks_away_paints_nothing():
    grid = wall_map()
    add_colors(grid, look(picture(RED, RED), make_transform((0.0, 0.0, 2.0), (0.5, 0.5, -0.5, -0.5))))
    assert (colors_of(grid)[WALL_X] == NO_COLOR).all()


def test_further_than_the_range_is_not_looked():
    grid = wall_map(MapConfig(max_range_m=2.1))
    add_colors(grid, look(picture(RED, RED)))
    assert (colors_of(grid)[WALL_X] == NO_COLOR).all()  # centres at 2.25 m


def test_colours_are_the_mean_of_looks_and_follow_the_last_ones():
    grid, at = wall_map(), (WALL_X, 7, 4)
    for level, mean in ((10, 10), (40, 25), (100, 50)):
        add_colors(grid, look(picture((level,) * 3, (level,) * 3)))
        assert colors_of(grid)[at].tolist() == [mean] * 3
    for _ in range(400):
        add_colors(grid, look(picture((220,) * 3, (220,) * 3)))
    assert colors_of(grid)[at].tolist() == pytest.approx([220] * 3, abs=1)
    assert int(grid.colors[..., 3].max()) == LOOKS


def test_a_voxel_that_was_freed_begins_anew():
    grid, at = wall_map(), (WALL_X, 7, 4)
    add_colors(grid, look(picture(RED, RED)))
    kept = grid.log_odds.clone()
    grid.log_odds[:] = -3.0
    add_colors(grid, look(picture(RED, RED)))
    grid.log_odds[:] = kept
    assert (colors_of(grid)[WALL_X] == NO_COLOR).all()
    add_colors(grid, look(picture(BLUE, BLUE)))
    assert tuple(colors_of(grid)[at]) == BLUE


def slow_seen_faces(occupied, cells, camera):
    """Points every hundredth of a voxel between each face and the camera."""
    seen = np.zeros((len(cells), 3), bool)
    for n, cell in enumerate(cells):
        for axis in range(3):
            sign = (camera[axis] > cell[axis] + 1) * 1 - (camera[axis] < cell[axis])
            if sign == 0:
                continue
            face = cell + 0.5
            face[axis] += sign / 2
            steps = np.linspace(0, 1, 100 * int(np.linalg.norm(camera - face) + 2))[1:, None]
            walk = np.floor(face + steps * (camera - face)).astype(int)
            inside = ((walk >= 0) & (walk < occupied.shape)).all(axis=1)
            outside = np.argmin(inside) if not inside.all() else len(walk)
            seen[n, axis] = not occupied[tuple(walk[:outside].T)].any()
    return seen


def test_faces_are_seen_as_a_slow_walk_sees_them(rng):
    for _ in range(6):
        occupied = rng.random((7, 6, 5)) < 0.12
        cells, camera = np.argwhere(occupied), rng.uniform(-1.3, 7.1, 3)
        seen = np.zeros((len(cells), 3), bool)
        cell, axis, faces = _faces_towards(camera, occupied, cells)
        is_open = np.zeros(len(cell), bool)
        find_open_faces(0, len(cell), occupied, faces, axis, camera, is_open)
        seen[cell, axis] = is_open
        np.testing.assert_array_equal(seen, slow_seen_faces(occupied, cells, camera))


def test_colours_move_with_the_window_and_come_back_from_memory():
    grid = wall_map(MapConfig(remember_mib=4))
    add_colors(grid, look(picture(RED, BLUE)))
    before = colors_of(grid)
    grid.move_origin((ORIGIN[0] + 3, ORIGIN[1] - 2, ORIGIN[2]))
    np.testing.assert_array_equal(colors_of(grid)[WALL_X - 3, 2:], before[WALL_X, :-2])
    grid.move_origin((ORIGIN[0] + 40, ORIGIN[1], ORIGIN[2]))
    assert not colors_of(grid).any()
    grid.move_origin(ORIGIN)
    np.testing.assert_array_equal(colors_of(grid), before)


def test_a_window_without_memory_forgets_what_it_leaves():
    grid = wall_map()
    add_colors(grid, look(picture(RED, BLUE)))
    grid.move_origin((ORIGIN[0] + 40, ORIGIN[1], ORIGIN[2]))
    grid.move_origin(ORIGIN)
    assert int(grid.colors.abs().max()) == 0


def test_memory_from_before_colours_were_kept_comes_back_without():
    grid = RollingMap(EDGE, SHAPE, MapConfig(remember_mib=4))
    grid.replace_content(
        ORIGIN, torch.full(SHAPE, 3.0), torch.ones(SHAPE, dtype=torch.bool), torch.zeros((*SHAPE, 6), dtype=torch.int16)
    )
    grid.move_origin((ORIGIN[0] + 40, ORIGIN[1], ORIGIN[2]))
    grid.keep_colors()
    grid.move_origin(ORIGIN)
    view = grid.view(0, "odom", np.eye(4))
    assert (view.state == VoxelState.OCCUPIED).all() and (view.colors == NO_COLOR).all()


def test_a_saved_map_keeps_its_colours(tmp_path):
    grid = wall_map()
    add_colors(grid, look(picture(RED, BLUE)))
    save_map(grid, tmp_path / "map.safetensors", "odom")
    again, plain = wall_map(), RollingMap(EDGE, SHAPE, MapConfig())
    assert load_map(again, tmp_path / "map.safetensors") == load_map(plain, tmp_path / "map.safetensors") == "odom"
    for loaded in (again, read_map(tmp_path / "map.safetensors")):
        np.testing.assert_array_equal(colors_of(loaded), colors_of(grid))
    assert colors_of(plain) is None
    save_map(plain, tmp_path / "plain.safetensors", "odom")
    load_map(again, tmp_path / "plain.safetensors")
    assert (colors_of(again)[WALL_X] == NO_COLOR).all()


def test_colours_that_are_none_are_refused(tmp_path):
    grid = wall_map()
    grid.colors[0, 0, 0, 0] = 255 * 128 + 1
    save_map(grid, tmp_path / "map.safetensors", "odom")
    with pytest.raises(MapFileError, match="colours that are none"):
        load_map(wall_map(), tmp_path / "map.safetensors")


def test_a_file_that_claims_more_than_it_holds_takes_no_memory(tmp_path):
    save_map(wall_map(), tmp_path / "map.safetensors", "odom")
    content = load_file(tmp_path / "map.safetensors")
    claims = {"format": FORMAT, "version": str(VERSION), "frame_id": "odom", "checksum": ""}
    save_file(content, tmp_path / "lie.safetensors", {**claims, "window": "[0.5, [0, 0, 0], [900, 900, 900]]"})
    with pytest.raises(MapFileError, match=r"says \(900, 900, 900\) voxels and holds"):
        read_map(tmp_path / "lie.safetensors")


def test_clouds_pictures_and_surfaces_show_them(tmp_path):
    grid = wall_map()
    add_colors(grid, look(picture(RED, BLUE)))
    view = grid.view(0, "odom", np.eye(4))
    cells = np.array([(WALL_X, 7, 4), (WALL_X, 4, 4), (WALL_X, 0, 0)])
    assert [tuple(c) for c in voxel_colors(view, cells, "camera")] == [RED, BLUE, NO_COLOR]
    save_ply(view, tmp_path / "map.ply")
    header, body = (tmp_path / "map.ply").read_bytes().split(b"end_header\n")
    assert header.count(b"property") == 8 and b"property uchar red" in header
    found = np.frombuffer(body, [("xyz", "<f4", 3), ("probability", "<f4"), ("class", "u1"), ("rgb", "u1", 3)])
    middle = found[np.isclose(found["xyz"], (2.25, 0.75, 2.25)).all(axis=1)]
    assert middle["rgb"].tolist() == [list(RED)]
    mesh = surface_mesh(view)
    colors = surface_colors(view, mesh.vertices_m, "camera")
    left = (mesh.vertices_m[:, 1] > 0.3) & (mesh.vertices_m[:, 1] < 1.7) & (abs(mesh.vertices_m[:, 2] - 2) < 1.2)
    assert left.sum() > 10 and (colors[left] == RED).all()


def test_a_saved_map_becomes_a_surface_or_an_octomap(tmp_path, capsys):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    grid, saved = wall_map(), tmp_path / "map.safetensors"
    add_colors(grid, look(picture(RED, RED)))
    save_map(grid, saved, "odom")
    assert main(["export", str(saved), "--out", str(tmp_path / "map.ply")]) == 0
    text = (tmp_path / "map.ply").read_bytes().split(b"end_header")[0].decode()
    assert "element face" in text and "property uchar red" in text and "comment frame odom" in text
    assert main(["export", str(saved), "--out", str(tmp_path / "map.bt")]) == 0
    assert (tmp_path / "map.bt").read_bytes().startswith(b"# Octomap OcTree binary file")
    capsys.readouterr()
    assert main(["export", str(saved), "--out", str(tmp_path / "map.obj")]) == 1
    assert "expected a .ply (surface) or .bt (OctoMap) file" in capsys.readouterr().err


def test_a_map_on_a_device_has_the_same(monkeypatch):
    shown = load_config([], ["outputs.color_by=camera"])
    here = wall_map(MapConfig(remember_mib=4))
    add_colors(here, look(picture(RED, BLUE)))
    expected = MapSource(here.view(0, "odom", np.eye(4)), shown)
    with stand_in_device(monkeypatch.setattr) as device:
        there = wall_map(MapConfig(remember_mib=4), device=device)
        add_colors(there, look(picture(RED, BLUE)))
        there.move_origin((ORIGIN[0] + 40, ORIGIN[1], ORIGIN[2]))
        there.move_origin(ORIGIN)
        np.testing.assert_array_equal(colors_of(there), expected.view.colors)
        found = DeviceCutter().cut(there.content(0, "odom", np.eye(4)), shown, {"voxels", "voxels_of_markers"})
        for name in ("voxels", "voxels_of_markers"):
            np.testing.assert_array_equal(getattr(found, name).colors, getattr(expected, name).colors)
    assert len(np.unique(expected.voxels.colors, axis=0)) == 3


def test_colours_are_kept_where_they_are_asked_for():
    plain, colored = (
        load_config([], ["map.size_xy_m=4"]),
        load_config([], ["outputs.color_by=camera", "map.size_xy_m=4"]),
    )
    assert RollingMap.from_config(plain).colors is None
    lidar = load_config([], ["outputs.color_by=camera", "map.size_xy_m=4", "source=lidar"])
    assert RollingMap.from_config(lidar).colors is None  # no camera looks: heights tell more than grey
    assert RollingMap.from_config(colored).colors.shape == (*RollingMap.from_config(plain).window.shape, 4)
    view = RollingMap.from_config(plain).view(0, "odom", np.eye(4))
    cells = np.zeros((1, 3), np.int64)
    np.testing.assert_array_equal(voxel_colors(view, cells, "camera"), voxel_colors(view, cells, "height"))


def test_warming_up_runs_the_kernel_of_colors_too(monkeypatch):
    asked = []
    monkeypatch.setattr(voxel_colors_module, "find_open_faces", lambda start, stop, *_: asked.append(stop - start))
    warm_up()
    assert sum(asked) > 0
