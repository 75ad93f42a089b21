# SPDX-License-Identifier: Apache-2.0
"""A keyframe of the demo by stage, beside other processes that compute, and beside a vision transformer for depth.

    .venv/bin/python benchmarks/keyframe.py --busy 0 2 4 8 --record

Everything is measured in one run, in turns: a round is a keyframe of each variant, then the transformer on the same number of
pictures. Processor time says what the work costs, wall time what is left of the machine for it. The transformer has the size of
Depth-Anything-V2-Small (Yang et al. 2024) and random weights: its encoder is a ViT-S/14, its head four stages of
convolutions; what it says is nothing, and what it costs is what a user would pay.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from occupancy_nn_ros.compute.waiting import wait_passively

wait_passively()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from occupancy_nn_ros.bags.reader import BagReader  # noqa: E402
from occupancy_nn_ros.compute.threads import threads, torch_threads, use_threads  # noqa: E402
from occupancy_nn_ros.config import Config, NetworkConfig  # noqa: E402
from occupancy_nn_ros.network import matching  # noqa: E402
from occupancy_nn_ros.resources import resource_path  # noqa: E402
from occupancy_nn_ros.runtime.decoding import decode_image_frame  # noqa: E402
from occupancy_nn_ros.runtime.intake import Intake  # noqa: E402
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline  # noqa: E402
from occupancy_nn_ros.runtime.player import plan_play, steps  # noqa: E402
from occupancy_nn_ros.values import Keyframe  # noqa: E402

VARIANTS = {
    "one thread, float32": NetworkConfig(threads=1, precision="float32"),
    "all cores, float32": NetworkConfig(precision="float32"),
    "as it is": NetworkConfig(),
}
SHIPPED, SECOND_LOOK = "as it is", "second look, after the outputs"
PATCH, WIDTH, DEPTH, HEADS, FEATURES = 14, 384, 12, 6, 64


class Spent:
    """Seconds by name: wall and processor time of the process."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what the body takes."""
        wall, cpu = time.perf_counter(), processor_s()
        yield
        self.rows[name].append((time.perf_counter() - wall, processor_s() - cpu))

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Time every call of a function from now on."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.timed(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, timed)

    def figures(self, name: str) -> dict[str, float]:
        """Median and 95th percentile of the wall, median of the processor time, in ms."""
        wall, cpu = np.array(self.rows[name]).T * 1e3
        return {"p50_ms": np.median(wall), "p95_ms": np.percentile(wall, 95), "cpu_ms": np.median(cpu)}

    def line(self, name: str) -> str:
        """The figures as a row of a table."""
        return f"| {name} | " + " | ".join(f"{value:.0f}" for value in self.figures(name).values()) + " |"


def processor_s() -> float:
    """Time that all threads of this process have computed."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Block(nn.Module):
    """Attention and perceptron around shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """(V, N, WIDTH) to the same."""
        views, count, _ = tokens.shape
        q, k, v = self.qkv(self.first(tokens)).view(views, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(views, count, WIDTH)
        tokens = tokens + self.out(mixed)
        result: Tensor = tokens + self.perceptron(self.second(tokens))
        return result


class DepthTransformer(nn.Module):
    """A ViT-S/14 with a dense prediction head (Ranftl et al. 2021) of 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.reduce = nn.ModuleList(nn.Conv2d(WIDTH, FEATURES, 1) for _ in range(4))
        self.fuse = nn.ModuleList(
            nn.Sequential(*(nn.Sequential(nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.ReLU()) for _ in range(4)))
            for _ in range(4)
        )
        self.last = nn.Sequential(nn.Conv2d(FEATURES, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(V, 3, H, W), H and W multiples of 14, to (V, 1, H, W)."""
        grid = self.patches(images)
        tokens, levels = grid.flatten(2).transpose(1, 2), []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number % 3 == 2:
                levels.append(tokens.transpose(1, 2).view_as(grid))
        path: Tensor | None = None
        for level, reduce, fuse, scale in zip(reversed(levels), self.reduce, self.fuse, (0.5, 1, 2, 4), strict=True):
            size = [max(1, int(int(n) * scale)) for n in grid.shape[-2:]]
            part = functional.interpolate(reduce(level), size=size, mode="bilinear")
            path = fuse(part if path is None else part + functional.interpolate(path, size=size, mode="bilinear"))
        result: Tensor = self.last(functional.interpolate(path, size=images.shape[-2:], mode="bilinear"))
        return result


def transformers() -> dict[str, Callable[[], Any]]:
    """The transformer on four pictures of 336 x 252, by torch and, where it is installed, by OpenVINO."""
    torch.manual_seed(0)
    network, pictures = DepthTransformer().eval(), torch.randn(4, 3, 252, 336)

    def run(kind: torch.dtype) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            return network(pictures)

    runs = {f"ViT-S, torch {str(kind)[6:]}": functools.partial(run, kind) for kind in (torch.float32, torch.bfloat16)}
    try:
        import openvino
    except ImportError:
        return runs
    compiled = openvino.compile_model(openvino.convert_model(network, example_input=pictures), "CPU")
    return {**runs, "ViT-S, OpenVINO": lambda: compiled([pictures.numpy()])}


def demo_keyframes(count: int) -> Iterator[Keyframe]:
    """The first keyframes of the demo's drive, of four cameras."""
    with BagReader(resource_path("demo/drive.mcap")) as reader:
        plan = plan_play(reader, Config())
        intake = Intake(plan.config, plan.sensors)
        raws = (raw for _, ready in steps(reader, intake) for raw in ready)
        for raw in itertools.islice(raws, count):
            yield Keyframe(raw.stamp_ns, raw.T_map_base, tuple(decode_image_frame(frame) for frame in raw.frames))


def compute_forever() -> None:
    """Another process that wants a core."""
    while True:
        sum(range(10_000))


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """So many other processes that compute."""
    others = [multiprocessing.get_context("spawn").Process(target=compute_forever, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()


def watch_stages(spent: Spent, pipeline: OccupancyPipeline) -> None:
    """Time the stages of one pipeline; those that run side by side are summed over the cameras in processor time only."""
    network = pipeline.predictor.network  # type: ignore[union-attr]
    spent.watch(network, "encode", "encode, a camera")
    spent.watch(network, "matchable", "what is matched, a camera")
    spent.watch(matching, "sweep_and_merge", "a sweep, a camera")
    spent.watch(network.depth_head, "forward", "depth head, a camera")
    spent.watch(network.refiner, "forward", "refiner, a camera")
    spent.watch(network, "lift", "lift")
    spent.watch(network, "query", "query, a portion")


def measure(busy: int, keyframes: list[Keyframe], warm: int, runs: dict[str, Callable[[], Any]]) -> Spent:
    """Rounds of all variants beside so many busy processes; the first ``warm`` rounds are not counted."""
    spent = Spent()
    pipelines = {name: OccupancyPipeline(Config(network=network)) for name, network in VARIANTS.items()}
    for pipeline in pipelines.values():
        pipeline.warm_up()
    with busy_neighbours(busy):
        for number, keyframe in enumerate(keyframes):
            if number == warm:
                spent.rows.clear()
            for name, pipeline in pipelines.items():
                use_threads(VARIANTS[name].threads)
                with spent.timed(name):
                    pipeline.fuse(keyframe)
                if name == SHIPPED:
                    with spent.timed(SECOND_LOOK):
                        pipeline.look_again()
            for name, run in runs.items():
                with spent.timed(name), torch_threads(threads()):
                    run()
    return spent


def stages(keyframes: list[Keyframe], warm: int) -> Spent:
    """One thread, stage by stage."""
    spent, pipeline = Spent(), OccupancyPipeline(Config(network=NetworkConfig(threads=1)))
    pipeline.warm_up()
    watch_stages(spent, pipeline)
    for number, keyframe in enumerate(keyframes):
        if number == warm:
            spent.rows.clear()
        with spent.timed("keyframe"):
            pipeline.fuse(keyframe)
    return spent


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 4, 8], help="other processes that compute")
    parser.add_argument("--keyframes", type=int, default=20)
    parser.add_argument("--warm", type=int, default=9, help="keyframes at the beginning that are not counted")
    parser.add_argument("--record", action="store_true", help="append the rows to benchmarks/results/keyframe.jsonl")
    args = parser.parse_args()
    keyframes, runs = list(demo_keyframes(args.keyframes)), transformers()
    header = "| {} | wall p50, ms | p95 | processor, ms |\n|---|---|---|---|"
    for busy in args.busy:
        spent = measure(busy, keyframes, args.warm, runs)
        print(header.format(f"{busy} busy processes"), *map(spent.line, spent.rows), "", sep="\n", flush=True)
        if args.record:
            from records import record

            record("keyframe", [{"busy": busy, "name": name, **spent.figures(name)} for name in spent.rows])
    spent = stages(keyframes, args.warm)
    print(header.format("stage, one thread, each call"), *map(spent.line, spent.rows), sep="\n")


if __name__ == "__main__":
    main()
