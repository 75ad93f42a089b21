# SPDX-License-Identifier: Apache-2.0
"""Simulated drives as training shards: random worlds, random rigs, and labels from the simulator's exact occupancy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.jobs.run import Report, WorkerPool, run_jobs
from occupancy_nn_ros.simulation.drives import Drive, plan_drive
from occupancy_nn_ros.simulation.furniture import load_furniture
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig, random_rig
from occupancy_nn_ros.simulation.terrains import TERRAINS, build_terrain
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.training.object_store import ObjectStore
from occupancy_nn_ros.training.point_sampling import sample_points
from occupancy_nn_ros.training.shards import DEPTH_STRIDE, FRAMES, IGNORED, POINTS, write_shard
from occupancy_nn_ros.values import Float32Array, FloatArray, UInt8Array

NOWHERE = ".nowhere"
"""Suffix of the note in place of a shard whose world offers nowhere to drive."""

KINDS = ("indoor", "workspace", "warehouse", "street", "clutter")
"""World of each shard by its number."""

FURNISHED_KINDS = ("home", "office", "home", "hall")
"""World of every second shard where imported furniture is asked for."""

TERRAIN_KINDS = tuple(TERRAINS)
"""World of every eighth shard: ground on two levels."""

SLOWEST_RATE_HZ = 4.0
"""Of drives on terrains, the shortest of which take six seconds."""

HANDHELD_SHARE = {"workspace": 0.7, "home": 0.6, "office": 0.6}
"""Share of drives with a hand-held rig by kind of world, ``HANDHELD_ELSEWHERE`` in the others."""

HANDHELD_ELSEWHERE = 0.3


@dataclass(frozen=True)
class ShardPlan:
    """Which drives to simulate.

    Attributes:
        count: how many, numbered from 0.
        photos: two of three worlds have photographic textures.
        furnished: every second world has imported furniture.
        scale: multiplies width and height of the images.
    """

    count: int
    photos: bool = False
    furnished: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class ShardProgress:
    """How many drives are done, and those that failed: the reason by the name of the shard."""

    done: int
    failed: dict[str, str]


def kind_of(number: int, *, furnished: bool) -> str:
    """World of a shard by its number."""
    if number % 8 == 6:
        return TERRAIN_KINDS[number // 8 % len(TERRAIN_KINDS)]
    if furnished and number % 2:
        return FURNISHED_KINDS[number // 2 % len(FURNISHED_KINDS)]
    return KINDS[(number // 2 if furnished else number) % len(KINDS)]


def make_shards(folder: Path | str, plan: ShardPlan, pool: WorkerPool) -> Iterator[ShardProgress]:
    """Make the shards of a plan in a folder, or at a URL, and tell after each how far it is.

    Shards that exist are kept, so that an interrupted run goes on where it stopped.

    Raises:
        SimulationError: furniture is asked for, and none was imported.
        ClusterError: the pool is a cluster that cannot be used any more.
    """
    if plan.furnished:
        load_furniture(heldout=False)
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    jobs = missing_shards(folder, plan)
    failed: dict[str, str] = {}
    done = plan.count - len(jobs)
    yield ShardProgress(done, failed)
    for outcome in run_jobs(pool, _simulate, jobs):
        if outcome.failure:
            failed[jobs[outcome.index].path.stem] = outcome.failure
        done += 1
        yield ShardProgress(done, failed)


@dataclass(frozen=True)
class _Job:
    """One drive to simulate, and the folder or URL of its shard."""

    number: int
    path: Path
    plan: ShardPlan
    url: str = ""


def missing_shards(folder: Path | str, plan: ShardPlan) -> list[_Job]:
    """The drives of a plan of which a folder, or URL, holds neither a shard nor a note that there is none."""
    names = [f"{kind_of(n, furnished=plan.furnished)}_{n:05d}.safetensors" for n in range(plan.count)]
    if isinstance(folder, Path):
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        jobs = [_Job(n, folder.resolve() / name, plan) for n, name in enumerate(names)]
    else:
        there = set(ObjectStore(folder).sizes())
        jobs = [_Job(n, Path(name), plan, folder) for n, name in enumerate(names)]
    return [job for job in jobs if there.isdisjoint({job.path.name, job.path.with_suffix(NOWHERE).name})]


def _simulate(job: _Job, report: Report) -> bool:
    if not job.url:
        return _simulate_into(job, job.path)
    with TemporaryDirectory() as folder:
        is_made = _simulate_into(job, Path(folder) / job.path.name)
        ObjectStore(job.url).send(sorted(Path(folder).iterdir()))
    return is_made


def _simulate_into(job: _Job, path: Path) -> bool:
    plan, number = job.plan, job.number
    kind = kind_of(number, furnished=plan.furnished)
    return make_shard(kind, number, path, photos=plan.photos and number % 3 != 0, scale=plan.scale)


def make_shard(kind: str, seed: int, path: Path, *, photos: bool = False, scale: float = 1.0) -> bool:
    """Simulate a drive and write its shard; False, with a note in its place, if the world offers nowhere to drive."""
    rng = np.random.default_rng([seed, 11])
    try:
        world, rig, drive = (on_terrain if kind in TERRAINS else _on_floor)(
            kind, seed, photos=photos, scale=scale, rng=rng
        )
    except SimulationError as error:
        path.with_suffix(NOWHERE).write_text(f"{error}\n", encoding="utf-8")
        return False
    with WorldRenderer(world) as renderer:
        frames = [
            _render_frame(renderer, rig, drive.T_map_base[n], float(drive.stamps_s[n]), rng) for n in range(FRAMES)
        ]
    arrays = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    arrays["K"] = np.stack([camera.model.K for camera in rig.cameras]).astype(np.float32)
    write_shard(path, arrays, {"world": kind, "seed": str(seed)})
    return True


def _on_floor(
    kind: str, seed: int, *, photos: bool, scale: float, rng: np.random.Generator
) -> tuple[World, Rig, Drive]:
    """A drive through a world on one level, wheeled or by hand."""
    world = build_world(kind, seed, photos=photos)
    handheld = bool(rng.random() < HANDHELD_SHARE.get(kind, HANDHELD_ELSEWHERE))
    rig = random_rig(rng, handheld=handheld, scale=scale)
    return world, rig, plan_drive(world, seed, FRAMES / rig.rate_hz + 0.5, rig.rate_hz, handheld=handheld)


def on_terrain(
    kind: str, seed: int, *, photos: bool, scale: float, rng: np.random.Generator
) -> tuple[World, Rig, Drive]:
    """Any part of a drive to where two levels meet, wheeled."""
    terrain = build_terrain(kind, seed, photos=photos)
    rig = random_rig(rng, scale=scale)
    drive = terrain.drive(max(rig.rate_hz, SLOWEST_RATE_HZ))
    first = int(rng.integers(len(drive.stamps_s) - FRAMES + 1))
    part = slice(first, first + FRAMES)
    return terrain.world, rig, Drive(drive.stamps_s[part], drive.T_map_base[part])


def _render_frame(
    renderer: WorldRenderer, rig: Rig, T_map_base: FloatArray, time_s: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    renderer.set_time(time_s)
    poses = np.stack([T_map_base @ camera.T_base_cam for camera in rig.cameras])
    views = [renderer.render(c.model, pose, with_classes=False) for c, pose in zip(rig.cameras, poses, strict=True)]
    edge = float(rng.choice([0.1, 0.2, 0.2]))
    points = sample_points(rig, views, poses, T_map_base, rng, POINTS)
    labels = label_points(renderer.world, points, edge, time_s)
    half = DEPTH_STRIDE // 2
    return {
        "images": np.stack([view.image for view in views]),
        "T_map_cam": poses.astype(np.float32),
        "T_map_base": T_map_base.astype(np.float32),
        "depth_m": np.stack([v.depth_m[half::DEPTH_STRIDE, half::DEPTH_STRIDE] for v in views]).astype(np.float16),
        "points_m": points,
        "edge_m": np.asarray(edge, dtype=np.float32),
        "labels": labels,
    }


def label_points(world: World, points: Float32Array, edge_m: float, time_s: float) -> UInt8Array:
    """Class ids of the cubes at points (P, 3), 0 for free, ``IGNORED`` deep inside solids."""
    labels = world.occupied_cubes(points, edge_m, time_s)
    solid = np.flatnonzero(labels)
    deep = world.signed_distance(points[solid], time_s) < -1.2 * edge_m
    labels[solid[deep]] = IGNORED
    return labels
