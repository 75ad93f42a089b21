# SPDX-License-Identifier: Apache-2.0
"""One recording to training shards: cameras and TF in, with a range sensor or without, keyframes with labels out."""

from __future__ import annotations

from pathlib import Path

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.jobs.run import Report
from occupancy_nn_ros.labelling.camera_labels import CameraLabeller
from occupancy_nn_ros.labelling.frames import ShardWriter
from occupancy_nn_ros.labelling.plan import BagLabels, LabelPlan
from occupancy_nn_ros.labelling.range_labels import RangeLabeller


def label_bag(bag: Path, folder: Path, name: str, plan: LabelPlan, report: Report | None = None) -> BagLabels:
    """Write a bag's shards ``NAME_000.safetensors`` and so on into a folder.

    Raises:
        BagError: damaged, or without cameras, range sensor, poses, keyframes or, where pictures have to tell depth, motion;
            says which.
        CalibrationError: a camera's intrinsics cannot be used.
        CheckpointError: the network or the depth model cannot be used.
        ConfigError: an impossible setting.
        TrainingError: the recording covers more space than memory holds.
    """
    labeller = CameraLabeller if plan.sensor == "cameras" else RangeLabeller
    with BagReader(bag, plan.part) as reader:
        return labeller(reader, plan, report or (lambda share: None)).run(ShardWriter(folder, name, bag))
