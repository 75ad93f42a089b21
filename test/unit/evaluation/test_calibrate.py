# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from occupancy_nn_ros.evaluation.calibrate import LabelledLogits, fit_calibration, fit_platt


def drawn(scale, offset, count=200_000, seed=0):
    """Logits, and labels drawn with the probability that an affine map of them says."""
    generator = torch.Generator().manual_seed(seed)
    logit = torch.randn(count, generator=generator) * 2
    probability = torch.sigmoid(scale * logit + offset)
    return logit, (torch.rand(count, generator=generator) < probability).float()


def test_platt_finds_the_map_that_drew_the_labels():
    assert fit_platt(*drawn(0.5, -1.0)) == pytest.approx((0.5, -1.0), abs=0.02)


def test_calibrated_logits_stay_as_they_are():
    assert fit_platt(*drawn(1.0, 0.0)) == pytest.approx((1.0, 0.0), abs=0.02)


def test_seen_and_inferred_voxels_are_fitted_apart_and_the_prior_is_the_share_of_occupied_ones():
    (a, ya), (b, yb) = drawn(2.0, 0.5, seed=1), drawn(0.25, -0.5, seed=2)
    visible = torch.cat([torch.ones(len(a), dtype=torch.bool), torch.zeros(len(b), dtype=torch.bool)])
    got = fit_calibration([LabelledLogits(torch.cat([a, b]), visible, torch.cat([ya, yb]))])
    assert (got.visible_scale, got.visible_offset) == pytest.approx((2.0, 0.5), abs=0.04)
    assert (got.inferred_scale, got.inferred_offset) == pytest.approx((0.25, -0.5), abs=0.02)
    share = float(torch.cat([ya, yb]).mean())
    assert got.prior_log_odds == pytest.approx(math.log(share / (1 - share)), abs=1e-6)
