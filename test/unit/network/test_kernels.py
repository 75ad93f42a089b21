# SPDX-License-Identifier: Apache-2.0
"""What is compiled for CPUs beside the torch code that says the same, slower and with gradients."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.compute.compiled import HAVE_KERNELS
from occupancy_nn_ros.network.depth import DepthBins, DepthRefiner, PlaneSweep, sure_depth
from occupancy_nn_ros.network.lifting import cumulative, sample_evidence
from occupancy_nn_ros.network.match_tables import MatchTables, feature_table, grey_tables
from occupancy_nn_ros.network.matching import MatchMaps, match_sources, of_unit_length
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.network.patches import image_patches
from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.network.volume import sample_volume

pytestmark = pytest.mark.skipif(not HAVE_KERNELS, reason="numba is not installed")

H, W, STRIDE = 64, 96, 8
BINS = DepthBins(12, 0.5, 12.0)


def views_of(count):
    rng = np.random.default_rng(0)
    poses = torch.eye(4).repeat(count, 1, 1)
    for n in range(count):
        turn = Rotation.from_euler("yxz", rng.uniform(-0.3, 0.3, 3)).as_matrix()
        poses[n, :3, :3] = torch.from_numpy(turn)
        poses[n, :3, 3] = torch.from_numpy(rng.uniform(-0.5, 0.5, 3))
    poses[1, :3, :3] = poses[1, :3, :3] @ torch.diag(
        torch.tensor([-1.0, 1, -1])
    )  # looks back: sees nothing of the rest
    K = torch.tensor([[60.0, 0, W / 2 - 1], [0, 61, H / 2 + 2], [0, 0, 1]]).repeat(count, 1, 1)
    return Views(torch.zeros(count, 3, H, W), K, poses)


def both(ask):
    """The answer of the torch code, then that of the kernels."""
    with torch.enable_grad():
        expected = ask()
    with torch.inference_mode():
        return expected, ask()


def looks_of(count, channels, groups, stride, masked):
    """The same random views as maps, and as tables."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(count, channels, H // stride, W // stride, generator=generator)
    images = torch.randn(count, 3, H, W, generator=generator) + 0.7
    images[0, :, :20] = 0.3  # without contrast
    opened = [torch.ones(1, H // n, W // n) for n in (stride, stride, 2)]
    if masked:
        opened = [(torch.rand(part.shape, generator=generator) > 0.2).float() for part in opened]
    maps, tables = [], []
    unit = of_unit_length(features, groups)
    for ours, raw, image, patches in zip(unit, features, images, image_patches(images), strict=True):
        maps.append(MatchMaps(ours, ours, patches).shown(*opened).coarse)
        table = feature_table(raw, groups)
        tables.append(MatchTables(table, table, *grey_tables(image)).shown(*opened).coarse)
    return maps, tables


@pytest.mark.parametrize(
    ("channels", "groups", "stride", "by_pixel", "masked"),
    [(18, 6, 8, False, False), (24, 4, 4, True, False), (10, 2, 8, True, True), (24, 12, 8, False, True)],
)
def test_the_compiled_sweep_says_what_the_plane_sweep_does(channels, groups, stride, by_pixel, masked):
    views, sweep = views_of(6), PlaneSweep(groups, stride)
    maps, tables = looks_of(6, channels, groups, stride, masked)
    depths = BINS.centers
    if by_pixel:
        depths = 0.3 + 5 * torch.rand(3, 6, H // stride, W // stride, generator=torch.Generator().manual_seed(3))
    sources = torch.tensor([[3, 5, 4, 1], [2, -1, 0, -1], [-1, -1, -1, -1]])
    with torch.inference_mode():
        expected, got = (match_sources(sweep, looks, views, sources, depths) for looks in (maps, tables))
    assert got.shape == expected.shape and not got[2].any()
    assert got[0, -1].max() == 3 and (got[:2, -1] == 0).any()  # the view that looks back is never counted
    same = got[:, -1] == expected[:, -1]
    assert same.float().mean() > 0.999  # a point on the border of a source may fall to either side
    same = same[:, None].expand_as(got)
    torch.testing.assert_close(got[same], expected[same], atol=2e-5, rtol=1e-4)
    assert got[:2, groups].abs().max() > 0.2  # the patches do match something


def test_a_view_is_matched_by_maps_or_by_tables_as_the_device_likes():
    torch.manual_seed(0)
    network = OccupancyNetwork(ModelConfig()).eval()
    images = torch.randn(1, 3, H, W)
    with torch.no_grad():
        maps = network.encode(images)
        (table,), (expected,) = network.matchable(images, maps), network.match_maps(images, maps)
    assert isinstance(table, MatchTables) and isinstance(network.matchable(images, maps)[0], MatchMaps)
    lanes = table.features[:, :, 0, :, :6]  # (h, w, steps, groups)
    torch.testing.assert_close(lanes.permute(3, 2, 0, 1).flatten(0, 1), expected.features, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("channels", [0, 5])
def test_compiled_evidence_is_that_of_torch(channels):
    views, generator = views_of(4), torch.Generator().manual_seed(1)
    nearer = cumulative(3 * torch.randn(4, 12, H // 4, W // 4, generator=generator))
    features = torch.randn(4, channels, H // 8, W // 8, generator=generator) if channels else None
    points = torch.rand(4000, 3, generator=generator) * 8 - torch.tensor([4.0, 4, 3])
    edge = 0.1 + torch.rand(4000, generator=generator)
    expected, got = both(lambda: sample_evidence(points, edge, views, nearer, BINS, features))
    assert 0.1 < (expected.visible > 0).float().mean() < 0.9
    for name in ("statistics", "visible", *(["features"] if channels else [])):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), atol=2e-4, rtol=1e-4)
    assert channels or got.features is None


def test_a_compiled_lookup_in_a_volume_is_that_of_torch():
    generator = torch.Generator().manual_seed(1)
    volume, places = torch.randn(3, 4, 5, 2, generator=generator), torch.rand(500, 3, generator=generator) * 2.6 - 1.3
    expected, got = both(lambda: sample_volume(volume, places))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (2, 12)])
def test_compiled_distributions_are_those_of_torch(size):
    """Split between cells, the stretch that is looked at closer, and summed up; NaN stays where it was."""
    logits = 4 * torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(1))
    refiner = DepthRefiner(DepthBins(16, 0.5, 12.0), 5, 4, 3, 2)
    split, got = both(lambda: refiner.split(logits))
    torch.testing.assert_close(got, split, atol=1e-5, rtol=1e-5)
    expected, got = both(lambda: refiner.candidates(split.detach()))
    assert torch.equal(got, expected)
    expected, got = both(lambda: cumulative(split.detach()))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    nearer = cumulative(split.detach())
    for least in (0.0, 0.5, 0.9):
        expected, got = both(partial(sure_depth, split.detach(), nearer, refiner.bins, least))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    logits[0, 3, 0, 0] = torch.nan
    split, got = both(lambda: refiner.split(logits))
    assert torch.equal(got.isnan(), split.isnan())
    _, got = both(lambda: refiner.candidates(split.detach()))
    assert got.min() >= 0 and got.max() < 16
