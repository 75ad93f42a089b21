# SPDX-License-Identifier: Apache-2.0
"""Textures: the same for the same seed, never blank numbers, and held-out patterns are held out."""

import numpy as np
import pytest

from occupancy_nn_ros.simulation.textures import HELDOUT_PATTERNS, SIZE, TRAIN_PATTERNS, _paint, make_texture


@pytest.mark.parametrize("pattern", sorted({*TRAIN_PATTERNS, *HELDOUT_PATTERNS}, key=lambda p: p.__name__))
def test_patterns_are_finite_and_about_in_range(pattern):
    for seed in range(6):
        values = pattern(np.random.default_rng(seed))
        assert values.shape == (SIZE, SIZE) and values.dtype == np.float32
        assert np.isfinite(values).all() and -1 < values.mean() < 2


@pytest.mark.parametrize("family", ["train", "heldout"])
def test_textures_are_the_same_for_the_same_seed(family):
    first = make_texture(np.random.default_rng(3), family)
    assert first.shape == (SIZE, SIZE, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, make_texture(np.random.default_rng(3), family))
    assert not np.array_equal(first, make_texture(np.random.default_rng(4), family))


def test_training_sees_no_pattern_of_the_heldout_worlds_but_plain_paint():
    assert set(TRAIN_PATTERNS) & set(HELDOUT_PATTERNS) == {_paint}
