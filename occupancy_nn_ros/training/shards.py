# SPDX-License-Identifier: Apache-2.0
"""Training shards: keyframes of one drive each, as safetensors.

Made here of simulated worlds, whose occupancy is known everywhere; ``label_bags`` makes them of recordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from occupancy_nn_ros.errors import SimulationError, TrainingError
from occupancy_nn_ros.simulation.drives import plan_drive
from occupancy_nn_ros.simulation.furniture import load_furniture
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig, random_rig
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.training.point_sampling import sample_points
from occupancy_nn_ros.values import SEMANTIC_CLASSES, Float32Array, FloatArray, UInt8Array

FRAMES = 24
POINTS = 8192
DEPTH_STRIDE = 4
"""Pixels from one depth of the labels to the next, as of the finest depth that the network gives."""

FORMAT = "occupancy_nn_ros shard"
IGNORED = 255
"""Label of points that teach nothing: deep inside solids, which no sensor can ever see, or fillers."""

OCCUPIED = 254
"""Label of points that are occupied by nobody knows what, as a range sensor tells."""

MOST_VIEWS = 8
"""Cameras that ``visible`` has bits for."""

KINDS = ("indoor", "workspace", "warehouse", "street", "clutter")
"""World of each shard by its number."""

FURNISHED_KINDS = ("home", "office", "home", "hall")
"""World of every second shard where imported furniture is asked for."""

HANDHELD_SHARE = {"workspace": 0.7, "home": 0.6, "office": 0.6}
"""Share of drives with a hand-held rig by kind of world, ``HANDHELD_ELSEWHERE`` in the others."""

HANDHELD_ELSEWHERE = 0.3

FIELDS = ("images", "K", "T_map_cam", "T_map_base", "depth_m", "points_m", "edge_m", "labels")
POSES = ("K", "T_map_cam", "T_map_base", "edge_m")
MAY_BE_NAN = ("depth_m",)


@dataclass(frozen=True)
class Shard:
    """One drive.

    Attributes:
        images: (F, V, H, W, 3) uint8 RGB pinhole images.
        K: (V, 3, 3) float32.
        T_map_cam: (F, V, 4, 4) float32.
        T_map_base: (F, 4, 4) float32.
        depth_m: (F, V, H / 4, W / 4) float16 depth at the centres of cells of ``DEPTH_STRIDE`` pixels, 0 where far, NaN
            where not known.
        points_m: (F, P, 3) float32 in the map frame.
        edge_m: (F,) float32 edge of the cubes that the labels are about.
        labels: (F, P) uint8: 0 free, class id, ``OCCUPIED`` or ``IGNORED``.
        visible: (F, P) uint8, bit v set where camera v sees the point; None in shards that do not tell. For scoring:
            training weighs points by what the network itself makes of their visibility.
    """

    images: UInt8Array
    K: Float32Array
    T_map_cam: Float32Array
    T_map_base: Float32Array
    depth_m: np.ndarray
    points_m: Float32Array
    edge_m: Float32Array
    labels: UInt8Array
    visible: UInt8Array | None = None


def make_shard(kind: str, seed: int, path: Path, *, photos: bool = False, scale: float = 1.0) -> bool:
    """Simulate a drive and write its shard; False if the world offers nowhere to drive."""
    rng = np.random.default_rng([seed, 11])
    world = build_world(kind, seed, photos=photos)
    handheld = bool(rng.random() < HANDHELD_SHARE.get(kind, HANDHELD_ELSEWHERE))
    rig = random_rig(rng, handheld=handheld, scale=scale)
    try:
        drive = plan_drive(world, seed, FRAMES / rig.rate_hz + 0.5, rig.rate_hz, handheld=handheld)
    except SimulationError:
        return False
    with WorldRenderer(world) as renderer:
        frames = [
            _render_frame(renderer, rig, drive.T_map_base[n], float(drive.stamps_s[n]), rng) for n in range(FRAMES)
        ]
    arrays = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    arrays["K"] = np.stack([camera.model.K for camera in rig.cameras]).astype(np.float32)
    write_shard(path, arrays, {"world": kind, "seed": str(seed)})
    return True


def kind_of(number: int, *, furnished: bool) -> str:
    """World of a shard by its number."""
    if furnished and number % 2:
        return FURNISHED_KINDS[number // 2 % len(FURNISHED_KINDS)]
    return KINDS[(number // 2 if furnished else number) % len(KINDS)]


def make_shards(
    folder: Path, count: int, processes: int, *, photos: bool = False, furnished: bool = False, scale: float = 1.0
) -> Iterator[int]:
    """Make shards 0 to ``count`` - 1 in a folder in parallel, and yield the number finished after each.

    Shards that exist are kept, so that an interrupted run goes on where it stopped. Two of three worlds get
    photographic textures, every second one imported furniture, where those are asked for. ``scale`` multiplies width
    and height of the images.

    Raises:
        SimulationError: furniture is asked for, and none was imported.
    """
    if furnished:
        load_furniture(heldout=False)
    jobs = [(n, folder / f"{kind_of(n, furnished=furnished)}_{n:05d}.safetensors") for n in range(count)]
    missing = [(n, path) for n, path in jobs if not path.exists()]
    done = count - len(missing)
    yield done
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = [
            pool.submit(make_shard, path.stem.split("_")[0], n, path, photos=photos and n % 3 != 0, scale=scale)
            for n, path in missing
        ]
        for future in as_completed(pending):
            future.result()
            done += 1
            yield done


def write_shard(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a shard of these arrays, named as in :class:`Shard`; under its name it is only ever complete.

    Raises:
        TrainingError: it cannot be written, as on a full disk.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, str(partial), metadata={"format": FORMAT, **metadata})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(f"cannot write shard {path}: {error}") from None


def read_shard(path: Path) -> Shard:
    """Read a shard whole and check all of it.

    Raises:
        TrainingError: truncated, foreign, or with arrays that do not fit together.
    """
    arrays = _load(path, "np")
    _check_shapes(path, arrays)
    _check_values(path, arrays)
    return Shard(**arrays)


def open_shard(path: Path) -> Shard:
    """Open a shard whose arrays stay in the file until they are used, which takes a millisecond.

    Shapes, poses and intrinsics are checked; :func:`check_frame` checks the labels of a frame.

    Raises:
        TrainingError: truncated, foreign, or with arrays that do not fit together.
    """
    arrays = {name: tensor.numpy() for name, tensor in _load(path, "pt").items()}
    _check_shapes(path, arrays)
    _check_values(path, {name: arrays[name] for name in POSES})
    return Shard(**arrays)


def check_frame(path: Path, shard: Shard, frame: int) -> None:
    """Check what an opened shard holds for one frame.

    Raises:
        TrainingError: numbers that are not finite, or unknown labels.
    """
    _check_values(path, {name: getattr(shard, name)[frame] for name in ("depth_m", "points_m", "labels")})


def _load(path: Path, framework: str) -> dict[str, Any]:
    """The arrays of a shard's file; torch maps them (``pt``), numpy reads them (``np``)."""
    try:
        with safe_open(str(path), framework=framework) as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise TrainingError(f"{path} is not a training shard")
            optional = {"visible"} & set(file.keys())
            return {name: file.get_tensor(name) for name in (*FIELDS, *optional)}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read shard {path}: {error}") from None


def _check_shapes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    images, points = arrays["images"].shape, arrays["points_m"].shape
    if len(images) != 5 or images[0] < 2 or 0 in images or len(points) != 3:
        raise TrainingError(f"{path} has images {images} and points {points}, expected at least two frames of each")
    frames, views, height, width, _ = images
    expected = {
        "images": (frames, views, height, width, 3), "K": (views, 3, 3), "T_map_cam": (frames, views, 4, 4),
        "T_map_base": (frames, 4, 4), "depth_m": (frames, views, height // DEPTH_STRIDE, width // DEPTH_STRIDE),
        "points_m": (frames, points[1], 3), "edge_m": (frames,), "labels": (frames, points[1]),
        "visible": (frames, points[1]),
    }  # fmt: skip
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise TrainingError(f"{path}: {name} is {array.shape}, expected {expected[name]}")


def _check_values(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        broken = np.isinf(array) if name in MAY_BE_NAN else ~np.isfinite(array)
        if broken.any():
            raise TrainingError(f"{path}: {name} holds numbers that are not finite")
    labels = arrays.get("labels", np.zeros(0, np.uint8))
    if ((labels > len(SEMANTIC_CLASSES)) & (labels != OCCUPIED) & (labels != IGNORED)).any():
        raise TrainingError(f"{path}: labels name classes beyond {len(SEMANTIC_CLASSES)}")


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
