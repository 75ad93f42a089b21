# SPDX-License-Identifier: Apache-2.0
"""Shards on an object store, or any file system that fsspec knows, by its URL: ``s3://bucket/shards``. Needs the ``remote`` extra.

Shards are made in a local folder and sent when complete; training reads a local copy, since it reads at random.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from occupancy_nn_ros.errors import MissingDependencyError, TrainingError
from occupancy_nn_ros.training.shards import PARTIAL

SUFFIX = ".safetensors"
CACHE_VARIABLE = "OCCUPANCY_NN_SHARDS"


def is_url(place: str | Path) -> bool:
    """Whether shards lie at a URL rather than in a folder of this machine."""
    return isinstance(place, str) and "://" in place


class ObjectStore:
    """A folder at a URL."""

    def __init__(self, url: str) -> None:
        """Open it; credentials come from where the file system's own package takes them.

        Raises:
            MissingDependencyError: fsspec, or the package for this kind of URL, is not installed.
            TrainingError: no such kind of URL.
        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingDependencyError(
                f"shards at a URL need fsspec ({error}): pip install 'occupancy-nn-ros[remote]'"
            ) from None
        self.url = url
        with self._told("open"):
            self._files, self._root = url_to_fs(url)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file by name; empty if there is no such folder yet.

        Raises:
            TrainingError: it cannot be listed.
        """
        with self._told("list"):
            try:
                entries: list[dict[str, Any]] = self._files.ls(self._root, detail=True, refresh=True)
            except FileNotFoundError:
                return {}
            files = [entry for entry in entries if entry["type"] == "file"]
            return {PurePosixPath(entry["name"]).name: int(entry["size"]) for entry in files}

    def read(self, name: str) -> bytes:
        """A small file's content.

        Raises:
            TrainingError: it cannot be read.
        """
        with self._told(f"read {name} of"):
            return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def send(self, files: Iterable[Path]) -> None:
        """Send local files one after the other; the last one may say that all are there.

        Raises:
            TrainingError: one cannot be sent.
        """
        with self._told("write to"):
            self._files.makedirs(self._root, exist_ok=True)
            for path in files:
                self._files.put_file(str(path), f"{self._root}/{path.name}")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files.

        Raises:
            TrainingError: one cannot be removed.
        """
        with self._told("remove files of"):
            for name in names:
                self._files.rm_file(f"{self._root}/{name}")

    def bring(self, name: str, path: Path) -> None:
        """Copy a file to a local one, which is only ever complete.

        Raises:
            TrainingError: it cannot be read, or not be written.
        """
        partial = path.with_name(f"{path.stem}.{uuid4().hex[:8]}{PARTIAL}")
        try:
            with self._told(f"read {name} of"):
                self._files.get_file(f"{self._root}/{name}", str(partial))
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Within it, errors of the file system say what was to be done where."""
        try:
            yield
        except ImportError as error:
            raise MissingDependencyError(f"cannot {what} {self.url}: {error}") from None
        except (OSError, ValueError) as error:
            raise TrainingError(f"cannot {what} {self.url}: {type(error).__name__}: {error}") from None


def count_shards(place: Path | str) -> int:
    """Shards in a folder or at a URL.

    Raises:
        TrainingError: it cannot be listed.
    """
    names = [path.name for path in place.iterdir()] if isinstance(place, Path) else ObjectStore(place).sizes()
    return sum(name.endswith(SUFFIX) for name in names)


def local_copy(url: str, report: Callable[[float], None] = lambda share: None) -> Path:
    """A folder of this machine with the shards at a URL; brings those that are new, and removes what is gone there.

    Processes of one machine that torchrun has started share the work.

    Args:
        url: of the shards.
        report: told the finished share.

    Raises:
        MissingDependencyError: as :class:`ObjectStore`.
        TrainingError: there are no shards, or they cannot be copied.
    """
    store = ObjectStore(url)
    sizes = {name: size for name, size in store.sizes().items() if name.endswith(SUFFIX)}
    if not sizes:
        raise TrainingError(f"no training shards at {url}, expected at least one .safetensors file")
    folder = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for gone in [path for path in folder.glob(f"*{SUFFIX}") if path.name not in sizes]:
        gone.unlink(missing_ok=True)
    names = sorted(sizes)
    first = int(os.environ.get("LOCAL_RANK", "0")) * len(names) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    for done, name in enumerate([*names[first:], *names[:first]], 1):
        path = folder / name
        if not path.exists() or path.stat().st_size != sizes[name]:
            store.bring(name, path)
        report(done / len(names))
    return folder


def cache_folder() -> Path:
    """Where copies are kept: ``$OCCUPANCY_NN_SHARDS``, else in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else cache / "occupancy_nn_ros" / "shards"
