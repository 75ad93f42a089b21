# SPDX-License-Identifier: Apache-2.0
"""Last stage: training goes on from where it was, at the highest rate the card allows; what it learnt is packed to be brought home."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from pieces import join, pack
from report import Row, Stage, read_stage

from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.settings import from_mapping, read_yaml
from occupancy_nn_ros.training.loop import Progress, TrainConfig, train

ROOT = Path(__file__).resolve().parents[2]
PACKING_S = 12.0
TRIAL_S = 12.0
TINY = ModelConfig(
    canvas_pixels=6144, widths=(8, 8, 16, 16), feature_channels=16, match_groups=2, match_width=4, depth_bins=12,
    detail_channels=8, detail_groups=2, detail_width=4, detail_planes=6, volume_cell_m=0.8, volume_shape=(12, 12, 4),
    volume_features=4, volume_channels=6, volume_width=16, decoder_width=16, range_m=4.0,
)  # fmt: skip


def day_config(stage: Stage) -> TrainConfig:
    """Settings of the model's run, as far as they do not depend on the card."""
    config = from_mapping(TrainConfig, read_yaml(ROOT / "config" / "train" / f"{stage.model}.yaml"))
    config = replace(config, tensorboard=False, loaders=0 if stage.dry else 12)
    if stage.dry:
        config = replace(config, batch=1, save_every=2, model=TINY, precision="float32")
    return config


def prepare(stage: Stage, run: Path, data: Path) -> int:
    """Put what travelled along into the run's folder, to go on with today's shards; returns the step it is at."""
    home = stage.work / "resume"
    if not (run / "state.pt").exists():
        if not (home / "pieces.json").exists():
            return 0
        join(home, run)
    state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
    state["shards"] = sorted(path.name for path in data.glob("*.safetensors"))
    torch.save(state, run / "state.pt")
    return int(state["step"])


def try_batches(stage: Stage, config: TrainConfig, data: Path, device: str) -> list[Row]:
    """Samples a second, by batch, in trial runs that are thrown away."""
    rows: list[Row] = []
    ways = [(1, False)] if stage.dry else [(config.batch, False), (config.batch, True), (4 * config.batch, False)]
    for batch, recorded in ways:
        rates: list[float] = []
        trial = replace(config, batch=batch, record_steps=recorded, steps=1_000_000, device=device)
        row: Row = {"what": "training, trial", "batch": batch, "recorded": recorded, "samples_per_s": 0.0, "ok": True}
        shutil.rmtree(stage.work / "trial", ignore_errors=True)
        seconds = (1.0 if stage.dry else TRIAL_S) * (2 if recorded else 1)  # recording takes its time, once
        try:
            train(trial, data, stage.work / "trial", partial(_note, rates), seconds=seconds)
            row["samples_per_s"] = rates[-1] if rates else 0.0
        except RuntimeError as error:
            row |= {"ok": False, "said": str(error)[:300]}
        rows.append(row)
    return rows


def _note(rates: list[float], progress: Progress) -> None:
    rates.append(progress.samples_per_s)


def learn(stage: Stage, config: TrainConfig, data: Path, seconds: float) -> Row:
    """Train for so long; returns what came of it."""
    run, rates = stage.work / "run", []
    first = prepare(stage, run, data)
    reached = [first]

    def report(progress: Progress) -> None:
        rates.append(progress.samples_per_s)
        reached[0] = progress.step

    train(config, data, run, report, seconds=seconds)
    curve = [json.loads(line) for line in (run / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    picture = run / "sample.png"
    if picture.exists():
        shutil.copy(picture, stage.out / "sample.png")
    manifest = pack(run, stage.out, config.name)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "what": f"training of {config.name}", "first_step": first, "steps": reached[0], "of": config.steps, "batch": config.batch,
        "samples": (reached[0] - first) * config.batch, "samples_per_s": round(rates[-1], 2) if rates else 0.0,
        "peak_bytes": peak, "whole": manifest["whole"], "pieces": manifest["pieces"], "curve": curve[-400:], "ok": reached[0] > first,
    }  # fmt: skip


def main() -> int:
    """Run the stage."""
    stage = read_stage("train")
    began, data = time.monotonic(), stage.work / "data"
    config = replace(day_config(stage), device=str(stage.device))
    rows = try_batches(stage, config, data, str(stage.device))
    stage.write(rows)
    best = max(rows, key=lambda item: item["samples_per_s"])
    left = stage.seconds - (time.monotonic() - began) - (1.0 if stage.dry else PACKING_S)
    rate = max(best["samples_per_s"], 0.1) / best["batch"]
    first = prepare(stage, stage.work / "run", data)
    # The learning rate falls to its end with what there is time for: weights that are brought home should be finished ones.
    steps = first + max(2, round(0.95 * rate * left))
    config = replace(config, batch=best["batch"], record_steps=best["recorded"], steps=min(steps, first + 4) if stage.dry else steps,
                     warmup=min(config.warmup, max(1, (steps - first) // 10)))  # fmt: skip
    rows.append(learn(stage, config, data, left))
    stage.write(rows)
    return 0 if rows[-1]["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
