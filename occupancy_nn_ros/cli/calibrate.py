# SPDX-License-Identifier: Apache-2.0
"""Fit a trained model's probabilities to simulated truth, so that 0.8 means occupied four times out of five.

Uses drives in worlds of the training kind that training did not see. Needs MuJoCo: pip install 'occupancy-nn-ros[sim]'.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from occupancy_nn_ros.cli.settings import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("model", type=Path, help="a .safetensors file, such as training writes")
    parser.add_argument("--out", type=Path, required=True, help="where to write the calibrated model")
    parser.add_argument(
        "--imperfect",
        action="store_true",
        help="under errors of cameras, poses and calibration as real robots have them",
    )
    parser.add_argument(
        "--canvas-pixels", type=int, metavar="N",
        help="area of the images that it is shown from now on (default: as it was trained)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Fit and write."""
    from occupancy_nn_ros.evaluation.calibrate import CALIBRATION_PLAN, collect_logits, fit_calibration
    from occupancy_nn_ros.network.checkpoint import Calibration, load_checkpoint, save_checkpoint, set_canvas
    from occupancy_nn_ros.runtime.predictor import Predictor

    checkpoint = replace(load_checkpoint(args.model), calibration=Calibration())
    set_canvas(checkpoint, args.canvas_pixels)
    samples = []
    with progress_bar(quiet=False) as progress:
        task = progress.add_task("driving", total=None)
        plan = replace(CALIBRATION_PLAN, imperfect=args.imperfect)
        for sample in collect_logits(Predictor(checkpoint), plan):
            samples.append(sample)
            progress.update(task, description=f"{len(samples)} keyframes")
    calibration = fit_calibration(samples)
    save_checkpoint(replace(checkpoint, calibration=calibration), args.out)
    print(f"{args.out}: {calibration}")
    return 0
