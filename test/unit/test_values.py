# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.values import CameraModel

K = [[200.0, 0.0, 99.5], [0.0, 201.0, 49.5], [0.0, 0.0, 1.0]]
MODEL = CameraModel(200, 100, np.array(K), "plumb_bob", np.array([0.1, 0, 0, 0, 0]))


def test_lists_and_rows_of_numbers_become_matrices():
    for given in (K, np.ravel(K).tolist(), np.array(K, np.float32)):
        model = CameraModel(200, 100, given)
        assert model.K.shape == (3, 3) and model.K.dtype == np.float64
        assert np.array_equal(model.K, K)
        assert model.distortion_model == "none" and model.D.shape == (0,)


@pytest.mark.parametrize("given", ["K", [[1, 2], [3]], {"fx": 1}])
def test_what_holds_no_numbers_is_refused(given):
    with pytest.raises(CalibrationError, match="expected numbers"):
        CameraModel(200, 100, given)


def test_models_compare_and_hash_by_what_they_hold():
    same = CameraModel(200, 100, K, "plumb_bob", [0.1, 0, 0, 0, 0])
    assert same == MODEL and hash(same) == hash(MODEL) and {MODEL: 1}[same] == 1
    others = [
        replace(MODEL, width=201), replace(MODEL, height=101), replace(MODEL, distortion_model="equidistant"),
        replace(MODEL, K=np.array(K) * 1.0000001), replace(MODEL, D=np.array([0.1, 0, 0, 0])), replace(MODEL, binning=(2, 2)),
    ]  # fmt: skip
    assert all(other != MODEL for other in others)
    assert len({MODEL, same, *others}) == 1 + len(others)
    assert MODEL != "a model"


def test_a_model_keeps_its_own_numbers():
    given = np.array(K)
    model = CameraModel(200, 100, given)
    given[0, 0] = 0
    assert model.K[0, 0] == 200
