# SPDX-License-Identifier: Apache-2.0
"""A shipped model becomes one that knows a site: labels from the recordings' own pictures, a short training run, and a judge.

The judge are keyframes that were kept from training: their pictures have to fit each other better by the map of the new weights than by
that of the old ones. Weights halfway between both are judged too. If neither is better, the old model stays what it was.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from occupancy_nn_ros.adaptation.map_judge import HeldOut, MapJudge
from occupancy_nn_ros.adaptation.prior_shift import prior_shift, shift_logits
from occupancy_nn_ros.adaptation.verdict import MapErrors, Verdict
from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.jobs.run import WorkerPool
from occupancy_nn_ros.labelling.bags import Outcome, label_bags
from occupancy_nn_ros.labelling.plan import LabelPlan
from occupancy_nn_ros.network.checkpoint import Checkpoint, find_model, load_checkpoint, save_checkpoint
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.settings import to_mapping
from occupancy_nn_ros.training.loop import Progress, Recipe, TrainConfig, initial_model, train
from occupancy_nn_ros.training.shards import Shard, read_shard, write_shard
from occupancy_nn_ros.values import UInt8Array
from occupancy_nn_ros.visualization.colors import depth_colors

HELD_OUT_SHARE = 0.2
"""Of each recording the last keyframes are kept from training."""

LEAST_HELD_OUT = 3

SHARES = (1.0, 0.5)
"""How far from the old weights to those that were learned the weights lie that are judged."""

FIT = TrainConfig(
    name="adapted", steps=100, batch=2, learning_rate=1e-4, warmup=6, ema=0.95, save_every=25, measurement_errors=False
)


@dataclass(frozen=True)
class AdaptPlan:
    """What to adapt, and to what.

    Attributes:
        labels: the recordings' part, cameras and keyframes, and the model to start from (``labels.config.model``).
        training: the run; ``name`` and ``initial`` are replaced.
        pool: who looks at the recordings.
    """

    labels: LabelPlan
    pool: WorkerPool
    training: TrainConfig = field(default_factory=lambda: FIT)


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Attributes:
        model: the adapted model's file; None if it is no better, and then nothing was written.
        verdict: the map before and after, by the keyframes that were kept from training.
        share: how far from the old weights to those that were learned.
        outcomes: what became of each recording.
    """

    model: Path | None
    verdict: Verdict
    share: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Audience:
    """Who is told how it goes: the share of labelling that is done, and each step of training."""

    labelling: Callable[[float], None] = lambda share: None
    training: Callable[[Progress], None] = lambda progress: None


def adapt(bags: Sequence[Path], out: Path, plan: AdaptPlan, audience: Audience | None = None) -> Adapted:
    """Adapt a model to what recordings show; goes on where an interrupted run stopped.

    Writes to ``out``: ``labels`` (shards of the recordings), ``train`` (those that are learned from), ``run`` (the training run with its
    curves and pictures), ``held_out.png`` (a picture, and the maps before and after as it sees them), ``adapt.json`` (the figures), and
    ``NAME.safetensors``, named like the folder, if it is better than the model before.

    Raises:
        TrainingError: no recording can be used, and why; or the folder holds a run with other recordings or settings.
        CheckpointError: the model to start from cannot be loaded.
    """
    audience = audience or Audience()
    initial = find_model(plan.labels.config.model)
    before = load_checkpoint(initial)
    _begin(out, {"bags": [str(bag.resolve()) for bag in bags], "model": str(initial), **_settings(plan.labels)})
    outcomes = label_bags(bags, out / "labels", plan.labels, plan.pool, audience.labelling)
    shards = [[out / "labels" / name for name in o.labels.shards] for o in outcomes if o.labels is not None]
    if not shards:
        reasons = "; ".join(f"{outcome.bag}: {outcome.refused}" for outcome in outcomes)
        raise TrainingError(f"none of the recordings can be learned from: {reasons}")
    judge = MapJudge(held_out := split(shards, out), plan.labels.config)
    training = replace(plan.training, name=out.resolve().name, initial=str(initial))
    learned = _learn(training, before, out, audience.training)
    choice = _choose(judge, before, replace(learned, calibration=before.calibration))
    _draw(choice.looks, held_out[-1], out / "held_out.png")
    model = None
    if choice.verdict.improved:
        model = out / f"{training.name}.safetensors"
        record = {**learned.record, "adapted_from": str(initial), "share": choice.share, **asdict(choice.verdict)}
        save_checkpoint(replace(choice.checkpoint, record=record), model)
    told = {"model": None if model is None else str(model), "from": str(initial), "judged": choice.judged}
    (out / "adapt.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return Adapted(model, choice.verdict, choice.share, tuple(outcomes))


def _learn(config: TrainConfig, before: Checkpoint, out: Path, report: Callable[[Progress], None]) -> Checkpoint:
    """Train on ``out/train``, without learning how many of the labels are occupied."""
    shift = prior_shift(before.network, sorted((out / "train").glob("*.safetensors")))
    recipe = Recipe(begin=lambda run: shift_logits(initial_model(run), shift), note={"prior_shift": f"{shift:.4f}"})
    return shift_logits(load_checkpoint(train(config, out / "train", out / "run", report, recipe)), -shift)


@dataclass(frozen=True)
class _Choice:
    """The weights that are best by the judge, or those that were learned if none are better than the old ones.

    Attributes:
        checkpoint, share, verdict: the weights, where they lie, and what the judge says of them.
        looks: maps before and after in the last pictures.
        judged: figures of all that were judged.
    """

    checkpoint: Checkpoint
    share: float
    verdict: Verdict
    looks: tuple[MapErrors, MapErrors]
    judged: list[dict[str, Any]]


def _choose(judge: MapJudge, before: Checkpoint, learned: Checkpoint) -> _Choice:
    """Judge weights between the old ones and those that were learned."""
    old = judge.errors(before)
    found, judged = list[_Choice](), list[dict[str, Any]]()
    for share in SHARES:
        checkpoint = replace(learned, network=between(before.network, learned.network, share))
        new = judge.errors(checkpoint)
        verdict = Verdict.of(old, new, judge.keyframes)
        judged.append({"share": share, "improved": verdict.improved, **asdict(verdict)})
        found.append(_Choice(checkpoint, share, verdict, (old, new), judged))
    better = [choice for choice in found if choice.verdict.improved]
    return min(better, key=lambda choice: choice.verdict.change) if better else found[0]


def between(before: OccupancyNetwork, after: OccupancyNetwork, share: float) -> OccupancyNetwork:
    """A network whose weights lie at a share of the way from one's to another's of the same shape (Wortsman et al. 2022)."""
    mixed, ends = copy.deepcopy(after), after.state_dict()
    weights = {
        name: torch.lerp(tensor.cpu(), ends[name].cpu(), share) if tensor.is_floating_point() else ends[name]
        for name, tensor in before.state_dict().items()
    }
    mixed.load_state_dict(weights)
    return mixed


def _settings(labels: LabelPlan) -> dict[str, Any]:
    end_s = labels.part.end_s if math.isfinite(labels.part.end_s) else None
    return {"start_s": labels.part.start_s, "end_s": end_s, "settings": to_mapping(labels.config)}


def _begin(out: Path, run: dict[str, Any]) -> None:
    """Note what a run is made of, or see that the one in the folder is made of the same."""
    note = out / "began.json"
    run = json.loads(json.dumps(run))
    if not note.exists():
        out.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        return
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"cannot read {note}: {error}") from None
    others = [key for key in run if before.get(key) != run[key]]
    if others:
        raise TrainingError(f"{out} holds a run with other {' and '.join(others)}, expected the same or another folder")


def split(recordings: Sequence[Sequence[Path]], out: Path) -> list[HeldOut]:
    """Write what is learned from into ``out/train``: each recording's shards without its last keyframes, and without depth.

    Depth that views agree on is off by some percent. As a label it would blur distributions that are sharper than that; what it says of
    space is robust, since many views vote.

    Returns:
        The keyframes left out.

    Raises:
        TrainingError: too few keyframes, a corrupt shard, or a part that cannot be written.
    """
    held_out = list[HeldOut]()
    for shards in recordings:
        opened = [read_shard(path) for path in shards]
        count = sum(len(shard.images) for shard in opened)
        learned = max(0, count - max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * count)))
        first = 0
        for path, shard in zip(shards, opened, strict=True):
            frames = len(shard.images)
            cut = min(learned - first, frames)
            if cut < 2:  # a shard has at least two frames
                break
            _write_part(shard, cut, out / "train" / path.name)
            first += cut
        held_out.append(HeldOut(tuple(shards), first))
    if not held_out or not any((out / "train").glob("*.safetensors")):
        raise TrainingError(
            "the recordings give too few keyframes to learn from some and judge by others, expected 5 or more"
        )
    return held_out


def _write_part(shard: Shard, count: int, path: Path) -> None:
    arrays = {name: value for name, value in vars(shard).items() if value is not None}
    part = {name: value if name == "K" else np.ascontiguousarray(value[:count]) for name, value in arrays.items()}
    part["depth_m"] = np.full_like(part["depth_m"], np.nan)
    write_shard(path, part, {"part": f"the first {count} keyframes, without depth"})


def _draw(maps: Sequence[MapErrors], held_out: HeldOut, path: Path) -> None:
    """One column for each camera: a picture kept from training, the maps before and after as it sees them, and depth of the labels."""
    shard = read_shard(held_out.shards[-1])
    height, width = shard.images.shape[2:4]
    depths = [*(errors.looks for errors in maps), shard.depth_m[-1].astype(np.float32)]
    rows = [shard.images[-1], *(depth_colors(depth) for depth in depths)]
    scaled = [[cv2.resize(tile, (width, height), interpolation=cv2.INTER_NEAREST) for tile in row] for row in rows]
    picture: UInt8Array = np.concatenate([np.concatenate(row, axis=1) for row in scaled])
    cv2.imwrite(str(path), picture[..., ::-1])
