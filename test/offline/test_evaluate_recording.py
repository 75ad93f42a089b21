# SPDX-License-Identifier: Apache-2.0
"""Scores of a recording against its own depth: of a map that knows the world, and of one that knows nothing."""

import json

import numpy as np
import pytest
from box_drive import STEPS, counted, write_drive

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.evaluation.ray_iou import ORIGINS
from occupancy_nn_ros.evaluation.recordings import depth_truth, entry_distance, evaluate_bag
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_tf
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, StampedTransform, VoxelState


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


MODEL = CameraModel(16, 12, np.array([[10.0, 0, 7.5], [0, 10, 5.5], [0, 0, 1]]), "plumb_bob", np.zeros(5))
MOMENTS, STEP_M = 6, 0.5


@pytest.fixture(scope="module")
def two_eyes(tmp_path_factory):
    """Two depth cameras that look ahead and back at walls 2 m away, on a robot that moves half a metre aside between frames."""
    path = tmp_path_factory.mktemp("eyes") / "bag"
    mounts = {"ahead": (-0.5, 0.5, -0.5, 0.5), "back": (0.5, 0.5, -0.5, -0.5)}
    with BagWriter(path) as writer:
        for name, turn in mounts.items():
            mount = StampedTransform(0, "base_link", name, make_transform((0, 0, 0.5), turn))
            writer.write("/tf_static", names.TF_MESSAGE, 0, encode_tf([mount]))
        for n in range(MOMENTS):
            stamp = n * 1_000_000_000
            place = StampedTransform(stamp, "odom", "base_link", make_transform((0, n * STEP_M, 0), (0, 0, 0, 1)))
            writer.write("/tf", names.TF_MESSAGE, stamp, encode_tf([place]))
            for name in mounts:
                info = encode_camera_info(stamp, name, MODEL)
                writer.write(f"/{name}/depth/camera_info", names.CAMERA_INFO, stamp, info)
                depth = encode_depth_image(stamp, name, np.full((12, 16), 2.0, np.float32))
                writer.write(f"/{name}/depth/image_raw", names.IMAGE, stamp, depth)
    return path


def test_rays_come_from_all_depth_cameras_and_from_the_whole_recording(two_eyes):
    truth = depth_truth(two_eyes, Config(voxel_size_m=0.1, source="depth"))
    origins, ends = truth.rays
    places = {(round(y, 3), np.sign(way)) for y, way in zip(origins[:, 1], (ends - origins)[:, 0], strict=True)}
    assert len(truth.frames) == 2 * MOMENTS
    assert len(places) == ORIGINS
    assert {y for y, _ in places} >= {0.0, (MOMENTS - 1) * STEP_M}
    assert {way for _, way in places} == {-1.0, 1.0}


class Moody:
    """Fails at every second keyframe, and remembers at which ones it was asked what it predicted."""

    def __init__(self):
        self.stamps, self.judged, self.last = [], [], None

    @property
    def prediction(self):
        self.judged.append(self.stamps[-1])

    def step(self, keyframe):
        self.stamps.append(keyframe.stamp_ns)
        self.last = keyframe
        if len(self.stamps) % 2 == 0:
            raise ValueError("not this one")

    def view(self, frame_id):
        state = np.zeros((40, 40, 10), np.int8)
        window = LatticeWindow(0.1, (0, 0, 0), state.shape)
        return MapView(0, frame_id, window, np.eye(4), state, state.astype(np.float32), state.astype(np.uint8))


def test_a_dropped_keyframe_is_not_judged_by_what_came_before_it(two_eyes):
    mapper = Moody()
    evaluate_bag(two_eyes, Config(voxel_size_m=0.1, source="depth"), make=lambda _: mapper)
    assert len(mapper.stamps) == MOMENTS
    assert mapper.judged == mapper.stamps[::2]


def test_depth_that_is_not_in_metres_is_no_truth(tmp_path):
    """0.1 mm in 16UC1, which would be walls ten times as far away."""
    path = write_drive(tmp_path / "drive.mcap", counted(0.0001), sensors=("eye", "front"))
    with pytest.raises(BagError, match=r"the depth of .*drive.mcap is no truth: front"):
        depth_truth(path, Config(voxel_size_m=0.1))
    right = write_drive(tmp_path / "right.mcap", sensors=("eye", "front"))
    assert len(depth_truth(right, Config(voxel_size_m=0.1)).frames) == STEPS
