# SPDX-License-Identifier: Apache-2.0
"""Last stage: training goes on from where it was, at the highest rate the card allows; what it learnt is packed to be brought home."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pieces import join, pack
from report import Row, Stage, read_stage

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.settings import from_mapping, read_yaml
from occupancy_nn_ros.training.loop import Progress, TrainConfig, train

ROOT = Path(__file__).resolve().parents[2]
PACKING_S = 12.0
TRIAL_S, STARTING_S = 8.0, 20.0
"""A trial lasts so long after its first step, for which loaders and compilers may take so long."""

SAVE_EVERY_S = 30.0
TRIAL = "training, trial"
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


def try_ways(stage: Stage, config: TrainConfig, data: Path) -> list[Row]:
    """Samples a second in trial runs that are thrown away, by batch, and step by step or recorded.

    The recorded one runs in a process of its own: a recording that fails can spoil its process's device.
    """
    plain = [replace(config, record_steps=False), replace(config, batch=4 * config.batch, record_steps=False)]
    rows = [try_way(stage, way, data) for way in (plain[:1] if stage.dry else plain)]
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    apart = spawn.Process(target=_try_apart, args=(there, stage, replace(config, record_steps=not stage.dry), data))
    apart.start()
    there.close()
    try:
        row: Row = here.recv() if here.poll(2 * TRIAL_S + 2 * STARTING_S) else {"said": "took too long"}
    except EOFError:
        row = {"said": "ended without an answer"}
    apart.join(timeout=5)
    apart.kill()
    return [*rows, {"what": TRIAL, "batch": config.batch, "recorded": True, "samples_per_s": 0.0, "ok": False, **row}]


def _try_apart(answer: Any, stage: Stage, config: TrainConfig, data: Path) -> None:
    answer.send(try_way(stage, config, data))


class EnoughError(Exception):
    """A trial has lasted long enough."""


class Trial:
    """Notes when steps are done, and ends a trial in time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.marks: list[tuple[float, int]] = []

    def __call__(self, progress: Progress) -> None:
        """Note a step."""
        self.marks.append((time.monotonic(), progress.step))
        if self.marks[-1][0] - self.marks[0][0] > self.seconds:
            raise EnoughError

    @property
    def steps_per_s(self) -> float:
        """Of the second half, when recordings are made; 0 if that is not known."""
        late = [mark for mark in self.marks if mark[0] >= (self.marks[0][0] + self.marks[-1][0]) / 2]
        return (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0]) if len(late) > 1 else 0.0


def try_way(stage: Stage, config: TrainConfig, data: Path) -> Row:
    """One trial."""
    config = replace(config, steps=1_000_000)
    row: Row = {"what": TRIAL, "batch": config.batch, "recorded": config.record_steps, "samples_per_s": 0.0, "ok": True}
    shutil.rmtree(stage.work / "trial", ignore_errors=True)
    seconds = (2.0 if stage.dry else TRIAL_S) * (2 if config.record_steps else 1)  # recording takes its time, once
    trial = Trial(seconds)
    try:
        train(config, data, stage.work / "trial", trial, seconds=seconds + STARTING_S)
    except EnoughError:
        pass
    except (RuntimeError, TrainingError) as error:
        return row | {"ok": False, "said": str(error)[:300]}
    return row | {"samples_per_s": round(config.batch * trial.steps_per_s, 2)}


class Home:
    """Brings the run home from time to time, so that something is there whenever the time runs out."""

    def __init__(self, stage: Stage, config: TrainConfig, run: Path) -> None:
        self.stage, self.config, self.run = stage, config, run
        self.rates: list[float] = []
        self.step = 0
        self._state_ns = self._written_ns()

    def __call__(self, progress: Progress) -> None:
        """Take note of a step, and bring a state that was written since."""
        self.rates.append(progress.samples_per_s)
        self.step = progress.step
        if (written_ns := self._written_ns()) != self._state_ns:
            self.bring()
            self._state_ns = written_ns

    def _written_ns(self) -> int:
        """When the state was written, 0 if none is there."""
        state = self.run / "state.pt"
        return state.stat().st_mtime_ns if state.exists() else 0

    def bring(self) -> dict[str, Any]:
        """Pack the state and its picture; returns the manifest."""
        if (self.run / "sample.png").exists():
            shutil.copy(self.run / "sample.png", self.stage.out / "sample.png")
        return pack(self.run, self.stage.out, self.config.name)


def learn(stage: Stage, config: TrainConfig, data: Path, seconds: float) -> Row:
    """Train for so long; returns what came of it."""
    run = stage.work / "run"
    first = prepare(stage, run, data)
    home = Home(stage, config, run)
    train(config, data, run, home, seconds=seconds)
    curve = [json.loads(line) for line in (run / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    manifest = home.bring()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "what": f"training of {config.name}", "first_step": first, "steps": home.step, "of": config.steps, "batch": config.batch,
        "samples": (home.step - first) * config.batch, "samples_per_s": round(home.rates[-1], 2) if home.rates else 0.0,
        "peak_bytes": peak, "whole": manifest["whole"], "pieces": manifest["pieces"], "curve": curve[-400:], "ok": home.step > first,
    }  # fmt: skip


def planned(config: TrainConfig, first: int, samples_per_s: float, seconds: float) -> TrainConfig:
    """Settings for a run that goes on from a step, at a rate, for so long; as they are where the rate is not known.

    The learning rate falls to its end with what there is time for: weights that are brought home should be finished ones.
    """
    if samples_per_s <= 0:
        return config
    steps_per_s = samples_per_s / config.batch
    count = max(2, round(0.95 * steps_per_s * seconds))
    save_every = max(1, round(SAVE_EVERY_S * steps_per_s))
    return replace(config, steps=first + count, save_every=save_every, warmup=min(config.warmup, max(1, count // 10)))


def main() -> int:
    """Run the stage."""
    stage = read_stage("train")
    began, data = time.monotonic(), stage.work / "data"
    config = replace(day_config(stage), device=str(stage.device))
    rows = try_ways(stage, config, data)
    stage.write(rows)
    best = max(rows, key=lambda item: item["samples_per_s"])
    left = stage.seconds - (time.monotonic() - began) - (1.0 if stage.dry else PACKING_S)
    first = prepare(stage, stage.work / "run", data)
    config = planned(
        replace(config, batch=best["batch"], record_steps=best["recorded"]), first, best["samples_per_s"], left
    )
    if stage.dry:
        config = replace(config, steps=first + 4, save_every=2)
    rows.append(learn(stage, config, data, left))
    stage.write(rows)
    return 0 if rows[-1]["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
