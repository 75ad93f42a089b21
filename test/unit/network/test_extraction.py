# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.network.extraction import centers, extract, refinements
from occupancy_nn_ros.values import LatticeWindow

ORIGIN = np.array([0.3, -0.2, 0.1])
CPU = torch.device("cpu")


class Ball:
    """A field that knows exactly which cubes touch a ball, and counts the questions."""

    def __init__(self, radius_m, unseen_beyond_m=np.inf):
        self.radius_m, self.unseen_beyond_m, self.asked = radius_m, unseen_beyond_m, []

    def __call__(self, points, edge_m):
        self.asked.append((len(points), edge_m))
        nearest = (points.abs() - edge_m / 2).clamp(min=0).norm(dim=1)
        logit = torch.where(nearest < self.radius_m, 5.0, -5.0)
        visible = (nearest < self.unseen_beyond_m).float()
        return torch.stack([logit, points[:, 0], points[:, 2]], dim=1), visible


@pytest.mark.parametrize(
    ("voxel", "coarse", "expected"),
    [(0.2, 0.4, 1), (0.1, 0.4, 2), (0.05, 0.4, 3), (0.15, 0.4, 1), (0.4, 0.4, 0), (1.0, 0.4, 0), (0.2, 0.0, 0)],
)
def test_cubes_are_halved_until_they_are_voxels(voxel, coarse, expected):
    assert refinements(voxel, coarse) == expected


@settings(max_examples=40, deadline=None)
@given(
    low=st.tuples(*[st.integers(-23, 5)] * 3),
    shape=st.tuples(*[st.integers(1, 27)] * 3),
    levels=st.integers(0, 3),
    radius=st.floats(0.05, 2.0),
)
def test_a_field_that_answers_for_cubes_gives_the_same_on_every_way(low, shape, levels, radius):
    window = LatticeWindow(0.2, low, shape)
    dense, dense_visible = extract(Ball(radius), window, ORIGIN, 0, CPU)
    logits, visible = extract(Ball(radius), window, ORIGIN, levels, CPU)
    assert logits.shape == (*shape, 3) and visible.shape == shape
    assert torch.equal(logits[..., 0], dense[..., 0])
    assert torch.equal(visible, dense_visible)
    occupied = dense[..., 0] > 0
    assert torch.equal(logits[occupied], dense[occupied])  # classes too, wherever there is something


def test_far_fewer_questions_are_asked_than_there_are_voxels():
    window = LatticeWindow(0.1, (-80, -80, -16), (160, 160, 32))
    ball = Ball(0.8)
    extract(ball, window, ORIGIN, 2, CPU)
    assert [edge for _, edge in ball.asked] == pytest.approx([0.4, 0.2, 0.1])
    assert sum(count for count, _ in ball.asked) < window.size / 15


def test_what_no_camera_sees_is_not_looked_into():
    window = LatticeWindow(0.1, (-40, -40, -8), (80, 80, 16))
    everywhere, near = Ball(9.0), Ball(9.0, unseen_beyond_m=1.0)
    extract(everywhere, window, ORIGIN, 1, CPU)
    _, visible = extract(near, window, ORIGIN, 1, CPU)
    assert everywhere.asked[1][0] == window.size
    assert near.asked[1][0] < window.size / 3
    distance = centers(window, ORIGIN, CPU).norm(dim=-1)
    assert visible[distance > 1.5].max() == 0 and visible[distance < 1.0].min() == 1


def test_centers_lose_no_digits_far_from_home():
    window = LatticeWindow(0.2, (50_000_000, 0, 0), (3, 1, 1))
    origin = np.array([50_000_000 * 0.2 + 0.1, 0.1, 0.1])
    assert centers(window, origin, CPU)[:, 0, 0, 0].tolist() == pytest.approx([0.0, 0.2, 0.4], abs=1e-6)
