# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.layouts import LAYOUTS, build_world
from occupancy_nn_ros.simulation.world import GROUND, SUBSAMPLES, Mover, Solid, World
from occupancy_nn_ros.values import LatticeWindow

BOUNDS = (-5.0, -5.0, 5.0, 5.0)


def world(*solids, movers=()):
    return World("test", 1, tuple(solids), BOUNDS, movers=tuple(movers))


def is_inside(solid, center, points):
    """Twin: whether points lie in a solid, by its definition."""
    local = np.asarray(points, dtype=np.float64) - center
    a, b, c = solid.half
    if solid.shape == "sphere":
        return (local**2).sum(axis=-1) < a * a
    if solid.shape == "cylinder":
        return ((local[..., :2] ** 2).sum(axis=-1) < a * a) & (np.abs(local[..., 2]) < c)
    turn = Rotation.from_euler("ZY", [solid.yaw, solid.pitch]).as_matrix()
    return (np.abs(local @ turn) < (a, b, c)).all(axis=-1)


sizes = st.floats(0.05, 1.5)
places = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-0.5, 2.5))


@st.composite
def solids(draw):
    shape = draw(st.sampled_from(["box", "cylinder", "sphere"]))
    a, b, c = draw(sizes), draw(sizes), draw(sizes)
    half = {"box": (a, b, c), "cylinder": (a, a, c), "sphere": (a, a, a)}[shape]
    pitch = draw(st.sampled_from([0.0, -0.4, 1.2])) if shape == "box" else 0.0
    return Solid(shape, draw(places), half, draw(st.floats(-3, 3)), draw(st.integers(1, 6)), 0, pitch=pitch)


@settings(max_examples=40)
@given(st.lists(solids(), min_size=1, max_size=4), st.sampled_from([0.05, 0.2, 0.5]), st.integers(0, 1000))
def test_occupied_cubes_against_brute_force(things, edge, seed):
    """A cube is occupied when its centre or one of its sample points lies in a solid or the ground."""
    scene = world(*things)
    points = np.random.default_rng(seed).uniform((-3, -3, -0.6), (3, 3, 3), (150, 3)).astype(np.float32)
    offset = (np.arange(SUBSAMPLES) - (SUBSAMPLES - 1) / 2) / SUBSAMPLES * edge
    steps = np.stack(np.meshgrid(offset, offset, offset, indexing="ij"), axis=-1).reshape(-1, 3)
    cubes = points[:, None].astype(np.float64) + np.concatenate([steps, np.zeros((1, 3))])
    hit = np.stack([is_inside(s, np.array(s.center), cubes).any(axis=1) for s in things])
    ground = cubes[..., 2].min(axis=1) < 0
    labels = scene.occupied_cubes(points, edge)
    # Sample points within rounding of a surface may fall on either side.
    near = np.abs([scene_distance(s, cubes) for s in things]).min(axis=(0, 2)) < 1e-4
    near |= np.abs(cubes[..., 2]).min(axis=1) < 1e-4
    sure = ~near
    np.testing.assert_array_equal((labels > 0)[sure], (hit.any(axis=0) | ground)[sure])
    for n in np.flatnonzero(sure & hit.any(axis=0)):
        assert labels[n] in {s.label for s, h in zip(things, hit[:, n], strict=True) if h}
    assert (labels[sure & ground & ~hit.any(axis=0)] == GROUND).all()


def scene_distance(solid, points):
    """Distance to one solid without the ground: lifted high above it."""
    raised = Solid(solid.shape, (*solid.center[:2], solid.center[2] + 1000), solid.half, solid.yaw, 1, 0)
    shape = points.shape[:-1]
    return world(raised).signed_distance(points.reshape(-1, 3) + np.array([0, 0, 1000.0])).reshape(shape)


@pytest.mark.parametrize(
    ("solid", "point", "expected"),
    [
        (Solid("sphere", (0, 0, 5), (1, 1, 1), 0, 1, 0), (0, 3, 5), 2.0),
        (Solid("sphere", (0, 0, 5), (1, 1, 1), 0, 1, 0), (0, 0.25, 5), -0.75),
        (Solid("cylinder", (0, 0, 5), (1, 1, 2), 0, 1, 0), (4, 3, 5), 4.0),
        (Solid("cylinder", (0, 0, 5), (1, 1, 2), 0, 1, 0), (4, 0, 11), 5.0),
        (Solid("cylinder", (0, 0, 5), (1, 1, 2), 0, 1, 0), (0.1, 0, 6.5), -0.5),
        (Solid("box", (0, 0, 5), (1, 2, 3), 0, 1, 0), (2, 0, 5), 1.0),
        (Solid("box", (0, 0, 5), (1, 2, 3), 0, 1, 0), (4, 6, 5), 5.0),
        (Solid("box", (0, 0, 5), (1, 2, 3), 0, 1, 0), (0.5, 0, 5), -0.5),
        (Solid("box", (0, 0, 5), (1, 2, 3), np.pi / 2, 1, 0), (0, 2, 5), 1.0),
        (Solid("box", (0, 0, 5), (1, 2, 3), np.pi / 4, 1, 0), (0, 0, 9), 1.0),
    ],
)
def test_signed_distance_analytic(solid, point, expected):
    assert world(solid).signed_distance([point])[0] == pytest.approx(expected, abs=1e-5)


def test_the_ground_is_solid_below_zero():
    np.testing.assert_allclose(world().signed_distance([(1, 2, 0.7), (3, 4, -0.2)]), [0.7, -0.2], atol=1e-6)
    labels = world().occupancy(LatticeWindow(0.2, (0, 0, -1), (1, 1, 2)))
    np.testing.assert_array_equal(labels, [[[GROUND, 0]]])


@given(st.lists(solids(), min_size=1, max_size=3), st.integers(0, 1000))
def test_distance_never_changes_faster_than_the_point_moves(things, seed):
    """An exact distance has slope one; also its sign agrees with being inside."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-3, -3, 0.1), (3, 3, 3), (60, 3))
    steps = rng.normal(0, 0.05, (60, 3))
    scene = world(*things)
    before, after = scene.signed_distance(points), scene.signed_distance(points + steps)
    assert (np.abs(after - before) <= np.linalg.norm(steps, axis=1) + 1e-4).all()
    inside = np.any([is_inside(s, np.array(s.center), points) for s in things], axis=0)
    clear = np.abs(before) > 1e-4
    np.testing.assert_array_equal((before < 0)[clear], inside[clear])


def test_occupancy_is_the_same_on_any_window_of_the_lattice():
    scene = build_world("indoor", 3)
    whole = scene.occupancy(LatticeWindow(0.2, (-15, -15, -2), (30, 30, 12)))
    part = scene.occupancy(LatticeWindow(0.2, (-5, 2, 1), (8, 9, 4)))
    np.testing.assert_array_equal(part, whole[10:18, 17:26, 3:7])


def test_movers_follow_their_path():
    path = Mover((0.0, 2.0, 4.0), ((0.0, 0, 0), (4.0, 0, 0), (4.0, 2.0, 0)))
    np.testing.assert_allclose(path.position(1.0), (2, 0, 0))
    np.testing.assert_allclose(path.position(3.0), (4, 1, 0))
    np.testing.assert_allclose([path.position(-1.0), path.position(9.0)], [(0, 0, 0), (4, 2, 0)])
    still, walker = Solid("sphere", (0, 3, 1), (0.3,) * 3, 0, 2, 0), Solid("sphere", (0, 0, 1), (0.3,) * 3, 0, 5, 0, 0)
    scene = world(still, walker, movers=[path])
    np.testing.assert_allclose(scene.centers(1.0), [(0, 3, 1), (2, 0, 1)])
    points = np.array([(0, 0, 1), (2, 0, 1), (0, 3, 1)], np.float32)
    assert scene.occupied_cubes(points, 0.1, 0.0).tolist() == [5, 0, 2]
    assert scene.occupied_cubes(points, 0.1, 1.0).tolist() == [0, 5, 2]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_built_worlds_are_the_same_for_the_same_seed_and_survive_a_file(kind, tmp_path):
    scene = build_world(kind, 5)
    assert build_world(kind, 5) == scene
    assert build_world(kind, 6) != scene
    assert len(scene.solids) > 5
    scene.save(tmp_path / "world.json")
    assert World.load(tmp_path / "world.json") == scene


def test_unknown_worlds_name_the_known_ones():
    with pytest.raises(SimulationError, match=r"unknown world 'moon'.*indoor.*warehouse"):
        build_world("moon", 0)


BOX = {"shape": "box", "center": [0, 0, 1], "half": [1, 1, 1], "yaw": 0.0, "label": 2, "texture": 0, "mover": -1}
VALID = {"version": 1, "name": "w", "seed": 0, "solids": [BOX], "bounds": [-1, -1, 1, 1], "ground_texture": 0,
         "texture_family": "train", "movers": []}  # fmt: skip


def test_the_valid_example_is_valid(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(VALID))
    assert World.load(tmp_path / "w.json").solids[0].half == (1, 1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "3", '"text"', "[]", "null", "[" * 100_000,
        json.dumps({**VALID, "version": 2}),
        json.dumps({k: v for k, v in VALID.items() if k != "version"}),
        json.dumps({k: v for k, v in VALID.items() if k != "solids"}),
        json.dumps({**VALID, "surprise": 1}),
        json.dumps({**VALID, "solids": 3}),
        json.dumps({**VALID, "solids": [3]}),
        json.dumps({**VALID, "movers": 3}),
        json.dumps({**VALID, "movers": [{"times_s": [0, 1], "positions": [[0, 0, 0]]}]}),
        json.dumps({**VALID, "movers": [{"times_s": [1, 0], "positions": [[0, 0, 0], [1, 1, 1]]}]}),
        json.dumps({**VALID, "movers": [{"times_s": [], "positions": []}]}),
        json.dumps({**VALID, "bounds": [0, 0, 1]}),
        json.dumps({**VALID, "bounds": [1, 0, -1, 2]}),
        json.dumps({**VALID, "bounds": [0, 0, float("inf"), 2]}),
        *[
            json.dumps({**VALID, "solids": [{**BOX, **change}]})
            for change in (
                {"shape": "cone"}, {"half": [1, 1, 0]}, {"half": [1, 1]}, {"center": [0, float("nan"), 0]},
                {"label": 0}, {"label": 7}, {"label": "x"}, {"mover": 0}, {"center": [10**400, 0, 0]}, {"yaw": None},
                {"extra": 1}, {"texture": "a'/><x"}, {"texture": -1},
            )
        ],
    ],
)  # fmt: skip
def test_files_that_hold_no_world_are_refused(tmp_path, text):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(SimulationError):
        World.load(tmp_path / "w.json")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SimulationError, match="holds no world"):
        World.load(tmp_path / "none.json")
