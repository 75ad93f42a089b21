# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import pickle
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from occupancy_nn_ros.errors import CheckpointError
from occupancy_nn_ros.network import checkpoint as module
from occupancy_nn_ros.network.checkpoint import (
    Calibration,
    Checkpoint,
    blend_checkpoints,
    find_model,
    grow_checkpoint,
    load_checkpoint,
    read_header,
    save_checkpoint,
)
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork

TINY = ModelConfig(
    canvas_pixels=4096, widths=(8, 8, 8, 8), feature_channels=8, match_groups=2, match_width=4, depth_bins=8,
    volume_shape=(8, 8, 4), volume_features=2, volume_channels=2, volume_width=8, decoder_width=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    original = Checkpoint(OccupancyNetwork(TINY), Calibration(0.8, 0.1, 0.3, -0.2), {"step": 12, "scores": [0.5]})
    save_checkpoint(original, path)
    return path, original


def changed(path, target, *, weights=None, header=None):
    """A copy of a model file with other weights or header entries; None removes one."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    for values, into in ((weights or {}, tensors), (header or {}, metadata)):
        for name, value in values.items():
            into.pop(name, None)
            if value is not None:
                into[name] = value
    save_file(tensors, str(target), metadata=metadata)
    return target


def test_round_trip(saved):
    path, original = saved
    loaded = load_checkpoint(path)
    assert loaded.network.config == TINY
    assert loaded.calibration == original.calibration
    assert loaded.record == {"step": 12, "scores": [0.5]}
    assert not loaded.network.training
    expected = original.network.state_dict()
    assert loaded.network.state_dict().keys() == expected.keys()
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert read_header(path)["config"]["depth_bins"] == 8
    assert not list(path.parent.glob("*.partial"))


def test_a_name_is_looked_up_and_a_path_taken(saved, monkeypatch):
    path, _ = saved
    assert find_model(str(path)) == path
    monkeypatch.setattr(module, "resource_path", lambda name: path.parent / name.removeprefix("models/"))
    assert find_model("tiny").name == "tiny.safetensors"


def test_models_that_do_not_exist_are_named_with_those_that_do(saved, monkeypatch, tmp_path):
    path, _ = saved
    with pytest.raises(CheckpointError, match=r"no model file at .*none\.safetensors"):
        find_model(str(tmp_path / "none.safetensors"))
    with pytest.raises(CheckpointError, match="no model named 'nanoo'"):
        find_model("nanoo")

    def only_folder(name):
        if name == "models":
            return path.parent
        raise module.OccupancyError(name)

    monkeypatch.setattr(module, "resource_path", only_folder)
    with pytest.raises(CheckpointError, match=r"models that exist: tiny$"):
        find_model("nanoo")


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 200, pickle.dumps({"a": 1}), b"\x80\x02}q\x00."])
def test_foreign_files_are_refused_and_nothing_in_them_runs(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read model"):
        load_checkpoint(path)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.999])
def test_truncated_files_are_refused(saved, tmp_path, keep):
    whole = saved[0].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(CheckpointError, match="cannot read model"):
        load_checkpoint(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(CheckpointError, match="cannot read model"):
            load_checkpoint(path)


def test_a_network_grows_from_a_smaller_one(saved):
    path, original = saved
    larger = dataclasses.replace(TINY, detail_planes=8)
    grown = grow_checkpoint(path, larger, ("refiner.",)).network
    assert grown.config == larger
    old = original.network.state_dict()
    for name, tensor in grown.state_dict().items():
        assert name.startswith("refiner.") or torch.equal(tensor, old[name]), name


def test_a_network_that_has_grown_by_context_answers_as_before_until_it_learns(saved):
    path, checkpoint = saved
    larger = dataclasses.replace(TINY, wide_channels=8, further_blocks=2)
    before = checkpoint.network
    grown = grow_checkpoint(path, larger, ("depth_head.wide.", "encoder.stage16.3.", "encoder.stage16.4.")).network
    images = torch.rand(2, 3, 80, 112, generator=torch.Generator().manual_seed(0))  # 2.5 x 3.5 cells at stride 32
    with torch.inference_mode():
        features, same = before.encode(images).features, grown.encode(images).features
        count = before.sweep.correlations
        matches = torch.rand(2, 2 * count + 1, TINY.depth_bins, *features.shape[-2:])
        assert torch.equal(features, same)
        assert torch.equal(before.depth_head(features, matches), grown.depth_head(features, matches))
    logits = grown.depth_head(grown.encode(images).features, matches)
    logits.square().mean().backward()
    assert grown.depth_head.wide.expand.weight.grad.abs().max() > 0
    assert grown.encoder.stage16[3].second[1].weight.grad.abs().max() > 0


def test_context_reaches_across_the_whole_picture(saved):
    larger = dataclasses.replace(TINY, wide_channels=8)
    wide = grow_checkpoint(saved[0], larger, ("depth_head.wide.",)).network.depth_head.wide
    torch.nn.init.normal_(wide.expand.weight)
    features = torch.rand(1, wide.expand.out_channels, 16, 22, generator=torch.Generator().manual_seed(0))
    other = features.clone()
    other[..., 0, 0] += 1
    with torch.inference_mode():
        changed = (wide(features) - wide(other)).abs().amax(dim=1)[0]
    assert (changed[-1, -1] > 0) and changed.shape == (16, 22)


@pytest.mark.parametrize(
    ("change", "fresh", "words"),
    [
        ({"detail_planes": 8}, ("to_volume.",), "refiner"),
        ({"depth_bins": 10}, ("refiner.",), "depth_head.*expected"),
        ({}, ("wings.",), "no part of the network is named 'wings.'; parts: .*decoder"),
    ],
)
def test_growing_refuses_what_does_not_fit(saved, change, fresh, words):
    with pytest.raises(CheckpointError, match=words):
        grow_checkpoint(saved[0], dataclasses.replace(TINY, **change), fresh)


def config_text(**changes):
    values = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__}
    return json.dumps({**values, **changes})


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"format": "another"}, "says format 'another'"),
        ({"format": None}, "says format 'None'"),
        ({"version": "99"}, "version 99, this package reads version 1"),
        ({"config": None}, "damaged header"),
        ({"config": "{"}, "damaged header"),
        ({"config": "[]"}, "damaged header: config"),
        ({"calibration": "3"}, "damaged header: calibration"),
        ({"config": config_text(depth_bins=10**9)}, "depth_bins is 1000000000"),
        ({"config": config_text(wings=2)}, "unknown setting 'wings'"),
        ({"config": config_text(widths="abc")}, "widths is 'abc'"),
        ({"config": config_text(depth_bins=9)}, "expected"),
        ({"calibration": '{"visible_scale": NaN}'}, "visible_scale is nan"),
    ],
)
def test_headers_that_lie_are_refused(saved, tmp_path, header, words):
    path = changed(saved[0], tmp_path / "x.safetensors", header=header)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"decoder.evidence.weight": None}, r"lacks 1 weights \['decoder.evidence.weight'\]"),
        ({"decoder.extra": torch.zeros(3)}, r"1 unknown \['decoder.extra'\]"),
        ({"decoder.evidence.weight": torch.zeros(2, 8)}, r"is \(2, 8\), expected \(1, 8\)"),
        ({"decoder.evidence.weight": torch.full((1, 8), float("nan"))}, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved, tmp_path, weights, words):
    path = changed(saved[0], tmp_path / "x.safetensors", weights=weights)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_a_place_that_cannot_be_written(saved, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="cannot write model"):
        save_checkpoint(saved[1], tmp_path / "file" / "x.safetensors")


def test_a_file_that_claims_a_huge_network_is_refused_before_that_is_made(saved, tmp_path):
    """All widths at their limits: 900 million weights, 3.5 GB. The file itself has a few kilobytes."""
    huge = dataclasses.asdict(TINY) | {
        "widths": [1024] * 4, "feature_channels": 1024, "detail_channels": 1024, "volume_width": 1024,
        "volume_features": 256, "volume_channels": 256, "decoder_width": 1024,
    }  # fmt: skip
    path = changed(saved[0], tmp_path / "huge.safetensors", header={"config": json.dumps(huge)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"expected \(1024"):
        load_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_a_context_volume_that_would_not_fit_is_refused(saved, tmp_path):
    huge = dataclasses.asdict(TINY) | {"volume_shape": [1024, 1024, 16]}
    path = changed(saved[0], tmp_path / "huge.safetensors", header={"config": json.dumps(huge)})
    with pytest.raises(CheckpointError, match=r"volume_shape .* expected at most 4194304 cells"):
        load_checkpoint(path)


def test_weights_of_another_type_are_refused(saved, tmp_path):
    name, tensor = next(iter(saved[1].network.state_dict().items()))
    path = changed(saved[0], tmp_path / "half.safetensors", weights={name: tensor.to(torch.int64)})
    with pytest.raises(CheckpointError, match=f"{name} is torch.int64, expected torch.float32"):
        load_checkpoint(path)


def test_a_blend_lies_between_two_models_and_keeps_the_first_ones_calibration():
    torch.manual_seed(2)
    first = Checkpoint(OccupancyNetwork(TINY), Calibration(0.8, 0.1, 0.3, -0.2), {"step": 12})
    second = Checkpoint(OccupancyNetwork(TINY), Calibration(), {"step": 20})
    blend = blend_checkpoints(first, second, 0.25)
    assert blend.calibration == first.calibration and not blend.network.training
    assert blend.record == {"first": {"step": 12}, "second": {"step": 20}, "share_of_second": 0.25}
    for name, value in blend.network.state_dict().items():
        one, other = (model.network.state_dict()[name] for model in (first, second))
        torch.testing.assert_close(value, 0.75 * one + 0.25 * other)
    for share, same in ((0.0, first), (1.0, second)):
        found = blend_checkpoints(first, second, share).network.state_dict()
        assert all(torch.equal(found[name], value) for name, value in same.network.state_dict().items())


def test_models_of_different_networks_do_not_blend():
    wider = dataclasses.replace(TINY, decoder_width=16)
    with pytest.raises(CheckpointError, match="different networks"):
        blend_checkpoints(Checkpoint(OccupancyNetwork(TINY)), Checkpoint(OccupancyNetwork(wider)), 0.5)
