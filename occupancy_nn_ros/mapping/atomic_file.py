# SPDX-License-Identifier: Apache-2.0
"""A file that is either the old one or the complete new one, whatever happens while it is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from occupancy_nn_ros.errors import MapFileError

PARTIAL = ".partial"
LEFTOVER = re.compile(r"\.(\d+)\.partial$")


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write bytes to a file beside ``path`` and put it in its place once it is on the disk.

    Raises:
        MapFileError: it cannot be written (no room, no right, a folder in its place); an older file stays as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
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


def remove_leftovers(folder: Path) -> list[str]:
    """Remove what processes that were killed while they saved have left in a folder; returns the names.

    A file of a process that is still running stays: it may be about to be put in its place.
    """
    removed = []
    with suppress(OSError):  # no such folder, or one that is not ours: then nothing of ours is in it
        for file in folder.iterdir():
            owner = LEFTOVER.search(file.name)
            if owner and not _is_running(int(owner.group(1))):
                with suppress(OSError):
                    file.unlink()
                    removed.append(file.name)
    return removed


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # an earlier process of this number: this one is not saving now
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return True
