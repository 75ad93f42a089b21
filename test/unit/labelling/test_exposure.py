# SPDX-License-Identifier: Apache-2.0
"""Automatic exposure and flickering light cost labels from cameras little."""

import numpy as np
import textured_walls as walls

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.labelling.recording_sweep import AROUND, RecordingSweep
from occupancy_nn_ros.network.checkpoint import find_model, load_checkpoint
from occupancy_nn_ros.values import Keyframe, PosedImage

CONFIG = load_config([], ["network.device=cpu", "network.canvas_pixels=12288"])


def keyframe(n, exposure):
    """A moment of a hand-held camera before two walls."""
    pose = walls.pose(0.35 * n)
    picture = (0.75 * walls.picture(pose) * exposure(n)).clip(0, 255).astype(np.uint8)
    return Keyframe(n * 10**9, pose, images=(PosedImage("eye", n * 10**9, picture, walls.MODEL, pose),))


def first_look(exposure):
    """Where the network is sure of the first picture's depth, matched with those after it, and errors there (N,), relative."""
    sweep = RecordingSweep(load_checkpoint(find_model("nano")).network, CONFIG.network)
    (depth,) = next(sweep.looks(keyframe(n, exposure) for n in range(AROUND + 1))).depths
    rows, columns = np.nonzero(depth.depth_m)
    K, full = depth.model.K, walls.MODEL.K
    u, v = ((pixel - K[a, 2]) / K[a, a] * full[a, a] + full[a, 2] for a, pixel in enumerate((columns, rows)))
    true = walls.depth(walls.pose(0.0), 1)[
        v.round().astype(int).clip(0, walls.HEIGHT - 1), u.round().astype(int).clip(0, walls.WIDTH - 1)
    ]
    return (depth.depth_m > 0).mean(), np.abs(depth.depth_m[rows, columns] / true - 1)


def test_pictures_of_changing_brightness_are_matched_nearly_as_well():
    """By 30 % around the mean, from each keyframe to the next."""
    (steady_sure, steady_error), (sure, error) = first_look(lambda n: 1.0), first_look(lambda n: 1.3 if n % 2 else 0.7)
    assert steady_sure > 0.5
    assert sure > 0.85 * steady_sure
    assert np.median(error) < np.median(steady_error) + 0.01
    assert (error < 0.05).mean() > (steady_error < 0.05).mean() - 0.1
