# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from occupancy_nn_ros.compute.threads import use_threads
from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.errors import CalibrationError, CheckpointError, ConfigError, TransformError
from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint
from occupancy_nn_ros.network.depth import pixel_rays
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.runtime.evidence import evidence_weight
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedImage

TINY = ModelConfig(
    canvas_pixels=4096, widths=(8, 8, 16, 16), feature_channels=16, match_groups=2, match_width=4, depth_bins=12,
    detail_channels=8, detail_groups=2, detail_width=4, detail_planes=6,
    volume_cell_m=0.8, volume_shape=(12, 12, 4), volume_features=4, volume_channels=6, volume_width=16,
    decoder_width=16, range_m=4.0,
)  # fmt: skip
WINDOW = LatticeWindow(0.25, (-40, -40, -10), (80, 80, 20))
K_WIDE, K_SQUARE = ([[90.0, 0, w / 2], [0, 90, h / 2], [0, 0, 1]] for w, h in ((320, 80), (96, 96)))
R_BASE_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
MODELS = (
    CameraModel(160, 120, np.array([[110.0, 0, 80], [0, 110, 60], [0, 0, 1]]), "plumb_bob", np.array([-0.1, 0, 0, 0])),
    CameraModel(200, 100, np.array([[120.0, 0, 99], [0, 121, 51], [0, 0, 1]]), "equidistant", np.zeros(4)),
    CameraModel(96, 96, np.array([[70.0, 0, 48], [0, 70, 48], [0, 0, 1]]), "none", np.zeros(0)),
)  # fmt: skip


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    return Predictor(Checkpoint(OccupancyNetwork(TINY)), NetworkConfig(device="cpu"))


def keyframe(n=0, *, cameras=3, at=(0.0, 0.0, 0.0), seed=7):
    """Cameras of different kinds that look to the front and the sides."""
    base = np.eye(4)
    base[:3, 3] = np.add(at, (0.3 * n, 0, 0))
    images = []
    for c in range(cameras):
        model, yaw = MODELS[c % 3], c * 0.9
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn @ R_BASE_OPTICAL, (0.1 * np.cos(yaw), 0.1 * np.sin(yaw), 0.5)
        pixels = np.random.default_rng([seed, n, c]).integers(0, 256, (model.height, model.width, 3), dtype=np.uint8)
        images.append(PosedImage(f"camera{c}", n, pixels, model, base @ pose))
    return Keyframe(n, base, tuple(images))


def test_answer_lies_on_the_lattice_and_is_complete(predictor):
    got = predictor.predict(keyframe(), WINDOW)
    assert got.window.voxel_size_m == 0.25
    assert got.logit.shape == got.weight.shape == got.window.shape
    assert got.class_logits.shape == (len(TINY.classes), *got.window.shape)
    assert got.logit.dtype == got.weight.dtype == torch.float32
    assert torch.isfinite(got.logit).all()
    assert ((got.weight >= 0) & (got.weight <= 1)).all()
    assert (got.weight > 0).any() and (got.weight == 0).any()


def test_the_same_keyframes_give_the_same_answers(predictor):
    first = [predictor.predict(keyframe(n), WINDOW).logit for n in range(3)]
    predictor.reset()
    second = [predictor.predict(keyframe(n), WINDOW).logit for n in range(3)]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_past_keyframes_take_part_until_forgotten(predictor):
    alone = predictor.predict(keyframe(1), WINDOW).logit
    predictor.reset()
    predictor.predict(keyframe(0), WINDOW)
    after_one = predictor.predict(keyframe(1), WINDOW).logit
    assert (after_one - alone).abs().max() > 1e-6
    predictor.reset()
    assert torch.equal(predictor.predict(keyframe(1), WINDOW).logit, alone)


@pytest.mark.parametrize("threads", [1, 3])
def test_poses_corrected_beside_count_as_those_corrected_before(predictor, threads):
    def corrected(given):
        moved = np.eye(4)
        moved[:3, 3] = 0.02, -0.01, 0.03
        return replace(given, images=tuple(replace(image, T_map_cam=moved @ image.T_map_cam) for image in given.images))

    def place(given):
        predictor.move_past({0: np.stack([image.T_map_cam for image in corrected(keyframe(0)).images])})
        return corrected(given)

    use_threads(threads)
    try:
        predictor.predict(keyframe(0), WINDOW)
        placed, got = predictor.place_and_predict(keyframe(1), WINDOW, place)
        predictor.reset()
        predictor.predict(corrected(keyframe(0)), WINDOW)
        expected = predictor.predict(corrected(keyframe(1)), WINDOW)
    finally:
        use_threads(0)
    assert torch.equal(got.logit, expected.logit) and torch.equal(got.weight, expected.weight)
    for ours, theirs in zip(got.depths, expected.depths, strict=True):
        np.testing.assert_array_equal(ours.depth_m, theirs.depth_m)
        np.testing.assert_array_equal(ours.T_map_cam, theirs.T_map_cam)
    np.testing.assert_array_equal(placed.images[1].T_map_cam, corrected(keyframe(1)).images[1].T_map_cam)


def test_no_past_is_kept_when_none_is_asked_for():
    torch.manual_seed(0)
    predictor = Predictor(Checkpoint(OccupancyNetwork(TINY)), NetworkConfig(device="cpu", past_keyframes=0))
    alone = predictor.predict(keyframe(1), WINDOW).logit
    predictor.predict(keyframe(0), WINDOW)
    assert torch.equal(predictor.predict(keyframe(1), WINDOW).logit, alone)


def test_memory_of_the_past_is_bounded_and_standing_still_adds_nothing(predictor):
    for n in range(8):
        predictor.predict(keyframe(n, cameras=1), WINDOW)
    assert len(predictor._past) == NetworkConfig().past_keyframes
    newest = predictor._past.of(keyframe(7).stamp_ns)
    predictor.predict(keyframe(7, cameras=1), WINDOW)
    assert predictor._past.of(keyframe(7).stamp_ns) is newest


def moved(given, by=(0.02, -0.01, 0.03)):
    shift = np.eye(4)
    shift[:3, 3] = by
    return replace(given, images=tuple(replace(image, T_map_cam=shift @ image.T_map_cam) for image in given.images))


def test_a_second_look_is_matched_with_what_came_after_under_poses_as_they_are_known_then():
    torch.manual_seed(0)
    network = OccupancyNetwork(TINY)
    predictor, twin = (
        Predictor(Checkpoint(network), NetworkConfig(device="cpu", look_again_after=2, sure_depth=0.1))
        for _ in range(2)
    )
    first = predictor.predict(keyframe(0), WINDOW)
    predictor.predict(keyframe(1), WINDOW)
    assert predictor.look_again() is None
    predictor.predict(keyframe(2), WINDOW)
    predictor.move_past({keyframe(0).stamp_ns: np.stack([image.T_map_cam for image in moved(keyframe(0)).images])})
    again = predictor.look_again()
    for n in (1, 2):
        twin.predict(keyframe(n), WINDOW)
    expected = twin.predict(moved(keyframe(0)), WINDOW)
    assert again.stamp_ns == keyframe(0).stamp_ns and again.images == ()
    for ours, theirs, before in zip(again.depths, expected.depths, first.depths, strict=True):
        np.testing.assert_array_equal(ours.depth_m, theirs.depth_m)
        assert (ours.depth_m > 0).any() and (ours.depth_m != before.depth_m).any()
        np.testing.assert_array_equal(ours.T_map_cam, theirs.T_map_cam)


def test_each_place_is_looked_at_again_once_and_standing_still_brings_no_second_look(predictor):
    told = []
    for n in (0, 1, 2, 3, 4, 4, 4, 5, 6):
        predictor.predict(keyframe(n, cameras=1), WINDOW)
        again = predictor.look_again()
        told.append(None if again is None else again.stamp_ns)
    assert told == [None] * 4 + [keyframe(0).stamp_ns, None, None, keyframe(1).stamp_ns, keyframe(2).stamp_ns]
    predictor.reset()
    assert predictor.look_again() is None


@pytest.mark.parametrize(
    "settings", [{"look_again_after": 0}, {"past_keyframes": 0}, {"past_keyframes": 1}, {"sure_depth": 1.0}]
)
def test_no_second_look_where_none_is_asked_for_or_nothing_is_kept(settings):
    predictor = Predictor(Checkpoint(OccupancyNetwork(TINY)), NetworkConfig(device="cpu", **settings))
    for n in range(8):
        predictor.predict(keyframe(n, cameras=1), WINDOW)
        assert predictor.look_again() is None


def test_a_second_look_comes_earlier_where_less_is_kept():
    predictor = Predictor(Checkpoint(OccupancyNetwork(TINY)), NetworkConfig(device="cpu", past_keyframes=3))
    for n in range(3):
        assert predictor.look_again() is None
        predictor.predict(keyframe(n, cameras=1), WINDOW)
    assert predictor.look_again().stamp_ns == keyframe(0).stamp_ns


def test_cameras_may_come_and_go(predictor):
    for n, count in enumerate((3, 1, 2, 3)):
        got = predictor.predict(keyframe(n, cameras=count), WINDOW)
        assert torch.isfinite(got.logit).all()


def test_the_window_is_clipped_to_the_reach_of_the_network(predictor):
    at = (1.1, -0.6, 0.2)
    part = predictor.predict(keyframe(at=at), WINDOW).window
    low, high = part.origin_m, part.origin_m + np.array(part.shape) * 0.25
    reach = np.array([[4.0, 4.0, TINY.volume_below_m], [4.0, 4.0, 4 * 0.8 - TINY.volume_below_m]])
    np.testing.assert_array_less(np.abs(low - (at - reach[0])), 0.2500001)
    np.testing.assert_array_less(np.abs(high - (at + reach[1])), 0.2500001)
    small = LatticeWindow(0.25, (0, -2, 0), (3, 4, 2))
    assert predictor.predict(keyframe(at=at), small).window == small


def test_a_window_out_of_reach_gives_no_voxels(predictor):
    far = LatticeWindow(0.25, (4000, 0, 0), (8, 8, 8))
    got = predictor.predict(keyframe(), far)
    assert 0 in got.window.shape
    assert got.logit.numel() == got.weight.numel() == 0


def test_parts_of_a_window_agree_with_the_whole(predictor):
    whole = predictor.predict(keyframe(), WINDOW)
    predictor.reset()
    small = predictor.predict(keyframe(), LatticeWindow(0.25, (2, -3, 0), (6, 7, 3)))
    i, j, k = np.subtract(small.window.origin, whole.window.origin)
    x, y, z = small.window.shape
    torch.testing.assert_close(small.logit, whole.logit[i : i + x, j : j + y, k : k + z], atol=1e-4, rtol=0)


def test_far_from_the_origin_nothing_changes(predictor):
    """A kilometre away, float32 would have lost the millimetres."""
    here = predictor.predict(keyframe(), WINDOW)
    predictor.reset()
    cells = (40_000, -48_000, 8)
    away = LatticeWindow(0.25, tuple(np.add(WINDOW.origin, cells).tolist()), WINDOW.shape)
    there = predictor.predict(keyframe(at=np.multiply(cells, 0.25)), away)
    assert there.window.shape == here.window.shape
    torch.testing.assert_close(there.logit, here.logit, atol=5e-3, rtol=0)


def test_where_no_camera_looks_the_weight_is_zero(predictor):
    got = predictor.predict(keyframe(cameras=1), WINDOW)
    centres = got.window.centers_m()
    behind = torch.from_numpy(centres[..., 0] < 0)
    above = torch.from_numpy(centres[..., 2] - 0.5 > np.abs(centres[..., 0]) * 0.9)
    assert behind.any() and above.any()
    assert not got.weight[behind | above].any()
    ahead = torch.from_numpy(
        (centres[..., 0] > 1) & (np.abs(centres[..., 1]) < 0.3) & (np.abs(centres[..., 2] - 0.5) < 0.2)
    )
    assert (got.weight[ahead] > 0).any()


def test_evidence_weight():
    visible = torch.tensor([0.0, 0.019, 0.09, 0.25, 1.0, 1.0, 0.25])
    distance = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 6.0])
    expected = [0.0, 0.0, 0.3, 0.5, 1.0, 1 / 2, 0.5 / 9]
    assert evidence_weight(visible, distance).tolist() == pytest.approx(expected)


def test_depth_that_is_sure_comes_as_images_of_the_same_pinhole_cameras(predictor, monkeypatch):
    bins = predictor.network.bins[-1]

    def depth(maps, views, match, sources, first):
        logits = torch.zeros(len(sources), bins.count, 2 * maps.features.shape[2], 2 * maps.features.shape[3])
        logits[:, 7, 1, 2] = 50.0  # one cell of each view is sure, all others know nothing
        return logits, logits

    monkeypatch.setattr(predictor.network, "depth", depth)
    frame = keyframe()
    scene, _ = predictor.observe(frame)
    predictor.reset()
    depths = predictor.predict(frame, WINDOW).depths
    assert [depth.camera for depth in depths] == ["camera0", "camera1", "camera2"]
    for image, depth, K in zip(frame.images, depths, scene.views.K, strict=True):
        expected = np.zeros((depth.model.height, depth.model.width), np.float32)
        expected[1, 2] = bins.centers[7]
        np.testing.assert_allclose(depth.depth_m, expected, rtol=1e-5)
        assert depth.stamp_ns == image.stamp_ns and depth.T_map_cam is image.T_map_cam
        rays = pixel_rays(K[None], *expected.shape, 4)[0].view(3, *expected.shape)[:2, 1, 2]
        np.testing.assert_allclose(unproject(depth.model, np.array([[2.0, 1.0]]))[0], rays, atol=1e-5)


def test_no_depth_is_taken_where_none_is_asked_for(predictor):
    sure = Predictor(Checkpoint(predictor.network), NetworkConfig(device="cpu", sure_depth=1.0))
    assert sure.predict(keyframe(), WINDOW).depths == ()


def test_the_images_that_the_network_is_shown_can_be_larger_than_its_model_says():
    torch.manual_seed(0)
    checkpoint = Checkpoint(OccupancyNetwork(TINY))
    for pixels, expected in ((0, TINY.canvas_pixels), (4 * TINY.canvas_pixels, 4 * TINY.canvas_pixels)):
        predictor = Predictor(checkpoint, NetworkConfig(device="cpu", canvas_pixels=pixels))
        scene, _ = predictor.observe(keyframe())
        height, width = scene.views.images.shape[-2:]
        assert height * width == pytest.approx(expected, rel=0.3)
        assert scene.nearer.shape[-2:] == (height // 4, width // 4)


def test_calibration_is_affine_and_told_apart_by_visibility():
    calibration = Calibration(2.0, 0.5, 0.25, -1.0)
    got = calibration.log_odds(torch.tensor([1.0, 1.0, -2.0, -2.0]), torch.tensor([0.9, 0.1, 0.5, 0.0]))
    assert got.tolist() == [2.5, -0.75, -3.5, -1.5]
    raw = torch.linspace(-9, 9, 7)
    assert torch.equal(Calibration().log_odds(raw, torch.ones(7)), raw)


def test_calibration_reaches_the_prediction(predictor):
    raw = predictor.predict(keyframe(), WINDOW)
    predictor.reset()
    predictor.calibration = Calibration(2.0, 1.0, 2.0, 1.0)
    torch.testing.assert_close(predictor.predict(keyframe(), WINDOW).logit, 2 * raw.logit + 1)


def test_unusable_keyframes_are_refused_and_harm_nothing(predictor):
    expected = predictor.predict(keyframe(), WINDOW).logit
    predictor.reset()
    good = keyframe()
    with pytest.raises(ValueError, match="no images"):
        predictor.predict(replace(good, images=()), WINDOW)
    nan = replace(MODELS[0], K=np.full((3, 3), np.nan))
    for bad, words in (
        (replace(good.images[0], model=nan), "finite"),
        (replace(good.images[0], image=good.images[0].image[:50]), "160x50"),
    ):
        with pytest.raises(CalibrationError, match=words):
            predictor.predict(replace(good, images=(bad, *good.images[1:])), WINDOW)
    assert torch.equal(predictor.predict(good, WINDOW).logit, expected)


def test_a_camera_that_keeps_changing_its_zoom_does_not_fill_the_memory(predictor):
    image = keyframe(cameras=1).images[0]
    for n in range(80):
        K = MODELS[0].K.copy()
        K[0, 0] += n
        predictor._choose_canvas((image,))
        predictor._look((replace(image, model=replace(MODELS[0], K=K)),))
    assert len(predictor._rectifiers) <= 65


def test_devices_that_do_not_exist():
    checkpoint = Checkpoint(OccupancyNetwork(TINY))
    for name in ("toaster", "meta", "cuda:x"):
        with pytest.raises(ConfigError, match=f"device is '{name}', expected auto"):
            Predictor(checkpoint, NetworkConfig(device=name))
    with pytest.raises(ConfigError, match="no CUDA device"):
        Predictor(checkpoint, NetworkConfig(device="cuda:63"))


def test_load_by_path(tiny_model):
    assert Predictor.load(str(tiny_model), NetworkConfig(device="cpu")).model_config.range_m == 4.0
    with pytest.raises(CheckpointError, match="no model named 'nothing'"):
        Predictor.load("nothing")


def seen_by(*names, model, n=0):
    """A keyframe of cameras of these names, all of one model."""
    pixels = np.full((model.height, model.width, 3), 90, np.uint8)
    return Keyframe(n, np.eye(4), tuple(PosedImage(name, n, pixels, model, np.eye(4)) for name in names))


def test_the_canvas_follows_the_cameras_and_not_the_first_one_for_life(predictor):
    wide, square = CameraModel(320, 80, K_WIDE), CameraModel(96, 96, K_SQUARE)

    def canvas(*keyframes):
        for each in keyframes:
            scene, _ = predictor.observe(each)
        height, width = scene.views.images.shape[-2:]
        return width / height

    assert canvas(seen_by("a", "b", model=wide)) > 2
    assert canvas(seen_by("b", model=wide)) > 2
    assert canvas(seen_by("c", model=square)) == 1  # another rig
    assert canvas(seen_by("c", "a", model=square)) == 1
    assert canvas(seen_by("a", model=wide)) > 2  # the same name, but a camera of another size
    mixed = replace(
        seen_by("a", model=wide), images=seen_by("c", model=square).images + seen_by("a", model=wide).images
    )
    assert canvas(mixed) > 2  # as long as one camera stays, so does the canvas: past keyframes match
    assert canvas(seen_by("c", model=square)) > 2


def test_images_that_a_network_cannot_see_are_refused(predictor):
    good = keyframe(cameras=1)
    grey = replace(good.images[0], image=good.images[0].image[..., 0])
    unit = replace(good.images[0], image=good.images[0].image.astype(np.float32) / 255)
    for bad, message in ((grey, "repeat a grey image three times"), (unit, "scale floats to 0..255")):
        with pytest.raises(ValueError, match=message):
            predictor.predict(replace(good, images=(bad,)), WINDOW)
    with pytest.raises(TransformError, match="T_map_base is no rigid transform"):
        predictor.predict(replace(good, T_map_base=2 * np.eye(4)), WINDOW)


def test_an_answer_tells_the_prior_that_it_holds(predictor):
    predictor.calibration = Calibration(prior_log_odds=-2.5)
    assert predictor.predict(keyframe(), WINDOW).prior_log_odds == -2.5


def test_convolutions_in_bfloat16_say_nearly_the_same_and_only_where_the_cpu_has_them(monkeypatch):
    def answer(precision, *, has):
        monkeypatch.setattr("occupancy_nn_ros.runtime.predictor.has_bfloat16", lambda: has)
        torch.manual_seed(0)
        predictor = Predictor(Checkpoint(OccupancyNetwork(TINY)), NetworkConfig(device="cpu", precision=precision))
        return [predictor.predict(keyframe(n), WINDOW) for n in range(2)][-1]

    exact = answer("float32", has=True)
    for precision, has, short in (("auto", False, False), ("auto", True, True), ("bfloat16", False, True)):
        got = answer(precision, has=has)
        assert got.logit.dtype == got.visible.dtype == torch.float32
        difference = (got.logit - exact.logit).abs().max()
        assert 1e-6 < difference < 0.02 if short else difference == 0
