# SPDX-License-Identifier: Apache-2.0
"""Libraries to assets to solids: sizes, facing, solid matter, and all that can be wrong with them."""

import json
import zipfile

import numpy as np
import pytest

from occupancy_nn_ros.errors import MissingDependencyError, SimulationError
from occupancy_nn_ros.simulation.assets import AssetRecord, load_asset, read_index
from occupancy_nn_ros.simulation.assets_import import import_libraries
from occupancy_nn_ros.simulation.catalogs import Library, read_properties, unique_name
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import camera_model, camera_pose
from occupancy_nn_ros.simulation.world import Solid, World
from occupancy_nn_ros.values import LatticeWindow

HALF = (0.3, 0.6, 0.375)


def entry(number, name, **values):
    """One entry of a catalogue of furniture."""
    size = {"width": 120, "depth": 60, "height": 75}
    values = {
        "id": name,
        "name": name.title(),
        "category": "Office",
        "model": "/box/box.obj",
        "creator": "Ada",
    } | values
    return "\n".join(f"{key}#{number}={value}" for key, value in {**size, **values}.items())


def imported(path, folder):
    return {item.name: item for item in import_libraries([path], folder)}


def desk_world(shape, yaw=0.4, half=HALF):
    """A desk-sized block, as a mesh or as the box that it is."""
    named = {"asset": "desk", "asset_half": HALF} if shape == "mesh" else {}
    return World("test", 1, (Solid(shape, (2.0, 0.3, half[2]), half, yaw, 3, 0, **named),), (-5, -5, 5, 5))


def test_a_piece_has_its_catalogues_size_and_looks_along_x(write_library, asset_folder):
    found = imported(write_library(entry(1, "desk")), asset_folder)
    record = found["desk"].record
    assert record == AssetRecord(
        "desk", "model", "Desk", "Office", (0.6, 1.2, 0.75), 0.0, 0.75, "Ada", "CC0", "test.sh3f"
    )
    assert read_index(asset_folder) == (record,)
    first, second = load_asset("desk").parts
    corners = np.concatenate([first.vertices_m, second.vertices_m])
    np.testing.assert_allclose(corners.min(axis=0), (-0.3, -0.6, 0), atol=1e-6)
    np.testing.assert_allclose(corners.max(axis=0), (0.3, 0.6, 0.75), atol=1e-6)
    assert len(first.picture) and not len(second.picture)
    np.testing.assert_allclose(second.color, (0, 0, 1, 0.9), atol=1e-6)
    # The file's front, its largest z, has the picture's material and looks ahead.
    ahead = first.normals[first.vertices_m[:, 0] > 0.29]
    np.testing.assert_allclose(ahead, np.tile([1, 0, 0], (len(ahead), 1)), atol=1e-6)


def test_rotated_files_stand_upright(write_library, asset_folder):
    """The catalogue's matrix turns the file's z up: what was 5 deep is then the height."""
    turned = entry(1, "desk", modelRotation="1 0 0 0 0 1 0 -1 0", width=80, depth=40, height=20)
    imported(write_library(turned), asset_folder)
    first, _ = load_asset("desk").parts
    top = first.normals[first.vertices_m[:, 2] > 0.19]
    assert len(top) and (top[:, 2] > 0.99).all()


def test_a_mesh_is_occupied_where_the_box_is_that_it_shows(write_library, asset_folder):
    imported(write_library(entry(1, "desk")), asset_folder)
    window = LatticeWindow(0.1, (0, -15, 0), (40, 36, 12))
    mesh, box = desk_world("mesh").occupancy(window), desk_world("box").occupancy(window)
    assert (box == 3).sum() > 400
    assert (mesh == box).mean() > 0.985  # the grid's cells are 1.5 cm
    points = window.centers_m().reshape(-1, 3).astype(np.float32)
    true = desk_world("box").signed_distance(points)
    near = np.abs(true) < 0.12
    assert np.abs(desk_world("mesh").signed_distance(points) - true)[near].max() < 0.04


def test_a_scaled_mesh_is_the_scaled_box(write_library, asset_folder):
    imported(write_library(entry(1, "desk")), asset_folder)
    window, half = LatticeWindow(0.1, (0, -15, 0), (40, 36, 16)), (0.36, 0.72, 0.45)
    mesh, box = (desk_world(shape, half=half).occupancy(window) for shape in ("mesh", "box"))
    assert (mesh == box).mean() > 0.985 and (box == 3).sum() > 700


def test_a_world_with_meshes_is_the_same_after_reading(tmp_path, write_library, asset_folder):
    imported(write_library(entry(1, "desk")), asset_folder)
    desk_world("mesh").save(tmp_path / "w.json")
    assert World.load(tmp_path / "w.json") == desk_world("mesh")


def test_the_picture_of_a_mesh_is_as_far_as_that_of_the_box(write_library, asset_folder):
    imported(write_library(entry(1, "desk")), asset_folder)
    camera, pose = camera_model(120, 90, 60), camera_pose(0, 0, 1.2, 0.1, 0.3)
    try:
        with WorldRenderer(desk_world("mesh")) as mesh, WorldRenderer(desk_world("box")) as box:
            shown, expected = mesh.render(camera, pose), box.render(camera, pose)
            ray = (np.array([0, 0, 0.4]), np.array([[1.0, 0.15, 0.0]]) / np.hypot(1, 0.15))
            np.testing.assert_allclose(mesh.scan(*ray, 30.0), box.scan(*ray, 30.0), atol=1e-3)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert (expected.classes == 3).sum() > 500
    assert (shown.classes == expected.classes).mean() > 0.99
    same = shown.classes == expected.classes
    assert np.abs(shown.depth_m - expected.depth_m)[same].max() < 0.05
    blue = shown.image[(shown.classes == 3)].astype(int)
    assert ((blue[:, 2] > 2 * blue[:, 0]) & (blue[:, 2] > 30)).mean() > 0.1


def test_importing_again_keeps_what_is_there(write_library, asset_folder):
    path = write_library(entry(1, "desk"))
    imported(path, asset_folder)
    before = (asset_folder / "desk.npz").stat().st_mtime_ns
    imported(write_library(entry(1, "desk"), entry(2, "shelf", height=150)), asset_folder)
    assert (asset_folder / "desk.npz").stat().st_mtime_ns == before
    assert [record.name for record in read_index(asset_folder)] == ["desk", "shelf"]


def test_what_is_unfit_is_left_out_with_its_reason(write_library, asset_folder):
    found = imported(
        write_library(
            entry(1, "desk"), entry(2, "giant", width=2000), entry(3, "rug", height=1), entry(4, "gone", model="/no.obj"),
            entry(5, "door", doorOrWindow="true"), entry(6, "broken", model="/bad.obj"), entry(7, "odd", width="wide"),
            files={"bad.obj": "v 0 0 0\nf 1 2 3\n"},
        ),
        asset_folder,
    )  # fmt: skip
    assert set(found) == {"desk", "giant", "rug", "broken"}
    assert "expected up to 8.0 m" in found["giant"].reason and "not flat" in found["rug"].reason
    assert "a face names point 3, expected 1 to 1" in found["broken"].reason
    assert [record.name for record in read_index(asset_folder)] == ["desk"]


def test_pictures_that_are_missing_or_damaged_leave_the_colour(write_library, asset_folder):
    imported(write_library(entry(1, "desk"), files={"box/wood.png": b"no picture"}), asset_folder)
    first, _ = load_asset("desk").parts
    assert not len(first.picture)
    np.testing.assert_allclose(first.color, (0.5, 0.4, 0.3, 1), atol=1e-6)


def test_foreign_and_damaged_libraries_are_refused(tmp_path):
    path = tmp_path / "x.sh3f"
    path.write_bytes(b"no zip")
    with pytest.raises(SimulationError, match="cannot read library"):
        Library(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(SimulationError, match="holds no catalogue"):
        Library(path)


def test_names_from_libraries_cannot_leave_the_folder(write_library, asset_folder):
    found = imported(write_library(entry(1, "../../evil")), asset_folder)
    assert set(found) == {"evil"} and (asset_folder / "evil.npz").exists()
    for name in ("../desk", "desk/../x", "", "a.b"):
        with pytest.raises(SimulationError, match="no asset"):
            load_asset(name)


def test_damaged_assets_and_lists_are_refused(write_library, asset_folder):
    imported(write_library(entry(1, "desk")), asset_folder)
    whole = (asset_folder / "desk.npz").read_bytes()
    (asset_folder / "desk.npz").write_bytes(whole[: len(whole) // 2])
    load_asset.cache_clear()
    with pytest.raises(SimulationError, match="cannot read asset"):
        load_asset("desk")
    (asset_folder / "index.json").write_text(json.dumps({"version": 99, "assets": []}))
    read_index.cache_clear()
    with pytest.raises(SimulationError, match="of version 99"):
        read_index(asset_folder)


def test_held_out_pieces_follow_from_the_name_alone():
    records = [AssetRecord(f"piece_{n}", "model", "", "", (1, 1, 1), 0, 0, "", "", "") for n in range(1000)]
    assert 0.16 < np.mean([record.is_heldout for record in records]) < 0.24


def test_properties_and_names():
    header, entries = read_properties("license=CC0\nid#2=b\nwidth#2 = 7.5 \n# id#3=c\nid#1=a=b\n")
    assert header == {"license": "CC0"} and entries == [{"id": "a=b"}, {"id": "b", "width": "7.5"}]
    assert unique_name("Scopia#bed 1/..") == "Scopia_bed_1"
