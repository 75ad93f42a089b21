# SPDX-License-Identifier: Apache-2.0
"""A keyframe on a GPU, on a stand-in for one: recorded once, replayed for other keyframes, and the CPU's answers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from stand_in_device import DEVICE, OnDevice, no_host_waits, stand_in_device

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.geometry.cameras import Rectifier
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.network.rectification import DeviceRectifier, area_weights
from occupancy_nn_ros.runtime.device_predictor import DevicePredictor, load_predictor
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedImage

WINDOW = LatticeWindow(0.4, (-20, -20, -6), (40, 40, 12))
LOOKS = (make_transform((0, 0, 0.5), (-0.5, 0.5, -0.5, 0.5)), make_transform((0, 0.1, 0.5), (-0.35, 0.61, -0.61, 0.35)))
MODELS = (
    CameraModel(160, 120, np.array([[110.0, 0, 80], [0, 110, 60], [0, 0, 1]]), "plumb_bob", np.array([-0.1, 0.01, 0, 0])),
    CameraModel(320, 200, np.array([[220.0, 0, 158], [0, 221, 101], [0, 0, 1]]), "none", np.zeros(0)),
)  # fmt: skip


def smooth_picture(model, seed):
    """Waves of light, without edges that would show every rounding."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0 : model.height, 0 : model.width]
    waves = [np.sin(u * a + v * b + c) for a, b, c in rng.uniform(-0.15, 0.15, (3, 3)) + np.array([0, 0, seed])]
    return np.clip(128 + 90 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def keyframe(n, cameras=2, x=None):
    base = make_transform((0.4 * n if x is None else x, 0.17 * n, 0), (0, 0, 0, 1))
    images = [
        PosedImage(str(c), n, smooth_picture(MODELS[c], 10 * n + c), MODELS[c], base @ LOOKS[c]) for c in range(cameras)
    ]
    return Keyframe(n, base, tuple(images))


SHIFT = np.zeros((4, 4))
SHIFT[:3, 3] = 0.01, 0.02, -0.01
DRIVE = [
    keyframe(0),
    keyframe(1),
    keyframe(2),
    keyframe(3, cameras=1),
    keyframe(4),
    keyframe(4),
    keyframe(5),
    keyframe(6),
]


def test_parts_of_a_line_are_averaged():
    weights = area_weights(5, 2)
    np.testing.assert_allclose(weights, [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]], atol=1e-6)
    np.testing.assert_allclose(area_weights(97, 31).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(area_weights(8, 8), np.eye(8))


@pytest.mark.parametrize("model", MODELS, ids=["lens", "pinhole"])
def test_rectification_on_a_device_is_that_of_the_cpu(model):
    for width, height in ((128, 96), (64, 32)):
        rectifier, picture = Rectifier(model, width, height), smooth_picture(model, 3)
        expected = rectifier(picture).image.astype(int)
        got = DeviceRectifier(rectifier, torch.device("cpu"))(torch.from_numpy(picture)).numpy().astype(int)
        assert np.abs(got - expected).max() <= 2 and (got != expected).mean() < 0.2
        assert (got[~rectifier.mask] == 0).all() and expected.std() > 20


def answers(predictor):
    return [predictor.predict(frame, WINDOW) for frame in DRIVE]


def test_a_drive_gives_the_answers_of_the_cpu(monkeypatch, tiny_model):
    """Two cameras, one of which drops out once; with past keyframes, of which the oldest make room."""
    settings = {"coarse_m": 0.0, "past_keyframes": 2, "sure_depth": 0.1}
    expected = answers(Predictor.load(str(tiny_model), NetworkConfig(device="cpu", **settings)))
    with stand_in_device(monkeypatch.setattr):
        predictor = load_predictor(str(tiny_model), NetworkConfig(device="auto", **settings))
        assert isinstance(predictor, DevicePredictor)
        got = answers(predictor)
        assert all(answer.logit.device == DEVICE and type(answer.logit) is OnDevice for answer in got)
    for n, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.window == other.window
        for name in ("logit", "weight", "class_logits", "visible"):
            given = getattr(one, name).as_subclass(torch.Tensor), getattr(other, name)
            assert given[0].shape == given[1].shape
            share = torch.isclose(*given, atol=0.02, rtol=0.02).float().mean()
            assert share > 0.97, (n, name, share)  # grey levels differ by rounding
        assert len(one.depths) == len(other.depths) == len(DRIVE[n].images)
        for depth, true in zip(one.depths, other.depths, strict=True):
            np.testing.assert_allclose(depth.model.K, true.model.K, rtol=1e-5)
            assert depth.depth_m.shape == true.depth_m.shape


def test_second_looks_are_those_of_the_cpu(monkeypatch, tiny_model):
    settings = {"coarse_m": 0.0, "past_keyframes": 4, "sure_depth": 0.1, "look_again_after": 2}

    def second_looks(predictor):
        for frame in DRIVE:
            predictor.predict(frame, WINDOW)
            predictor.move_past({frame.stamp_ns: np.stack([image.T_map_cam for image in frame.images]) + SHIFT})
            if (again := predictor.look_again()) is not None:
                yield again

    expected = list(second_looks(Predictor.load(str(tiny_model), NetworkConfig(device="cpu", **settings))))
    with stand_in_device(monkeypatch.setattr):
        got = list(second_looks(load_predictor(str(tiny_model), NetworkConfig(device="auto", **settings))))
        depths = [[depth.depth_m for depth in frame.depths] for frame in got]
    assert [frame.stamp_ns for frame in got] == [frame.stamp_ns for frame in expected] == [0, 1, 2, 3, 4]
    for frame, shown, same in zip(got, depths, expected, strict=True):
        for one, depth_m, other in zip(frame.depths, shown, same.depths, strict=True):
            np.testing.assert_array_equal(one.T_map_cam, other.T_map_cam)
            known = (depth_m > 0) & (other.depth_m > 0)
            assert (known == (other.depth_m > 0)).mean() > 0.97 and known.any()
            assert np.isclose(depth_m, other.depth_m, rtol=0.02)[known].mean() > 0.97


def test_replaying_gives_what_computing_anew_gives(monkeypatch, tiny_model):
    """The recorded work, on inputs it was not recorded with, beside the same work done step by step."""
    config = NetworkConfig(device="auto", past_keyframes=2)
    with stand_in_device(monkeypatch.setattr):
        recorded = answers(DevicePredictor.load(str(tiny_model), config))
        monkeypatch.setattr("occupancy_nn_ros.runtime.device_predictor.can_capture", lambda device: False)
        stepped = answers(DevicePredictor.load(str(tiny_model), config))
    for one, other in zip(recorded, stepped, strict=True):
        for name in ("logit", "weight", "class_logits", "visible"):
            assert torch.equal(*(getattr(answer, name).as_subclass(torch.Tensor) for answer in (one, other))), name
    differ = [not torch.equal(a.logit, b.logit) for a, b in pairwise(recorded)]
    assert sum(differ) >= 6


def test_the_host_never_waits_before_the_answer_is_there(monkeypatch, tiny_model):
    with stand_in_device(monkeypatch.setattr):
        predictor = load_predictor(str(tiny_model), NetworkConfig(device="auto", sure_depth=1.0))
        for frame in DRIVE[:3]:
            predictor.predict(frame, WINDOW)
        with no_host_waits():
            answer = predictor.predict(DRIVE[4], WINDOW)
        assert torch.isfinite(answer.logit).all() and (answer.weight > 0).any()


def test_what_a_keyframe_must_not_be(monkeypatch, tiny_model):
    with stand_in_device(monkeypatch.setattr):
        predictor = load_predictor(str(tiny_model), NetworkConfig(device="auto"))
        with pytest.raises(ValueError, match="no images"):
            predictor.predict(Keyframe(0, np.eye(4)), WINDOW)
        wrong = PosedImage("a", 0, np.zeros((10, 10, 3), np.uint8), MODELS[0], np.eye(4))
        with pytest.raises(CalibrationError, match="image of camera 'a' is 10x10"):
            predictor.predict(Keyframe(0, np.eye(4), (wrong,)), WINDOW)
        predictor.predict(DRIVE[0], WINDOW)
        before = predictor.predict(DRIVE[1], WINDOW).logit.cpu()
        predictor.reset()
        alone = predictor.predict(DRIVE[1], WINDOW).logit.cpu()
        assert not torch.equal(before, alone)
