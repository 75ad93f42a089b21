# SPDX-License-Identifier: Apache-2.0
"""The command that calibrates a model, on one short drive instead of many."""

import pytest

from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.evaluation import calibrate
from occupancy_nn_ros.evaluation.held_out_worlds import EvaluationPlan
from occupancy_nn_ros.network.checkpoint import Calibration, load_checkpoint


@pytest.mark.usefixtures("renderer_works")
def test_a_model_gets_a_calibration_and_the_size_of_its_pictures(tiny_model, tmp_path, monkeypatch):
    plan = EvaluationPlan(worlds=("indoor",), seeds=(3,), rig="front", duration_s=1.5)
    of_all_drives = calibrate.collect_logits
    monkeypatch.setattr(calibrate, "collect_logits", lambda predictor, _: of_all_drives(predictor, plan))
    out = tmp_path / "calibrated.safetensors"
    assert main(["calibrate", str(tiny_model), "--out", str(out), "--canvas-pixels", "16384"]) == 0
    before, after = load_checkpoint(tiny_model), load_checkpoint(out)
    assert after.network.config.canvas_pixels == 16384
    assert before.network.config.canvas_pixels == 8192
    assert before.calibration == Calibration() != after.calibration
    for name, weights in before.network.state_dict().items():
        assert weights.equal(after.network.state_dict()[name])
