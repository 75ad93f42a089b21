# SPDX-License-Identifier: Apache-2.0
"""What the pipeline makes of a prediction."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.network.checkpoint import Calibration
from occupancy_nn_ros.runtime.own_body import OwnBody
from occupancy_nn_ros.runtime.pipeline import PREDICTED_DEPTH_WEIGHT, OccupancyPipeline
from occupancy_nn_ros.values import CameraModel, Keyframe, PosedCloud, PosedDepth, PosedImage, Prediction

SECOND = 1_000_000_000
CAMERA = CameraModel(9, 9, np.array([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]), "none", np.zeros(0))
LOOK_ALONG_X = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.1], [0, -1, 0, 0.5], [0, 0, 0, 1]])


def pipeline_that_predicts(logit, weight, depth_m):
    """A pipeline whose network says the same of all voxels, and shows this depth in the middle of its only camera."""
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = depth_m

    def predict(keyframe, window, place):
        keyframe = place(keyframe)
        shape = torch.ones(window.shape)
        depth = PosedDepth("front", keyframe.stamp_ns, image, CAMERA, LOOK_ALONG_X)
        return keyframe, Prediction(window, logit * shape, weight * shape, None, shape, (depth,), prior_log_odds=-1.5)

    predictor = SimpleNamespace(
        place_and_predict=predict,
        reset=lambda: None,
        device=torch.device("cpu"),
        calibration=Calibration(prior_log_odds=-1.5),
        move_past=lambda poses: None,
        look_again=lambda: None,
    )
    return OccupancyPipeline(Config(voxel_size_m=0.2), predictor)


POINTS = np.array([[2.1, 0.1, 0.5], [1.1, 0.1, 0.5], [1.1, 2.1, 0.5]])
"""Where the ray ends, on its way, elsewhere."""


@pytest.mark.parametrize("logit", [0.0, -3.0])
def test_occupancy_less_the_prior_and_sure_depth_both_enter_the_map(logit):
    pipeline = pipeline_that_predicts(logit, 0.5, 2.0)
    picture = PosedImage("front", 0, np.zeros((9, 9, 3), np.uint8), CAMERA, LOOK_ALONG_X)
    pipeline.step(Keyframe(0, np.eye(4), images=(picture,)))
    probability, _ = pipeline.map.query(POINTS)
    field = 0.5 * (logit + 1.5)
    hit, passed = (PREDICTED_DEPTH_WEIGHT * value for value in (0.85, -0.4))
    assert logit_of(probability) == pytest.approx([field + hit, field + passed, field], abs=1e-5)


def test_a_second_look_carves_as_sure_depth_does_and_tells_nothing_else():
    pipeline = pipeline_that_predicts(0.0, 0.5, 2.0)
    assert pipeline.look_again() is None
    pipeline.fuse(Keyframe(0, np.eye(4), images=(picture(),)))
    assert pipeline.look_again() is None
    once, _ = pipeline.map.query(POINTS)
    pipeline.predictor.look_again = lambda: Keyframe(0, np.eye(4), depths=pipeline.prediction.depths)
    assert list(pipeline.look_again().seconds()) == ["look_again"]
    twice, _ = pipeline.map.query(POINTS)
    hit, passed = (PREDICTED_DEPTH_WEIGHT * value for value in (0.85, -0.4))
    assert logit_of(twice) - logit_of(once) == pytest.approx([hit, passed, 0], abs=1e-5)


def test_a_second_look_leaves_the_robots_own_body_out():
    pipeline = pipeline_that_predicts(0.0, 0.5, 2.0)
    pipeline.fuse(Keyframe(0, np.eye(4), images=(picture(),)))
    pipeline.body = OwnBody("1.5 -1 0 2.5 1 1")
    once, _ = pipeline.map.query(POINTS)
    pipeline.predictor.look_again = lambda: Keyframe(0, np.eye(4), depths=pipeline.prediction.depths)
    pipeline.look_again()
    twice, _ = pipeline.map.query(POINTS)
    np.testing.assert_array_equal(twice, once)


def logit_of(probability):
    return np.log(probability / (1 - probability))


def picture(**changes):
    return replace(PosedImage("front", 0, np.zeros((9, 9, 3), np.uint8), CAMERA, LOOK_ALONG_X), **changes)


def scaled(matrix, row, value):
    changed = matrix.copy()
    changed[row] *= value
    return changed


DEPTH = PosedDepth("near", 0, np.ones((9, 9), np.float32), CAMERA, LOOK_ALONG_X)
GOOD = Keyframe(SECOND, np.eye(4), images=(picture(),), depths=(DEPTH,))
MIRRORED = np.diag([1.0, 1.0, -1.0, 1.0])
BAD = {
    "a float image": (picture(image=np.zeros((9, 9, 3))), "uint8 RGB .* scale floats to 0..255"),
    "a grey image": (picture(image=np.zeros((9, 9), np.uint8)), "repeat a grey image three times"),
    "a grey image of one channel": (picture(image=np.zeros((9, 9, 1), np.uint8)), "repeat a grey image"),
    "an image of another size": (picture(image=np.zeros((8, 9, 3), np.uint8)), "is 9x8, its intrinsics are for 9x9"),
    "a float stamp": (picture(stamp_ns=1.5), "stamp of image of camera 'front' is 1.5, expected integer nanoseconds"),
    "a scaled pose": (picture(T_map_cam=1.01 * LOOK_ALONG_X), "T_map_cam of camera 'front' is no rigid transform"),
    "a mirrored pose": (picture(T_map_cam=MIRRORED), "is no rigid transform"),
    "a pose without bottom": (picture(T_map_cam=scaled(np.eye(4), 3, 0)), "is no rigid transform"),
    "a pose (3, 4)": (picture(T_map_cam=np.eye(4)[:3]), r"is float64 \(3, 4\), expected numbers \(4, 4\)"),
    "a focal length of 0": (picture(model=replace(CAMERA, K=np.diag([0.0, 1, 1]))), "focal lengths are 0.0"),
    "depth in millimetres": (replace(DEPTH, depth_m=np.ones((9, 9), np.uint16)), "divide millimetres by 1000"),
    "a pose that is not finite": (replace(DEPTH, T_map_cam=np.full((4, 4), np.nan)), "expected finite numbers"),
    "points (N, 4)": (PosedCloud("top", 0, np.zeros((5, 4), np.float32), np.eye(4)), r"\(5, 4\), expected float32"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_changes_nothing(name):
    bad, message = BAD[name]
    pipeline = pipeline_that_predicts(-1.0, 1.0, 2.0)
    pipeline.step(GOOD)
    before, prediction = pipeline.view("map"), pipeline.prediction
    field = {PosedImage: "images", PosedDepth: "depths", PosedCloud: "clouds"}[type(bad)]
    moved = make_transform((1.0, 0, 0), (0, 0, 0, 1))
    with pytest.raises((OccupancyError, ValueError), match=message):
        pipeline.step(replace(GOOD, stamp_ns=2 * SECOND, T_map_base=moved, **{field: (*getattr(GOOD, field), bad)}))
    after = pipeline.view("map")
    assert (after.stamp_ns, after.window) == (before.stamp_ns, before.window)
    assert np.array_equal(after.probability, before.probability) and np.array_equal(after.state, before.state)
    assert pipeline.prediction is prediction


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stamp_ns": 1e9}, "stamp of keyframe is 1000000000.0"),
        ({"T_map_base": np.full((4, 4), np.inf)}, "T_map_base has position"),
        (
            {"T_map_base": make_transform((1e9 - 1, 0, 0), (0, 0, 0, 1)) * [1, 1, 1, 10]},
            "expected finite numbers within",
        ),
    ],
)
def test_a_bad_keyframe_changes_nothing(changes, message):
    pipeline = pipeline_that_predicts(-1.0, 1.0, 2.0)
    with pytest.raises((OccupancyError, ValueError), match=message):
        pipeline.step(replace(GOOD, **changes))
    assert not pipeline.has_map and pipeline.prediction is None


def test_a_keyframe_without_images_has_no_prediction():
    """Or what an earlier one said would be judged and published again."""
    pipeline = pipeline_that_predicts(-1.0, 1.0, 2.0)
    pipeline.step(GOOD)
    assert pipeline.prediction is not None
    pipeline.step(replace(GOOD, stamp_ns=2 * SECOND, images=()))
    assert pipeline.prediction is None
