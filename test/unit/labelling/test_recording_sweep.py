# SPDX-License-Identifier: Apache-2.0
"""Every keyframe gets its look, in order, matched with those before and after it; few are held at a time."""

from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.labelling import recording_sweep
from occupancy_nn_ros.labelling.recording_sweep import AROUND, MOST_WAITING, RecordingSweep
from occupancy_nn_ros.network.checkpoint import load_checkpoint
from occupancy_nn_ros.runtime.player import read_keyframes
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import LatticeWindow

CONFIG = load_config(
    [],
    ["keyframes.distance_m=0.05", "network.align_poses=false", "network.precision=float32", "network.device=cpu",
     f"network.past_keyframes={AROUND}", "network.sure_depth=0.15", "network.coarse_m=0"],
)  # fmt: skip


@pytest.fixture(scope="module")
def keyframes(small_bag):
    return list(read_keyframes(small_bag, CONFIG))


@pytest.fixture(autouse=True)
def _low_bar(monkeypatch):
    """Random weights are sure of little."""
    monkeypatch.setattr(recording_sweep, "LEAST_SURE", 0.15)


def sweep_of(tiny_model):
    return RecordingSweep(load_checkpoint(tiny_model).network, CONFIG.network)


def test_each_keyframe_gets_its_look(keyframes, tiny_model):
    looks = list(sweep_of(tiny_model).looks(keyframes))
    assert len(keyframes) > AROUND + 2
    assert [look.keyframe.stamp_ns for look in looks] == [keyframe.stamp_ns for keyframe in keyframes]
    for look, keyframe in zip(looks, keyframes, strict=True):
        assert [depth.camera for depth in look.depths] == [image.camera for image in keyframe.images]
        for depth, image in zip(look.depths, keyframe.images, strict=True):
            assert depth.depth_m.shape == (depth.model.height, depth.model.width)
            np.testing.assert_array_equal(depth.T_map_cam, image.T_map_cam)


def test_the_last_look_is_what_the_live_predictor_sees(keyframes, tiny_model):
    """Nothing comes after it, so that both know the same."""
    predictor = Predictor.load(str(tiny_model), CONFIG.network)
    window = LatticeWindow(0.5, (-2, -2, -1), (4, 4, 2))
    for keyframe in keyframes:
        live = predictor.predict(keyframe, window).depths
    *_, last = sweep_of(tiny_model).looks(keyframes)
    assert any((depth.depth_m > 0).any() for depth in live)
    for mine, theirs in zip(last.depths, live, strict=True):
        np.testing.assert_allclose(mine.depth_m, theirs.depth_m, rtol=1e-4)
        np.testing.assert_allclose(mine.model.K, theirs.model.K)


def test_what_comes_later_changes_a_look_and_what_is_far_does_not(keyframes, tiny_model):
    whole = list(sweep_of(tiny_model).looks(keyframes))
    first = list(sweep_of(tiny_model).looks(keyframes[:1]))
    near = list(sweep_of(tiny_model).looks(keyframes[: AROUND + 1]))
    assert not np.array_equal(first[0].depths[0].depth_m, whole[0].depths[0].depth_m)
    np.testing.assert_array_equal(near[0].depths[0].depth_m, whole[0].depths[0].depth_m)


def test_a_robot_that_waits_is_not_waited_for(keyframes, tiny_model):
    """Its many keyframes are one place; looks come out before the recording ends."""
    taken = []

    def waiting():
        for n in range(MOST_WAITING + 4):
            taken.append(n)
            yield replace(keyframes[0], stamp_ns=keyframes[0].stamp_ns + n)

    first = next(sweep_of(tiny_model).looks(waiting()))
    assert first.keyframe.stamp_ns == keyframes[0].stamp_ns and len(taken) == MOST_WAITING + 1
