# SPDX-License-Identifier: Apache-2.0
"""A file that is either the old one or the complete new one, whatever happens while it is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from occupancy_nn_ros.errors import MapFileError


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write bytes to a file beside ``path`` and put it in its place once it is on the disk.

    Raises:
        MapFileError: it cannot be written (no room, no right, a folder in its place); an older file stays as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise MapFileError(f"cannot write {path}: {error}") from None
