# SPDX-License-Identifier: Apache-2.0
"""Reads what Sweet Home 3D's libraries of furniture and textures hold: names, real sizes, authors, licences, files.

A library is a zip (``.sh3f``, ``.sh3t`` or the program's own ``.jar``) with a catalogue of Java properties such as
``width#12=71.9``, in centimetres.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.values import FloatArray

FURNITURE_CATALOGS = (
    "PluginFurnitureCatalog.properties",
    "com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties",
)
TEXTURE_CATALOGS = ("PluginTexturesCatalog.properties", "com/eteks/sweethome3d/io/DefaultTexturesCatalog.properties")
MOST_ENTRIES = 20_000
MOST_BYTES = 64 << 20
"""Largest file of a library that is read."""


@dataclass(frozen=True)
class CatalogModel:
    """A piece of furniture, as its catalogue describes it.

    Attributes:
        name: unique over all libraries, letters, digits and ``_``.
        title: what it is, in English.
        category: the catalogue's own.
        size_m: (width, depth, height).
        elevation_m: height of its lower side above the floor where it usually hangs.
        top_m: height above its lower side on which things can be put, 0 where there is no such place.
        rotation: (3, 3) that turns the file's coordinates (y up) into upright ones.
        path: of the OBJ file in the library.
        creator: who made it.
        license: its licence, in the catalogue's words.
    """

    name: str
    title: str
    category: str
    size_m: tuple[float, float, float]
    elevation_m: float
    top_m: float
    rotation: FloatArray
    path: str
    creator: str
    license: str


@dataclass(frozen=True)
class CatalogTexture:
    """A photograph of a floor or wall.

    Attributes:
        name: unique over all libraries.
        category: the catalogue's own, such as ``Floor`` or ``Wall``.
        size_m: (width, height) of what the picture shows.
        path: of the picture in the library.
        creator: who made it.
        license: its licence, in the catalogue's words.
    """

    name: str
    category: str
    size_m: tuple[float, float]
    path: str
    creator: str
    license: str


class Library:
    """One library; a context manager that closes its file."""

    def __init__(self, path: Path) -> None:
        """Open a library.

        Raises:
            SimulationError: it cannot be read, or holds neither furniture nor textures.
        """
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise SimulationError(f"cannot read library {path}: {error}") from None
        self.path = path
        self._names = set(self._zip.namelist())
        if not self._names & {*FURNITURE_CATALOGS, *TEXTURE_CATALOGS}:
            self._zip.close()
            raise SimulationError(
                f"{path} holds no catalogue, expected {FURNITURE_CATALOGS[0]} in a library of furniture"
            )

    def __enter__(self) -> Library:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._zip.close()

    def read(self, path: str) -> bytes:
        """A file of the library.

        Raises:
            SimulationError: missing, damaged or larger than ``MOST_BYTES``.
        """
        try:
            if self._zip.getinfo(path).file_size > MOST_BYTES:
                raise SimulationError(f"{path} in {self.path} is larger than {MOST_BYTES} bytes")
            return self._zip.read(path)
        except (KeyError, OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise SimulationError(f"cannot read {path} in {self.path}: {error}") from None

    def models(self) -> list[CatalogModel]:
        """Its furniture, without doors, windows and stairs; entries that lack a size or a file are left out."""
        header, entries = self._catalog(FURNITURE_CATALOGS)
        usable = (e for e in entries if e.get("doorOrWindow") != "true" and "staircaseCutOutShape" not in e)
        found = (self._model(header, entry) for entry in usable)
        return [model for model in found if model is not None]

    def textures(self) -> list[CatalogTexture]:
        """Its photographs of floors and walls."""
        header, entries = self._catalog(TEXTURE_CATALOGS)
        found = (self._texture(header, entry) for entry in entries)
        return [texture for texture in found if texture is not None]

    def _catalog(self, places: tuple[str, ...]) -> tuple[dict[str, str], list[dict[str, str]]]:
        for place in places:
            if place in self._names:
                return read_properties(self.read(place).decode("latin-1"))
        return {}, []

    def _model(self, header: dict[str, str], entry: dict[str, str]) -> CatalogModel | None:
        path = entry.get("model", "").removeprefix("/")
        try:
            width, depth, height = (float(entry[key]) / 100 for key in ("width", "depth", "height"))
            elevation = float(entry.get("elevation", 0)) / 100
            top = float(entry.get("dropOnTopElevation", height * 100)) / 100
            rotation = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), dtype=np.float64).reshape(3, 3)
        except (KeyError, ValueError):
            return None
        if path not in self._names or not path.lower().endswith(".obj") or not 0 < min(width, depth, height) < 100:
            return None
        return CatalogModel(
            unique_name(entry.get("id", path)), entry.get("name", ""), entry.get("category", ""),
            (width, depth, height), elevation, max(0.0, top), rotation, path,
            entry.get("creator", "unknown"), header.get("license", "not stated"),
        )  # fmt: skip

    def _texture(self, header: dict[str, str], entry: dict[str, str]) -> CatalogTexture | None:
        path = entry.get("image", "").removeprefix("/")
        try:
            size = (float(entry["width"]) / 100, float(entry["height"]) / 100)
        except (KeyError, ValueError):
            return None
        if path not in self._names or min(size) <= 0:
            return None
        creator, license_text = entry.get("creator", "unknown"), header.get("license", "not stated")
        return CatalogTexture(
            unique_name(entry.get("id", path)), entry.get("category", ""), size, path, creator, license_text
        )


def read_properties(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Common values of a catalogue, and those of each numbered entry in order."""
    header: dict[str, str] = {}
    entries: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for key, number, value in re.findall(r"^(\w+)(?:#(\d+))?[ \t]*=[ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE):
        if number and int(number) <= MOST_ENTRIES:
            entries[int(number)][key] = value
        elif not number:
            header[key] = value
    return header, [entries[number] for number in sorted(entries)]


def unique_name(identity: str) -> str:
    """A catalogue's id as letters, digits and ``_``."""
    return re.sub(r"[^A-Za-z0-9]+", "_", identity).strip("_")
