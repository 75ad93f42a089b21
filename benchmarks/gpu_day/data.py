# SPDX-License-Identifier: Apache-2.0
"""Third stage: training shards, on all cores, until the time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from report import Stage, read_stage

SCALES = {"nano": 1.0, "base": 2.0}
"""Size of the pictures by model, as its recipe says."""

PLENTY = 5_000
DRY_SHARDS = 1


MAKE = """
import sys
from pathlib import Path
from occupancy_nn_ros.jobs.process_pool import ProcessPool
from occupancy_nn_ros.training.simulated_shards import ShardPlan, make_shards
folder, count, cores, scale = sys.argv[1:]
for now in make_shards(Path(folder), ShardPlan(int(count), scale=float(scale)), ProcessPool(int(cores), int(count))):
    pass
for name, reason in now.failed.items():
    print(name, reason)
"""


def shards_command(stage: Stage, folder: Path, cores: int) -> list[str]:
    """What makes the shards."""
    count, scale = (DRY_SHARDS, 0.5) if stage.dry else (PLENTY, SCALES[stage.model])
    return [sys.executable, "-c", MAKE, str(folder), str(count), str(cores), str(scale)]


def main() -> int:
    """Run the stage."""
    stage = read_stage("data")
    folder, cores = stage.work / "data", len(os.sched_getaffinity(0))
    before, began = len(list(folder.glob("*.safetensors"))), time.monotonic()
    with (stage.work / "shards.log").open("wb") as log:
        making = subprocess.Popen(shards_command(stage, folder, cores), stdout=log, stderr=log, start_new_session=True)
        try:
            making.wait(timeout=stage.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(making.pid, signal.SIGTERM)
            try:
                making.wait(timeout=3)
            except subprocess.TimeoutExpired:
                os.killpg(making.pid, signal.SIGKILL)
                making.wait()
    elapsed = time.monotonic() - began
    for partial in folder.glob("*.partial"):
        partial.unlink()
    shards = sorted(folder.glob("*.safetensors"))
    said = (stage.work / "shards.log").read_text(encoding="utf-8", errors="replace")[-500:]
    stage.write([
        {"what": "shards made", "got": len(shards) - before, "per_s": round((len(shards) - before) / elapsed, 3), "cores": cores,
         "seconds": round(elapsed, 1), "bytes_each": int(shards[0].stat().st_size) if shards else 0,
         "ok": bool(shards), "said": "" if shards else said},
    ])  # fmt: skip
    return 0 if shards else 1


if __name__ == "__main__":
    sys.exit(main())
