# SPDX-License-Identifier: Apache-2.0
"""Furniture and photographs that the user installed, made ready for worlds, in the user's cache folder.

Nothing of it belongs to this project: it stays on the machine it was imported on, and its authors are to be credited.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.mesh_grid import DistanceGrid
from occupancy_nn_ros.values import Float32Array

FOLDER_VARIABLE = "OCCUPANCY_NN_ASSETS"
INDEX = "index.json"
VERSION = 1
HELDOUT_ONE_OF = 5
"""One of so many pieces, chosen by its name, is kept for held-out worlds."""


@dataclass(frozen=True)
class AssetRecord:
    """What is known of a piece of furniture or a photograph without loading it.

    Attributes:
        name: unique; also the name of its file.
        kind: ``model`` or ``texture``.
        title: what it is.
        category: its catalogue's own.
        size_m: (depth, width, height) of a model, which looks along its depth; (width, height, 0) of a picture.
        elevation_m: height of the lower side of what usually hangs.
        top_m: height above the lower side on which things can be put.
        creator: who made it.
        license: its licence.
        library: file name of the library that it came with.
    """

    name: str
    kind: str
    title: str
    category: str
    size_m: tuple[float, float, float]
    elevation_m: float
    top_m: float
    creator: str
    license: str
    library: str

    @property
    def is_heldout(self) -> bool:
        """Whether it is kept for held-out worlds: by name, so that it is the same wherever it is imported."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % HELDOUT_ONE_OF == 0


DAMAGED_ARCHIVE = (
    OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error,
    RuntimeError,  # encrypted, or a way of compression that is not known
    MemoryError,  # an array that claims more than there is
)  # fmt: skip
"""What numpy and zipfile raise of a damaged ``.npz`` file."""


@dataclass(frozen=True)
class AssetPart:
    """Triangles of one material, ready to be drawn.

    Attributes:
        vertices_m: (V, 3), forward x, left y, up z, centred above the floor.
        normals: (V, 3).
        texcoords: (V, 2).
        faces: (T, 3) int32.
        color: (4,) red, green, blue and opacity.
        shine: share of light that is mirrored.
        picture: (N,) uint8 bytes of a PNG, empty for plain colour.
    """

    vertices_m: Float32Array
    normals: Float32Array
    texcoords: Float32Array
    faces: np.ndarray
    color: Float32Array
    shine: float
    picture: np.ndarray


@dataclass(frozen=True)
class Asset:
    """A piece of furniture: how it looks, and what of it is solid."""

    parts: tuple[AssetPart, ...]
    grid: DistanceGrid


def assets_folder() -> Path:
    """Where imported assets are: ``$OCCUPANCY_NN_ASSETS``, else in the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else cache / "occupancy_nn_ros" / "assets"


def write_index(folder: Path, records: list[AssetRecord]) -> None:
    """List what a folder holds; under its name the list is only ever complete."""
    partial = folder / "index.partial"
    text = json.dumps({"version": VERSION, "assets": [asdict(record) for record in records]}, indent=1)
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / INDEX)


@lru_cache(maxsize=4)
def read_index(folder: Path) -> tuple[AssetRecord, ...]:
    """What a folder holds, sorted by name; nothing where nothing was imported.

    Raises:
        SimulationError: the list is damaged or of another version.
    """
    path = folder / INDEX
    if not path.exists():
        return ()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise SimulationError(f"{path} is of version {values['version']}, expected {VERSION}: import again")
        records = [AssetRecord(**{**record, "size_m": tuple(record["size_m"])}) for record in values["assets"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SimulationError(f"cannot read {path}: {error}") from None
    return tuple(sorted(records, key=lambda record: record.name))


def write_asset(folder: Path, name: str, asset: Asset) -> None:
    """Write a piece of furniture as ``NAME.npz``."""
    arrays: dict[str, np.ndarray] = {
        "distance_m": asset.grid.distance_m, "origin_m": asset.grid.origin_m, "cell_m": np.array(asset.grid.cell_m)
    }  # fmt: skip
    for number, part in enumerate(asset.parts):
        arrays |= {f"{key}_{number}": np.asarray(getattr(part, key)) for key in AssetPart.__dataclass_fields__}
    partial = folder / f"{name}.partial.npz"
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(folder / f"{name}.npz")


@lru_cache(maxsize=256)
def load_asset(name: str) -> Asset:
    """A piece of furniture that was imported.

    Raises:
        SimulationError: not there, or damaged.
    """
    path = assets_folder() / f"{name}.npz"
    if not name.replace("_", "").isalnum() or not path.exists():
        raise SimulationError(f"no asset '{name}' in {path.parent}: occupancy-nn assets imports what is installed")
    try:
        with np.load(path, allow_pickle=False) as file:
            grid = DistanceGrid(file["distance_m"], file["origin_m"], float(file["cell_m"]))
            count = sum(key.startswith("faces_") for key in file.files)
            parts = []
            for number in range(count):
                values = {key: file[f"{key}_{number}"] for key in AssetPart.__dataclass_fields__}
                parts.append(AssetPart(**{**values, "shine": float(values["shine"])}))
    except DAMAGED_ARCHIVE as error:
        raise SimulationError(f"cannot read asset {path}: {error}") from None
    return Asset(tuple(parts), grid)
