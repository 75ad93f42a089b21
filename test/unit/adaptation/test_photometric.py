# SPDX-License-Identifier: Apache-2.0
"""Pictures of two walls whose depth is exact: they fit each other by it, and by no other depth."""

import numpy as np
import pytest
import textured_walls as walls
import torch

from occupancy_nn_ros.adaptation import photometric
from occupancy_nn_ros.adaptation.photometric import Comparison, HeldOut, compare, frame_errors, predicted_depth
from occupancy_nn_ros.network.checkpoint import load_checkpoint
from occupancy_nn_ros.training.shards import DEPTH_STRIDE, Shard, write_shard

FRAMES, MIDDLE = 8, 4
POSES = [walls.pose(0.4 * n) for n in range(FRAMES)]


def arrays(frames=FRAMES):
    poses = np.stack(POSES[:frames])
    return {
        "images": np.stack([walls.picture(pose) for pose in poses])[:, None],
        "K": walls.MODEL.K[None].astype(np.float32),
        "T_map_cam": poses[:, None].astype(np.float32),
        "T_map_base": poses.astype(np.float32),
        "depth_m": np.stack([walls.depth(pose, DEPTH_STRIDE) for pose in poses])[:, None].astype(np.float16),
        "points_m": np.zeros((frames, 4, 3), np.float32),
        "edge_m": np.full(frames, 0.2, np.float32),
        "labels": np.zeros((frames, 4), np.uint8),
    }


@pytest.fixture(scope="module")
def shard():
    return Shard(**arrays())


def true_depth(frame=MIDDLE):
    return torch.from_numpy(walls.depth(POSES[frame], DEPTH_STRIDE))[None]


def test_true_depth_fits_and_any_other_does_not(shard):
    true = frame_errors(shard, MIDDLE, true_depth())
    assert np.isfinite(true).mean() > 0.7 and np.nanmedian(true) < 0.02
    for factor in (0.7, 0.85, 1.15, 1.4):
        other = frame_errors(shard, MIDDLE, factor * true_depth())
        both = np.isfinite(true) & np.isfinite(other)
        assert np.mean(true[both]) < 0.3 * np.mean(other[both])


def test_exposure_changes_nothing_but_rounding(shard):
    darker = arrays()
    gain = np.linspace(0.5, 1.0, FRAMES)[:, None, None, None, None]
    darker["images"] = (darker["images"] * gain + 10).astype(np.uint8)
    plain, changed = (frame_errors(s, MIDDLE, true_depth()) for s in (shard, Shard(**darker)))
    both = np.isfinite(plain) & np.isfinite(changed)
    assert both.mean() > 0.6 and np.abs(plain - changed)[both].mean() < 0.01


def test_what_moves_with_the_camera_is_not_compared(shard, rng):
    body = arrays()
    body["images"][:, :, -64:] = rng.integers(0, 255, (64, walls.WIDTH, 3), dtype=np.uint8)
    errors = frame_errors(Shard(**body), MIDDLE, true_depth())
    assert not np.isfinite(errors[0, -12:]).any() and np.isfinite(errors[0, :40]).mean() > 0.7


def test_what_has_no_texture_is_not_compared(shard):
    plain = arrays()
    plain["images"][..., : walls.WIDTH // 2, :] = 128
    errors = frame_errors(Shard(**plain), MIDDLE, true_depth())
    assert not np.isfinite(errors[0, :, : walls.WIDTH // 8 - 4]).any()


@pytest.fixture
def paths(tmp_path):
    path = tmp_path / "walls.safetensors"
    write_shard(path, arrays(), {})
    return [HeldOut(path, 0)]


def stand_in(monkeypatch, factors):
    """Networks are numbers, by which the depth that they see is wrong."""
    monkeypatch.setattr(
        photometric, "predicted_depth", lambda network, shard, frame: true_depth(frame) * factors[network]
    )


@pytest.mark.parametrize(("before", "after", "improved"), [(1.2, 1.0, True), (1.0, 1.2, False), (1.1, 1.1, False)])
def test_the_better_network_is_told_from_the_worse(paths, monkeypatch, before, after, improved):
    stand_in(monkeypatch, {"before": before, "after": after})
    found = compare("before", "after", paths)
    assert found.improved is improved
    assert found.frames == FRAMES - 1 and found.pixels > 2000 and len(found.differences) > 12 * found.frames
    assert (found.after < found.before) is improved


def test_only_what_was_held_out_is_scored(paths, monkeypatch):
    seen = []
    monkeypatch.setattr(
        photometric, "predicted_depth", lambda network, shard, frame: seen.append(frame) or true_depth(frame)
    )
    found = compare("before", "after", [HeldOut(paths[0].shard, 5)])
    assert sorted(set(seen)) == [5, 6, 7] and found.frames == 3


def test_a_difference_within_chance_is_none():
    def comparison(before, after, differences):
        return Comparison(before, after, 1000, 4, differences)

    assert comparison(0.2, 0.19, (-0.01, -0.011, -0.009, -0.01) * 2).improved
    assert not comparison(0.2, 0.199, (-0.02, 0.015, -0.01, 0.012) * 2).improved
    assert not comparison(0.2, 0.1, (-0.1,) * 7).improved  # too few to tell
    assert not comparison(0.2, 0.21, (0.01, 0.011) * 8).improved
    assert not comparison(0.0, 0.0, ()).improved


def test_depth_of_a_network_has_a_value_for_each_cell(shard, tiny_model):
    depth = predicted_depth(load_checkpoint(tiny_model).network, shard, MIDDLE)
    assert depth.shape == (1, walls.HEIGHT // DEPTH_STRIDE, walls.WIDTH // DEPTH_STRIDE)
    assert (depth > 0.3).all() and torch.isfinite(depth).all()
