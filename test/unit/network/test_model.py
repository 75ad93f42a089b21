# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.network.views import Views, choose_sources, invert_rigid, normalize_images, to_camera

TINY = ModelConfig(
    canvas_pixels=4096, widths=(8, 8, 16, 16), feature_channels=16, match_groups=2, match_width=4, depth_bins=12,
    detail_channels=8, detail_groups=2, detail_width=4, detail_planes=6,
    volume_cell_m=0.8, volume_shape=(12, 12, 4), volume_features=4, volume_channels=6, volume_width=16,
    decoder_width=16, range_m=4.0,
)  # fmt: skip
H, W = 64, 96


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return OccupancyNetwork(TINY).eval()


def camera_ring(count, *, seed=0, radius=0.3):
    """Views around a point, looking outward, with random pictures."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, H, W, 3), generator=generator, dtype=torch.uint8)
    K = torch.tensor([[60.0, 0, W / 2], [0, 60, H / 2], [0, 0, 1]]).expand(count, 3, 3).clone()
    K[:, 0, 0] += torch.arange(count)
    poses = torch.eye(4).repeat(count, 1, 1)
    optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    for n in range(count):
        turn = Rotation.from_euler("z", n * 0.6).as_matrix()
        poses[n, :3, :3] = torch.from_numpy(turn @ optical)
        poses[n, :3, 3] = torch.from_numpy(turn @ (radius, 0, 0.5))
    return Views(normalize_images(images), K, poses)


@torch.inference_mode()
def answer(network, views, points, *, sources=None, base=None):
    """Logits and visibility at points, with every stage run as the predictor runs it."""
    base = torch.zeros(3) if base is None else base
    maps = network.encode(views.images)
    match = network.match_maps(views.images, maps)
    if sources is None:
        sources = choose_sources(views.T_world_cam, views.T_world_cam, 2, torch.arange(len(views)))
    depth_logits = network.depth(maps, views, match, sources)
    scene = network.lift(views, maps, depth_logits, base)
    logits, visible = network.query(scene, points, torch.full_like(points[:, 0], 0.2))
    return logits, visible, scene


def scatter(count=400, seed=1):
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * torch.tensor([7.0, 7, 2.4])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_any_number_of_cameras(network, count):
    logits, visible, scene = answer(network, camera_ring(count), scatter(50))
    assert logits.shape == (50, 1 + len(TINY.classes))
    assert visible.shape == (50,)
    coarse, fine = scene.depth_logits
    assert coarse.shape == (count, 12, H // 8, W // 8)
    assert fine.shape == (count, 24, H // 4, W // 4)
    assert scene.nearer.shape == (count, 25, H // 4, W // 4)
    assert scene.context.shape == (6, 12, 12, 4)
    assert torch.isfinite(logits).all()
    assert ((visible >= 0) & (visible <= 1)).all()
    assert (visible > 0).any()


def test_the_order_of_cameras_does_not_matter(network):
    views, points = camera_ring(5), scatter()
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = Views(views.images[order], views.K[order], views.T_world_cam[order])
    first, seen, _ = answer(network, views, points)
    second, seen_again, _ = answer(network, shuffled, points)
    torch.testing.assert_close(second, first, atol=1e-4, rtol=0)
    torch.testing.assert_close(seen_again, seen, atol=1e-5, rtol=0)


def test_a_source_that_is_absent_changes_nothing(network):
    """Slots without a source, more slots than views, and no slots at all."""
    views, points = camera_ring(2), scatter()
    alone = torch.full((2, 2), -1)
    expected, _, _ = answer(network, views, points, sources=alone)
    assert torch.isfinite(expected).all()
    fewer, _, _ = answer(network, views, points, sources=torch.full((2, 1), -1))
    torch.testing.assert_close(fewer, expected, atol=1e-5, rtol=0)
    one = torch.tensor([[1, -1], [0, -1]])
    matched, _, _ = answer(network, views, points, sources=one)
    padded, _, _ = answer(network, views, points, sources=torch.tensor([[1], [0]]))
    torch.testing.assert_close(padded, matched, atol=1e-5, rtol=0)
    assert (matched - expected).abs().max() > 1e-5  # matching does take part


def test_moving_the_world_with_its_base_changes_nothing(network):
    views, points, shift = camera_ring(3), scatter(), torch.tensor([3.0, -2.0, 0.5])
    poses = views.T_world_cam.clone()
    poses[:, :3, 3] += shift
    first, _, _ = answer(network, views, points)
    second, _, _ = answer(network, Views(views.images, views.K, poses), points + shift, base=shift)
    torch.testing.assert_close(second, first, atol=2e-3, rtol=0)


def test_matching_and_depth_do_not_know_the_world_frame(network):
    """Turned by any yaw, every view keeps its depth and every point its evidence; only the volume is world-aligned."""
    views, points = camera_ring(4), scatter()
    turn = torch.eye(4)
    turn[:3, :3] = torch.from_numpy(Rotation.from_euler("z", 1.1).as_matrix()).float()
    _, seen, scene = answer(network, views, points)
    turned = Views(views.images, views.K, turn @ views.T_world_cam)
    _, seen_again, scene_again = answer(network, turned, points @ turn[:3, :3].T)
    for again, first in zip(scene_again.depth_logits, scene.depth_logits, strict=True):
        torch.testing.assert_close(again, first, atol=1e-3, rtol=0)
    torch.testing.assert_close(seen_again, seen, atol=1e-3, rtol=0)


def test_points_nobody_sees_are_not_visible(network):
    views = camera_ring(1)
    points = torch.tensor([[-3.0, 0, 0.5], [0.3, 0, 3.0], [2.0, 0.1, 0.5]])
    _, visible, _ = answer(network, views, points)
    assert visible[0] == 0 and visible[1] == 0
    assert visible[2] > 0


def test_no_points_give_no_answers(network):
    logits, visible, _ = answer(network, camera_ring(2), torch.zeros(0, 3))
    assert logits.shape == (0, 7) and visible.shape == (0,)


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    network, views, points = OccupancyNetwork(TINY).train(), camera_ring(3, radius=0.5), scatter()
    network.refiner.correct[1].reset_parameters()  # which start at zero
    maps = network.encode(views.images)
    sources = torch.tensor([[1, -1], [2, 0], [1, -1]])
    depth_logits = network.depth(maps, views, network.match_maps(views.images, maps), sources)
    scene = network.lift(views, maps, depth_logits, torch.zeros(3))
    logits, _ = network.query(scene, points, torch.full_like(points[:, 0], 0.2))
    (logits.square().mean() + sum(level.square().mean() for level in depth_logits)).backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_pixels_are_normalised_as_the_encoder_was_trained():
    images = torch.tensor([0, 114, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    torch.testing.assert_close(normalize_images(images)[0, :, 0, 0], torch.tensor([-114 / 58, 0.0, 141 / 58]))


def test_invert_rigid_and_to_camera():
    views = camera_ring(6)
    product = invert_rigid(views.T_world_cam) @ views.T_world_cam
    torch.testing.assert_close(product, torch.eye(4).expand(6, 4, 4), atol=1e-6, rtol=0)
    points = scatter(20)
    ahead = torch.cat([points, torch.ones(20, 1)], dim=1) @ invert_rigid(views.T_world_cam[2]).T
    torch.testing.assert_close(to_camera(points, views.T_world_cam[2]), ahead[:, :3], atol=1e-5, rtol=0)


def place(x, y=0.0, yaw=0.0):
    """A camera at (x, y) of the ground that looks along yaw."""
    pose = torch.eye(4)
    turn = Rotation.from_euler("z", yaw).as_matrix() @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, :3], pose[0, 3], pose[1, 3] = torch.from_numpy(turn), x, y
    return pose


def test_sources_look_the_same_way_from_another_place():
    candidates = torch.stack([place(0), place(0.01), place(0, 0.4), place(0, 0.4, 1.2), place(5.0), place(0, -0.2)])
    chosen = choose_sources(candidates[:1], candidates, 3, torch.tensor([0]))
    assert (
        sorted(chosen[0, :2].tolist()) == [2, 5] and chosen[0, 2] == 4
    )  # neither itself, nor its double, nor one that looks away; the far one last
    assert choose_sources(candidates[:1], candidates[:2], 3, torch.tensor([0])).tolist() == [[-1, -1, -1]]
    assert choose_sources(candidates[:1], candidates[:0], 2, torch.tensor([-1])).tolist() == [[-1, -1]]
    assert choose_sources(candidates[:2], candidates, 0, torch.tensor([0, 1])).shape == (2, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth_bins": 10**9}, "depth_bins"),
        ({"widths": (8, 8, 8)}, "widths"),
        ({"widths": (8, 8, 8, -1)}, "widths"),
        ({"volume_shape": (10**6, 10**6, 10)}, "volume_shape"),
        ({"match_groups": 3}, "multiple of match_groups"),
        ({"detail_groups": 5}, "multiple of detail_groups"),
        ({"detail_planes": 20, "depth_bins": 9}, "detail_planes is 20, expected at most twice depth_bins"),
        ({"depth_min_m": 5.0, "depth_max_m": 4.0}, "less than depth_max_m"),
    ],
)
def test_configurations_that_make_no_network(change, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig(**{"feature_channels": 16, "match_groups": 2, **change})
