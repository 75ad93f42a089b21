# SPDX-License-Identifier: Apache-2.0
"""The geometry inside the network, on scenes whose answer is known."""

import numpy as np
import pytest
import torch

from occupancy_nn_ros.network.convolution import Conv3d, Conv3dBlock, channels_beside
from occupancy_nn_ros.network.correlation import correlate
from occupancy_nn_ros.network.depth import (
    Appearance,
    DepthBins,
    DepthRefiner,
    PlaneSweep,
    merge_sources,
    pixel_rays,
    relative_poses,
    sure_depth,
)
from occupancy_nn_ros.network.lifting import HALF_DEPTH, cumulative, sample_evidence
from occupancy_nn_ros.network.patches import CHANNELS, image_patches, patches_at
from occupancy_nn_ros.network.views import Views
from occupancy_nn_ros.network.volume import VolumeGrid, sample_volume
from occupancy_nn_ros.training.losses import depth_loss, depth_losses

BINS = DepthBins(24, 0.5, 12.0)
H, W, STRIDE = 24, 32, 8
BLANK_PATCHES = torch.zeros(CHANNELS, 4 * H, 4 * W)


def test_bins_have_equal_ratios_and_hold_their_centres():
    edges = BINS.edges.double()
    torch.testing.assert_close(
        edges[1:] / edges[:-1], torch.full((24,), 24.0 ** (1 / 24), dtype=torch.double), rtol=1e-5, atol=0
    )
    assert edges[0] == 0.5 and abs(float(edges[-1]) - 12.0) < 1e-4
    assert BINS.index(BINS.centers).tolist() == list(range(24))
    assert BINS.index(torch.tensor([0.0, 0.1, 12.1, 1e6])).tolist() == [0, 0, 23, 23]
    torch.testing.assert_close(BINS.position(BINS.edges), torch.arange(25.0), atol=1e-4, rtol=0)


def test_rays_go_through_the_centres_of_feature_cells():
    K = torch.tensor([[[100.0, 0, 50], [0, 80, 40], [0, 0, 1]]])
    rays = pixel_rays(K, 3, 4, 8).reshape(1, 3, 3, 4)
    # Cell (1, 2) covers rows 8 to 15 and columns 16 to 23: its centre is at (19.5, 11.5).
    torch.testing.assert_close(rays[0, :, 1, 2], torch.tensor([(19.5 - 50) / 100, (11.5 - 40) / 80, 1.0]))


def textured_plane_features(T_world_cam, K, normal, offset, *, waves):
    """Unit-length features (1, C, H, W) of a wavy texture painted on the plane normal . p = offset, ray-cast."""
    rays = pixel_rays(K[None].double(), H, W, STRIDE)[0].T @ T_world_cam[:3, :3].double().T
    origin = T_world_cam[:3, 3].double()
    depth = (offset - origin @ normal) / (rays @ normal)
    points = origin + rays * depth[:, None]
    features = torch.cat([torch.sin(points @ waves), torch.cos(points @ waves)], dim=1)
    features = torch.nn.functional.normalize(features.float(), dim=1)
    return features.T.reshape(1, -1, H, W), depth.reshape(H, W)


@pytest.mark.parametrize("depth_m", [1.2, 2.5, 5.0])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_the_sweep_peaks_at_the_depth_of_a_textured_plane(depth_m, tilt):
    K = torch.tensor([[220.0, 0, 127.5], [0, 220.0, 95.5], [0, 0, 1]])
    reference, source = torch.eye(4), torch.eye(4)
    source[0, 3], source[1, 3] = 0.3 * depth_m, -0.1 * depth_m
    normal = torch.tensor([tilt, 0.0, 1.0], dtype=torch.double)
    waves = torch.randn(3, 12, generator=torch.Generator().manual_seed(4), dtype=torch.double) * 9 / depth_m
    first, depth = textured_plane_features(reference, K, normal, depth_m, waves=waves)
    second, _ = textured_plane_features(source, K, normal, depth_m, waves=waves)
    views = Views(torch.zeros(2, 3, H * STRIDE, W * STRIDE), K.expand(2, 3, 3), torch.stack([reference, source]))
    T_source_ref = relative_poses(views, torch.tensor([0]), torch.tensor([1]))
    reference, other = (Appearance(features[0], BLANK_PATCHES) for features in (first, second))
    swept = PlaneSweep(1, STRIDE)(reference, [other], T_source_ref, K, K[None], BINS.centers)
    assert [part.shape for part in swept] == [(1, 2, 24, H, W), (1, 1, 24, H, W)]
    correlation, seen = (part[0, 0] for part in swept)
    assert set(seen.unique().tolist()) <= {0.0, 1.0}
    interior = seen.gather(0, BINS.index(depth.float())[None])[0] > 0
    assert interior.float().mean() > 0.5
    found, expected = correlation.argmax(dim=0)[interior], BINS.index(depth.float())[interior]
    assert ((found - expected).abs() <= 1).float().mean() > 0.97
    assert (found == expected).float().mean() > 0.8
    at_truth = correlation.gather(0, BINS.index(depth.float())[None])[0][interior]
    assert at_truth.mean() > 0.9


@pytest.mark.parametrize(("channels", "groups", "size"), [(6, 2, (9, 7)), (5, 1, (20, 33)), (4, 4, (2, 2))])
def test_maps_are_correlated_without_gradients_as_with_them(channels, groups, size):
    """And both as numpy does it, at, near and beyond the borders too."""
    rng = np.random.default_rng(2)
    reference = torch.from_numpy(rng.standard_normal((channels, 3, 4))).float()
    source = torch.from_numpy(rng.standard_normal((channels, *size))).float()
    place = torch.from_numpy(rng.uniform(-1.3, 1.3, (5, 12, 2))).float()
    place[0, 0], place[0, 1], place[0, 2] = torch.tensor([-1.0, 1]), torch.tensor([1.0, -1]), torch.tensor([1e6, -1e6])
    with torch.enable_grad():
        expected = correlate(reference, source, place, groups)
    with torch.inference_mode():
        got = correlate(reference, source, place, groups)
        by_channel = source[None].contiguous(memory_format=torch.channels_last)[0]
        torch.testing.assert_close(correlate(reference, by_channel, place, groups), got)
    assert got.shape == (groups, 5, 12)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    x, y = (np.clip((place[3, 7, a].item() + 1) * n / 2 - 0.5, 0, n - 1) for a, n in ((0, size[1]), (1, size[0])))
    left, top = min(int(x), size[1] - 2), min(int(y), size[0] - 2)
    row = source.numpy()[:, top : top + 2, left : left + 2]
    looked_up = (row * np.outer([top + 1 - y, y - top], [left + 1 - x, x - left])).sum(axis=(1, 2))
    products = (looked_up * reference.flatten(1)[:, 7].numpy()).reshape(groups, -1).sum(axis=1)
    np.testing.assert_allclose(got[:, 3, 7].numpy(), products, atol=1e-4)


def test_depths_can_differ_from_pixel_to_pixel():
    """Each pixel tries the depths of its own column: the answers are those of trying all depths everywhere, reordered."""
    K = torch.tensor([[220.0, 0, 127.5], [0, 220.0, 95.5], [0, 0, 1]])
    rng = torch.Generator().manual_seed(1)
    first, *sources = (
        Appearance(torch.randn(6, H, W, generator=rng), torch.randn(CHANNELS, 4 * H, 4 * W, generator=rng))
        for _ in range(3)
    )
    T_source_ref = torch.eye(4).repeat(2, 1, 1)
    T_source_ref[:, 0, 3] = torch.tensor([0.2, -0.4])
    sweep = PlaneSweep(2, STRIDE)
    everywhere = sweep(first, sources, T_source_ref, K, K.expand(2, 3, 3), BINS.centers)
    index = torch.randint(0, 24, (5, H, W), generator=rng)
    chosen = sweep(first, sources, T_source_ref, K, K.expand(2, 3, 3), BINS.centers[index])
    for part, whole in zip(chosen, everywhere, strict=True):
        torch.testing.assert_close(part, whole.gather(2, index[None, None].expand(*whole.shape[:2], -1, -1, -1)))


def noise_plane_image(T_world_cam, K, depth_m):
    """A (1, 3, H * STRIDE, W * STRIDE) picture of noise painted on the plane z = depth, 8 cm to a dab, ray-cast."""
    rng = np.random.default_rng(3)
    dabs = torch.from_numpy(rng.standard_normal((1, 3, 400, 400)).astype(np.float32))
    rays = pixel_rays(K[None], H * STRIDE, W * STRIDE, 1)[0]
    points = T_world_cam[:3, 3, None] + rays * (depth_m - T_world_cam[2, 3])
    grid = (points[:2] / (0.08 * 200)).T.reshape(1, H * STRIDE, W * STRIDE, 2)
    return torch.nn.functional.grid_sample(dabs, grid, align_corners=False)


@pytest.mark.parametrize("stride", [4, 8])
def test_patches_of_images_match_at_the_depth_of_a_plane_whatever_the_exposure(stride):
    truth, height, width = 12, H * STRIDE // stride, W * STRIDE // stride
    depth_m = float(BINS.centers[truth])
    K = torch.tensor([[220.0, 0, 127.5], [0, 220.0, 95.5], [0, 0, 1]])
    T_world_source = torch.eye(4)
    T_world_source[:2, 3] = torch.tensor([0.5, -0.2])
    pictures = torch.cat(
        [noise_plane_image(torch.eye(4), K, depth_m), 0.4 * noise_plane_image(T_world_source, K, depth_m) + 1.0]
    )
    reference, source = (Appearance(torch.zeros(1, height, width), patches) for patches in image_patches(pictures))
    T_source_ref = torch.linalg.inv(T_world_source)[None]
    correlation, seen = PlaneSweep(1, stride)(reference, [source], T_source_ref, K, K[None], BINS.centers)
    matched = correlation[0, 1]
    interior = seen[0, 0, truth] > 0
    assert interior.float().mean() > 0.6
    assert (matched.argmax(dim=0)[interior] == truth).float().mean() > 0.95
    assert matched[truth][interior].mean() > 0.7
    assert matched[:, interior].abs().max() <= 1 + 1e-5


def test_patches_are_zero_mean_normalised_correlations():
    """Against numpy's correlation coefficient, with almost no contrast against zero."""
    rng = np.random.default_rng(5)
    grey = rng.standard_normal((2, 8, 10)).astype(np.float32)
    images = torch.from_numpy(grey).repeat_interleave(2, -1).repeat_interleave(2, -2)[:, None].expand(-1, 3, -1, -1)
    first, second = image_patches(images)
    assert first.shape == (CHANNELS, 8, 10)
    pieces = [picture[2:7, 3:8].ravel() for picture in grey]
    expected = np.corrcoef(*pieces)[0, 1]
    assert float((first[:, 4, 5] * second[:, 4, 5]).sum()) == pytest.approx(expected, abs=3e-3)
    assert float(first[:, 4, 5].norm()) == pytest.approx(1.0, abs=3e-3)
    faint = image_patches(images * 1e-3)[0]
    assert float(faint.norm(dim=0).max()) < 0.1
    torch.testing.assert_close(patches_at(first, 2, 5)[:, 1, 2], first[:, 5:7, 4:6].mean(dim=(1, 2)))


def test_sources_are_merged_where_they_see():
    correlation = torch.tensor([0.5, -0.4, 0.0]).view(3, 1, 1, 1, 1)
    seen = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1, 1, 1)
    assert merge_sources(correlation, seen).flatten().tolist() == pytest.approx([0.05, 0.5, 2])
    assert merge_sources(correlation[1:], seen[1:]).flatten().tolist() == pytest.approx([-0.4, -0.4, 1])
    assert merge_sources(correlation[2:], seen[2:]).flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize(("outputs", "bias"), [(7, False), (7, True), (1, True)])
def test_one_volume_is_convolved_as_several_are(outputs, bias):
    torch.manual_seed(0)
    convolution = Conv3d(5, outputs, bias=bias)
    volumes = torch.randn(2, 5, 6, 8, 9)
    expected = convolution(volumes)[:1]
    torch.testing.assert_close(convolution(volumes[:1]), expected, atol=1e-5, rtol=0)
    parts = channels_beside(volumes[:1, :2], volumes[:1, 2:])
    torch.testing.assert_close(convolution(parts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("outputs", [8, 24])
def test_one_volume_is_normalised_as_several_are(outputs):
    """Of one group of channels, and of three."""
    torch.manual_seed(0)
    block = Conv3dBlock(5, outputs)
    torch.nn.init.normal_(block[1].weight)
    torch.nn.init.normal_(block[1].bias)
    volumes = torch.randn(2, 5, 6, 8, 9) + 1
    with torch.inference_mode():
        torch.testing.assert_close(block(volumes[:1]), block(volumes)[:1], atol=1e-5, rtol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            short = block(volumes[:1])
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), block(volumes)[:1], atol=0.05, rtol=0.05)


@pytest.fixture
def refiner():
    torch.manual_seed(3)
    return DepthRefiner(DepthBins(48, 0.5, 12.0), planes=6, channels=4, correlations=2, width=4)


def test_a_new_refiner_keeps_the_answer(refiner):
    coarse = torch.randn(2, 24, 3, 4)
    split = refiner.split(coarse)
    assert split.shape == (2, 48, 6, 8)
    refined = refiner(split, refiner.candidates(split), torch.randn(2, 4, 6, 8), torch.rand(2, 5, 6, 6, 8))
    torch.testing.assert_close(refined, split)
    level = refiner.split(torch.arange(24.0).view(1, 24, 1, 1).expand(1, 24, 3, 4))  # rises evenly: halves keep it so
    torch.testing.assert_close(level[0, 1:-1, 2, 2], torch.arange(0.25, 23, 0.5))


@pytest.mark.parametrize("peak", [0, 1, 20, 33, 46, 47])
def test_candidates_surround_the_peak_within_the_range(refiner, peak):
    logits = torch.zeros(1, 48, 2, 2)
    logits[0, peak] = 9.0
    index = refiner.candidates(logits)
    assert (index[:, 1:] - index[:, :-1] == 1).all() and index.min() >= 0 and index.max() <= 47
    expected = min(max(peak, 2), 45)  # the third or fourth of six, but where the range ends
    assert (((index[:, 2] - expected).abs() <= 1) & ((index == peak).any(dim=1))).all()


def test_a_refiner_changes_candidates_alone(refiner):
    torch.nn.init.normal_(refiner.correct[1].weight)
    split = refiner.split(torch.randn(1, 24, 3, 4))
    index = refiner.candidates(split)
    refined = refiner(split, index, torch.randn(1, 4, 6, 8), torch.rand(1, 5, 6, 6, 8))
    touched = torch.zeros_like(split).scatter(1, index, 1.0) > 0
    assert torch.equal(refined[~touched], split[~touched])
    assert (refined[touched] != split[touched]).float().mean() > 0.9


def test_a_cell_of_logits_answers_for_all_depths_in_it():
    rng = torch.Generator().manual_seed(6)
    logits, depth = torch.randn(2, 24, 3, 4, generator=rng), 0.6 + 9 * torch.rand(2, 6, 8, generator=rng)
    depth[0, 2:4, 2:4] = torch.tensor([[3.0, 3.0], [0.0, 7.0]])
    depth[1, :2, :2] = torch.nan
    quarters = [depth_loss(logits, depth[:, r::2, c::2], BINS) for r in (0, 1) for c in (0, 1)]
    torch.testing.assert_close(depth_loss(logits, depth, BINS), torch.stack(quarters).mean())


def test_depth_losses_are_the_mean_over_levels():
    rng = torch.Generator().manual_seed(5)
    coarse, fine = torch.randn(1, 24, 4, 4, generator=rng), torch.randn(1, 48, 8, 8, generator=rng)
    bins, depth = (BINS, DepthBins(48, 0.5, 12.0)), 1 + 9 * torch.rand(1, 8, 8, generator=rng)
    expected = (depth_loss(coarse, depth, bins[0]) + depth_loss(fine, depth, bins[1])) / 2
    torch.testing.assert_close(depth_losses((coarse, fine), depth, bins), expected)


def test_what_the_source_does_not_see_is_not_matched():
    K = torch.tensor([[220.0, 0, 127.5], [0, 220.0, 95.5], [0, 0, 1]])
    behind = torch.eye(4)
    behind[2, 3] = -20.0  # T_source_ref: every point lies behind the source
    look = Appearance(torch.ones(4, H, W) / 2, torch.ones(CHANNELS, 4 * H, 4 * W) / 5)
    correlation, seen = PlaneSweep(2, STRIDE)(look, [look], behind[None], K, K[None], BINS.centers)
    assert not correlation.any() and not seen.any()


def test_relative_pose_maps_reference_points_into_the_source():
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[0, :3, 3], poses[1, :3, 3] = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 2, 0])
    views = Views(torch.zeros(2, 3, 8, 8), torch.eye(3).expand(2, 3, 3), poses)
    (T_source_ref,) = relative_poses(views, torch.tensor([0]), torch.tensor([1]))
    torch.testing.assert_close(T_source_ref[:3, 3], torch.tensor([1.0, -2, 0]))


def sure(share, least):
    """Depth of one view (h, w), from probabilities."""
    return sure_depth(share.log(), cumulative(share.log()), BINS, least)[0]


def test_depth_is_sure_where_the_distribution_has_one_narrow_peak():
    share = torch.full((1, 24, 1, 6), 1e-9)
    share[0, 9, 0, 0] = 1.0
    share[0, 9:11, 0, 1] = 0.5  # between two intervals: at their common edge
    share[0, 3, 0, 2] = share[0, 16, 0, 2] = 0.5
    share[0, 23, 0, 3] = 1.0  # beyond the last edge
    share[0, 0, 0, 4] = 1.0
    share[0, 22, 0, 5] = 1.0
    depth = sure(share, 0.8)[0]
    expected = [BINS.centers[9], BINS.edges[10], 0.0, 0.0, BINS.centers[0], BINS.centers[22]]
    torch.testing.assert_close(depth, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sure(share, 0.4)[0, 2], BINS.centers[3], rtol=1e-5, atol=0)


def test_the_peak_needs_more_than_the_least_probability():
    share = torch.full((1, 24, 1, 1), 0.2 / 19)
    share[0, 4:9] = 0.15
    share[0, 6] = 0.2  # 0.8 together
    assert sure(share, 0.81).item() == 0
    assert sure(share, 0.79).item() > 0


def test_sure_depth_equals_the_mean_of_a_softmax():
    logits = 3 * torch.randn(2, 24, 5, 7, generator=torch.Generator().manual_seed(0))
    probability = torch.softmax(logits.double(), dim=1)[:, :-1]
    got = sure_depth(logits, cumulative(logits), BINS, 0.6)
    for place in np.ndindex(2, 5, 7):
        view = probability[place[0], :, place[1], place[2]]
        peak = int(view.argmax())
        part = slice(max(0, peak - 2), peak + 3)
        log_depth = (view[part] * BINS.centers[:-1][part].log()).sum() / view[part].sum()
        expected = log_depth.exp() if view[part].sum() > 0.6 else torch.tensor(0.0)
        assert float(got[place]) == pytest.approx(float(expected), rel=1e-5)
    assert 0.1 < float((got > 0).float().mean()) < 0.9


def test_cumulative_of_one_certain_depth():
    logits = torch.full((1, 6, 1, 1), -50.0)
    logits[0, 2] = 50.0
    torch.testing.assert_close(cumulative(logits)[0, :, 0, 0], torch.tensor([0.0, 0, 0, 1, 1, 1, 1]))


def test_what_lies_beyond_the_range_is_never_nearer():
    logits = torch.full((1, 6, 1, 1), -50.0)
    logits[0, 5] = 50.0
    assert cumulative(logits).max() < 1e-30


def test_cumulative_rises_and_stays_below_one():
    logits = torch.randn(2, 9, 3, 4, generator=torch.Generator().manual_seed(0))
    nearer = cumulative(logits)
    assert (nearer.diff(dim=1) >= 0).all()
    assert (nearer[:, 0] == 0).all() and (nearer <= 1).all()
    torch.testing.assert_close(nearer[:, 1:-1], logits.softmax(1).cumsum(1)[:, :-1])


@pytest.fixture
def one_view():
    """A camera at the origin that looks along z and is certain of a surface in depth interval 12 everywhere."""
    K = torch.tensor([[[64.0, 0, 31.5], [0, 64.0, 31.5], [0, 0, 1]]])
    views = Views(torch.zeros(1, 3, 64, 64), K, torch.eye(4)[None])
    logits = torch.full((1, 24, 8, 8), -60.0)
    logits[0, 12] = 60.0
    return views, cumulative(logits)


def evidence_at(views, nearer, points, edge=0.02, features=None):
    points = torch.tensor(points, dtype=torch.float32)
    return sample_evidence(points, torch.full((len(points),), edge), views, nearer, BINS, features)


def test_certain_depth_is_free_before_surface_at_and_hidden_behind(one_view):
    low, high = float(BINS.edges[12]), float(BINS.edges[13])
    middle = float(BINS.centers[12])
    got = evidence_at(
        *one_view, [(0, 0, low * 0.8), (0, 0, middle), (0, 0, high * 1.3), (0, 0, -1), (9, 0, 1)], high - low
    )
    surface, free, hidden, count = (
        got.statistics[:, 0],
        got.statistics[:, 1],
        got.statistics[:, 2],
        got.statistics[:, 3],
    )
    torch.testing.assert_close(surface[:3], torch.tensor([0.0, 1.0, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(free[:3], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(hidden[:3], torch.tensor([0.0, 0.0, 1.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(count, torch.tensor([0.25, 0.25, 0.25, 0, 0]))
    torch.testing.assert_close(got.visible, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), atol=0.02, rtol=0)
    odds = got.statistics[:, 4] * 2
    assert odds[0] == pytest.approx(np.log(0.01 / 1.01), abs=0.05)  # certainly free
    assert odds[1] == pytest.approx(np.log(1.01 / 0.01), abs=0.3)  # certainly surface
    assert odds[2] == pytest.approx(0, abs=0.1)  # hidden says nothing
    assert not got.statistics[3:].any()


def test_surface_free_and_hidden_add_to_one(one_view):
    views, _ = one_view
    nearer = cumulative(torch.randn(1, 24, 8, 8, generator=torch.Generator().manual_seed(2)))
    depth = np.linspace(0.3, 14, 60)
    got = evidence_at(views, nearer, [(0.1 * z, -0.05 * z, z) for z in depth], 0.2)
    torch.testing.assert_close(got.statistics[:, :3].sum(dim=1), torch.ones(60), atol=1e-5, rtol=0)


def test_a_small_cube_in_the_interval_holds_its_share_of_the_surface(one_view):
    """Half the interval's length in log depth holds half of its probability."""
    views, nearer = one_view
    middle = float(BINS.centers[12])
    length = float(BINS.edges[13] - BINS.edges[12])
    got = evidence_at(views, nearer, [(0, 0, middle)], 0.5 * length / (2 * HALF_DEPTH))
    assert got.statistics[0, 0].item() == pytest.approx(0.5, abs=0.02)


def test_several_views_merge_by_mean_maximum_and_count(one_view):
    views, nearer = one_view
    two = Views(views.images.expand(2, 3, 64, 64), views.K.expand(2, 3, 3), views.T_world_cam.repeat(2, 1, 1))
    far = torch.full((1, 24, 8, 8), -60.0)
    far[0, 23] = 60.0
    both = torch.cat([nearer, cumulative(far)])
    middle, length = float(BINS.centers[12]), float(BINS.edges[13] - BINS.edges[12])
    got = evidence_at(two, both, [(0, 0, middle)], length)
    surface_mean, surface_max = got.statistics[0, 0], got.statistics[0, 5]
    assert surface_mean.item() == pytest.approx(0.5, abs=0.02)
    assert surface_max.item() == pytest.approx(1.0, abs=0.02)
    assert got.statistics[0, 3].item() == pytest.approx(0.5)
    assert got.statistics[0, 7].item() == pytest.approx(1 / middle, rel=1e-4)


def test_features_come_from_where_a_point_is_seen(one_view):
    views, nearer = one_view
    features = torch.arange(8.0).expand(1, 1, 8, 8).clone()  # the column's number
    got = evidence_at(views, nearer, [((8 * c + 3.5 - 31.5) / 64, 0, 1.0) for c in range(8)], features=features)
    torch.testing.assert_close(got.features[:, 0], torch.arange(8.0), atol=0.2, rtol=0.02)


def test_volume_samples_are_exact_at_cell_centres():
    grid = VolumeGrid(0.5, (4, 5, 3), (-1.0, -1.25, -0.5))
    center = torch.tensor([10.0, -3.0, 1.0])
    points = grid.points(center)
    torch.testing.assert_close(points[0], center + torch.tensor([-0.75, -1.0, -0.25]))
    volume = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    sampled = sample_volume(volume, grid.normalize(points, center))
    torch.testing.assert_close(sampled, volume.reshape(2, -1).T, atol=1e-4, rtol=0)
    between = (points[0] + points[3]) / 2  # neighbours along y: Z is 3
    expected = (volume[:, 0, 0, 0] + volume[:, 0, 1, 0]) / 2
    torch.testing.assert_close(
        sample_volume(volume, grid.normalize(between[None], center))[0], expected, atol=1e-4, rtol=0
    )


def test_depth_loss_is_lowest_at_the_truth():
    depth = torch.full((1, 2, 2), float(BINS.centers[7]))
    losses = []
    for guess in range(24):
        logits = torch.zeros(1, 24, 2, 2)
        logits[0, guess] = 5.0
        losses.append(float(depth_loss(logits, depth, BINS)))
    assert int(np.argmin(losses)) == 7
