# SPDX-License-Identifier: Apache-2.0
"""A depth network that is a known function of the picture: what is fitted, fused, left out and refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.errors import CheckpointError, ConfigError
from occupancy_nn_ros.runtime.depth_model import DepthModel
from occupancy_nn_ros.runtime.depth_scale import LEAST_ANCHORS, fit_metres, to_metres
from occupancy_nn_ros.values import CameraModel, PosedDepth, PosedImage

K = np.array([[150.0, 0, 99.5], [0, 150.0, 74.5], [0, 0, 1]])
MODEL = CameraModel(200, 150, K, "none", np.zeros(0))
SMALL = CameraModel(50, 38, np.array([[37.5, 0, 24.5], [0, 37.5, 18.5], [0, 0, 1]]), "none", np.zeros(0))


@given(st.floats(0.01, 50), st.floats(-0.05, 0.5), st.floats(0, 0.3), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_disparity_is_fitted_through_wrong_anchors(factor, offset, wrong, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 8.0, 400)
    raw = (1 / truth - offset) / factor
    known = np.where(
        rng.random(400) < wrong, truth * rng.choice([0.5, 1.7, 2.5], 400), truth * rng.normal(1, 0.01, 400)
    )
    fit = fit_metres(raw, known, "disparity")
    assert fit is not None
    assert np.median(np.abs(to_metres(raw, fit, "disparity") / truth - 1)) < 0.02


@given(st.floats(0.1, 15), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_factor_of_depth_is_the_median_ratio(factor, seed):
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0.1, 5, 301)
    known = raw * factor * np.exp(rng.normal(0, 0.02, 301))
    fit = fit_metres(raw, known, "depth")
    usable = known > 0.05
    assert fit is not None
    assert fit[0] == pytest.approx(np.exp(np.median(np.log(known[usable] / raw[usable]))), rel=1e-9)


def test_too_few_anchors_and_anchors_that_agree_on_nothing_fit_nothing():
    rng = np.random.default_rng(1)
    raw, truth = rng.uniform(0.1, 2, 500), rng.uniform(0.5, 8, 500)
    assert fit_metres(raw[: LEAST_ANCHORS - 1], 1 / raw[: LEAST_ANCHORS - 1], "disparity") is None
    assert fit_metres(raw, truth, "disparity") is None
    assert fit_metres(np.full(500, 0.3), truth, "disparity") is None
    assert fit_metres(raw, 1 / (3 - raw), "disparity") is None  # the farther, the larger: no disparity
    assert np.isnan(to_metres(np.array([0.0, -1.0, 1e9]), (1.0, 0.0), "disparity")).all()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """A model whose output is the mean of the three colours, and how to make others."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

    def make(shape=(1, 3, 84, 112), name="mean.onnx", inputs=1, notes="mean: [0, 0, 0]\nstd: [1, 1, 1]\n"):
        path = tmp_path_factory.mktemp("depth") / name
        image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)
        others = [
            onnx.helper.make_tensor_value_info(f"other{n}", onnx.TensorProto.FLOAT, [1]) for n in range(inputs - 1)
        ]
        out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
        axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
        node = onnx.helper.make_node("ReduceMean", ["image", "axes"], ["out"], keepdims=1)
        graph = onnx.helper.make_graph([node], "mean", [image, *others], [out], [axes])
        onnx.save(
            onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), str(path)
        )
        if notes:
            path.with_suffix(".yaml").write_text(notes)
        return path

    return make


def truth_of(model):
    """A slanted wall from 1 to 5 m, by the tangents of each pixel's ray."""
    u, v = np.meshgrid(np.arange(model.width), np.arange(model.height))
    x, y = (u - model.K[0, 2]) / model.K[0, 0], (v - model.K[1, 2]) / model.K[1, 1]
    return 1 / (0.45 + 0.4 * x + 0.2 * y)


def look(known_share=0.5, wrong=0.0, seed=0):
    """A picture whose grey is a line in inverse depth, and depth that is known of a part of it."""
    rng = np.random.default_rng(seed)
    grey = np.round(255 * (0.2 + 0.8 / truth_of(MODEL))).clip(0, 255).astype(np.uint8)
    truth = truth_of(SMALL)
    known = np.where(rng.random(truth.shape) < known_share, truth, 0)
    known = np.where(rng.random(truth.shape) < wrong, known * 1.6, known)
    image = PosedImage("front", 5, np.repeat(grey[..., None], 3, axis=2), MODEL, np.eye(4))
    return image, PosedDepth("front", 5, known.astype(np.float32), SMALL, np.eye(4))


@pytest.mark.parametrize("wrong", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(1, 3, 84, 112), (1, 3, "h", "w"), (1, 3, 90, 90)])
def test_depth_comes_out_in_metres_everywhere(onnx_file, shape, wrong):
    model = DepthModel.load(onnx_file(shape))
    found = model.measure(*look(wrong=wrong))
    assert (found.camera, found.stamp_ns) == ("front", 5)
    measured = found.depth_m > 0
    assert measured.mean() > (0.73 if shape[2] == 90 else 0.95)  # a 4:3 picture in a square has empty borders
    assert np.median(np.abs(found.depth_m / truth_of(found.model) - 1)[measured]) < 0.01
    assert not model.left_out


def test_an_image_of_which_nothing_is_known_is_left_out_and_counted(onnx_file):
    model = DepthModel.load(onnx_file())
    assert model.measure(*look(known_share=0.005)) is None
    assert dict(model.left_out) == {"front: the depth model fits no known depth": 1}


def test_a_model_that_means_depth_says_so_beside_it(onnx_file):
    model = DepthModel.load(onnx_file(notes="output: depth\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n"))
    assert model.measure(*look()) is None  # read as depth, this picture is inside out


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        ({"inputs": 2}, CheckpointError, r"its inputs are .*, expected one of \(1, 3, H, W\)"),
        ({"shape": (1, 1, 84, 112)}, CheckpointError, "no depth model"),
        ({"shape": (1, 3, 8, 8)}, CheckpointError, "takes 8x8 pixels"),
        ({"notes": "mean: [0, 0]\n"}, ConfigError, "three in mean and std"),
        ({"notes": "outputs: depth\n"}, ConfigError, "did you mean 'output'"),
    ],
)
def test_what_is_no_depth_model_is_refused(onnx_file, made, error, words):
    with pytest.raises(error, match=words):
        DepthModel.load(onnx_file(**made))


def test_a_missing_or_damaged_file_is_refused(onnx_file, tmp_path):
    with pytest.raises(CheckpointError, match="no depth model at"):
        DepthModel.load(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="cannot read depth model"):
        DepthModel.load(tmp_path / "bad.onnx")
