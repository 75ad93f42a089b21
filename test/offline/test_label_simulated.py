# SPDX-License-Identifier: Apache-2.0
"""Labels of a recorded drive beside the simulator's exact occupancy, with a person who walks through the picture."""

import numpy as np
import pytest
from safetensors import safe_open

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.labelling.bags import label_into
from occupancy_nn_ros.labelling.plan import LabelPlan
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.recording import RecordingOptions, record_drive
from occupancy_nn_ros.simulation.rigs import Rig, RigCamera, camera_model, camera_pose
from occupancy_nn_ros.simulation.world import Mover, Solid, World
from occupancy_nn_ros.training.shards import OCCUPIED, read_shard
from occupancy_nn_ros.values import SEMANTIC_CLASSES

STRUCTURE, OBJECT, PERSON = (SEMANTIC_CLASSES.index(name) + 1 for name in ("structure", "object", "person"))
FRAMES, KEYFRAMES = 16, 8
WALK_M = (-1.6, 1.6)
"""The person walks from y = -1.6 to 1.6 m, 2.6 m before the robot, in the three seconds of the drive."""

RIG = Rig("small", (RigCamera("front", camera_model(160, 120, 80), camera_pose(0.1, 0, 0.6, 0, 0.1)),))


def room():
    """Four walls of a room of 7 by 5 m, a crate and a column in it, and the walker."""
    walls = [
        Solid("box", (x, y, 1.2), half, 0.0, STRUCTURE, 1)
        for x, y, half in (
            (-1.53, 0, (0.1, 2.6, 1.2)), (5.54, 0, (0.1, 2.6, 1.2)), (2, -2.53, (3.6, 0.1, 1.2)), (2, 2.52, (3.6, 0.1, 1.2)),
        )
    ]  # fmt: skip
    things = [
        Solid("box", (3.3, 1.2, 0.37), (0.33, 0.27, 0.37), 0.4, OBJECT, 2),
        Solid("cylinder", (3.9, -1.1, 0.9), (0.21, 0.21, 0.9), 0.0, OBJECT, 3),
    ]
    walker = [Solid("cylinder", (2.6, 0, 0.85), (0.2, 0.2, 0.85), 0.0, PERSON, 0, 0)]
    path = Mover((0.0, 3.0), ((0.0, WALK_M[0], 0.0), (0.0, WALK_M[1], 0.0)))
    return World("room", 1, tuple(walls + things + walker), (-1.0, -2.0, 5.0, 2.0), movers=(path,))


def straight_drive():
    stamps = np.arange(FRAMES) / 5.0
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = 0.3 * stamps
    return Drive(stamps, poses)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    try:
        return record_drive(room(), RIG, straight_drive(), folder, RecordingOptions(truth_voxel_m=0))
    except MissingDependencyError as error:
        pytest.skip(str(error))


class Judged:
    """Labelled points of all keyframes with the truth at their time."""

    def __init__(self, folder, labels):
        self.world, columns = room(), []
        for path in labels.shards:
            with safe_open(str(folder / path), framework="np") as file:
                origin = np.array([float(v) for v in file.metadata()["origin_m"].strip("[]").split()])
            shard = read_shard(folder / path)
            for n in range(len(shard.labels)):
                time_s = (shard.T_map_base[n, 0, 3] + origin[0]) / 0.3
                points, edge = shard.points_m[n] + origin, float(shard.edge_m[n])
                truth = self.world.occupied_cubes(points, edge, time_s)
                distance = self.world.signed_distance(points, time_s)
                times = np.full(len(points), time_s)
                columns.append((points, shard.labels[n], truth, distance, times, np.full(len(points), edge)))
        joined = (np.concatenate(column) for column in zip(*columns, strict=True))
        self.points, self.labels, self.truth, self.distance, self.times, self.edges = joined
        self.occupied, self.free = self.labels == OCCUPIED, self.labels == 0
        self.person_y = np.interp(self.times, (0, 3), WALK_M)


@pytest.fixture(scope="module", params=["depth", "lidar"])
def judged(request, bag, tmp_path_factory):
    """The drive, labelled with one of its two range sensors."""
    topic = {"depth": "/front/depth/image_raw", "lidar": "/lidar/points"}[request.param]
    kind = {"depth": "depth", "lidar": "cloud"}[request.param]
    sensors = ["cameras.front={}", f"cameras.range.image_topic={topic}", f"cameras.range.kind={kind}"]
    config = load_config([], ["keyframes.distance_m=0.01", "keyframes.min_period_s=0.4", "voxel_size_m=0.1", *sensors])
    out = tmp_path_factory.mktemp(request.param)
    labels = label_into(bag, out, LabelPlan(config))
    assert labels.keyframes == KEYFRAMES and labels.dropped == {}
    return Judged(out, labels)


def test_labels_agree_with_the_truth(judged):
    occupied_right = (judged.truth > 0)[judged.occupied].mean()
    free_right = (judged.truth == 0)[judged.free].mean()
    assert occupied_right > 0.98 and free_right > 0.99  # 0.986 and 0.996 with depth, 1.000 and 0.999 with LiDAR
    assert judged.occupied.sum() > KEYFRAMES * 1600 and judged.free.sum() > KEYFRAMES * 4000
    # What is wrong is wrong by the border of a cube, never by more.
    assert (judged.distance[judged.occupied] < 0.9 * judged.edges[judged.occupied]).all()


def test_a_walker_leaves_no_smear(judged):
    """Where the person is the labels are right, and where he was or will be space is free."""
    lane = (np.abs(judged.points[:, 0] - 2.6) < 0.25) & (np.abs(judged.points[:, 2] - 0.9) < 0.6)
    along = np.abs(judged.points[:, 1] - judged.person_y)
    there = lane & (along < 0.2)
    elsewhere = lane & (along > 0.2 + 0.2) & (np.abs(judged.points[:, 1]) < 1.2)
    assert (judged.occupied & there & (judged.truth == PERSON)).sum() > 12 * KEYFRAMES
    assert (judged.occupied & elsewhere).sum() == 0
    assert (judged.free & elsewhere).sum() > 100 * KEYFRAMES
    inside = judged.free & (judged.truth == PERSON)
    assert inside.sum() < 0.1 * (judged.occupied & (judged.truth == PERSON)).sum()
    assert (judged.distance[inside] > -judged.edges[inside]).all()
