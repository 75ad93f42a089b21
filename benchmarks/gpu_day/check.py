# SPDX-License-Identifier: Apache-2.0
"""First stage: what a GPU computes is what a CPU computes, within limits; its tests pass; the simulator renders on it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from report import Row, Stage, card, read_stage
from scenes import demo_keyframes
from stand_in import place

from occupancy_nn_ros.config import GridConfig, MapConfig, NetworkConfig
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.device_slices import occupancy_values
from occupancy_nn_ros.mapping.distance_field import distance_field, distance_field_on_device
from occupancy_nn_ros.mapping.ray_integration import integrate_rays
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.slices import occupancy_slice
from occupancy_nn_ros.runtime.device_predictor import load_predictor
from occupancy_nn_ros.values import LatticeWindow, Prediction, VoxelState

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"float32": (1e-3, 2e-3), "bfloat16": (0.02, 0.03)}
"""Mean difference of a voxel's probability, and share of voxels on the other side of a half, by precision."""

WINDOW, DRY_WINDOW = LatticeWindow(0.2, (-40, -40, -7), (80, 80, 16)), LatticeWindow(0.5, (-8, -8, -3), (16, 16, 6))


def row(what: str, got: float, limit: float, **more: object) -> Row:
    """One comparison."""
    return {"what": what, "got": got, "limit": limit, "ok": bool(got <= limit), **more}


def predictions(device: str, precision: str, dry: bool) -> list[Row]:
    """Probability and visibility of all voxels for the first keyframes of the demo drive."""
    pixels, window, count = (8192, DRY_WINDOW, 2) if dry else (0, WINDOW, 6)
    config = NetworkConfig(device=device, precision=precision, coarse_m=0.0, canvas_pixels=pixels)
    predictor = load_predictor("nano", config)
    answers = []
    for keyframe in demo_keyframes(count):
        given = predictor.predict(keyframe, window)
        answers.append({"p": torch.sigmoid(given.logit.float()).cpu(), "visible": given.visible.float().cpu()})
    return answers


def network_rows(stage: Stage, device: str, expected: list[Row]) -> Iterator[Row]:
    """The network on the device beside the CPU."""
    for precision, (mean, share) in LIMITS.items():
        got = predictions(device, precision, stage.dry)
        pairs = [(a["p"].as_subclass(torch.Tensor), b["p"]) for a, b in zip(got, expected, strict=True)]
        difference = torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()
        crossed = torch.stack([((a > 0.5) != (b > 0.5)).float().mean() for a, b in pairs]).mean()
        yield row(f"network, mean difference of probability, {precision}", float(difference), mean)
        yield row(f"network, voxels that change sides, {precision}", float(crossed), share)


def mapped(device: str) -> RollingMap:
    """A map that has seen predictions and rays."""
    rng = np.random.default_rng(2)
    grid = RollingMap(0.25, (32, 32, 12), MapConfig(clear_in_view_s=0.5), device=device)
    for step in range(4):
        stamp = 1_000_000_000 * (1 + step)
        grid.move_to(make_transform((0.6 * step, -0.3 * step, 0), (0, 0, 0, 1)))
        shape, low = (20, 24, 10), np.add(grid.window.origin, (2, -3, 1))
        tensors = [torch.from_numpy(rng.normal(0, 2, shape)), torch.from_numpy(rng.uniform(0, 1, shape))]
        logit, weight = (tensor.float().to(device) for tensor in tensors)
        window = LatticeWindow(0.25, (int(low[0]), int(low[1]), int(low[2])), shape)
        grid.integrate(Prediction(window, logit, weight, None), stamp)
        integrate_rays(grid, rng.normal(0, 0.2, (1, 3)), rng.normal(0, 3, (500, 3)), stamp)
    return grid


def map_rows(device: str) -> Iterator[Row]:
    """Map, rays, grids and distances on the device beside the CPU."""
    here, content = mapped("cpu").view(1, "odom", np.eye(4)), mapped(device).content(1, "odom", np.eye(4))
    there = content.view()
    yield row("map and rays, voxels of another state", float((here.state != there.state).mean()), 1e-3)
    known = here.state != VoxelState.UNKNOWN
    difference = np.abs(here.probability - there.probability)[known]
    yield row("map and rays, largest difference of probability", float(difference.max()), 0.02)
    for reference in ("base", "ground"):
        grid = GridConfig(min_height_m=0.0, reference=reference, max_step_down_m=0.3, max_step_up_m=0.3)
        differ = occupancy_values(content, grid).cpu().numpy() != occupancy_slice(there, grid).values
        yield row(f"grid above the {reference}, cells that differ from the host's", float(differ.mean()), 0.0)
    occupied = np.random.default_rng(1).random((200, 200)) < 0.01
    field = distance_field_on_device(torch.from_numpy(occupied).to(device), 0.05, 2.0).cpu().numpy()
    yield row(
        "distance field, largest difference in m",
        float(np.abs(field - distance_field(occupied, 0.05, 2.0)).max()),
        0.0,
    )


def test_rows(stage: Stage) -> Iterator[Row]:
    """The tests that need CUDA."""
    command = [sys.executable, "-m", "pytest", "-rs", "test/cuda", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(10.0, stage.left_s))
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    (stage.out / "check.log").write_text(done.stdout[-100_000:] + done.stderr[-10_000:], encoding="utf-8")
    skipped = stage.dry and not torch.cuda.is_available()
    yield {
        "what": "tests that need CUDA",
        "got": last,
        "limit": "",
        "ok": done.returncode == 0 and ("skipped" not in last or skipped),
    }


def rendering_rows() -> Iterator[Row]:
    """Whether and how fast the simulator renders."""
    from occupancy_nn_ros.simulation.layouts import build_world
    from occupancy_nn_ros.simulation.rendering import WorldRenderer
    from occupancy_nn_ros.simulation.rigs import named_rig

    camera = named_rig("front").cameras[0]
    with WorldRenderer(build_world("indoor", 1)) as renderer:
        renderer.render(camera.model, camera.T_base_cam)
        began = time.perf_counter()
        for _ in range(5):
            view = renderer.render(camera.model, camera.T_base_cam)
        each = (time.perf_counter() - began) / 5
        name = _renderer_name()
    yield {"what": f"rendering of {view.image.shape[1]}x{view.image.shape[0]}, ms", "got": round(1e3 * each, 2), "limit": "",
           "ok": bool(view.image.std() > 1), "renderer": name}  # fmt: skip


def _renderer_name() -> str:
    """What OpenGL says it is drawn by, as long as a context exists; empty if it does not say."""
    try:
        from OpenGL.GL import GL_RENDERER, glGetString

        return (glGetString(GL_RENDERER) or b"").decode()
    except Exception as error:
        return f"not known: {error}"


def tried(what: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Rows, and one more if they end with an error: one thing that fails must not hide the others."""
    try:
        yield from rows()
    except Exception as error:
        yield {"what": what, "got": f"{type(error).__name__}: {error}"[:300], "limit": "", "ok": False}


def main() -> int:
    """Run the stage."""
    stage = read_stage("check")
    rows: list[Row] = [{"what": "card", "got": card(stage.device), "limit": "", "ok": True, "torch": torch.__version__}]
    expected = predictions("cpu", "float32", stage.dry)

    def on_device(make: Callable[[str], Iterator[Row]]) -> Iterator[Row]:
        with place() as device:
            yield from make(device)

    parts: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (
        ("network", lambda: on_device(lambda device: network_rows(stage, device, expected))),
        ("map", lambda: on_device(map_rows)),
        ("rendering", rendering_rows),
        ("tests", lambda: test_rows(stage)),
    )
    for what, make in parts:
        for item in tried(what, make):
            rows.append(item)
            stage.write(rows)
    return 0 if all(item["ok"] for item in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
