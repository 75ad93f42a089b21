# SPDX-License-Identifier: Apache-2.0
"""What adapting to a site is worth: maps of the rest of a recording, and of another place, against depth that was measured or is exact.

    python benchmarks/adapting.py --record                              # simulated drives, carried by hand and imperfect
    python benchmarks/adapting.py --bag kitchen=BAG@6 --set keyframes.distance_m=0.05 --record      # a recording, and these drives

A recording is adapted to by what comes before a time, from cameras and TF alone. The shipped weights, those that were learned, what the
judge keeps, and those fine-tuned by the recording's own depth camera then map what comes after it, and map the place that is named
next: what was learned of one may be lost of others. What is finished stays in the folder, and a second start goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import records

from occupancy_nn_ros.adaptation.adapt import FIT, AdaptPlan, adapt
from occupancy_nn_ros.adaptation.prior_shift import shift_logits
from occupancy_nn_ros.bags.reader import BagPart
from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.evaluation.recordings import evaluate_bag
from occupancy_nn_ros.jobs.process_pool import ProcessPool
from occupancy_nn_ros.labelling.bags import label_bags
from occupancy_nn_ros.labelling.plan import LabelPlan, Sensor
from occupancy_nn_ros.network.checkpoint import find_model, load_checkpoint, save_checkpoint
from occupancy_nn_ros.simulation.drives import plan_drive
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.recording import RecordingOptions, record_drive
from occupancy_nn_ros.simulation.rigs import named_rig
from occupancy_nn_ros.training.loop import train

VOXEL_M, EVERY_S = 0.1, 0.1
DRIVES = ("home_heldout:9003", "office_heldout:9004", "indoor_heldout:9005")
RATE_HZ, DURATION_S = 5.0, 16.0
JPEG_QUALITY = 85
SHIPPED = "as shipped"


@dataclass(frozen=True)
class Place:
    """A recording with depth images.

    Attributes:
        name: as it stands in the table.
        bag: where it is.
        until_s: what comes before is adapted to, what comes after is judged by.
        overrides: settings to adapt with.
    """

    name: str
    bag: Path
    until_s: float
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """A model to map with.

    Attributes:
        name: as it stands in the table.
        path: of the model.
        judge: what ``adapt`` says of it; empty where it is not asked.
    """

    name: str
    path: Path
    judge: str = ""


class Bench:
    """Adapts, fine-tunes and maps, and keeps what is finished in a folder."""

    def __init__(self, out: Path, model: str, steps: int) -> None:
        """Start from a model, and learn in so many steps."""
        self.out, self.model, self.shipped = out, model, find_model(model)
        self.fit = replace(FIT, steps=steps)

    def weights(self, place: Place, *, with_depth: bool) -> Iterator[Weights]:
        """All that are compared at a place, the shipped ones first."""
        yield Weights(SHIPPED, self.shipped)
        yield from self._adapted(place)
        if with_depth:
            yield Weights("fine-tuned by the depth camera", self._fine_tuned(place))

    def figures(self, place: Place, model: Path) -> dict[str, float]:
        """How a model maps a place from ``until_s`` on."""
        kept = self.out / "figures" / f"{place.name}_{place.until_s:g}_{digest(model)}.json"
        if not kept.exists():
            config = replace(Config(), model=str(model), voxel_size_m=VOXEL_M)
            scores = evaluate_bag(place.bag, config, part=BagPart(place.until_s))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(scores.figures()) + "\n", encoding="utf-8")
        found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
        return found

    def _adapted(self, place: Place) -> Iterator[Weights]:
        """What was learned, and what is kept of it."""
        folder = self.out / f"{place.name}_adapted"
        pool = ProcessPool(1, 1)
        try:
            adapted = adapt([place.bag], folder, AdaptPlan(self._labels(place, "cameras"), pool, self.fit))
        finally:
            pool.close()
        judged = json.loads((folder / "adapt.json").read_text(encoding="utf-8"))["judged"]
        (verdict,) = (one for one in judged if one["share"] == 1)
        yield Weights("learned", self._learned(folder), "better" if verdict["improved"] else "no better")
        kept = f"{adapted.share:.0%} of what was learned"
        yield Weights("what adapt keeps", adapted.model or self.shipped, kept if adapted.model else "as shipped")

    def _learned(self, folder: Path) -> Path:
        """All of what was learned, whatever the judge says of it."""
        learned = load_checkpoint(folder / "run" / f"{folder.resolve().name}.safetensors")
        learned = shift_logits(learned, -float(learned.record["prior_shift"]))
        path = folder / "learned.safetensors"
        save_checkpoint(replace(learned, calibration=load_checkpoint(self.shipped).calibration), path)
        return path

    def _fine_tuned(self, place: Place) -> Path:
        """Weights that learned as long from what the depth camera measured."""
        folder = self.out / f"{place.name}_by_depth"
        pool = ProcessPool(1, 1)
        try:
            (outcome,) = label_bags([place.bag], folder / "labels", self._labels(place, "range"), pool)
        finally:
            pool.close()
        if outcome.labels is None:
            raise SystemExit(f"{place.bag}: {outcome.refused}")
        fit = replace(self.fit, name="by_depth", initial=str(self.shipped))
        path = train(fit, folder / "labels", folder / "run")
        trained = load_checkpoint(path)
        save_checkpoint(replace(trained, calibration=load_checkpoint(self.shipped).calibration), path)
        return path

    def _labels(self, place: Place, sensor: Sensor) -> LabelPlan:
        config = replace(load_config([], place.overrides), model=self.model, voxel_size_m=VOXEL_M)
        config = replace(config, keyframes=replace(config.keyframes, min_period_s=EVERY_S))
        return LabelPlan(config, BagPart(0.0, place.until_s), sensor=sensor)


def digest(model: Path) -> str:
    """What tells weights and calibrations apart; files of the same ones differ in the order of their headers."""
    checkpoint = load_checkpoint(model)
    found = hashlib.sha256(repr(checkpoint.calibration).encode())
    for name, tensor in checkpoint.network.state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()[:12]


def simulated(drive: str, out: Path) -> Place:
    """The place of a drive that is named ``WORLD:SEED``, recorded if it is not there yet."""
    kind, _, seed = drive.partition(":")
    folder = out / f"{kind}_{seed}"
    if not (folder / "world.json").exists():
        (folder / "drive.mcap").unlink(missing_ok=True)
        world = build_world(kind, int(seed))
        path = plan_drive(world, int(seed), DURATION_S, RATE_HZ, handheld=True)
        options = RecordingOptions(JPEG_QUALITY, has_lidar=False, truth_voxel_m=0.0, is_imperfect=True)
        record_drive(world, named_rig("front"), path, folder, options)
    return Place(f"{kind} {seed}", folder / "drive.mcap", DURATION_S / 2)


def recorded(text: str, overrides: Sequence[str] = ()) -> Place:
    """The place that ``NAME=BAG@SECONDS`` describes."""
    name, _, rest = text.partition("=")
    bag, _, until_s = rest.rpartition("@")
    return Place(name, Path(bag), float(until_s), tuple(overrides))


def rows(bench: Bench, places: Sequence[Place], *, with_depth: bool) -> Iterator[dict[str, Any]]:
    """The table, place by place; each place's weights map the next place too, the last one's the first."""
    for number, place in enumerate(places):
        other = places[(number + 1) % len(places)]
        for weights in bench.weights(place, with_depth=with_depth):
            found = {"place": place.name, "name": weights.name, "judge": weights.judge}
            found |= bench.figures(place, weights.path)
            if other is not place:
                found["elsewhere"] = other.name
                found["elsewhere_mcc"] = bench.figures(other, weights.path)["mcc"]
            yield found


def main() -> None:
    """Measure and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bag", action="append", default=[], metavar="NAME=BAG@SECONDS", help="a recording, and when it is judged from"
    )
    parser.add_argument("--drives", nargs="*", default=list(DRIVES), metavar="WORLD:SEED", help="simulated drives")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=FIT.steps)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a setting for adapting to recordings",
    )
    parser.add_argument("--no-depth", action="store_true", help="leave out what fine-tuning by depth gives")
    parser.add_argument("--out", type=Path, default=Path("runs/adapting"), help="what is finished stays here")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results/")
    args = parser.parse_args()
    try:
        places = [recorded(bag, args.overrides) for bag in args.bag]
        places += [simulated(drive, args.out) for drive in args.drives]
        for row in rows(Bench(args.out, args.model, args.steps), places, with_depth=not args.no_depth):
            shown = {k: round(v, 3) if isinstance(v, float) and math.isfinite(v) else v for k, v in row.items()}
            print({key: shown[key] for key in shown if key in SHOWN}, flush=True)
            if args.record:
                records.record("adapting", [row])
    except OccupancyError as error:
        raise SystemExit(f"adapting: {error}") from None


SHOWN = (
    "place", "name", "judge", "mcc", "iou", "precision", "recall", "f_score", "depth_sure_share", "depth_within_10_percent",
    "ece_visible", "elsewhere", "elsewhere_mcc",
)  # fmt: skip


if __name__ == "__main__":
    main()
