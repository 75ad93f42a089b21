# SPDX-License-Identifier: Apache-2.0
"""What is compiled for CPUs beside the torch code that says the same, slower and with gradients."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.compute.compiled import HAVE_KERNELS
from occupancy_nn_ros.network import model as network_model
from occupancy_nn_ros.network.depth import Appearance, DepthBins, PlaneSweep
from occupancy_nn_ros.network.fused_sweep import can_fuse
from occupancy_nn_ros.network.lifting import cumulative, sample_evidence
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


@pytest.mark.parametrize(("by_pixel", "channels_last"), [(False, True), (True, False)])
def test_the_compiled_sweep_says_what_the_plane_sweep_does(by_pixel, channels_last):
    views, sweep, generator = views_of(6), PlaneSweep(2, STRIDE), torch.Generator().manual_seed(2)
    shapes = (6, 8, H // STRIDE, W // STRIDE), (6, 25, H // 2, W // 2)
    maps = [torch.randn(shape, generator=generator) for shape in shapes]
    if channels_last:
        maps = [part.contiguous(memory_format=torch.channels_last) for part in maps]
    looks = [Appearance(*parts) for parts in zip(*maps, strict=True)]
    depths = 0.3 + 5 * torch.rand(3, 6, H // STRIDE, W // STRIDE, generator=generator) if by_pixel else BINS.centers
    sources = torch.tensor([[3, 5, 4, 1], [2, -1, 0, -1], [-1, -1, -1, -1]])
    expected, got = both(lambda: network_model._match(sweep, looks, views, sources, depths))
    assert got.shape == expected.shape and not got[2].any()
    assert got[0, -1].max() == 3 and (got[:2, -1] == 0).any()  # the view that looks back is never counted
    same = got[:, -1] == expected[:, -1]
    assert same.float().mean() > 0.999  # a point on the border of a source may fall to either side
    same = same[:, None].expand_as(got)
    torch.testing.assert_close(got[same], expected[same], atol=1e-4, rtol=1e-4)


def test_what_the_compiled_sweep_does_not_take_is_left_to_torch():
    look = Appearance(torch.zeros(4, 3, 3), torch.zeros(25, 12, 12))
    with torch.no_grad():
        assert can_fuse(look, 8) and not can_fuse(look, 9)
        assert not can_fuse(look._replace(features=look.features.bfloat16()), 2)
    assert not can_fuse(look, 2)


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
