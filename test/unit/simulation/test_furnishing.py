# SPDX-License-Identifier: Apache-2.0
"""Roles of pieces, and rooms furnished with blocks of their sizes."""

import numpy as np
import pytest

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.assets import AssetRecord, write_index
from occupancy_nn_ros.simulation.builder import LABELS, WorldBuilder
from occupancy_nn_ros.simulation.furnishing import Furnisher, Side
from occupancy_nn_ros.simulation.furniture import ROLES, Furniture, load_furniture, role_of
from occupancy_nn_ros.simulation.layouts import build_world


def piece(title, size_m, category="Living room", elevation_m=0.0, name=""):
    return AssetRecord(
        name or title.replace(" ", "_"),
        "model",
        title,
        category,
        size_m,
        elevation_m,
        size_m[2],
        "Ada",
        "CC0",
        "x.sh3f",
    )


PIECES = {
    "table": piece("Round table", (1.0, 1.4, 0.75)),
    "chair": piece("Oak chair", (0.5, 0.45, 0.9)),
    "lounge": piece("Corner sofa", (0.9, 2.0, 0.8)),
    "clutter": piece("Coffee cup", (0.1, 0.1, 0.12), "Kitchen"),
    "standing": piece("Bookcase", (0.4, 1.0, 1.9)),
    "hung": piece("Wall flat TV", (0.1, 1.0, 0.6), elevation_m=1.0),
    "person": piece("Male", (0.4, 0.6, 1.8), "Characters"),
    "animal": piece("Dog", (0.8, 0.3, 0.6), "Characters"),
    "plant": piece("Ficus", (0.6, 0.6, 1.2)),
    "vehicle": piece("Fork lift", (3.0, 1.3, 2.2), "Vehicles"),
    "outdoor": piece("Fountain", (1.8, 1.8, 1.5), "Exterior"),
}


@pytest.fixture
def furniture():
    return Furniture({role: (PIECES[role],) for role in ROLES})


@pytest.mark.parametrize("role", ROLES)
def test_roles(role):
    assert role_of(PIECES[role]) == role


@pytest.mark.parametrize(
    ("odd", "role"),
    [
        (piece("Oriental rug", (2.0, 1.5, 0.02)), ""),
        (piece("Palm tree", (3.0, 3.0, 11.0), "Exterior"), ""),
        (piece("Armchair", (0.8, 0.8, 0.9)), "lounge"),
        (piece("Skateboard", (0.8, 0.2, 0.1), "Vehicles"), "clutter"),
        (piece("Hood", (0.9, 0.9, 0.5), "Kitchen", 1.9), ""),
        (piece("Lying down male", (1.7, 0.7, 0.3), "Characters"), ""),
    ],
)
def test_odd_pieces(odd, role):
    assert role_of(odd) == role


@pytest.mark.parametrize("seed", range(6))
def test_a_furnished_room_stays_within_its_walls(furniture, seed):
    build = WorldBuilder(np.random.default_rng(seed))
    bounds = (-3.0, -2.5, 4.0, 3.0)
    Furnisher(build, furniture).furnish("home", bounds)
    meshes = [solid for solid in build.solids if solid.shape == "mesh"]
    assert len(meshes) > 5
    for solid in meshes:
        x, y, z = solid.center
        assert bounds[0] - 0.1 < x < bounds[2] + 0.1 and bounds[1] - 0.1 < y < bounds[3] + 0.1
        assert z - solid.half[2] > -1e-6
        np.testing.assert_allclose(np.divide(solid.half, solid.asset_half), solid.half[0] / solid.asset_half[0])
        assert 0.87 < solid.half[0] / solid.asset_half[0] < 1.13
    labels = {solid.asset: solid.label for solid in meshes}
    assert labels.get("Ficus", LABELS["vegetation"]) == LABELS["vegetation"]


def test_furniture_along_a_wall_has_its_back_to_it(furniture):
    build = WorldBuilder(np.random.default_rng(3))
    side = Side((4.0, -2.0), np.pi / 2, 6.0)  # the wall x = 4, seen from smaller x
    Furnisher(build, furniture).line(side, ("Living room",), share=1.0, flush=True)
    standing = [solid for solid in build.solids if solid.asset in ("Bookcase", "Corner_sofa")]
    assert len(standing) >= 3
    for solid in standing:
        np.testing.assert_allclose([np.cos(solid.yaw), np.sin(solid.yaw)], [-1, 0], atol=1e-9)
        assert 3.5 < solid.center[0] < 4.0 and 3.6 < solid.center[0] + solid.half[0] < 3.98
    gaps = np.diff(sorted(solid.center[1] for solid in standing))
    assert (gaps > 0.85).all()


def test_chairs_look_at_their_table(furniture):
    build = WorldBuilder(np.random.default_rng(1))
    Furnisher(build, furniture).group((0.0, 0.0), ("Living room",))
    chairs = [solid for solid in build.solids if solid.asset == "Oak_chair"]
    assert chairs
    for chair in chairs:
        toward = -np.array(chair.center[:2]) / np.linalg.norm(chair.center[:2])
        assert np.dot(toward, [np.cos(chair.yaw), np.sin(chair.yaw)]) > 0.5
    cups = [solid for solid in build.solids if solid.asset == "Coffee_cup"]
    assert cups
    assert all(cup.center[2] - cup.half[2] == pytest.approx(0.75) for cup in cups)


def test_worlds_of_furniture_say_that_they_need_it(asset_folder):
    load_furniture.cache_clear()
    with pytest.raises(SimulationError, match=r"no furniture to serve as table, .* occupancy-nn assets"):
        build_world("home", 1)


def test_training_and_held_out_worlds_share_no_piece(asset_folder):
    asset_folder.mkdir()
    records = [
        piece(p.title, p.size_m, p.category, p.elevation_m, f"{role}_{n}")
        for role, p in PIECES.items()
        for n in range(40)
    ]
    write_index(asset_folder, records)
    load_furniture.cache_clear()
    used = [
        {solid.asset for seed in range(4) for solid in build_world(kind, seed).solids if solid.asset}
        for kind in ("home", "home_heldout")
    ]
    load_furniture.cache_clear()
    assert len(used[0]) > 30 and len(used[1]) > 15 and not used[0] & used[1]
    by_name = {record.name: record for record in records}
    assert all(by_name[name].is_heldout for name in used[1])


def test_the_same_seed_makes_the_same_room(furniture):
    rooms = []
    for _ in range(2):
        build = WorldBuilder(np.random.default_rng(8))
        Furnisher(build, furniture).furnish("office", (0, 0, 5, 4))
        rooms.append(build.solids)
    assert rooms[0] == rooms[1]
