# SPDX-License-Identifier: Apache-2.0
"""Distances against brute force and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from occupancy_nn_ros.mapping import distance_field as module
from occupancy_nn_ros.mapping.distance_field import distance_field, distance_field_on_device


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.floats(0.0, 1.0), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_distances_equal_brute_force(shape, share, seed):
    occupied = np.random.default_rng(seed).random(shape) < share
    got = distance_field(occupied, 0.5, 3.0)
    cells = np.argwhere(occupied)
    for cell in np.ndindex(*shape):
        nearest = np.sqrt(((cells - cell) ** 2).sum(axis=1)).min() * 0.5 if len(cells) else np.inf
        assert got[cell] == pytest.approx(min(nearest, 3.0), abs=1e-5)


@pytest.mark.parametrize("shape", [(200, 200), (1, 300), (300, 1), (60, 50, 17), (40, 1, 1)])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_distances_equal_scipy(shape, share):
    occupied = np.random.default_rng(3).random(shape) < share
    occupied.flat[7] = True
    np.testing.assert_allclose(distance_field(occupied, 1.0, 1e6), distance_transform_edt(~occupied), atol=1e-3)


def test_without_kernels_scipy_gives_the_same(monkeypatch):
    occupied = np.random.default_rng(3).random((30, 20, 8)) < 0.02
    fast = distance_field(occupied, 0.2, 5.0)
    monkeypatch.setattr(module, "HAVE_KERNELS", False)
    np.testing.assert_allclose(fast, distance_field(occupied, 0.2, 5.0), atol=1e-5)


def test_nothing_occupied_is_as_far_as_it_gets():
    assert (distance_field(np.zeros((5, 6), bool), 0.2, 4.0) == 4.0).all()


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 2), (20000, 1)])
def test_shapes_that_cannot_be_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        distance_field(np.ones(shape, bool), 0.2, 4.0)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.one_of(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.tuples(*[st.integers(1, 14)] * 3)),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.6, 1.0]),
    most=st.floats(0.1, 9.0),
    seed=st.integers(0, 1000),
)
def test_tensors_on_a_device_give_the_same(shape, share, most, seed):
    occupied = np.random.default_rng(seed).random(shape) < share
    got = distance_field_on_device(torch.from_numpy(occupied), 0.25, most)
    np.testing.assert_allclose(got.numpy(), distance_field(occupied, 0.25, most), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same():
    occupied = np.random.default_rng(3).random((200, 200, 16)) < 0.02
    got = distance_field_on_device(torch.from_numpy(occupied).cuda(), 0.1, 2.0)
    np.testing.assert_allclose(got.cpu().numpy(), distance_field(occupied, 0.1, 2.0), atol=1e-5)
