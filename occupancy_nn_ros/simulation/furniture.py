# SPDX-License-Identifier: Apache-2.0
"""Which imported pieces serve what in a room: told by their titles, sizes and catalogue's categories."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation.assets import AssetRecord, assets_folder, read_index

ROLES = ("person", "animal", "plant", "vehicle", "hung", "table", "chair", "lounge", "clutter", "outdoor", "standing")
INDOORS = ("Living room", "Kitchen", "Office", "Bedroom", "Bathroom", "Miscellaneous", "Lights")
MOST_HEIGHT_M = 3.5

PLANTS = re.compile(
    r"plant|ficus|bush|hedge|tree|bamboo|yucca|tulip|lily|orchid|flower|cactus|spathi|bonsai|palm|pine|maple", re.I
)
PEOPLE = re.compile(r"male|female|boy|girl|mannequin", re.I)
TABLES = re.compile(r"\btable\b|desk\b|\bisland\b|workbench", re.I)
CHAIRS = re.compile(r"chair|stool|\bseat\b", re.I)
LOUNGES = re.compile(r"sofa|couch|\bbed\b|armchair|futon|\bbath|piano|bench|puff|ottoman|pool table|tub\b", re.I)


@dataclass(frozen=True)
class Furniture:
    """Pieces to furnish worlds with.

    Attributes:
        by_role: pieces by what they serve for, each sorted by name.
    """

    by_role: dict[str, tuple[AssetRecord, ...]]

    def of(self, role: str, *categories: str, most_m: float = 10.0) -> list[AssetRecord]:
        """Pieces of a role, of some categories alone where they hold any, up to a width and depth."""
        fitting = [piece for piece in self.by_role[role] if max(piece.size_m[:2]) <= most_m]
        return [piece for piece in fitting if piece.category in categories] or fitting


@lru_cache(maxsize=4)
def load_furniture(*, heldout: bool, folder: Path | None = None) -> Furniture:
    """The pieces for training worlds, or those that are held out.

    Raises:
        SimulationError: nothing was imported, or nothing of some role.
    """
    folder = folder or assets_folder()
    pieces = [r for r in read_index(folder) if r.kind == "model" and r.is_heldout == heldout and role_of(r)]
    by_role = {role: tuple(piece for piece in pieces if role_of(piece) == role) for role in ROLES}
    lacking = [role for role in ("table", "chair", "lounge", "clutter", "standing") if not by_role[role]]
    if lacking:
        raise SimulationError(
            f"no furniture to serve as {', '.join(lacking)} in {folder}: occupancy-nn assets imports some"
        )
    return Furniture(by_role)


def role_of(piece: AssetRecord) -> str:
    """One of ``ROLES``, or empty for what is of no use, such as what is flat or higher than rooms."""
    depth, width, height = piece.size_m
    if height < 0.03 or height > MOST_HEIGHT_M:
        return ""
    if piece.category == "Characters":
        return ("person" if height > 0.8 else "") if PEOPLE.search(piece.title) else "animal"
    if piece.category == "Vehicles" or piece.title == "Fork lift":
        return "vehicle" if max(depth, width) > 1.0 else "clutter"
    if piece.elevation_m > 0.25:
        return "hung" if depth < 0.7 and piece.elevation_m + height < 2.6 else ""
    if PLANTS.search(piece.title):
        return "plant"
    if TABLES.search(piece.title) and 0.35 <= height <= 1.2 and max(depth, width) >= 0.45:
        return "table"
    if LOUNGES.search(piece.title):
        return "lounge"
    if CHAIRS.search(piece.title) and max(depth, width) < 1.1:
        return "chair"
    if max(depth, width) < 0.65 and height < 0.65:
        return "clutter"
    return "standing" if piece.category in INDOORS else "outdoor"


def label_of(piece: AssetRecord) -> str:
    """The semantic class of a piece."""
    special = {"person": "person", "plant": "vegetation", "vehicle": "vehicle"}
    return special.get(role_of(piece), "object")
