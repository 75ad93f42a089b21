# SPDX-License-Identifier: Apache-2.0
"""Scores of a recording against its own depth: of a map that knows the world, and of one that knows nothing."""

import json

import numpy as np
import pytest

from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.evaluation.recordings import entry_distance, evaluate_bag
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import LatticeWindow, MapView, VoxelState


@pytest.fixture(scope="module")
def recording(tmp_path_factory, renderer_works):
    folder = tmp_path_factory.mktemp("sim") / "drive"
    drive = ["--world", "indoor", "--rig", "front", "--seed", "3", "--duration", "2", "--rate", "3"]
    assert main(["sim", *drive, "--out", str(folder)]) == 0
    return folder


class Oracle:
    """A map that holds the world as it is, or nothing."""

    prediction = None

    def __init__(self, world, empty):
        self.world, self.empty, self.last = world, empty, None

    def step(self, keyframe):
        self.last = keyframe
        return {}

    def view(self, frame_id):
        window = LatticeWindow(
            0.1, tuple(int(v) for v in np.floor(self.last.T_map_base[:3, 3] / 0.1) - (60, 60, 12)), (120, 120, 40)
        )
        labels = self.world.occupancy(window) * (not self.empty)
        state = np.where(labels > 0, VoxelState.OCCUPIED, VoxelState.FREE).astype(np.int8)
        return MapView(0, frame_id, window, self.last.T_map_base, state, (labels > 0).astype(np.float32), labels)


@pytest.mark.parametrize("empty", [False, True])
def test_a_true_map_and_an_empty_one(recording, empty):
    world = World.load(recording / "world.json")
    config = Config(voxel_size_m=0.1)
    got = evaluate_bag(recording / "drive.mcap", config, make=lambda _: Oracle(world, empty)).figures()
    assert all(np.isfinite(value) for key, value in got.items() if not key.startswith(("ece", "brier", "depth")))
    if empty:
        assert (got["iou"], got["recall"], got["f_score"], got["ray_iou_4m"]) == (0, 0, 0, 0)
        return
    # A surface on the border of two voxels may be measured in either; a voxel that a solid only touches stops a ray that
    # passes beside the solid.
    assert got["recall"] > 0.6
    assert got["precision"] > 0.6
    assert got["f_score"] > 0.99
    assert got["ray_iou_1m"] > 0.95
    assert got["ray_iou_2vox"] > 0.9


def test_rays_enter_the_voxel_that_holds_their_end(rng):
    origins, ends = rng.uniform(-3, 3, (2, 500, 3))
    got = entry_distance(origins, ends, 0.5)
    way = ends - origins
    length = np.linalg.norm(way, axis=1)
    steps = np.linspace(0, 1, 20001)
    for n in range(0, 500, 25):
        cells = np.floor((origins[n] + steps[:, None] * way[n]) / 0.5)
        first = steps[(cells == np.floor(ends[n] / 0.5)).all(axis=1)][0] * length[n]
        assert got[n] == pytest.approx(first, abs=1e-3)
    axis = entry_distance(np.array([[0.25, 0.25, 0.25]]), np.array([[3.3, 0.25, 0.25]]), 0.5)
    assert axis == pytest.approx([2.75])


def test_the_command_scores_a_model_at_the_size_of_picture_that_it_is_told(recording, tiny_model, capsys):
    figures = []
    for pixels in (0, 8192, 32768):
        command = ["eval", "--bag", str(recording / "drive.mcap"), "--model", str(tiny_model), "--voxel-size", "0.2"]
        assert main([*command, "--canvas-pixels", str(pixels), "--json"]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    as_its_model_says, the_same, larger = figures
    assert {"iou", "mcc", "precision", "recall", "protocol"} <= set(larger)
    assert the_same == as_its_model_says
    assert larger["brier_visible"] != the_same["brier_visible"]
