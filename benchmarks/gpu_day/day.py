# SPDX-License-Identifier: Apache-2.0
"""Proves, measures and trains on a GPU machine in one go: check, measure, data, train.

Each stage has a time budget and leaves files in the output folder, whatever becomes of the others. Nothing is downloaded.
``pack RUN --out FOLDER`` makes what travels there of a run, ``join FOLDER --out RUN`` a run of what came back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pieces import MANIFEST, join, pack

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUDGETS = {"check": 85.0, "measure": 110.0, "data": 130.0, "train": 195.0}
"""Seconds of each stage; together less than nine minutes."""

DRY_BUDGETS = {"check": 120.0, "measure": 120.0, "data": 120.0, "train": 25.0}
"""Most of a rehearsal ends by itself, in two minutes; a crowded machine takes longer."""
GRACE_S = {"check": 5.0, "measure": 5.0, "data": 6.0, "train": 40.0}
"""Longer than its budget a stage is not waited for; training may be saving what it has."""

Result = dict[str, Any]


def run_stage(name: str, seconds: float, args: argparse.Namespace) -> Result:
    """Run one stage in a process of its own, which is ended when its time is up."""
    command = [
        sys.executable, str(HERE / f"{'learn' if name == 'train' else name}.py"), "--out", str(args.out), "--work", str(args.work),
        "--seconds", str(seconds), "--model", args.model, *(["--dry-run"] if args.dry_run else []),
    ]  # fmt: skip
    began, log = time.monotonic(), args.work / f"{name}.log"
    with log.open("wb") as file:
        stage = subprocess.Popen(command, cwd=HERE, stdout=file, stderr=file, start_new_session=True)
        try:
            code = stage.wait(timeout=seconds + GRACE_S[name])
        except subprocess.TimeoutExpired:
            os.killpg(stage.pid, signal.SIGKILL)
            code = stage.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    path = args.out / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.unlink(missing_ok=True)  # all rows go home in one file
    return {
        "stage": name,
        "code": code,
        "seconds": round(time.monotonic() - began, 1),
        "rows": rows,
        "said": said[-3000:] if code else "",
    }


def table(results: list[Result]) -> str:
    """All rows as text, one a line."""
    lines = []
    for result in results:
        lines.append(f"\n{result['stage']}: {result['seconds']} s, exit status {result['code']}")
        for row in result["rows"]:
            values = [
                f"{k} {v}" for k, v in row.items() if k not in ("what", "card", "curve", "said", "repeats") and v != ""
            ]
            lines.append(f"  {row.get('what', '?'):48} {', '.join(values)}"[:200])
        lines += [f"  | {line}" for line in result["said"].splitlines()[-8:]]
    return "\n".join(lines)


def run_day(args: argparse.Namespace) -> int:
    """Run the stages; returns 0 if all of them did what they should."""
    args.out, args.work = args.out.resolve(), args.work.resolve()
    for folder in (args.out, args.work):
        folder.mkdir(parents=True, exist_ok=True)
    if args.resume is not None:
        shutil.rmtree(args.work / "resume", ignore_errors=True)
        shutil.copytree(args.resume, args.work / "resume")
    if args.dry_run:  # each rehearsal is a first day
        for name in ("data", "run", "trial", "played"):
            shutil.rmtree(args.work / name, ignore_errors=True)
    budgets = DRY_BUDGETS if args.dry_run else BUDGETS
    results: list[Result] = []
    for name in args.stages.split(","):
        seconds = budgets[name]
        if name == "train" and args.minutes is not None:
            seconds = max(30.0, 60 * args.minutes - sum(result["seconds"] for result in results))
        print(f"{name}: at most {seconds:.0f} s", flush=True)
        results.append(run_stage(name, seconds, args))
        (args.out / "day.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table(results[-1:]), flush=True)
    print(f"\nbring home all of {args.out}; then: scripts/gpu_day join FOLDER --out runs/{args.model}")
    return 0 if all(result["code"] == 0 for result in results) else 1


def run_join(args: argparse.Namespace) -> int:
    """Make a run of what was brought home, and its averaged model."""
    import torch

    from occupancy_nn_ros.network.checkpoint import Checkpoint, save_checkpoint
    from occupancy_nn_ros.network.model import OccupancyNetwork
    from occupancy_nn_ros.settings import from_mapping, read_yaml
    from occupancy_nn_ros.training.loop import TrainConfig

    manifest = join(args.folder, args.out)
    config = from_mapping(
        TrainConfig, read_yaml(args.config or ROOT / "config" / "train" / f"{manifest['model']}.yaml")
    )
    if args.dry_run:
        from learn import TINY

        config = replace(config, model=TINY)
    state = torch.load(args.out / "state.pt", map_location="cpu", weights_only=True)
    network = OccupancyNetwork(config.model)
    network.load_state_dict(state["average"])
    path = args.out / f"{manifest['model']}.safetensors"
    save_checkpoint(Checkpoint(network.eval(), record={"step": state["step"], "shards": len(state["shards"])}), path)
    kind = "goes on to the bit" if manifest["whole"] else "goes on with a new optimizer"
    print(f"{path} at step {state['step']}; the run in {args.out} {kind}; next: occupancy-nn calibrate {path}")
    return 0


def run_pack(args: argparse.Namespace) -> int:
    """Make what travels to a machine of a run: its averaged weights as float16."""
    manifest = pack(args.run, args.out, args.model, limit=0)
    print(f"{args.out}: {manifest['bytes'] / 2**20:.1f} MiB; on the machine: scripts/gpu_day --resume {args.out}")
    return 0


def side_command(name: str, parser: argparse.ArgumentParser) -> int:
    """Run ``pack`` or ``join``."""
    parser.add_argument(name)
    if name == "pack":
        parser.add_argument("run", type=Path, help="folder of a run, with its state.pt")
        parser.add_argument("--model", default="base", choices=("base", "nano"), help="its name (default: base)")
        parser.add_argument("--out", type=Path, required=True, help="folder to take along, for --resume")
        return run_pack(parser.parse_args())
    parser.add_argument("folder", type=Path, help="what was brought home")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, help="training settings (default: config/train/MODEL.yaml)")
    parser.add_argument("--dry-run", action="store_true", help="the pieces are those of a rehearsal")
    return run_join(parser.parse_args())


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if sys.argv[1:2] in (["pack"], ["join"]):
        return side_command(sys.argv[1], parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT", "out/gpu_day")),
        help="folder to bring home (default: $OUT, or out/gpu_day)",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/gpu_day"), help="folder for what may stay (default: build/gpu_day)"
    )
    parser.add_argument(
        "--stages", default=",".join(BUDGETS), help=f"which, in this order (default: {','.join(BUDGETS)})"
    )
    parser.add_argument("--model", default="base", choices=("base", "nano"), help="which to train (default: base)")
    parser.add_argument("--resume", type=Path, help=f"folder with {MANIFEST} and its pieces, to go on from")
    parser.add_argument("--minutes", type=float, help="of all stages together; training takes what the others leave")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU if there is no GPU")
    return run_day(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
