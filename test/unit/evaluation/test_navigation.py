# SPDX-License-Identifier: Apache-2.0
"""The truth of edges and of walkers, and what is counted of a map that is right, blind, or makes things up."""

import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.evaluation.drop_offs import EdgeScore, true_edges, watch_edges
from occupancy_nn_ros.evaluation.walkers import WalkerScore, WalkingScene, judge, plan_walk
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.moving import Movement, MovingCluster
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rigs import Rig, RigCamera, camera_model, camera_pose, named_rig
from occupancy_nn_ros.simulation.terrains import EDGE_X_M, TERRAINS, build_terrain
from occupancy_nn_ros.simulation.world import Mover, World
from occupancy_nn_ros.values import LatticeWindow, MapView

VOXEL = 0.1


def view_at(pose):
    low = np.floor(pose[:3, 3] / VOXEL).astype(int)
    window = LatticeWindow(VOXEL, (int(low[0]) - 40, int(low[1]) - 40, int(low[2]) - 10), (80, 80, 20))
    empty = np.zeros(window.shape, np.int8)
    return MapView(0, "odom", window, pose, empty, empty.astype(np.float32), empty.astype(np.uint8))


@pytest.mark.parametrize("kind", ["stairs", "dock"])
def test_the_first_edge_and_nothing_beyond_it_is_judged(kind):
    terrain = build_terrain(kind, 1)
    pose = make_transform((EDGE_X_M - 0.8, 0.0, terrain.level_m), (0, 0, 0, 1))
    edge, judged = true_edges(terrain, view_at(pose), 0.1)
    x = (np.arange(80) + np.floor(pose[0, 3] / VOXEL) - 40 + 0.5) * VOXEL
    assert edge.sum() > 15 and set(np.round(x[edge.any(axis=1)], 2)) <= {EDGE_X_M + 0.05, EDGE_X_M + 0.15}
    assert judged[x < EDGE_X_M].sum() > 1000
    assert not judged[x > EDGE_X_M + 0.2].any()


def test_a_ramp_has_no_edge_and_is_judged_all_the_way_down():
    terrain = build_terrain("ramp", 1)
    x = EDGE_X_M + 1.0
    ground = float(terrain.heights(np.array([[x, 0.0]]))[0])
    assert 0 < ground < terrain.level_m
    edge, judged = true_edges(terrain, view_at(make_transform((x, 0.0, ground), (0, 0, 0, 1))), 0.1)
    assert not edge.any() and judged.sum() > 2000


def test_heights_of_terrains_are_exact():
    for kind in TERRAINS:
        terrain = build_terrain(kind, 3)
        on_top, below = terrain.heights(np.array([[0.0, 0.0], [8.5, 0.0]]))
        assert on_top == pytest.approx(terrain.level_m, abs=2e-3) and below == pytest.approx(0, abs=2e-3)
    ramp = build_terrain("ramp", 3)
    pitch = next(s.pitch for s in ramp.world.solids if s.pitch)
    heights = ramp.heights(np.array([[EDGE_X_M + d, 0.5] for d in (0.5, 1.0, 1.5)]))
    np.testing.assert_allclose(heights, ramp.level_m - np.tan(pitch) * np.array([0.5, 1.0, 1.5]), atol=3e-3)
    drive = ramp.drive(3.0)
    np.testing.assert_allclose(drive.T_map_base[:, 2, 3], ramp.heights(drive.T_map_base[:, :2, 3]), atol=1e-6)
    down = drive.T_map_base[-1, :3, 0]
    assert np.arcsin(-down[2]) == pytest.approx(pitch, abs=0.01)
    with pytest.raises(SimulationError, match="unknown terrain 'hill', expected one of stairs, dock, ramp"):
        build_terrain("hill", 0)


def test_edges_are_counted_with_and_without_tolerance():
    edge = np.zeros((9, 9), bool)
    edge[4] = True
    for lethal, missed, phantom, near, far in (
        (edge, 0, 0, 0, 0),
        (np.zeros_like(edge), 1, 0, 1, 1),
        (np.roll(edge, 1, axis=0), 1, 9 / 72, 0, 0),
        (np.roll(edge, 2, axis=0), 1, 9 / 72, 1, 0),
        (np.roll(edge, 3, axis=0), 1, 9 / 72, 1, 1),
    ):
        score = EdgeScore(0.2)
        score.add(lethal, lethal, edge, np.ones_like(edge))
        figures = score.figures()
        assert figures["edges"] == 9 and figures["missed_edges"] == missed and figures["missed_edges_tolerant"] == near
        assert figures["phantom_edges"] == pytest.approx(phantom) and figures["missed_edges_near"] == far
    behind_a_wall = EdgeScore(0.2)
    behind_a_wall.add(edge, np.zeros_like(edge), edge, np.ones_like(edge))
    assert behind_a_wall.figures()["missed_edges"] == 0


def test_perfect_depth_finds_a_dock_and_nothing_on_a_ramp(renderer_works):
    """One small camera: the edge within 3 m, and no edge where there is none."""
    rig = Rig("small", (RigCamera("front", camera_model(200, 150, 75), camera_pose(0.2, 0, 0.6, 0, 0.3)),))
    config = load_config(
        [], ["source=depth", "voxel_size_m=0.1", "map.size_xy_m=10", "grid.max_step_down_m=0.1", "map.below_m=1.6"]
    )
    scores = {}
    for kind in ("dock", "ramp"):
        scores[kind] = EdgeScore(0.1)
        watch_edges(build_terrain(kind, 1), rig, config, [(OccupancyPipeline(config), True, scores[kind])])
    dock, ramp = (scores[kind].figures() for kind in ("dock", "ramp"))
    assert dock["edges"] > 50 and dock["missed_edges_tolerant"] < 0.1 and dock["phantom_edges_tolerant"] < 0.005
    assert ramp["edges"] == 0 and ramp["phantom_edges"] < 0.005


def walker_scene(speed):
    path = Mover((0.0, 100.0), ((1.5, 0.0, 0.0), (1.5 + 100 * speed, 0.0, 0.0)))
    drive = build_terrain("dock", 1).drive(3.0)
    return WalkingScene(World("empty", 0, (), (-9.0, -9.0, 9.0, 9.0), movers=(path,)), (path,), drive)


def test_walkers_are_counted():
    scene, rig, score = walker_scene(0.5), named_rig("surround4"), WalkerScore()
    base = np.eye(4)

    def cluster(x, y, velocity, std=0.1):
        return MovingCluster(1, np.array([[x, y, 1.0]]), np.array(velocity), std)

    found = cluster(2.55, 0.1, (0.4, 0.1))
    judge(Movement((found, cluster(0.0, 2.0, (0, 0))), np.zeros((0, 3))), scene, rig, (2.0, base), score)
    judge(Movement((), np.zeros((0, 3))), scene, rig, (2.2, base), score)
    unknown = cluster(2.7, 0.0, (np.nan, np.nan), float("nan"))
    judge(Movement((unknown,), np.zeros((0, 3))), scene, rig, (2.4, base), score)
    figures = score.figures()
    assert (
        figures["people"] == 3
        and figures["found"] == pytest.approx(2 / 3)
        and figures["with_velocity"] == pytest.approx(1 / 3)
    )
    assert figures["velocity_error_m_s"] == pytest.approx(np.hypot(0.1, 0.1), abs=1e-6)
    assert figures["phantoms_per_look"] == pytest.approx(1 / 3)
    still = WalkerScore()
    judge(Movement((), np.zeros((0, 3))), walker_scene(0.1), rig, (1.0, base), still)
    assert still.people == 0 and np.isnan(still.figures()["found"])


def test_people_walk_where_nothing_stands():
    scene = plan_walk(build_world("indoor_heldout", 9000), 1, 6.0)
    assert len(scene.walkers) >= 2
    solids = [s for s in scene.world.solids if s.mover < len(scene.world.movers) - len(scene.walkers)]
    still = World("still", 0, tuple(solids), scene.world.bounds, movers=scene.world.movers)
    for time_s in (0.0, 1.7, 4.4):
        places = scene.places(time_s)
        assert still.signed_distance(np.column_stack([places, np.full(len(places), 1.0)])).min() > 0.25
        speeds = np.linalg.norm(scene.velocities(time_s), axis=1)
        assert (speeds < 1.5).all() and (speeds > 0.3).any()
