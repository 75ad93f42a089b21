# SPDX-License-Identifier: Apache-2.0
"""The way of a GPU, all views at once, beside the way of a CPU, one after the other; and geometry under autocast."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.network.dense_lifting import dense_evidence
from occupancy_nn_ros.network.dense_matching import match_all, project_pairs
from occupancy_nn_ros.network.depth import Appearance, DepthBins, PlaneSweep
from occupancy_nn_ros.network.lifting import cumulative, sample_evidence
from occupancy_nn_ros.network.matching import match_sources
from occupancy_nn_ros.network.views import Views, to_camera

H, W, STRIDE = 64, 96, 8
BINS = DepthBins(12, 0.5, 12.0)


def random_views(count, seed=0):
    """Views that stand and look about alike, as those of a drive do."""
    rng = np.random.default_rng(seed)
    poses = torch.eye(4).repeat(count, 1, 1)
    for n in range(count):
        turn = Rotation.from_euler("yx", rng.uniform(-0.3, 0.3, 2)).as_matrix()
        poses[n, :3, :3] = torch.from_numpy(turn)
        poses[n, :3, 3] = torch.from_numpy(rng.uniform(-0.5, 0.5, 3))
    K = torch.tensor([[60.0, 0, W / 2 - 1], [0, 61, H / 2 + 2], [0, 0, 1]]).repeat(count, 1, 1)
    K[:, 0, 0] += torch.arange(count)
    return Views(torch.rand(count, 3, H, W), K, poses)


def appearances(count, stride=STRIDE):
    generator = torch.Generator().manual_seed(count)
    shapes = (8, H // stride, W // stride), (25, H // 2, W // 2)
    return [Appearance(*(torch.randn(shape, generator=generator) for shape in shapes)) for _ in range(count)]


@pytest.mark.parametrize("by_pixel", [False, True])
def test_matching_all_at_once_is_matching_one_after_the_other(by_pixel):
    """Also where views have fewer sources than others, or none."""
    views, looks, sweep = random_views(5), appearances(5), PlaneSweep(2, STRIDE)
    sources = torch.tensor([[3, 1, 4], [2, -1, -1], [-1, -1, -1]])
    depths = BINS.centers
    if by_pixel:
        depths = 1 + 5 * torch.rand(3, 6, H // STRIDE, W // STRIDE, generator=torch.Generator().manual_seed(4))
    expected = match_sources(sweep, looks, views, sources, depths)
    got = match_all(sweep, looks, views, sources, depths)
    assert got.shape == expected.shape and expected[:2].abs().max() > 1 and not got[2].any()
    counts = got[:, -1], expected[:, -1]
    assert (counts[0] == counts[1]).float().mean() > 0.999  # a point on the border of a source may fall to either side
    same = (counts[0] == counts[1])[:, None].expand_as(got)
    torch.testing.assert_close(got[same], expected[same], atol=2e-4, rtol=1e-4)


def test_evidence_of_all_points_at_once_is_that_view_by_view():
    views = random_views(4)
    generator = torch.Generator().manual_seed(1)
    nearer = cumulative(3 * torch.randn(4, 12, H // 4, W // 4, generator=generator))
    features = torch.randn(4, 5, H // 8, W // 8, generator=generator)
    points = 4 * torch.randn(500, 3, generator=generator)
    edge = torch.full((500,), 0.3)
    expected = sample_evidence(points, edge, views, nearer, BINS, features)
    statistics, visible, merged = dense_evidence(points, edge, views.K, views.T_world_cam, nearer, BINS, features)
    assert (expected.visible > 0).float().mean() > 0.1
    for got, one in ((statistics, expected.statistics), (visible, expected.visible), (merged, expected.features)):
        torch.testing.assert_close(got, one, atol=1e-4, rtol=1e-4)


def test_geometry_keeps_its_digits_under_autocast():
    """Places in pictures are the same to the bit, whatever precision activations have."""
    views, points = random_views(3), torch.rand(200, 3) + torch.tensor([0.0, 0, 2])
    pairs = torch.tensor([0, 1]), torch.tensor([1, 2])
    depths = BINS.centers.view(1, -1, 1)
    sweep = PlaneSweep(2, STRIDE)
    T_source_ref = torch.eye(4)[None]

    def places():
        yield to_camera(points, views.T_world_cam[0])
        yield from project_pairs(views, pairs, depths, (H // STRIDE, W // STRIDE), STRIDE)
        yield from sweep._project(T_source_ref, views.K[0], views.K[1:2], BINS.centers, (H // STRIDE, W // STRIDE))

    expected = list(places())
    with torch.autocast("cpu", torch.bfloat16):
        assert (views.K @ views.K).dtype == torch.bfloat16
        got = list(places())
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
