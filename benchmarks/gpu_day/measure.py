# SPDX-License-Identifier: Apache-2.0
"""Second stage: how long a keyframe, the map and a whole update take, and how far each is from what the card could do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from report import Row, Stage, card, finish, read_stage, timed
from scenes import surround_keyframes
from stand_in import place
from torch.utils.flop_counter import FlopCounterMode

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.compute.capture import Captured, can_capture
from occupancy_nn_ros.config import Config, GridConfig, MapConfig, NetworkConfig
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.device_slices import occupancy_values
from occupancy_nn_ros.mapping.device_view import DeviceMap
from occupancy_nn_ros.mapping.distance_field import distance_field_on_device
from occupancy_nn_ros.mapping.ray_integration import integrate_depth, integrate_depths
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.slices import LETHAL
from occupancy_nn_ros.network.checkpoint import find_model, load_checkpoint
from occupancy_nn_ros.network.extraction import centers
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.resources import resource_path
from occupancy_nn_ros.runtime.device_source import DeviceCutter
from occupancy_nn_ros.runtime.latency import Latency, LatencyRecorder
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.player import plan_play, steps
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import LatticeWindow


@dataclass(frozen=True)
class Sizes:
    """What is measured; small in a rehearsal."""

    cameras: int = 6
    width: int = 704
    height: int = 256
    window: LatticeWindow = field(default=LatticeWindow(0.2, (-100, -100, -8), (200, 200, 16)))
    fine: tuple[int, int, int] = (400, 400, 80)
    repeats: int = 100
    matrix: int = 8192
    copied: int = 1 << 30


REAL = Sizes()
DRY = Sizes(2, 96, 64, LatticeWindow(0.2, (-10, -10, -8), (20, 20, 16)), (40, 40, 16), 3, 256, 1 << 20)


@dataclass(frozen=True)
class Ceilings:
    """What the device does at best: bytes a second, and operations a second by precision."""

    bandwidth: float
    rates: dict[torch.dtype, float]

    def floor_ms(self, operations: float, moved: float, kind: torch.dtype) -> float:
        """The larger of the two times that cannot be undercut."""
        return 1e3 * max(operations / self.rates[kind], moved / self.bandwidth)


def measure_ceilings(sizes: Sizes, device: torch.device) -> tuple[Ceilings, list[Row]]:
    """Copy bandwidth and rates of matrix products, on random data."""
    source = torch.rand(sizes.copied // 4, device=device)
    target = torch.empty_like(source)
    copied = timed(lambda: target.copy_(source), device, 10)
    bandwidth = 2 * 4 * len(source) / (copied["p50_ms"] * 1e-3)
    rows: list[Row] = [{"what": "copy, GB/s", "got": round(bandwidth / 1e9, 1), **copied}]
    rates = {}
    for kind in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(sizes.matrix, sizes.matrix, device=device).to(kind) for _ in range(2))
        took = timed(partial(torch.matmul, a, b), device, 10)
        rates[kind] = 2 * sizes.matrix**3 / (took["p50_ms"] * 1e-3)
        rows.append({"what": f"matrix product, TFLOP/s, {kind}", "got": round(rates[kind] / 1e12, 1), **took})
    return Ceilings(bandwidth, rates), rows


class NetworkStages:
    """The stages of a keyframe on fixed inputs: a rig of cameras and as many views of the past."""

    def __init__(self, network: OccupancyNetwork, sizes: Sizes, device: torch.device) -> None:
        self.network, self.device, self.window = network, device, sizes.window
        frames = surround_keyframes(sizes.cameras, sizes.width, sizes.height, np.random.default_rng(0))
        images = [image for _ in range(2) for image in next(frames).images]
        self.count = sizes.cameras
        self.pixels = torch.from_numpy(np.stack([image.image for image in images])).to(device)
        self.K = torch.from_numpy(np.stack([image.model.K for image in images])).float().to(device)
        self.poses = torch.from_numpy(np.stack([image.T_map_cam for image in images])).float().to(device)
        self.points = centers(sizes.window, np.zeros(3), device).reshape(-1, 3)
        self.edge = torch.full_like(self.points[:, 0], sizes.window.voxel_size_m)
        self.base = torch.zeros(3, device=device)
        index = torch.arange(self.count, device=device)
        self.sources = choose_sources(self.poses[: self.count], self.poses, 4, index)

    def encode(self, pixels: torch.Tensor) -> Any:
        """Pixels to feature maps and what they are matched by."""
        images = normalize_images(pixels)
        maps = self.network.encode(images)
        return maps, self.network.match_maps(images, maps)

    def depth(self, maps: Any, match: Any) -> Any:
        """Depth logits."""
        blank = self.pixels.new_zeros(0, 3, *self.pixels.shape[1:3], dtype=torch.float32)
        return self.network.depth(maps, Views(blank, self.K, self.poses), match, self.sources)

    def lift(self, maps: Any, logits: Any) -> Any:
        """The scene."""
        images = self.pixels[: self.count].permute(0, 3, 1, 2)
        views = Views(images, self.K[: self.count], self.poses[: self.count])
        return self.network.lift(views, maps, logits, self.base)

    def query(self, scene: Any) -> Any:
        """Logits of all voxels."""
        return self.network.query(scene, self.points, self.edge)

    def whole(self, pixels: torch.Tensor, *past: torch.Tensor) -> Any:
        """From pixels to logits of all voxels; the past was encoded with its own keyframe."""
        maps, match = self.encode(pixels)
        old = [type(match[0])(*parts) for parts in zip(*past, strict=True)]
        return self.query(self.lift(maps, self.depth(maps, [*match, *old])))


def stage_rows(
    stages: NetworkStages, ceilings: Ceilings, sizes: Sizes, mode: tuple[torch.dtype, bool]
) -> Iterator[Row]:
    """Every stage of the network, and all of them, in one precision, step by step or recorded as a graph."""
    kind, graph = mode
    device, now = stages.device, stages.pixels[: stages.count]
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=kind is torch.bfloat16, cache_enabled=False),
    ):
        maps, match = stages.encode(now)
        _, old = stages.encode(stages.pixels[stages.count :])
        logits = stages.depth(maps, [*match, *old])
        scene = stages.lift(maps, logits)
        past = [torch.stack(parts) for parts in zip(*old, strict=True)]
        work: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
            "encode": (stages.encode, [now]), "depth": (lambda: stages.depth(maps, [*match, *old]), []),
            "lift": (lambda: stages.lift(maps, logits), []), "query": (lambda: stages.query(scene), []),
            "network": (stages.whole, [now, *past]),
        }  # fmt: skip
        weights = sum(p.numel() for p in stages.network.parameters()) * kind.itemsize
        moved = now.numel() + weights + len(stages.points) * (1 + len(stages.network.config.classes)) * kind.itemsize
        for name, (function, inputs) in work.items():
            with FlopCounterMode(display=False) as counter:
                function(*inputs)
            floor = ceilings.floor_ms(counter.get_total_flops(), moved if name == "network" else 0, kind)
            run = Captured(function, inputs) if graph else function
            yield {
                "what": f"{name}, {sizes.cameras} cameras {sizes.width}x{sizes.height}", "mode": "graph" if graph else "eager",
                "precision": str(kind).removeprefix("torch."), **timed(partial(run, *inputs), device, sizes.repeats),
                "floor_ms": round(floor, 4),
            }  # fmt: skip


def network_rows(stage: Stage, ceilings: Ceilings, sizes: Sizes) -> Iterator[Row]:
    """The network by stage, precision and mode."""
    device = stage.device
    stages = NetworkStages(load_checkpoint(find_model("nano")).network.to(device), sizes, device)
    for graph in (False, True) if can_capture(device) else (False,):
        for kind in (torch.float32, torch.bfloat16) if can_capture(device) else (torch.float32,):
            yield from stage_rows(stages, ceilings, sizes, (kind, graph))


def pipeline_rows(stage: Stage, ceilings: Ceilings, sizes: Sizes) -> Iterator[Row]:
    """Keyframes through the pipeline, by its own clock."""
    for precision in ("float32", "bfloat16") if can_capture(stage.device) else ("float32",):
        for name, values in keyframe_times(stage, sizes, precision).items():
            p50, p95 = np.percentile(values, (50, 95))
            yield {
                "what": f"pipeline: {name}", "precision": precision, "p50_ms": round(float(p50), 3),
                "p95_ms": round(float(p95), 3), "repeats": len(values),
            }  # fmt: skip


def keyframe_times(stage: Stage, sizes: Sizes, precision: str) -> dict[str, list[float]]:
    """Milliseconds of each stage of each keyframe of a drive; the first keyframes, which record the work, are left out."""
    area = max(4096, sizes.width * sizes.height)
    network = NetworkConfig(device=stage.device.type, canvas_pixels=area, precision=precision)
    config = Config(voxel_size_m=sizes.window.voxel_size_m, network=network)
    side = sizes.window.shape[0] * sizes.window.voxel_size_m
    pipeline = OccupancyPipeline(replace(config, map=replace(config.map, size_xy_m=side)))
    frames = surround_keyframes(sizes.cameras, sizes.width, sizes.height, np.random.default_rng(0))
    times: dict[str, list[float]] = {}
    for n in range(sizes.repeats + 5):
        for name, seconds in pipeline.fuse(next(frames)).seconds().items():
            times.setdefault(name, []).append(seconds * 1e3)
        if n == 4:
            times.clear()
    times["keyframe"] = [sum(parts) for parts in zip(*times.values(), strict=True)]
    return times


def map_rows(stage: Stage, ceilings: Ceilings, sizes: Sizes) -> Iterator[Row]:
    """The map at 0.05 m in 20 x 20 x 4 m: six depth images into it, its 2D grid and the distance field of that, brought to the host."""
    with place() as name:
        device = torch.device(name)
        grid = RollingMap(0.05, sizes.fine, MapConfig(max_range_m=8.0), device=name)
        grid.move_to(np.eye(4))
        frame = next(surround_keyframes(sizes.cameras, sizes.width, sizes.height, np.random.default_rng(0)))
        rows, columns = np.arange(sizes.height), np.arange(sizes.width)
        pixels = torch.from_numpy((2.0 + np.add.outer(rows, columns) % 97 / 40).astype(np.float32)).to(device)
        images = [
            DeviceDepth(i.camera, 1, pixels, i.model, i.T_map_cam, torch.from_numpy(i.T_map_cam).to(device))
            for i in frame.images
        ]
        voxels, cells = grid.log_odds.numel(), grid.log_odds[:, :, 0].numel()
        work: dict[str, tuple[Callable[[], Any], int]] = {
            f"{len(images)} depth images of {sizes.width}x{sizes.height}": (lambda: integrate_depths(grid, images), 16 * voxels),
            "the same, step by step": (lambda: carve(grid, images), 16 * voxels),
            "2D grid, from the map to the host": (lambda: DeviceCutter().cut(known(grid), Config(), ["slice_2d"]), 8 * voxels),
            "2D distance field, of the grid": (partial(distances, occupancy_values(known(grid), GridConfig())), 5 * cells),
            "both on the host": (lambda: DeviceCutter().cut(known(grid), Config(), ["slice_2d", "distances_m"]), 8 * voxels),
            "all voxels on the host": (known(grid).view, 6 * voxels),
        }  # fmt: skip
        for what, (run, moved) in work.items():
            took = timed(run, device, max(3, sizes.repeats // 5))
            yield {"what": f"map at 0.05 m: {what}", **took, "floor_ms": round(moved / ceilings.bandwidth * 1e3, 4)}


def known(grid: RollingMap) -> DeviceMap:
    """A map's voxels, where they are."""
    return grid.content(1, "map", np.eye(4))


def carve(grid: RollingMap, images: list[DeviceDepth]) -> None:
    """Integrate depth images that are on the device, each by itself."""
    for image in images:
        integrate_depth(grid, image)


def distances(values: torch.Tensor) -> torch.Tensor:
    """The distance field of a grid, on its device."""
    return distance_field_on_device(values == LETHAL, 0.05, 2.0)


def session_rows(stage: Stage, ceilings: Ceilings, sizes: Sizes) -> Iterator[Row]:
    """The demo drive from the bag's bytes to encoded grids, by the session's own clock."""
    for precision in ("float32", "bfloat16") if can_capture(stage.device) else ("float32",):
        for align in (True, False):
            network = NetworkConfig(device=stage.device.type, precision=precision, align_poses=align)
            config = Config(network=network)
            if stage.dry:
                config = replace(config, network=replace(network, canvas_pixels=8192), voxel_size_m=0.4)
            for name, values in played(config, 3 if stage.dry else sys.maxsize).items():
                took = {key: round(value, 3) for key, value in vars(values).items()}
                yield {"what": f"session: {name}", "precision": precision, "align_poses": align, **took}


def played(config: Config, most: int) -> dict[str, Latency]:
    """The stages of the demo drive's keyframes, of which grids are wanted; the first ones, which record the work, are left out."""
    with BagReader(resource_path("demo/drive.mcap")) as reader:
        plan = plan_play(reader, config)
        intake, session = plan.intake(), MappingSession(plan.config, OccupancyPipeline(plan.config))
        session.warm_up()
        for _, ready in steps(reader, intake):
            for raw in ready:
                session.process(raw, intake.map_frame, ("occupancy_grid", "distance_field"))
                if session.keyframes == min(8, most - 1):
                    session.latency = LatencyRecorder()
            if session.keyframes >= most:
                break
        return session.latency.summary()


def main() -> int:
    """Run the stage."""
    stage = read_stage("measure")
    sizes, device, failed = DRY if stage.dry else REAL, stage.device, 0
    ceilings, rows = measure_ceilings(sizes, device)
    rows = [{"what": "card", "got": card(device), "torch": torch.__version__}, *rows]
    # What is asked for first: if the time runs out, the rest is missing.
    for make in (map_rows, session_rows, network_rows, pipeline_rows):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            for item in make(stage, ceilings, sizes):
                rows.append({**item, "card": card(device)})
                stage.write(rows)
        except Exception as error:
            failed += 1
            rows.append({"what": make.__name__, "error": f"{type(error).__name__}: {error}"[:400]})
        finish(device)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        rows.append({"what": f"{make.__name__}: peak memory", "got": round(peak / 2**20, 1), "unit": "MiB"})
        stage.write(rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
