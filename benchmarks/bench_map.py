# SPDX-License-Identifier: Apache-2.0
"""How fast, how right and how large the map is, beside other mappers in the same run on the same frames.

Every measurement runs in a process of its own, pinned to as many cores as it has threads, one after the other. Mappers
that are not installed are left out; a C++ library without a Python package can be given with ``--native``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import map_scene as scene
import map_truth as truth
import numpy as np
import torch
from map_peers import FRAME_NS, Frames, is_installed, make_peer
from records import record
from timing import median_ms

from occupancy_nn_ros.config import GridConfig, MapConfig
from occupancy_nn_ros.mapping.distance_field import distance_field, distance_field_on_device
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.slices import LETHAL, occupancy_slice
from occupancy_nn_ros.mapping.warm_up import warm_up
from occupancy_nn_ros.values import LatticeWindow, Prediction, VoxelState

OURS = "occupancy_nn_ros"
PACKAGES = ("pywavemap", "pyoctomap", "octomap")
Row = dict[str, Any]


def say(text: str) -> None:
    """Progress goes to stderr, so that stdout holds the result alone."""
    print(text, file=sys.stderr, flush=True)


def memory_kib(field: str) -> int:
    """A field of this process's status, such as VmRSS."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def begin_peak() -> int:
    """Reset the peak of resident memory; returns what is resident now in KiB."""
    ctypes.CDLL(None).malloc_trim(0)  # or a map could hide in memory that was freed before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory_kib("VmRSS")


def row(name: str, sensor: str, edge: float, median_ms: float, **more: float | None) -> Row:
    """One line of the result."""
    rest = {"iou": None, "free_right": None, "peak_rss_mib": None}
    return {"name": name, "sensor": sensor, "voxel_m": edge, "threads": threads(), "median_ms": median_ms} | rest | more


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def measure_frames(name: str, sensor: str, edge: float, folder: Path) -> list[Row]:
    """Insert the whole drive into one mapper and judge its map."""
    peer = make_peer(name, Frames(folder, sensor), edge)
    before = begin_peak()
    peer.create()
    times = [peer.insert(n) for n in range(scene.POSES)]
    peak = (memory_kib("VmHWM") - before) / 1024
    quality = truth.judge(peer.classify, truth.load_truth(folder, sensor, edge, say))
    return [row(Path(name).stem, sensor, edge, float(np.median(times)), peak_rss_mib=peak, **quality)]


def driving(
    grid: RollingMap, logit: torch.Tensor, weight: torch.Tensor, classes: torch.Tensor | None = None
) -> Callable[[], None]:
    """A call that moves a map by a voxel and adds the same prediction there."""
    T, count = np.eye(4), 0

    def step() -> None:
        nonlocal count
        count += 1
        T[0, 3] = grid.window.voxel_size_m * count
        grid.move_to(T)
        grid.integrate(Prediction(grid.window, logit, weight, classes), count * FRAME_NS // 10)

    return step


def dense_case(with_classes: bool) -> tuple[RollingMap, Callable[[], None]]:
    """A 200 x 200 x 16 map, and a call that moves it by a voxel and adds a prediction of the workload's surfaces."""
    grid = RollingMap(0.2, (200, 200, 16), MapConfig())
    solid = truth.solid_voxels(0.2, (400, 320, 50), 0.0)
    inner = solid.copy()
    for axis in range(3):
        inner &= np.roll(solid, 1, axis) & np.roll(solid, -1, axis)
    surface = (solid & ~inner)[100:300, 60:260, :16]
    logit = torch.from_numpy(np.where(surface, 2.0, -2.0).astype(np.float32))
    weight = torch.from_numpy((np.random.default_rng(0).random(surface.shape) < 0.6).astype(np.float32))
    classes = torch.randn(6, *surface.shape, generator=torch.Generator().manual_seed(0)) if with_classes else None
    return grid, driving(grid, logit, weight, classes)


def measure_dense(_: Path) -> list[Row]:
    """Predictions, views, slices and distances of a 200 x 200 x 16 window."""
    warm_up()
    grid, with_classes = dense_case(with_classes=True)
    with_classes()
    rows = [row("integrate and move, 6 classes", "dense", 0.2, median_ms(with_classes, 50))]
    grid, step = dense_case(with_classes=False)
    step()
    rows.append(row("integrate and move", "dense", 0.2, median_ms(step, 100)))
    T = np.eye(4)
    T[0, 3] = grid.window.origin_m[0] + 20.0
    rows.append(row("view", "dense", 0.2, median_ms(lambda: grid.view(0, "map", T), 30)))
    view = grid.view(0, "map", T)
    flat = occupancy_slice(view, GridConfig()).values == LETHAL
    occupied = view.state == VoxelState.OCCUPIED
    rows.append(row("occupancy slice", "dense", 0.2, median_ms(lambda: occupancy_slice(view, GridConfig()), 30)))
    rows.append(row("distance field 200x200", "dense", 0.2, median_ms(lambda: distance_field(flat, 0.2, 5.0), 50)))
    whole = median_ms(lambda: distance_field(occupied, 0.2, 5.0), 30)
    rows.append(row("distance field 200x200x16", "dense", 0.2, whole))
    return rows


def window_case(device: str) -> Callable[[], None]:
    """A window of 20 x 20 x 4 m with voxels of 0.05 m, and a call that moves it, adds a prediction and measures distances.

    The distances are those of a 2D slice of 1.4 m, as for a costmap.
    """
    grid = RollingMap(0.05, (400, 400, 80), MapConfig(), num_classes=0, device=device)
    random = torch.Generator().manual_seed(0)
    columns = torch.rand(400, 400, 1, generator=random) < 0.02
    logit = torch.where(columns, 2.0, -2.0).expand(400, 400, 80).contiguous().to(device)
    weight = (torch.rand(400, 400, 80, generator=random) < 0.6).float().to(device)
    drive = driving(grid, logit, weight)

    def step() -> None:
        drive()
        (x, y, z), (nx, ny, _) = grid.window.origin, grid.window.shape
        obstacles = torch.zeros(nx, ny, dtype=torch.bool, device=device)
        for stored, given in grid.overlap(LatticeWindow(0.05, (x, y, z + 28), (nx, ny, 28))):
            obstacles[given[:2]] |= (grid.log_odds[stored] > 0).any(dim=2)
        if device == "cpu":
            distance_field(obstacles.numpy(), 0.05, 2.0)
        else:
            distance_field_on_device(obstacles, 0.05, 2.0)
            torch.cuda.synchronize()

    return step


def measure_window(_: Path) -> list[Row]:
    """Integration and 2D distances in a fine window, on the CPU and on a GPU where there is one."""
    warm_up()
    rows = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        step = window_case(device)
        step()
        rows.append(row(f"integrate, move, 2D distances, {device}", "window", 0.05, median_ms(step, 50)))
    return rows


def measure_drive(_: Path) -> list[Row]:
    """Ten kilometres straight ahead: time for each update, and how much resident memory grew after the first."""
    warm_up()
    before = begin_peak()
    _, step = dense_case(with_classes=False)
    times = [median_ms(step, 1) for _ in range(5_000)]
    early = memory_kib("VmRSS")
    times += [median_ms(step, 1) for _ in range(45_000)]
    growth = 100 * (memory_kib("VmRSS") - early) / max(early, 1)
    peak = (memory_kib("VmHWM") - before) / 1024
    return [row("10 km of driving", "drive", 0.2, float(np.median(times)), peak_rss_mib=peak, growth_percent=growth)]


def work(arguments: argparse.Namespace) -> None:
    """One measurement in this process; its rows go to stdout."""
    name, sensor, edge, cores = arguments.worker
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    torch.set_num_threads(int(cores))
    special = {"dense": measure_dense, "drive": measure_drive, "window": measure_window}
    measure = special.get(sensor, lambda folder: measure_frames(name, sensor, float(edge), folder))
    print(json.dumps(measure(arguments.data)), flush=True)
    os._exit(0)  # some libraries take long to take a large map down


def start(name: str, sensor: str, edge: float, cores: int, folder: Path) -> list[Row]:
    """Run :func:`work` in a new process."""
    command = [sys.executable, __file__, "--data", str(folder), "--worker", name, sensor, str(edge), str(cores)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(cores))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("[")), None)
    if line is None:
        say(f"{name} {sensor} {edge} m, {cores} threads: no result\n{done.stderr[-500:]}")
        return []
    rows: list[Row] = json.loads(line)
    for one in rows:
        say(f"{one['name']} {sensor} {edge} m, {cores} threads: {one['median_ms']:.2f} ms")
    return rows


def measure_all(arguments: argparse.Namespace) -> list[Row]:
    """Everything that was asked for, peers beside ours for each sensor and voxel size."""
    scene.load_workload(arguments.data, say)
    available = len(os.sched_getaffinity(0))
    names = [OURS, *(name for name in (*PACKAGES, *arguments.native) if is_installed(name))]
    rows: list[Row] = []
    for sensor in arguments.sensors:
        for edge in arguments.voxels:
            truth.load_truth(arguments.data, sensor, edge, say)
            for name in names:
                for cores in arguments.threads if name in (OURS, "pywavemap") else [1]:
                    if cores <= available:
                        rows += start(name, sensor, edge, cores, arguments.data)
    for special, edge in (("dense", 0.2), ("window", 0.05), ("drive", 0.2)):
        rows += [] if arguments.frames_only else start(OURS, special, edge, 1, arguments.data)
    return rows


def table(rows: list[Row]) -> str:
    """Markdown: for each sensor and voxel size the rows by time, with the ratio of each to our fastest."""
    lines = []
    for sensor, edge in dict.fromkeys((one["sensor"], one["voxel_m"]) for one in rows):
        part = sorted((r for r in rows if (r["sensor"], r["voxel_m"]) == (sensor, edge)), key=lambda r: r["median_ms"])
        ours = min((r["median_ms"] for r in part if r["name"] == OURS), default=None)
        lines += [f"\n{sensor}, {edge} m\n", "| name | threads | median ms | ratio | IoU | free right | peak MiB |"]
        lines.append("|---|---|---|---|---|---|---|")
        for one in part:
            ratio = f"{one['median_ms'] / ours:.2f}" if ours else ""
            quality = ["" if one[key] is None else f"{one[key]:.3f}" for key in ("iou", "free_right")]
            peak = "" if one["peak_rss_mib"] is None else f"{one['peak_rss_mib']:.0f}"
            cells = [one["name"], str(one["threads"]), f"{one['median_ms']:.2f}", ratio, *quality, peak]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_ratios(rows: list[Row]) -> list[Row]:
    """Rows of scans with the ratio of each to our fastest on the same ones."""
    scans = [row for row in rows if row["sensor"] in ("depth", "lidar")]
    ours = {(row["sensor"], row["voxel_m"]): math.inf for row in scans}
    for row in scans:
        if row["name"] == OURS:
            ours[row["sensor"], row["voxel_m"]] = min(ours[row["sensor"], row["voxel_m"]], row["median_ms"])
    return [{**row, "ratio": row["median_ms"] / ours[row["sensor"], row["voxel_m"]]} for row in scans]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    cache = Path.home() / ".cache" / OURS / "map_workload"
    parser.add_argument("--data", type=Path, default=cache, help="where the workload is, or will be made")
    parser.add_argument("--sensors", nargs="+", default=["depth", "lidar"], choices=["depth", "lidar"])
    parser.add_argument("--voxels", nargs="+", type=float, default=[0.2, 0.1])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--native", nargs="+", default=[], help="shared objects with a C++ mapper")
    parser.add_argument(
        "--frames-only", action="store_true", help="leave the dense, window and driving measurements out"
    )
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    parser.add_argument("--record", action="store_true", help="also append the rows to the results; see records.py")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
    rows = measure_all(arguments)
    if arguments.record:
        record("map", with_ratios(rows))
        record("map_stages", [row for row in rows if row["sensor"] in ("dense", "drive")])
    print(json.dumps(rows, indent=1) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
