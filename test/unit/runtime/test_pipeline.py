# SPDX-License-Identifier: Apache-2.0
"""What the pipeline makes of a prediction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.network.checkpoint import Calibration
from occupancy_nn_ros.runtime.pipeline import PREDICTED_DEPTH_WEIGHT, OccupancyPipeline
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedDepth, PosedImage, Prediction

CAMERA = CameraModel(9, 9, np.array([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]), "none", np.zeros(0))
LOOK_ALONG_X = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.1], [0, -1, 0, 0.5], [0, 0, 0, 1]])


def pipeline_that_predicts(logit, weight, depth_m):
    """A pipeline whose network says the same of all voxels, and shows this depth in the middle of its only camera."""
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = depth_m

    def predict(keyframe, window):
        shape = torch.ones(window.shape)
        depth = PosedDepth("front", keyframe.stamp_ns, image, CAMERA, LOOK_ALONG_X)
        return Prediction(window, logit * shape, weight * shape, None, shape, depths=(depth,))

    predictor = SimpleNamespace(
        predict=predict, reset=lambda: None, device=torch.device("cpu"), calibration=Calibration(prior_log_odds=-1.5)
    )
    return OccupancyPipeline(Config(voxel_size_m=0.2), predictor)


@pytest.mark.parametrize("logit", [0.0, -3.0])
def test_occupancy_less_the_prior_and_sure_depth_both_enter_the_map(logit):
    pipeline = pipeline_that_predicts(logit, 0.5, 2.0)
    picture = PosedImage("front", 0, np.zeros((9, 9, 3), np.uint8), CAMERA, LOOK_ALONG_X)
    pipeline.step(Keyframe(0, np.eye(4), images=(picture,)))
    points = np.array([[2.1, 0.1, 0.5], [1.1, 0.1, 0.5], [1.1, 2.1, 0.5]])  # where the ray ends, on its way, elsewhere
    probability, _ = pipeline.map.query(points)
    field = 0.5 * (logit + 1.5)
    hit, passed = (PREDICTED_DEPTH_WEIGHT * value for value in (0.85, -0.4))
    log_odds = np.log(probability / (1 - probability))
    assert log_odds == pytest.approx([field + hit, field + passed, field], abs=1e-5)
