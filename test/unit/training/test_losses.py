# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from occupancy_nn_ros.network.depth import DepthBins
from occupancy_nn_ros.training.losses import (
    CLASS_WEIGHT,
    HIDDEN_WEIGHT,
    UNSEEN_WEIGHT,
    Losses,
    depth_loss,
    point_losses,
)
from occupancy_nn_ros.training.shards import IGNORED, OCCUPIED

BINS = DepthBins(8, 0.5, 8.0)


def softplus(x):
    return math.log1p(math.exp(x))


def test_depth_loss_of_equal_odds_is_the_logarithm_of_their_number():
    depth = torch.tensor([[[0.7, 3.0], [0.0, 100.0]]])
    assert float(depth_loss(torch.zeros(1, 8, 2, 2), depth, BINS)) == pytest.approx(math.log(8))


def test_depth_at_a_centre_wants_that_interval_and_between_two_wants_both():
    logits = torch.randn(1, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    log_p = logits.log_softmax(1)[0, :, 0, 0]
    at_centre = depth_loss(logits, BINS.centers[3].reshape(1, 1, 1), BINS)
    assert float(at_centre) == pytest.approx(-float(log_p[3]), abs=1e-4)
    at_edge = depth_loss(logits, BINS.edges[4].reshape(1, 1, 1), BINS)
    assert float(at_edge) == pytest.approx(-float(log_p[3] + log_p[4]) / 2, abs=1e-4)


@pytest.mark.parametrize(("depth", "interval"), [(0.0, 7), (-1.0, 7), (50.0, 7), (0.1, 0)])
def test_depth_beyond_either_end_wants_the_end(depth, interval):
    logits = torch.randn(1, 8, 1, 1, generator=torch.Generator().manual_seed(1))
    loss = depth_loss(logits, torch.full((1, 1, 1), depth), BINS)
    assert float(loss) == pytest.approx(-float(logits.log_softmax(1)[0, interval, 0, 0]), abs=1e-4)


def test_occupancy_loss_weighs_by_visibility_and_leaves_out_the_ignored():
    logits = torch.zeros(5, 4)
    logits[:, 0] = torch.tensor([2.0, -1.0, 3.0, 0.5, 100.0])
    visible = torch.tensor([1.0, 0.5, 0.2, 0.0, 1.0])
    labels = torch.tensor([0, 2, 1, 0, IGNORED])
    got, _ = point_losses(logits, visible, labels)
    terms = [softplus(2.0), softplus(1.0), HIDDEN_WEIGHT * softplus(-3.0), UNSEEN_WEIGHT * softplus(0.5)]
    assert float(got) == pytest.approx(sum(terms) / (2 + HIDDEN_WEIGHT + UNSEEN_WEIGHT), rel=1e-5)


def test_class_loss_is_over_solid_points_that_a_camera_may_see():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    visible, labels = torch.tensor([1.0, 0.3, 0.0, 1.0]), torch.tensor([2, 3, 1, 0])
    _, semantic = point_losses(logits, visible, labels)
    log_p = logits[:, 1:].log_softmax(1)
    assert float(semantic) == pytest.approx(-float(log_p[0, 1] + log_p[1, 2]) / 2, rel=1e-5)


def test_nothing_to_judge_is_no_loss():
    logits = torch.randn(3, 4, requires_grad=True)
    occupancy, semantic = point_losses(logits, torch.ones(3), torch.full((3,), IGNORED))
    assert float(occupancy) == 0 and float(semantic) == 0
    (occupancy + semantic).backward()
    assert not logits.grad.any()


def test_total():
    losses = Losses(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0))
    assert float(losses.total) == pytest.approx(1 + 2 * 2 + CLASS_WEIGHT * 3)


def test_gradients_agree_with_finite_differences():
    rng = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 8, 2, 2, generator=rng, dtype=torch.double).float().requires_grad_()
    depth = torch.tensor([[[0.7, 3.0], [0.0, 5.0]]])
    depth_loss(logits, depth, BINS).backward()
    step = 1e-2
    for index in np.ndindex(1, 8, 2, 2):
        up, down = logits.detach().clone(), logits.detach().clone()
        up[index] += step
        down[index] -= step
        slope = (depth_loss(up, depth, BINS) - depth_loss(down, depth, BINS)) / (2 * step)
        assert float(slope) == pytest.approx(float(logits.grad[index]), abs=2e-4)


def test_pixels_of_unknown_depth_are_not_counted():
    logits = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(3), requires_grad=True)
    depth = torch.tensor([[[0.7, math.nan], [math.nan, 0.0]]])
    loss = depth_loss(logits, depth, BINS)
    known = [depth_loss(logits[:, :, i : i + 1, i : i + 1], depth[:, i : i + 1, i : i + 1], BINS) for i in (0, 1)]
    assert float(loss.detach()) == pytest.approx(float((known[0] + known[1]).detach()) / 2, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all() and (gradient[0, :, 0, 1] == 0).all() and (gradient[0, :, 0, 0] != 0).all()


def test_where_no_depth_is_known_there_is_no_loss():
    logits = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(4), requires_grad=True)
    loss = depth_loss(logits, torch.full((2, 3, 3), math.nan), BINS)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0 and (gradient == 0).all()


def test_occupied_without_a_class_teaches_occupancy_and_no_class():
    logits, visible = torch.randn(3, 4, generator=torch.Generator().manual_seed(5)), torch.ones(3)
    named, unnamed = torch.tensor([2, 1, 0]), torch.tensor([2, OCCUPIED, 0])
    occupancy, semantic = point_losses(logits, visible, unnamed)
    assert float(occupancy) == pytest.approx(float(point_losses(logits, visible, named)[0]))
    assert float(semantic) == pytest.approx(-float(logits[0, 1:].log_softmax(0)[1]), rel=1e-5)
    assert float(point_losses(logits, visible, torch.full((3,), OCCUPIED))[1]) == 0
