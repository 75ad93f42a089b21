# SPDX-License-Identifier: Apache-2.0
"""The exported graphs answer as the network does: as modules in torch, and as ONNX graphs in onnxruntime."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint, save_checkpoint
from occupancy_nn_ros.network.depth import relative_poses
from occupancy_nn_ros.network.export import GraphShape, default_size, example_inputs
from occupancy_nn_ros.network.graphs import make_graphs
from occupancy_nn_ros.network.matching import FeatureMaps
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.network.views import Views, normalize_images

SHAPE = GraphShape(views=2, height=64, width=96, sources=1)
POINTS = 700
SOURCES = torch.tensor([[3], [-1]])
"""View 0 is matched against a past one, view 1 against none."""


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(5)
    config = ModelConfig(
        canvas_pixels=6144, widths=(8, 8, 16, 16), feature_channels=16, match_groups=2, match_width=4, depth_bins=12,
        detail_channels=8, detail_groups=2, detail_width=4, detail_planes=6,
        volume_cell_m=0.8, volume_shape=(12, 12, 4), volume_features=4, volume_channels=6, volume_width=16,
        decoder_width=16, range_m=4.0,
    )  # fmt: skip
    network = OccupancyNetwork(config).eval()
    network.depth_head.up[-1].weight.data *= 20  # answers that differ from place to place
    torch.nn.init.normal_(network.refiner.correct[1].weight)
    network.decoder.layers[-1].weight.data *= 40
    network.decoder.layers[-1].bias.data[0] = 0
    return Checkpoint(network, Calibration(1.3, -0.2, 0.6, 0.4, -1.0))


@pytest.fixture(scope="module")
def scene():
    """Two views, two past ones beside them, and points around, some of them behind the cameras."""
    rng = np.random.default_rng(8)
    K = torch.tensor([[60.0, 0, 46], [0, 61, 33], [0, 0, 1]]).repeat(4, 1, 1)
    poses = np.tile(np.eye(4), (4, 1, 1))
    for n, (yaw, place) in enumerate(
        [(0, (0.1, 0, 0.7)), (0.2, (0.3, 0.2, 0.7)), (0, (0, -0.1, 0.7)), (0.3, (0.1, 0.3, 0.7))]
    ):
        turn = Rotation.from_euler("z", yaw).as_matrix()
        poses[n, :3, :3] = turn @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        poses[n, :3, 3] = place
    images = torch.from_numpy(rng.integers(0, 255, (4, 8, 12, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8))
    points = torch.from_numpy(rng.uniform((-5, -5, -1), (6, 5, 2), (POINTS, 3))).float()
    return images, K, torch.from_numpy(poses).float(), points, torch.full((POINTS,), 0.2)


@pytest.fixture(scope="module")
def expected(checkpoint, scene):
    """Log-odds, class logits and visibility as the network gives them."""
    network, fit = checkpoint.network, checkpoint.calibration
    images, K, poses, points, edge = scene
    with torch.inference_mode():
        pictures = normalize_images(images)
        maps = network.encode(pictures)
        match, current = network.match_maps(pictures, maps), FeatureMaps(*(part[:2] for part in maps))
        depth = network.depth(current, Views(pictures, K, poses), match, SOURCES)
        lifted = network.lift(Views(pictures[:2], K[:2], poses[:2]), current, depth, torch.zeros(3))
        logits, visible = network.query(lifted, points, edge)
        seen = logits[:, 0] * fit.visible_scale + fit.visible_offset
        hidden = logits[:, 0] * fit.inferred_scale + fit.inferred_offset
    log_odds = torch.where(visible >= 0.5, seen, hidden)
    assert torch.sigmoid(log_odds).std() > 0.1 and 0 < (visible > 0).float().mean() < 1
    return log_odds.numpy(), logits[:, 1:].numpy(), visible.numpy()


def run_all(scene, run):
    """Feed four graphs one after the other; ``run`` maps a graph's name and its inputs to its outputs."""
    images, K, poses, points, edge = (value.numpy() for value in scene)
    features, details, *match = run("encoder", images=images[:2])
    _, _, *past = run("encoder", images=images[2:])
    index = SOURCES.clamp(min=0)
    sources = [np.concatenate(parts)[index.numpy()] for parts in zip(match, past, strict=True)]
    views = Views(scene[0], scene[1], scene[2])
    relative = relative_poses(views, torch.arange(2), index.flatten()).view(2, 1, 4, 4).numpy()
    (depth,) = run(
        "depth", features=features, details=details, K=K[:2], source_K=K[index.numpy()],
        **dict(zip(("match", "match_details", "patches"), match, strict=True)),
        **dict(zip(("source_match", "source_details", "source_patches"), sources, strict=True)),
        T_source_view=relative, has_source=(SOURCES >= 0).float().numpy(),
    )  # fmt: skip
    context, nearer = run("lift", features=features, depth_logits=depth, K=K[:2], T_base_cam=poses[:2])
    return run("query", points=points, edge_m=edge, context=context, nearer=nearer, K=K[:2], T_base_cam=poses[:2])


def probability(log_odds):
    return 1 / (1 + np.exp(-log_odds.astype(np.float64)))


def assert_agree(got, expected, tolerance):
    assert np.abs(probability(got[0]) - probability(expected[0])).max() < tolerance
    np.testing.assert_allclose(got[1], expected[1], atol=50 * tolerance)
    np.testing.assert_allclose(got[2], expected[2], atol=tolerance)


def test_graphs_as_modules_agree_with_the_network(checkpoint, scene, expected):
    graphs = make_graphs(checkpoint)

    def run(name, **inputs):
        with torch.inference_mode():
            out = graphs[name](*(torch.from_numpy(inputs[key]) for key in graphs[name].inputs))
        return [t.numpy() for t in (out if isinstance(out, tuple) else (out,))]

    assert_agree(run_all(scene, run), expected, 1e-5)


def test_depth_of_several_sources_as_a_module(checkpoint, scene):
    """Each view against two others, one of them missing: the sweep pairs up what belongs together."""
    network, (images, K, poses, _, _) = checkpoint.network, scene
    sources = torch.tensor([[1, 2], [3, -1]])
    with torch.inference_mode():
        pictures = normalize_images(images)
        maps = network.encode(pictures)
        match, current = network.match_maps(pictures, maps), FeatureMaps(*(part[:2] for part in maps))
        views, index, rows = Views(images, K, poses), sources.clamp(min=0), torch.arange(2).repeat_interleave(2)
        relative = relative_poses(views, rows, index.flatten()).view(2, 2, 4, 4)
        graph = make_graphs(checkpoint)["depth"]
        stacked = [torch.stack(parts) for parts in zip(*match, strict=True)]
        matches, source_matches = (part[:2] for part in stacked), (part[index] for part in stacked)
        has_source = (sources >= 0).float()
        got = graph(*current, *matches, K[:2], *source_matches, K[index], relative, has_source)
        expected = network.depth(current, views, match, sources)[-1]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        unmatched = network.depth(current, views, match, torch.full_like(sources, -1))[-1]
    assert (got - unmatched).abs().max() > 0.1


def test_onnx_graphs_agree_with_the_network(checkpoint, scene, expected, tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'occupancy-nn-ros[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    save_checkpoint(checkpoint, tmp_path / "m.safetensors")
    out = tmp_path / "out"
    assert (
        main(
            [
                "export",
                str(tmp_path / "m.safetensors"),
                "--out",
                str(out),
                "--views",
                "2",
                "--size",
                "96",
                "64",
                "--sources",
                "1",
            ]
        )
        == 0
    )
    paths = [out / name for name in ("encoder.onnx", "depth.onnx", "lift.onnx", "query.onnx", "model.json")]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    description = json.loads(paths[-1].read_text())
    assert description["shape"] == {"views": 2, "height": 64, "width": 96, "sources": 1}
    assert description["graphs"]["query"]["inputs"]["points"] == {"shape": ["P", 3], "dtype": "float32"}
    assert description["calibration"]["visible_scale"] == 1.3
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {p.stem: runtime.InferenceSession(p, options, providers=["CPUExecutionProvider"]) for p in paths[:-1]}

    def run(name, **inputs):
        assert [i.name for i in sessions[name].get_inputs()] == list(description["graphs"][name]["inputs"])
        return sessions[name].run(description["graphs"][name]["outputs"], inputs)

    assert_agree(run_all(scene, run), expected, 1e-4)  # in probability


def test_default_size_and_shapes(checkpoint):
    assert default_size(ModelConfig()) == (256, 192)
    inputs = example_inputs(checkpoint.network, SHAPE)
    assert inputs["features"].shape == (2, 16, 8, 12)
    assert inputs["source_match"].shape == (2, 1, 16, 8, 12)
    assert inputs["source_details"].shape == (2, 1, 8, 16, 24)
    assert inputs["nearer"].shape == (2, 25, 16, 24)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 64, 96), "views is 0, expected at least 1"),
        ((1, 60, 96), "height is 60, expected a positive multiple of 32"),
        ((1, 64, 0), "width is 0"),
        ((1, 64, 64, 0), "sources is 0, expected at least 1"),
    ],
)
def test_shapes_that_cannot_be(arguments, words):
    with pytest.raises(ConfigError, match=words):
        GraphShape(*arguments)
