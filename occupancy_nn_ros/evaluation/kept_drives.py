# SPDX-License-Identifier: Apache-2.0
"""Tallies of judged drives in a folder, so that a second start judges only what is missing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.evaluation.tally import Tally

Settings = dict[str, Any]


class KeptDrives:
    """One JSON file for each drive; it counts only for the settings that it was judged with."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Keep tallies in a folder, which is made when the first one comes.

        Args:
            folder: where the files are.
            settings: all that a tally depends on, as JSON has it.
        """
        self.folder, self.settings = folder, json.loads(json.dumps(settings))

    def find(self, name: str) -> tuple[bool, Tally | None]:
        """Whether a drive was judged with these settings, and its tally; None if its world has no room to drive in."""
        try:
            kept = json.loads(self._path(name).read_text(encoding="utf-8"))
            if kept["settings"] != self.settings:
                return False, None
            return True, None if kept["tally"] is None else _filled(Tally(), kept["tally"])
        except (OSError, ValueError, KeyError, TypeError):
            return False, None

    def keep(self, name: str, tally: Tally | None) -> None:
        """Write a drive's tally.

        Raises:
            OccupancyError: it cannot be written.
        """
        path = self._path(name)
        partial = path.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = {"settings": self.settings, "tally": None if tally is None else _plain(tally)}
            partial.write_text(json.dumps(kept) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise OccupancyError(f"cannot keep {path}: {error}") from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_')}.json"


def _plain(value: Any) -> Any:
    """Sums as JSON has them: mappings for dataclasses, lists for arrays."""
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _filled(empty: Any, plain: Any) -> Any:
    """The sums that ``_plain`` made plain, in the types of an empty one.

    Raises:
        KeyError, TypeError, ValueError: it does not fit.
    """
    if is_dataclass(empty) and not isinstance(empty, type):
        return replace(empty, **{one.name: _filled(getattr(empty, one.name), plain[one.name]) for one in fields(empty)})
    if isinstance(empty, np.ndarray):
        return np.asarray(plain, dtype=empty.dtype).reshape(empty.shape)
    if isinstance(empty, list | tuple) and empty:
        return type(empty)(_filled(one, item) for one, item in zip(empty, plain, strict=True))
    return type(empty)(plain)
