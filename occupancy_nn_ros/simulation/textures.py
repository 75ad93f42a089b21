# SPDX-License-Identifier: Apache-2.0
"""Procedural textures in great variety. Held-out worlds use a family of patterns that training never sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from scipy.special import expit

from occupancy_nn_ros.errors import MissingDependencyError, SimulationError
from occupancy_nn_ros.simulation.assets import assets_folder, read_index
from occupancy_nn_ros.values import Float32Array, UInt8Array

SIZE = 256
PHOTO_SHARE = 0.5
PLAIN_SHARE = 0.25
"""Share of textures of all families but the held-out one that are plain paint: rooms are mostly made of it."""

Rng = np.random.Generator


def make_texture(rng: Rng, family: str) -> UInt8Array:
    """A random square texture (256, 256, 3) uint8 RGB.

    Args:
        rng: source of randomness.
        family: ``train``, ``photo`` (train mixed with cut-outs of photographs) or ``heldout``; with ``real_`` before it
            mostly plain paint and imported photographs of floors and walls.

    Raises:
        MissingDependencyError: photographs are asked for, but the package that brings them is not installed.
    """
    if family.startswith("real_"):
        return _real_surface(rng, family.removeprefix("real_"))
    if family != "heldout" and rng.random() < PLAIN_SHARE:
        return plain(rng)
    patterns = HELDOUT_PATTERNS if family == "heldout" else TRAIN_PATTERNS
    if family == "photo" and rng.random() < PHOTO_SHARE:
        texture = _photograph(rng)
    else:
        texture = _colorize(rng, patterns[rng.integers(len(patterns))](rng))
    grain = rng.uniform(0, 0.10) * noise(rng, octaves=7, roughness=0.9) + rng.uniform(0, 0.25) * noise(rng, octaves=3)
    texture = texture * (1 + grain[..., None]) + rng.uniform(0, 0.03) * rng.standard_normal((SIZE, SIZE, 1))
    if family != "heldout" and rng.random() < 0.25:
        texture = _scribble(rng, texture)
    return np.asarray(np.clip(texture * 255, 0, 255), dtype=np.uint8)


def plain(rng: Rng) -> UInt8Array:
    """Paint (256, 256, 3) uint8 RGB, mostly light and grey, that nothing but slow shading and a faint grain tells apart."""
    tone = rng.uniform(0.55, 0.98) if rng.random() < 0.8 else rng.uniform(0.08, 0.5)
    color = tone * (1 + rng.uniform(-1, 1, 3) * rng.choice([0.02, 0.06, 0.25], p=[0.5, 0.35, 0.15]))
    shading = 1 + rng.uniform(0, 0.2) * noise(rng, octaves=2)
    grain = rng.uniform(0, 0.012) * noise(rng, octaves=7, roughness=0.95)
    return np.asarray(np.clip(color * (shading + grain)[..., None] * 255, 0, 255), dtype=np.uint8)


def noise(rng: Rng, octaves: int = 5, roughness: float = 0.55, stretch: tuple[float, float] = (1, 1)) -> Float32Array:
    """Fractal noise (256, 256) of zero mean and about unit range, periodic only by chance."""
    total = np.zeros((SIZE, SIZE), np.float32)
    amplitude = 1.0
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        shape = (max(2, int(cells * stretch[0])), max(2, int(cells * stretch[1])))
        layer = rng.standard_normal(shape).astype(np.float32)
        total += amplitude * np.asarray(cv2.resize(layer, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))
        amplitude *= roughness
    return np.asarray(total / (np.abs(total).max() + 1e-6), dtype=np.float32)


def photo_paths() -> list[Path]:
    """Photographs of materials from the robosuite package (MIT), which is looked for but never imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    spec = find_spec("robosuite")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("photographic textures need robosuite: pip install --no-deps robosuite")
    return sorted((Path(spec.origin).parent / "models" / "assets" / "textures").glob("*.png"))


@cache
def _read_photo(path: Path) -> UInt8Array:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise SimulationError(f"{path} is no picture")
    scale = 768 / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(picture, dtype=np.uint8)


def _photograph(rng: Rng) -> Float32Array:
    """A random cut-out of a random photograph, perhaps turned, mirrored and tinted."""
    paths = photo_paths()
    photo = np.rot90(_read_photo(paths[int(rng.integers(len(paths)))]), int(rng.integers(4)))
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
    side = int(min(photo.shape[:2]) * rng.uniform(0.3, 1.0))
    y, x = (int(rng.integers(size - side + 1)) for size in photo.shape[:2])
    cut = cv2.resize(
        np.ascontiguousarray(photo[y : y + side, x : x + side]), (SIZE, SIZE), interpolation=cv2.INTER_AREA
    )
    tint = rng.uniform(0.6, 1.3) * (1 + rng.uniform(-0.25, 0.25, 3) * rng.uniform(0, 1))
    return np.asarray(cut.astype(np.float32) / 255 * tint, dtype=np.float32)


def _real_surface(rng: Rng, family: str) -> UInt8Array:
    """What rooms are mostly covered with: paint, wood, tiles, carpets, wallpaper; the rest is of the family."""
    kind = rng.random()
    if kind < 0.4:
        return plain(rng)
    photos = imported_photos(heldout=family == "heldout")
    if kind > 0.75 or not photos:
        return make_texture(rng, family)
    picture = _read_photo(photos[int(rng.integers(len(photos)))])
    repeats = int(rng.integers(1, 5))
    tiled = np.tile(
        cv2.resize(picture, (SIZE // repeats + 1,) * 2, interpolation=cv2.INTER_AREA), (repeats, repeats, 1)
    )
    tint = rng.uniform(0.75, 1.15) * (1 + rng.uniform(-0.08, 0.08, 3))
    shading = 1 + rng.uniform(0, 0.15) * noise(rng, octaves=2)[..., None]
    return np.asarray(np.clip(tiled[:SIZE, :SIZE] * tint * shading, 0, 255), dtype=np.uint8)


def imported_photos(*, heldout: bool) -> list[Path]:
    """Photographs of floors and walls that were imported, for training or for held-out worlds."""
    folder = assets_folder()
    records = [record for record in read_index(folder) if record.kind == "texture" and record.is_heldout == heldout]
    return [folder / f"{record.name}.png" for record in records if record.category in ("Floor", "Wall", "Roof")]


def _grid() -> tuple[Float32Array, Float32Array]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    return x, y


def _paint(rng: Rng) -> Float32Array:
    return 0.5 + 0.15 * noise(rng, octaves=4, roughness=rng.uniform(0.4, 0.9))


def _marble(rng: Rng) -> Float32Array:
    x, y = _grid()
    waves = np.sin(2 * np.pi * (x * rng.integers(1, 5) + y * rng.integers(0, 4)) + 5 * noise(rng))
    return np.asarray(0.5 + 0.4 * waves, dtype=np.float32)


def _planks(rng: Rng) -> Float32Array:
    x, y = _grid()
    count = int(rng.integers(3, 12))
    board = np.floor(y * count)
    tone = rng.uniform(-0.25, 0.25, count)[board.astype(int) % count]
    seam = (np.abs(y * count - np.round(y * count)) < 0.04 * count / 6) | (np.abs(np.mod(x + 0.37 * board, 1)) < 0.006)
    grain = noise(rng, octaves=6, roughness=0.7, stretch=(3.0, 0.4))
    return np.asarray(np.where(seam, 0.08, 0.55 + tone + 0.25 * grain), dtype=np.float32)


def _bricks(rng: Rng) -> Float32Array:
    x, y = _grid()
    rows, columns = int(rng.integers(4, 14)), int(rng.integers(2, 7))
    row = np.floor(y * rows)
    u = x * columns + 0.5 * np.mod(row, 2)
    tone = rng.uniform(-0.2, 0.2, (rows, columns + 2))[row.astype(int) % rows, np.floor(u).astype(int) % (columns + 2)]
    joint = (np.abs(u - np.round(u)) < 0.03) | (np.abs(y * rows - np.round(y * rows)) < 0.07)
    return np.asarray(np.where(joint, 0.85, 0.45 + tone) + 0.12 * noise(rng, octaves=6), dtype=np.float32)


def _tiles(rng: Rng) -> Float32Array:
    x, y = _grid()
    count = int(rng.integers(2, 10))
    cell = (np.floor(x * count) * 7 + np.floor(y * count) * 13).astype(int) % 101
    tone = rng.uniform(-0.3, 0.3, 101)[cell] * rng.integers(0, 2)
    joint = (np.abs(x * count - np.round(x * count)) < 0.03) | (np.abs(y * count - np.round(y * count)) < 0.03)
    return np.asarray(np.where(joint, 0.15, 0.7 + tone) + 0.1 * noise(rng), dtype=np.float32)


def _fabric(rng: Rng) -> Float32Array:
    x, y = _grid()
    f, g = rng.integers(20, 60, 2)
    return np.asarray(
        0.5 + 0.2 * np.sin(2 * np.pi * f * x) * np.sin(2 * np.pi * g * y) + 0.3 * noise(rng), dtype=np.float32
    )


def _speckle(rng: Rng) -> Float32Array:
    blobs = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)).astype(np.float32), (0, 0), float(rng.uniform(0.8, 4)))
    blobs = blobs / (blobs.std() + 1e-6)
    return np.asarray(0.5 + 0.3 * np.tanh(blobs * rng.uniform(0.5, 2)), dtype=np.float32)


def _stripes(rng: Rng) -> Float32Array:
    x, y = _grid()
    angle, count = rng.uniform(0, np.pi), rng.uniform(2, 14)
    phase = (np.cos(angle) * x + np.sin(angle) * y) * count + 0.2 * noise(rng)
    return np.asarray(np.where(np.mod(phase, 1) < rng.uniform(0.2, 0.8), 0.25, 0.75), dtype=np.float32)


def _posters(rng: Rng) -> Float32Array:
    canvas = np.full((SIZE, SIZE), rng.uniform(0.4, 0.9), np.float32)
    for _ in range(int(rng.integers(3, 14))):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 16, 16), (220, 220, 110, 110)))
        cv2.rectangle(canvas, (x, y), (x + w, y + h), float(rng.uniform(0, 1)), -1)
        for line in range(y + 6, min(y + h, SIZE), int(rng.integers(5, 16))):
            cv2.line(canvas, (x + 4, line), (x + int(w * rng.uniform(0.3, 0.95)), line), float(rng.uniform(0, 1)), 2)
    return canvas


def _dead_leaves(rng: Rng) -> Float32Array:
    """Polygons of all sizes that lie on each other, whose statistics are those of natural images (Lee et al. 2001)."""
    canvas = np.full((SIZE, SIZE), rng.uniform(0.2, 0.8), np.float32)
    for radius in np.sort(3 * rng.uniform(0.03, 1, int(rng.integers(60, 400))) ** -0.8)[::-1]:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        points = rng.uniform(0, SIZE, 2) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(canvas, [points.astype(np.int32)], float(rng.uniform(0, 1)), cv2.LINE_AA)
    return canvas


def _waves(rng: Rng) -> Float32Array:
    """A few plane waves of any direction and frequency, some of them hard."""
    x, y = _grid()
    total = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(int(rng.integers(2, 7))):
        angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(1, 30), rng.uniform(0, 2 * np.pi)
        wave = np.sin(
            2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase + rng.uniform(0, 4) * noise(rng, 3)
        )
        total += np.sign(wave) if rng.random() < 0.3 else wave
    return np.asarray(0.5 + 0.3 * total / (total.std() + 1e-6), dtype=np.float32)


def _dots(rng: Rng) -> Float32Array:
    """Spots on a jittered lattice."""
    canvas = np.full((SIZE, SIZE), rng.uniform(0.1, 0.9), np.float32)
    spacing, jitter = int(rng.integers(10, 48)), rng.uniform(0, 0.5)
    for corner in np.ndindex(SIZE // spacing + 1, SIZE // spacing + 1):
        center = (np.array(corner) + jitter * rng.normal(0, 1, 2)) * spacing
        shade = float(rng.uniform(0, 1))
        cv2.circle(
            canvas, (int(center[0]), int(center[1])), int(spacing * rng.uniform(0.15, 0.5)), shade, -1, cv2.LINE_AA
        )
    return canvas


def _print(rng: Rng) -> Float32Array:
    """Words and numbers, as on labels and signs."""
    canvas = np.full((SIZE, SIZE), int(rng.integers(120, 240)), np.uint8)
    letters = np.array(list("ABCDEFGHKLMNOPRSTUVXYZ0123456789"))
    for _ in range(int(rng.integers(4, 24))):
        word = "".join(rng.choice(letters, int(rng.integers(1, 9))))
        place = tuple(int(v) for v in rng.integers(-20, SIZE, 2))
        cv2.putText(
            canvas, word, place, cv2.FONT_HERSHEY_SIMPLEX, float(rng.uniform(0.4, 3)), int(rng.integers(256)),
            int(rng.integers(1, 7)), cv2.LINE_AA,
        )  # fmt: skip
    return np.asarray(canvas.astype(np.float32) / 255, dtype=np.float32)


def _scratches(rng: Rng) -> Float32Array:
    """Short strokes, of one direction or of all, as of fur, straw and brushed metal."""
    canvas = np.full((SIZE, SIZE), 0.5, np.float32)
    main, spread, reach = rng.uniform(0, np.pi), rng.uniform(0.02, 2), rng.uniform(6, 60)
    for _ in range(int(rng.integers(300, 1200))):
        angle = main + spread * rng.normal()
        start = rng.uniform(-20, SIZE + 20, 2)
        end = start + reach * rng.uniform(0.5, 1.5) * np.array([np.cos(angle), np.sin(angle)])
        ends = [(int(x), int(y)) for x, y in (start, end)]
        cv2.line(canvas, ends[0], ends[1], float(rng.uniform(0, 1)), int(rng.integers(1, 3)), cv2.LINE_AA)
    return canvas


def _patchwork(rng: Rng) -> Float32Array:
    """Two other patterns with a border between them as ragged as may be."""
    first, second = (SINGLE_PATTERNS[rng.integers(len(SINGLE_PATTERNS))](rng) for _ in range(2))
    border = noise(rng, octaves=int(rng.integers(1, 6))) - rng.uniform(-0.3, 0.3)
    share = expit(border * rng.uniform(3, 200))
    return np.asarray(first * (1 - share) + second * share, dtype=np.float32)


def _concentric(rng: Rng) -> Float32Array:
    x, y = _grid()
    radius = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1)) * rng.uniform(4, 16) + 0.6 * noise(rng)
    return np.asarray(0.5 + 0.35 * np.sin(2 * np.pi * radius), dtype=np.float32)


def _hexagons(rng: Rng) -> Float32Array:
    x, y = _grid()
    scale = rng.uniform(4, 12)
    angles = np.array([0, np.pi / 3, 2 * np.pi / 3])
    waves = [np.cos(2 * np.pi * scale * (x * np.cos(a) + y * np.sin(a))) for a in angles]
    return np.asarray(0.5 + 0.15 * sum(waves) + 0.15 * noise(rng), dtype=np.float32)


def _terrazzo(rng: Rng) -> Float32Array:
    canvas = np.full((SIZE, SIZE), 0.6, np.float32)
    for _ in range(220):
        center = tuple(int(v) for v in rng.integers(0, SIZE, 2))
        axes = tuple(int(v) for v in rng.integers(2, 11, 2))
        cv2.ellipse(canvas, center, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0, 1)), -1)
    return canvas + 0.1 * noise(rng)


def _cracks(rng: Rng) -> Float32Array:
    ridge = np.abs(noise(rng, octaves=6, roughness=0.6))
    return np.asarray(0.65 - 0.5 * np.exp(-((ridge / 0.03) ** 2)) + 0.15 * noise(rng), dtype=np.float32)


Pattern = Callable[[Rng], Float32Array]
SINGLE_PATTERNS: tuple[Pattern, ...] = (
    _paint, _paint, _marble, _planks, _bricks, _tiles, _fabric, _speckle, _stripes, _posters,
    _dead_leaves, _waves, _dots, _print, _scratches,
)  # fmt: skip
TRAIN_PATTERNS: tuple[Pattern, ...] = (*SINGLE_PATTERNS, *[_patchwork] * 6)
HELDOUT_PATTERNS: tuple[Pattern, ...] = (_paint, _concentric, _hexagons, _terrazzo, _cracks)


def _colorize(rng: Rng, value: Float32Array) -> Float32Array:
    """Map a pattern in [0, 1] between two or three random colours, often muted as real surfaces are."""
    low, high = rng.uniform(0.05, 0.6, 3), rng.uniform(0.35, 1.0, 3)
    mute = rng.uniform(0, 0.9)
    low, high = low * (1 - mute) + low.mean() * mute, high * (1 - mute) + high.mean() * mute
    t = np.clip(value, 0, 1)[..., None]
    hue = noise(rng, octaves=2)[..., None] * rng.uniform(-0.15, 0.15, 3)
    return np.asarray(low * (1 - t) + high * t + hue, dtype=np.float32)


def _scribble(rng: Rng, texture: Float32Array) -> Float32Array:
    """Scratches, stains and cables."""
    canvas = np.ascontiguousarray(texture, dtype=np.float32)
    for _ in range(int(rng.integers(2, 10))):
        points = np.cumsum(rng.normal(0, 18, (8, 2)), axis=0) + rng.uniform(0, SIZE, 2)
        color = tuple(float(v) for v in rng.uniform(0, 1, 3))
        cv2.polylines(canvas, [points.astype(np.int32)], False, color, int(rng.integers(1, 4)), cv2.LINE_AA)
    return canvas
