# SPDX-License-Identifier: Apache-2.0
"""Pixels under a camera's mask change nothing: not what is matched, carved, marked, tracked or seen; and a mask that cannot be used
costs its camera, in words."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from stand_in_device import stand_in_device

from occupancy_nn_ros.alignment.pose_alignment import _Lens
from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.config import MapConfig, NetworkConfig, load_config
from occupancy_nn_ros.errors import CalibrationError, ImplausibleError
from occupancy_nn_ros.geometry.cameras import Rectifier, check_camera, project
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.mapping.ray_integration import integrate_depth
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.runtime.camera_mask import masked
from occupancy_nn_ros.runtime.device_predictor import load_predictor
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedDepth, PosedImage

WINDOW = LatticeWindow(0.2, (-20, -20, -5), (40, 40, 12))
FORWARD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])
MODEL = CameraModel(160, 120, [[110.0, 0, 80], [0, 110, 60], [0, 0, 1]], "plumb_bob", [-0.1, 0.01, 0, 0])


def bumper(width=160, height=120):
    """The lower third, and a post at the left."""
    mask = np.zeros((height, width), bool)
    mask[height * 2 // 3 :] = True
    mask[:, : width // 5] = True
    return mask


def keyframe(n, body_seed, model, yaw=0.0):
    """A camera that drives forward; what lies under the mask is noise of ``body_seed``."""
    world = np.random.default_rng(n).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    body = np.random.default_rng([n, body_seed]).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    pixels = np.where(bumper()[..., None], body, world)
    base = np.eye(4)
    base[0, 3] = 0.3 * n
    return Keyframe(n, base, (PosedImage("front", n, pixels, model, base @ FORWARD),))


def answers(tiny_model, body_seed, model, load=Predictor.load):
    predictor = load(str(tiny_model), NetworkConfig(coarse_m=0.0, sure_depth=0.1))
    return [predictor.predict(keyframe(n, body_seed, model), WINDOW) for n in range(3)]


def test_what_lies_under_the_mask_changes_no_bit_of_the_answer(tiny_model):
    model = replace(MODEL, mask=bumper())
    for one, other in zip(answers(tiny_model, 1, model), answers(tiny_model, 2, model), strict=True):
        for name in ("logit", "weight", "class_logits", "visible"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert np.array_equal(one.depths[0].depth_m, other.depths[0].depth_m)
    unmasked = [answers(tiny_model, seed, MODEL)[2].logit for seed in (1, 2)]
    assert not torch.equal(*unmasked)


def under_the_mask(window, n):
    """Which voxel centres fall on masked pixels, and which on others, (X, Y, Z)."""
    base = np.eye(4)
    base[0, 3] = 0.3 * n
    points = window.centers_m().reshape(-1, 3).astype(float)
    pose = invert(base @ FORWARD)
    pixels, inside = project(MODEL, points @ pose[:3, :3].T + pose[:3, 3])
    u, v = np.where(inside[:, None], pixels.round(), 0).astype(int).T
    there = bumper()[v.clip(0, 119), u.clip(0, 159)]
    return (inside & there).reshape(window.shape), (inside & ~there).reshape(window.shape)


def test_points_under_the_mask_are_not_seen(tiny_model):
    got = answers(tiny_model, 1, replace(MODEL, mask=bumper()))[2]
    hidden, shown = under_the_mask(got.window, 2)
    weight, visible = got.weight.numpy(), got.visible.numpy()
    assert hidden.sum() > 500 and (weight[hidden] == 0).all() and (visible[hidden] == 0).all()
    assert (visible[shown] > 0).mean() > 0.7
    free = answers(tiny_model, 1, MODEL)[2].visible.numpy()
    assert (free[hidden] > 0).mean() > 0.9
    reached = Rectifier(replace(MODEL, mask=bumper()), 128, 96).masked
    rows, columns = got.depths[0].depth_m.shape
    small = cv2.resize(reached.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_AREA) > 0
    assert small.any() and (got.depths[0].depth_m[small] == 0).all()


def test_a_device_hides_the_same(monkeypatch, tiny_model):
    model = replace(MODEL, mask=bumper())
    with stand_in_device(monkeypatch.setattr):
        pair = [answers(tiny_model, seed, model, load_predictor) for seed in (1, 2)]
    for n, (one, other) in enumerate(zip(*pair, strict=True)):
        logit, same, weight = (t.as_subclass(torch.Tensor) for t in (one.logit, other.logit, one.weight))
        assert torch.equal(logit, same)
        hidden, shown = under_the_mask(one.window, n)
        assert (weight.numpy()[hidden] == 0).all() and (weight.numpy()[shown] > 0).mean() > 0.3


def test_masked_pixels_of_a_depth_image_neither_carve_nor_mark():
    depth = np.random.default_rng(4).uniform(0.5, 3.0, (120, 160)).astype(np.float32)
    changed = {}
    for name, mask, image in (
        ("masked", bumper(), depth),
        ("not measured", None, np.where(bumper(), 0, depth).astype(np.float32)),
        ("seen", None, depth),
    ):
        grid = RollingMap(0.2, (30, 30, 20), MapConfig())
        integrate_depth(grid, PosedDepth("front", 1, image, replace(MODEL, mask=mask), FORWARD))
        changed[name] = grid.log_odds.numpy().copy()
    np.testing.assert_array_equal(changed["masked"], changed["not measured"])
    assert (changed["seen"] != changed["masked"]).any()


def test_no_feature_is_followed_near_the_mask():
    lens = _Lens(replace(MODEL, mask=bumper()))
    width, height = lens.usable.shape[::-1]
    assert lens.usable[: height // 3, width // 2 :].any()
    assert not lens.usable[height * 2 // 3 :].any() and not lens.usable[:, : width // 5].any()


def test_a_mask_is_a_part_of_what_a_camera_is():
    same = (replace(MODEL, mask=bumper()) for _ in range(2))
    assert len({*same, MODEL, replace(MODEL, mask=~bumper())}) == 3
    for wrong in (bumper(80, 60), bumper().astype(np.uint8)):
        with pytest.raises(CalibrationError, match="mask of the camera is"):
            check_camera(replace(MODEL, mask=wrong))


def write(path, picture):
    assert cv2.imwrite(str(path), picture)
    return str(path)


def test_white_is_masked(tmp_path):
    picture = np.repeat(np.where(bumper(), 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(masked(MODEL, write(tmp_path / "mask.png", picture)).mask, bumper())
    assert masked(MODEL, "") is MODEL


def unusable_masks(folder):
    """Paths of masks that cannot be used, and what is said of them."""
    black = np.zeros((120, 160), np.uint8)
    (folder / "text.png").write_text("no picture")
    cut = folder / "cut.png"
    write(cut, np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8))
    cut.write_bytes(cut.read_bytes()[:2000])
    return {
        str(folder / "none.png"): "none.png cannot be read: No such file",
        str(folder): "cannot be read: Is a directory",
        str(folder / "text.png"): "is neither JPEG nor PNG",
        str(cut): "cut off or damaged",
        write(folder / "small.png", black[:60]): "small.png is 160x60, the pictures are 160x120",
        write(folder / "white.png", black + 255): "white everywhere",
    }


def test_a_mask_that_cannot_be_used_is_refused(tmp_path):
    for path, text in unusable_masks(tmp_path).items():
        with pytest.raises(ImplausibleError, match=text) as refused:
            masked(MODEL, path)
        assert refused.value.reason == "mask cannot be used" and "\n" not in str(refused.value)


def test_a_bad_mask_costs_its_camera_and_the_map_goes_on(tiny_model, small_bag, tmp_path):
    small = write(tmp_path / "small.png", np.zeros((10, 10), np.uint8))
    found = {}
    for mask in (small, ""):
        cameras = [f"cameras.front.mask={mask}", "cameras.front.image_topic=", "cameras.back.image_topic="]
        config = load_config(overrides=[f"model={tiny_model}", "map.size_xy_m=8", *cameras])
        with BagReader(small_bag) as reader:
            found[mask] = play_bag(reader, plan_play(reader, config)).summary
    refused, plain = found[small], found[""]
    assert refused["keyframes"] == plain["keyframes"] > 3
    assert refused["dropped"]["front: mask cannot be used"] == refused["keyframes"]
    expected = f"mask {small} is 10x10, the pictures are 160x120; the camera is left out"
    assert expected in refused["problems"]["front: mask cannot be used"]
    assert not plain["dropped"]
